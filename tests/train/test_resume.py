"""Resuming is as if nothing had happened; what is logged; how runs end."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.errors import PlannerError
from planner.plan import sealed, write_plan
from planner.train.log import Log

from .families import family, job, losses, only, read_log, wait_for_lines

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.usefixtures("one_thread")

from planner.train.checkpoint import latest  # noqa: E402
from planner.train.loop import train  # noqa: E402

EXPERTS = {"experts": {"count": 4, "top_k": 2}, "gated": True, "activation": "silu"}


def weights(out: Path) -> dict[str, torch.Tensor]:
    path = latest(out)
    assert path is not None
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return found


def same_weights(one: Path, two: Path) -> bool:
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [({}, "fp32"), (EXPERTS, "fp32"), ({"position": "rope", "biases": True}, "bf16")],
    ids=["dense", "experts", "bf16"],
)
def test_resumed_equals_uninterrupted(
    data: Path, tmp_path: Path, architecture: dict[str, object], precision: str
) -> None:
    plan = family(architecture=architecture, optimizer={"eps": 1e-8, "grad_clip": 1.0})
    settings = {"data": str(data), "update_norms": True, "precision": precision, "micro_batch": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(job(plan, **settings, stop_after=30), whole).status == "stopped"
    for number in (11, 1, 18):
        outcome = train(job(plan, **settings, stop_after=number), parts)
    assert outcome.step == 30

    starts, steps = read_log(parts)
    assert steps == read_log(whole)[1]
    assert [(s["segment"], s["from_step"]) for s in starts] == [(0, 0), (1, 11), (2, 12)]
    assert same_weights(whole, parts)


def test_finished_run_is_left_alone(data: Path, tmp_path: Path) -> None:
    plan = family(tpp=0.1)
    run = only(plan)
    first = train(job(plan, data=str(data)), tmp_path)
    assert (first.status, first.step) == ("finished", run.steps)
    log = (tmp_path / "log.jsonl").read_bytes()
    again = train(job(plan, data=str(data)), tmp_path)
    assert (again.status, again.step, again.loss) == ("finished", run.steps, None)
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_log_says_what_a_reader_of_logs_wants(data: Path, tmp_path: Path) -> None:
    plan = family(tpp=0.5)
    run = only(plan)
    train(job(plan, data=str(data), eval_steps=5, seed=3), tmp_path)
    (head,), steps = read_log(tmp_path)
    assert head["run_digest"] == run.digest
    assert (head["seed"], head["data_seed"]) == (3, 3)
    assert (head["total_steps"], head["batch_tokens"]) == (run.steps, run.batch.tokens)
    assert [record["step"] for record in steps] == list(range(1, run.steps + 1))
    assert [record["tokens"] for record in steps] == [
        step * run.batch.tokens for step in range(1, run.steps + 1)
    ]
    assert steps[0]["lr"] == 0.0
    assert max(record["lr"] for record in steps) == pytest.approx(run.optimizer.base_peak_lr)
    assert all("eval/loss" in record for record in steps[4::5])
    assert "eval/loss" in steps[-1]
    assert steps[0]["loss"] == pytest.approx(math.log(256), abs=0.6)
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5


def test_fewer_lines_are_the_same_lines(data: Path, tmp_path: Path) -> None:
    plan = family()
    train(job(plan, data=str(data), stop_after=10), tmp_path / "all")
    train(job(plan, data=str(data), stop_after=10, log_steps=4), tmp_path / "some")
    every = read_log(tmp_path / "all")[1]
    assert read_log(tmp_path / "some")[1] == [every[3], every[7], every[9]]


@pytest.mark.parametrize("architecture", [{}, {"experts": {"count": 4, "top_k": 2}}])
def test_micro_batches_sum_to_the_batch(
    data: Path, tmp_path: Path, architecture: dict[str, Any]
) -> None:
    plan = family(architecture=architecture)
    settings = {"data": str(data), "precision": "fp64", "balance_loss": 1.0}
    for micro in (8, 2):
        job_of = job(plan, **settings, stop_after=10, micro_batch=micro)
        train(job_of, tmp_path / str(micro))
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "8"), rel=1e-9)


def test_seed_and_order_are_apart(data: Path, tmp_path: Path) -> None:
    plan = family()
    found = {}
    for seed, data_seed in ((0, 0), (0, 1), (1, 0)):
        out = tmp_path / f"{seed}{data_seed}"
        train(job(plan, data=str(data), stop_after=3, seed=seed, data_seed=data_seed), out)
        found[seed, data_seed] = losses(out)
    assert found[0, 0] != found[0, 1]
    assert found[0, 0] != found[1, 0]


def test_divergence_is_named_and_the_last_checkpoint_kept(data: Path, tmp_path: Path) -> None:
    plan = family()
    rows = tuple(replace(row, lr=1e30, weight_decay=0.0) for row in only(plan).tensors)
    wild = sealed(replace(plan, runs=(replace(only(plan), tensors=rows),)))
    outcome = train(job(wild, data=str(data), checkpoint_steps=1), tmp_path)
    assert outcome.status == "diverged"
    last = read_log(tmp_path)[1][-1]
    assert last["step"] == outcome.step
    assert last["loss"] is None or last["grad_norm"] is None
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


@pytest.mark.parametrize("change", ["seed", "data_seed", "run"])
def test_another_run_does_not_go_on_from_here(data: Path, tmp_path: Path, change: str) -> None:
    plan = family()
    train(job(plan, data=str(data), stop_after=2), tmp_path)
    other = family(tpp=2) if change == "run" else plan
    settings = {} if change == "run" else {change: 7}
    with pytest.raises(PlannerError, match=r"of another run: its .* choose another output folder"):
        train(job(other, data=str(data), **settings), tmp_path)


def test_checkpoints_are_whole_and_few(data: Path, tmp_path: Path) -> None:
    train(job(family(), data=str(data), stop_after=9, checkpoint_steps=2, keep=3), tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000006.pt", "step-00000008.pt", "step-00000009.pt"]


def test_damaged_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    train(job(family(), data=str(data), stop_after=2), tmp_path)
    path = latest(tmp_path)
    assert path is not None
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PlannerError, match=r"step-00000002\.pt: is not a whole checkpoint"):
        train(job(family(), data=str(data)), tmp_path)


def test_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"schema": "planner.log/1"}\n{"step": 1}\n{"step": 2, "lo')
    log = Log(path)
    log.start({}, 1)
    log.line(2, 20, {"loss": math.inf})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("step") for line in lines] == [None, 1, None, 2]
    assert lines[2]["segment"] == 1
    assert lines[3]["loss"] is None


def test_a_log_is_written_by_one_process(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.start({}, 0)
    with pytest.raises(PlannerError, match="another process writes it"):
        Log(tmp_path / "log.jsonl")
    log.close()
    again = Log(tmp_path / "log.jsonl")
    assert again.segment == 1
    again.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_checkpoints_and_the_same_command_goes_on(
    data: Path, tmp_path: Path, start: Callable, number: signal.Signals
) -> None:
    plan = family(tpp=30)  # far longer than the signal takes
    write_plan(plan, tmp_path / "plan.json")
    command = ["train", "plan.json", "--data", data, "--device", "cpu", "-o", "run"]
    process = start(*command)
    wait_for_lines(tmp_path / "run", 20)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    assert err.startswith(f"interrupted by {number.name} after ")
    assert (
        "; the same command goes on from there\nnote: the whole run sees its data 27.4 times" in err
    )

    stopped = len(losses(tmp_path / "run"))
    assert 20 <= stopped < only(plan).steps
    train(job(plan, data=str(data), stop_after=15), tmp_path / "run")
    train(job(plan, data=str(data), stop_after=stopped + 15), tmp_path / "whole")
    starts, steps = read_log(tmp_path / "run")
    assert steps == read_log(tmp_path / "whole")[1]
    assert starts[1]["from_step"] == stopped
    assert same_weights(tmp_path / "run", tmp_path / "whole")
