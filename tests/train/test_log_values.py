"""What the log says of a step, worked out once more from the checkpoints around it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.plan import write_plan
from planner.train.data import Order, TokenData, open_data

from .families import family, job, only, read_log

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.usefixtures("one_thread")

from planner.train.checkpoint import checkpoint_name  # noqa: E402
from planner.train.loop import train  # noqa: E402
from planner.train.model import Transformer  # noqa: E402

STEPS = 5
PLAN = family(optimizer={"eps": 1e-8, "grad_clip": 0.5})
RUN = only(PLAN)


def model_after(out: Path, step: int) -> Transformer:
    state = torch.load(out / "checkpoints" / checkpoint_name(step), weights_only=True)["model"]
    model = Transformer(RUN, 0).double()
    with torch.no_grad():
        for name, _, parameter in model.tensors():
            parameter.copy_(state[name])
    return model


def loss_of(model: Transformer, data: TokenData, numbers: Any, *, validation: bool) -> Any:
    rows = torch.from_numpy(data.sequences(numbers, RUN.model.seq_len, validation=validation))
    return model(rows[:, :-1], rows[:, 1:])[0]


def norms(tensors: dict[str, list[Any]]) -> dict[str, float]:
    return {name: float(torch.cat(parts).norm()) for name, parts in tensors.items()}


def test_every_number_of_a_step(data: Path, tmp_path: Path) -> None:
    settings = {"update_norms": True, "eval_steps": 2, "eval_sequences": 10, "precision": "fp64"}
    settings |= {"checkpoint_steps": 1, "keep": 9, "micro_batch": 2}
    train(job(PLAN, data=str(data), stop_after=STEPS, **settings), tmp_path)
    tokens, steps = open_data(data), read_log(tmp_path)[1]
    held_out = tokens.windows(RUN.model.seq_len, validation=True)
    order = Order(tokens.windows(RUN.model.seq_len), 0)
    size = RUN.batch.sequences
    for step in range(1, STEPS):  # from the first checkpoint on
        got = steps[step]
        before, after = model_after(tmp_path, step), model_after(tmp_path, step + 1)
        loss = loss_of(before, tokens, order.numbers(step * size, size), validation=False)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in before.parameters()]).norm()
        wanted = {"step": step + 1, "tokens": (step + 1) * RUN.batch.tokens, "loss": loss.item()}
        wanted |= {"lr": RUN.optimizer.base_peak_lr * step / RUN.warmup_steps}
        wanted |= {"grad_norm": gradient.item()}
        updates: dict[str, list[Any]] = {}
        weights: dict[str, list[Any]] = {}
        for (_, kind, new), (_, _, old) in zip(after.tensors(), before.tensors(), strict=True):
            updates.setdefault(f"update_norm/{kind}", []).append((new - old).detach().flatten())
            weights.setdefault(f"weight_norm/{kind}", []).append(new.detach().flatten())
        wanted |= norms(updates) | norms(weights)
        if (step + 1) % 2 == 0 or step + 1 == STEPS:
            spaced = np.array([i * held_out // 10 for i in range(10)])
            wanted["eval/loss"] = loss_of(after, tokens, spaced, validation=True).item()
        assert got == pytest.approx(wanted, rel=1e-6)  # update norms are summed in float32
        assert got["grad_norm"] > 0.5  # before clipping


@pytest.mark.slow
def test_a_compiled_model_trains_alike(data: Path, tmp_path: Path, start: Callable) -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    write_plan(PLAN, tmp_path / "plan.json")
    settings = {"data": str(data), "eval_steps": 3, "stop_after": 6, "micro_batch": 4}
    train(job(PLAN, **settings), tmp_path / "plain")
    command = ["train", "plan.json", "--data", data, "--eval-steps", "3", "--stop-after", "6"]
    command += ["--micro-batch", "4", "--device", "cpu", "--threads", "1", "--compile"]
    process = start(*command, "-o", "compiled")  # by itself: PyTorch warns of PyTorch
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    (head,), steps = read_log(tmp_path / "compiled")
    assert head["compile"]
    for compiled, plain in zip(steps, read_log(tmp_path / "plain")[1], strict=True):
        assert compiled == pytest.approx(plain, rel=1e-5)
    # its checkpoint goes on without being compiled
    assert train(job(PLAN, **settings), tmp_path / "compiled").step == 12
