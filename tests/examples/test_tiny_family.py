"""The recorded family: its plan is its spec's, its logs are whole, and the archive knows them."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from planner.archive import Archive, ingest, list_runs
from planner.compile import compile_plan
from planner.plan import Plan, dump_plan, read_plan
from planner.render import render_plan
from planner.spec import load_spec

HERE = Path(__file__).resolve().parents[2] / "examples" / "tiny-family"
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
