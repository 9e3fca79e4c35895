"""What was planned beside what ran: by digest, by folder, by shape and budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from planner.archive import ingest, list_runs
from planner.archive.listing import run_lines
from planner.cli.main import app
from planner.compile import compile_plan
from planner.plan import Plan, read_plan, write_plan
from planner.spec import load_spec

from .logs import archived, by_name, write

STEPS = '{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n'


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan(load_spec(Path(__file__).parents[2] / "examples" / "celerity.yaml"))


def log(folder: Path, name: str, **config: Any) -> Path:
    # the first value tells the files apart
    return write(folder / f"{name}.jsonl", json.dumps({"label": name, **config}) + "\n" + STEPS)


def test_by_digest_folder_and_shape(plan: Plan, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    first, second, third = plan.runs[:3]
    log(logs, "told", run_digest=first.digest)
    log(logs, "short", run_digest=second.digest[7:19])
    log(logs / second.digest[7:19], "in-folder")
    log(
        logs,
        "shaped",
        n_params=third.params.total,
        train_tokens=third.tokens,
        batch_tokens=third.batch.tokens,
    )
    log(logs, "other-lr", n_params=third.params.total, train_tokens=third.tokens, lr=0.9)
    log(logs, "other-budget", n_params=third.params.total, train_tokens=third.tokens // 2)
    log(logs, "unknown")
    archive, _ = archived(tmp_path, logs)
    runs = {run["name"]: run["planned"] for run in list_runs(archive, plans=[plan])}
    assert (runs["told"]["run"], runs["told"]["by"]) == (first.name, "digest")
    assert (runs["short"]["run"], runs["short"]["by"]) == (second.name, "digest")
    folder = runs[f"{second.digest[7:19]}/in-folder"]
    assert (folder["run"], folder["by"]) == (second.name, "folder")
    assert (runs["shaped"]["run"], runs["shaped"]["by"]) == (third.name, "shape and budget")
    assert runs["shaped"]["digest"] == third.digest
    assert runs["other-lr"] is runs["other-budget"] is runs["unknown"] is None


def test_a_plan_among_the_logs_is_kept(plan: Plan, tmp_path: Path) -> None:
    logs = tmp_path / "jobs"
    log(logs, "told", run_digest=plan.runs[0].digest)
    write_plan(plan, logs / "plan.json")
    archive, report = archived(tmp_path, logs)
    assert (report.ok, report.plans) == (True, 1)
    assert [kept.digest for kept in archive.plans()] == [plan.digest]
    assert by_name(archive)["told"]["planned"]["run"] == plan.runs[0].name
    assert ingest([logs], tmp_path / "archive").unchanged == 1


def test_an_edited_plan_is_reported(plan: Plan, tmp_path: Path) -> None:
    logs = tmp_path / "jobs"
    log(logs, "told")
    write_plan(plan, logs / "plan.json")
    text = (logs / "plan.json").read_text().replace('"steps": 3755', '"steps": 3756')
    (logs / "plan.json").write_text(text)
    _, report = archived(tmp_path, logs)
    assert [name for name, _ in report.failed] == ["jobs/plan.json"]


def test_the_command_shows_it(plan: Plan, tmp_path: Path) -> None:
    log(tmp_path / "logs", "told", run_digest=plan.runs[0].digest)
    archived(tmp_path, tmp_path / "logs")
    write_plan(plan, tmp_path / "plan.json")
    arguments = ["runs", str(tmp_path / "archive"), "--plan", str(tmp_path / "plan.json")]
    assert f"{plan.runs[0].name} (digest)" in CliRunner().invoke(app, arguments).output
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.stdout)["runs"][0]["planned"]["family"] == plan.family
    assert read_plan(tmp_path / "plan.json").digest == plan.digest


def test_tau_and_tpp_are_the_plans(tmp_path: Path) -> None:
    spec = "family: wide\npreset: celerity\nparametrization: {kind: mup, decay: coupled}\n"
    plan = compile_plan(load_spec(write(tmp_path / "wide.yaml", spec)))
    run = plan.runs[-1]
    n, rate, decay = run.params.total, run.optimizer.base_peak_lr, run.optimizer.base_weight_decay
    base = {"n_params": n, "train_tokens": run.tokens, "lr": rate, "weight_decay": decay}
    base |= {"max_steps": run.steps, "run_digest": run.digest}
    log(tmp_path / "logs", "foreign", **base)
    stated = log(tmp_path / "logs", "stated", **base)
    write(stated.with_name(stated.name + ".planner.yaml"), "tau: 0.25\ntpp: 7\n")
    log(tmp_path / "logs", "own", **base, schema="planner.log/1", tau=0.125)
    archive, _ = archived(tmp_path, tmp_path / "logs")
    alone = by_name(archive)
    # base values tell another tau: coupled decay rides on each tensor's rate
    assert alone["foreign"]["tau"] == pytest.approx(1 / (rate * decay * run.steps))
    runs = {each["name"]: each for each in list_runs(archive, plans=[plan])}
    assert run.optimizer.tau is not None
    assert runs["foreign"]["tau"] == run.optimizer.tau
    assert abs(alone["foreign"]["tau"] / run.optimizer.tau - 1) > 0.5
    assert runs["foreign"]["tpp"] == pytest.approx(run.tpp, rel=1e-12)
    assert runs["foreign"]["origins"]["tau"] == f"plan: {run.name}"
    assert (runs["stated"]["tau"], runs["stated"]["tpp"]) == (0.25, 7)
    assert runs["own"]["tau"] == 0.125
    found = list_runs(archive, plans=[plan], where=[f"tau={run.optimizer.tau!r}"], columns=["tau"])
    assert [each["tau"] for each in found] == [run.optimizer.tau]
    document = json.loads(f"[{','.join(run_lines(archive, plans=[plan]))}]")
    assert document == [*runs.values()]
