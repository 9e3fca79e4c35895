"""Two processes, replicated or sharded, train what one process trains."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.plan import write_plan
from planner.train.errors import TrainError

from .families import SMALL, family, job, losses, read_log, wait_for_lines

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

from planner.train.checkpoint import latest  # noqa: E402
from planner.train.loop import train  # noqa: E402
from planner.train.parallel import Workers, _own_gpu, agree  # noqa: E402

STEPS = 20
SIZES = (SMALL, {"name": "large", "d_model": 64, "n_layers": 2, "head_dim": 16})
RUN = "small-3tpp"
EXPERTS = {"experts": {"count": 3, "top_k": 2}, "gated": True, "activation": "silu"}
TIED = {"tied_embeddings": True, "biases": True, "position": "learned", "kv_groups": 1}


@pytest.mark.parametrize(
    ("parallel", "architecture"),
    [("ddp", {}), ("fsdp", {}), ("ddp", EXPERTS), ("fsdp", EXPERTS), ("fsdp", TIED)],
    ids=["ddp", "fsdp", "ddp experts", "fsdp experts", "fsdp tied"],
)
def test_two_processes_equal_one(
    data: Path, tmp_path: Path, start: Callable, parallel: str, architecture: dict[str, Any]
) -> None:
    plan = family(
        *SIZES, tpp=3, architecture=architecture, optimizer={"eps": 1e-8, "grad_clip": 1.0}
    )
    write_plan(plan, tmp_path / "plan.json")
    # undivided, and seven held-out sequences: two processes have other shares
    settings = {"data": str(data), "micro_batch": 8, "update_norms": True}
    settings |= {"eval_steps": 5, "eval_sequences": 7}
    train(job(plan, RUN, **settings, stop_after=STEPS), tmp_path / "one")
    command = ["train", "plan.json", "--run", RUN, "--data", data, "--micro-batch", "2"]
    command += ["--update-norms", "--eval-steps", "5", "--eval-sequences", "7"]
    command += ["--device", "cpu", "--parallel", parallel]
    process = start(*command, "-o", "two", "--stop-after", str(STEPS), processes=2)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert out.count("\n") == 1

    (head,), two = read_log(tmp_path / "two")
    assert (head["processes"], head["parallel"], head["accumulation"]) == (2, parallel, 2)
    one = read_log(tmp_path / "one")[1]
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)

    # Its checkpoint is whole: one process goes on from it, and from its own, alike.
    train(job(plan, RUN, **settings, stop_after=3), tmp_path / "one")
    train(job(plan, RUN, **settings, stop_after=3), tmp_path / "two")
    assert losses(tmp_path / "two")[STEPS:] == pytest.approx(
        losses(tmp_path / "one")[STEPS:], rel=1e-5
    )
    state = torch.load(latest(tmp_path / "two"), weights_only=True)
    assert sum(tensor.numel() for tensor in state["model"].values()) == plan.run(RUN).params.total
    assert all(len(moments) == 3 for moments in state["optimizer"].values())


def test_a_signal_stops_both_after_the_same_step(
    data: Path, tmp_path: Path, start: Callable
) -> None:
    plan = family(tpp=30)  # far longer than the signal takes
    write_plan(plan, tmp_path / "plan.json")
    command = ["train", "plan.json", "--data", data, "--device", "cpu", "--parallel", "fsdp"]
    process = start(*command, "-o", "run", processes=2)
    wait_for_lines(tmp_path / "run", 10)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.count("interrupted by SIGTERM after ") == 1
    steps = len(losses(tmp_path / "run"))
    found = latest(tmp_path / "run")
    assert found is not None
    assert found.name == f"step-{steps:08d}.pt"
    assert train(job(plan, data=str(data), stop_after=2), tmp_path / "run").step == steps + 2


def test_processes_with_other_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Workers(0, 2, torch.device("cpu"), "ddp")

    def gather(found: list[object], value: object) -> None:
        found[:] = [value, "step-00000009.pt"]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    agree("newest checkpoint", "step-00000009.pt", two)
    wanted = (
        r"newest checkpoint: process 0 has None, process 1 has step-00000009\.pt; all machines need"
    )
    with pytest.raises(TrainError, match=wanted):
        agree("newest checkpoint", None, two)


def test_more_processes_than_gpus_are_refused() -> None:
    assert _own_gpu(1, 2) == torch.device("cuda", 1)
    with pytest.raises(TrainError, match="got LOCAL_RANK=2, but this machine has 2 GPUs; wanted"):
        _own_gpu(2, 2)
