"""Rendered trainers train as the reference does: same weights, data, rates (issue 7, 2)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.plan import Run

from .backend import accept_grouped_queries
from .built import BUILDERS, copy_to_reference, counted_run, start, write
from .plans import parametrization
from .test_equality import ARCHITECTURES, EPS, MARKS, PACKAGES

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 30


def reference_losses(run: Run, model: Any, data: Path, seed: int) -> list[float]:
    """Train the reference model, float32, with explicit multipliers and the plan's rates."""
    import torch

    from planner.train.data import Order, open_data
    from planner.train.optimizer import make_optimizer, set_rate, table_values
    from planner.train.schedule import rate_factor

    optimizer = make_optimizer(model.tensors(), table_values(model, run), run.optimizer.betas)
    tokens = open_data(data)
    order = Order(tokens.windows(run.model.seq_len), seed)
    losses = []
    for step in range(run.steps):
        set_rate(optimizer, rate_factor(run, step))
        numbers = order.numbers(step * run.batch.sequences, run.batch.sequences)
        rows = torch.from_numpy(tokens.sequences(numbers, run.model.seq_len))
        loss, _ = model(rows[:, :-1], rows[:, 1:])
        loss.backward()
        if run.optimizer.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimizer.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def shallower(run: Run) -> Run:
    """The same run with the depth ratio off by two: residual multipliers twice as large."""
    rows = tuple(
        replace(row, forward_multiplier=2 * row.forward_multiplier)
        if row.tensor_class in ("attn_out", "ffn_out")
        else row
        for row in run.tensors
    )
    return replace(run, tensors=rows)


def gap(left: list[float], right: list[float]) -> float:
    assert len(left) == len(right) == STEPS
    return max(abs(a - b) for a, b in zip(left, right, strict=True))


TRAINED = {
    "hf-granite": "transformers",
    "olmo-core": "olmo_core",
    "torchtitan": "torchtitan",
}


# What else the targets are rendered with, to train here.
HERE: dict[str, dict[str, Any]] = {"cstorch": {"backend": "CPU"}}


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        pytest.param(target, kind, marks=MARKS[target])
        for target in (*TRAINED, "cstorch")
        for kind in ARCHITECTURES[target]
    ],
)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_thirty_steps_are_those_of_the_reference(
    target: str,
    kind: str,
    clip: float | None,
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    pytest.importorskip(PACKAGES[target])
    torch.set_num_threads(1)
    accept_grouped_queries(monkeypatch)
    eps, mode = EPS[target]
    rule = parametrization("completep", "independent", base_lr=0.01)
    run = counted_run(
        rule,
        d_model=128,
        n_layers=6,
        vocab=97,
        steps=STEPS,
        warmup=3,
        eps=eps,
        eps_mode=mode,
        clip=clip,
        precision="fp32",
        seeds=(3,),
        **ARCHITECTURES[target][kind],
    )
    bundle = tmp_path / "bundle"
    plan = write(run, rule, target, bundle, data_dir=str(data), **HERE.get(target, {}))
    run = plan.runs[0]
    built = BUILDERS[target](run, bundle, 3)
    if clip is not None and any(not math.isclose(p.factor(run), 1) for p in built.parts):
        pytest.skip("folded weights are clipped by another norm, of which the rendering warns")
    reference = copy_to_reference(run, built)
    control = copy_to_reference(run, built)

    done = start(bundle / run.name, 3, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    rendered = [line["loss"] for line in steps]

    same = gap(rendered, reference_losses(run, reference, data, 3))
    wrong = shallower(run)
    for module in control.modules():
        if getattr(module, "classes", {}).get("weight") in ("attn_out", "ffn_out"):
            module.multiplier *= 2
    off = gap(rendered, reference_losses(wrong, control, data, 3))
    print(
        f"\n{target} {kind} clip {clip}: loss {rendered[0]:.4f} -> {rendered[-1]:.4f}, "
        f"against the reference {same:.1e}, depth ratio off by 2 {off:.1e}"
    )
    assert rendered[-1] < rendered[0] - 0.3
    assert same < 1e-4
    assert off > 1e-2
