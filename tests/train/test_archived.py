"""A log of the trainer in the archive: every fact, its planned run, restarts, more steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.archive import Archive, ingest, list_runs
from planner.plan import Plan, Run

from .families import SMALL, family, job, read_log

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.usefixtures("one_thread")

from planner.train.checkpoint import latest  # noqa: E402
from planner.train.loop import train  # noqa: E402

SIZES = (SMALL, {"name": "large", "d_model": 64, "n_layers": 2, "head_dim": 16})
FAMILIES = {
    "completep": {},
    "mup": {"parametrization": {"kind": "mup"}},  # coupled decay: tau is not 1/(lr * decay * T)
    "ends above zero": {"schedule": {"kind": "cosine", "final_lr_fraction": 0.1}},
    "constant": {"schedule": {"kind": "constant"}},
    "N without embeddings": {"conventions": {"params": "non_embedding"}},
}


def listed(archive: Path, *plans: Plan) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for run in list_runs(Archive(archive), plans=plans)}


def facts(run: Run, seed: int) -> dict[str, Any]:
    peak = run.optimizer.base_peak_lr
    return {
        "params": run.params.total,
        "tokens": run.tokens,
        "batch_tokens": run.batch.tokens,
        "seq_len": run.model.seq_len,
        "total_steps": run.steps,
        "warmup_steps": run.warmup_steps,
        "lr": peak,
        "min_lr": {"constant": peak, "cosine": 0.1 * peak}.get(run.schedule.kind, 0.0),
        "weight_decay": run.optimizer.base_weight_decay,
        "beta1": run.optimizer.betas[0],
        "beta2": run.optimizer.betas[1],
        "eps": run.optimizer.eps,
        "optimizer": "adamw",
        "schedule": run.schedule.kind,
        "tpp": run.tpp,
        "tau": run.optimizer.tau,
        "seed": seed,
        "tokenizer": "byte",
        "run_digest": run.digest,
    }


@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_fact_and_the_planned_run(
    data: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plan = family(*SIZES, **changes)
    for seed, run in enumerate(plan.runs):
        settings = {"data": str(data), "seed": seed, "stop_after": 2}
        train(job(plan, run.name, **settings), tmp_path / "runs" / run.size)
    assert ingest([tmp_path / "runs"], tmp_path / "archive").ok
    found = listed(tmp_path / "archive", plan)
    for seed, run in enumerate(plan.runs):
        row = found[run.size]
        assert {name: row[name] for name in facts(run, seed)} == facts(run, seed)
        assert row["unknown"] == []
        assert (row["planned"]["run"], row["planned"]["by"]) == (run.name, "digest")
        assert row["planned"]["digest"] == run.digest


def test_a_restarted_run_is_stitched_and_a_longer_one_replaces_it(
    data: Path, tmp_path: Path
) -> None:
    plan = family()
    logs, archive = tmp_path / "logs", tmp_path / "archive"

    def go_on(steps: int) -> None:
        train(job(plan, data=str(data), stop_after=steps), logs / "run")

    go_on(4)
    go_on(4)
    first = ingest([logs], archive)
    assert (first.added, first.points) == (["run"], 3 * 8)
    assert listed(archive)["run"]["boundaries"] == []
    newest = latest(logs / "run")
    assert newest is not None
    newest.unlink()  # as if it had been killed before this one
    go_on(6)
    again = ingest([logs], archive)
    assert (again.added, again.replaced) == ([], ["run"])
    row = listed(archive)["run"]
    assert (row["boundaries"], row["last_step"], row["points"]) == ([5], 10, 3 * 10)
    table = Archive(archive).points([row["run"]], ["train/loss"])
    last = {record["step"]: record["loss"] for record in read_log(logs / "run")[1]}
    assert dict(zip(*(table[name].to_pylist() for name in ("step", "value")), strict=True)) == last
    steps, tokens = (table[name].to_pylist() for name in ("step", "tokens"))
    assert tokens == [step * plan.runs[0].batch.tokens for step in steps]
    assert ingest([logs], archive).unchanged == 1
