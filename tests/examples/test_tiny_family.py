"""The recorded family: its plan is its spec's, its logs are whole, and the archive knows them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from planner.archive import Archive, ingest, list_runs
from planner.compile import compile_plan
from planner.curves.forecast import forecast_archive
from planner.curves.score import score_archive
from planner.plan import Plan, dump_plan, read_plan
from planner.render import render_plan
from planner.spec import load_spec
from tests.curves.made import tiny_family

HERE = Path(__file__).resolve().parents[2] / "examples" / "tiny-family"
SMALLER = ("5k", "12k", "32k", "77k")
MANIFEST: list[dict[str, Any]] = json.loads((HERE / "MANIFEST.json").read_text())


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(HERE / "plan.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> dict[str, dict[str, Any]]:
    archive = tmp_path_factory.mktemp("archive") / "a"
    report = ingest([str(HERE / "runs")], str(archive))
    assert report.ok
    assert not report.skipped
    return {run["name"]: run for run in list_runs(Archive(str(archive)), plans=[plan])}


def test_the_plan_is_the_specs(plan: Plan) -> None:
    assert (HERE / "plan.json").read_text() == dump_plan(
        compile_plan(load_spec(HERE / "family.yaml"))
    )


def test_the_family_is_as_the_issue_asks(plan: Plan) -> None:
    bands: dict[float, list[Any]] = {}
    for run in plan.runs:
        bands.setdefault(round(run.tpp), []).append(run)
    low, high = sorted(bands)
    assert high / low == 4
    for band in bands.values():
        n = [run.params.non_embedding for run in band]
        assert len(n) == 5
        assert max(n) / min(n) > 30
        taus = [run.optimizer.tau for run in band]
        assert taus == pytest.approx([taus[0]] * 5, rel=1e-12)


def test_every_log_is_the_one_of_the_manifest() -> None:
    names = {path.name.removesuffix(".jsonl.gz") for path in (HERE / "runs").iterdir()}
    assert names == {entry["name"] for entry in MANIFEST}
    for entry in MANIFEST:
        log = gzip.decompress((HERE / "runs" / f"{entry['name']}.jsonl.gz").read_bytes())
        assert hashlib.sha256(log).hexdigest() == entry["log_sha256"], entry["name"]
        head = json.loads(log.splitlines()[0])
        assert head["run_digest"] == entry["run_digest"]
        assert len(entry["commit"]) == 40


def test_the_archive_has_the_facts(runs: dict[str, dict[str, Any]], plan: Plan) -> None:
    matched = [e for e in MANIFEST if e["group"] in ("matched", "fault")]
    assert matched
    for entry in matched:
        found = runs[entry["name"]]
        run = plan.run(entry["run"])
        assert found["planned"]["run"] == run.name
        assert found["planned"]["by"] == "digest"
        assert found["tokens"] == run.tokens
        assert found["total_steps"] == run.steps
        assert found["batch_tokens"] == run.batch.tokens
        assert found["params"] == run.params.total
        assert found["tau"] == pytest.approx(run.optimizer.tau)
        assert found["seed"] == entry["settings"][0]["seed"]
        assert (found["metric"], found["last_step"]) == ("train/loss", run.steps)
        assert found["resumed_from"] is None
    planned = {run.digest for run in plan.runs}
    for entry in MANIFEST:
        assert (runs[entry["name"]]["planned"] is None) == (entry["run_digest"] not in planned)


def test_the_plan_renders_for_this_trainer(plan: Plan, tmp_path: Path) -> None:
    bundle = render_plan(plan, "torch+local", tmp_path / "jobs")
    assert len(bundle.rendered.jobs) == len(plan.runs)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """All but the sweeps."""
    folder = tmp_path_factory.mktemp("without-sweeps") / "a"
    ingest(tiny_family(), str(folder))
    return Archive(str(folder))


def test_the_sick_runs_and_no_others_are_called(archive: Archive, plan: Plan) -> None:
    found = score_archive(archive, metric="eval/loss", plans=[plan])
    assert len(found.runs) == 196
    diverged, fault = found.deviating
    assert (diverged.name, fault.name) == ("5k-20tpp-diverged", "77k-20tpp-fault")
    assert diverged.causes[0].cause == "divergence"
    assert fault.causes[0].cause == "numerics drift"
    assert fault.since is not None
    assert 0.6 <= fault.since < 0.7
    # the rest of those that are not told are noisy runs of constant learning rate
    matched = [run for run in found.runs if re.fullmatch(r".*tpp(-seed\d+)?", run.name)]
    assert len(matched) == 100
    assert sum(run.verdict == "healthy" for run in matched) >= 95


def test_the_largest_size_is_forecast_from_a_fifth_of_its_run(archive: Archive, plan: Plan) -> None:
    smaller = [f"{size}-20tpp{seed}" for size in SMALLER for seed in ("", "-seed*")]
    names = [entry["name"] for entry in MANIFEST]
    references = [n for n in names if any(fnmatchcase(n, pattern) for pattern in smaller)]
    assert len(references) == 48
    largest = ["151k-20tpp", "151k-20tpp-seed1"]
    found = forecast_archive(
        archive, largest, metric="train/loss", at=0.2, plans=[plan], references=references
    )
    assert len(found.runs) == 2
    for run in found.runs:
        assert run.final == pytest.approx(run.actual, rel=0.005)
        assert run.low < run.actual < run.high
