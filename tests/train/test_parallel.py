"""Two processes, replicated or sharded, train what one process trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from planner.plan import write_plan

from .families import family, job, losses, only, read_log

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

from planner.train.checkpoint import latest  # noqa: E402
from planner.train.loop import train  # noqa: E402

STEPS = 20


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_equal_one(
    data: Path, tmp_path: Path, start: Callable, parallel: str
) -> None:
    plan = family(tpp=3, optimizer={"eps": 1e-8, "grad_clip": 1.0})
    write_plan(plan, tmp_path / "plan.json")
    settings = {"data": str(data), "micro_batch": 2, "update_norms": True, "eval_steps": 5}
    train(job(plan, **settings, stop_after=STEPS), tmp_path / "one")
    command = ["train", "plan.json", "--data", data, "--micro-batch", "2", "--update-norms"]
    command += ["--eval-steps", "5", "--device", "cpu", "--parallel", parallel, "-o", "two"]
    process = start(*command, "--stop-after", str(STEPS), processes=2)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert out.count("\n") == 1

    (head,), two = read_log(tmp_path / "two")
    assert (head["processes"], head["parallel"], head["accumulation"]) == (2, parallel, 2)
    one = read_log(tmp_path / "one")[1]
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)

    # Its checkpoint is whole: one process goes on from it, and from its own, alike.
    train(job(plan, **settings, stop_after=3), tmp_path / "one")
    train(job(plan, **settings, stop_after=3), tmp_path / "two")
    assert losses(tmp_path / "two")[STEPS:] == pytest.approx(
        losses(tmp_path / "one")[STEPS:], rel=1e-5
    )
    state = torch.load(latest(tmp_path / "two"), weights_only=True)
    assert sum(tensor.numel() for tensor in state["model"].values()) == only(plan).params.total
    assert all(len(moments) == 3 for moments in state["optimizer"].values())
