"""Megatron's model, optimizer and schedule in its own hands: same training, same data, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from planner.plan import Run

from .built import BUILDERS, Built, copy_to_reference, counted_run, write
from .plans import parametrization
from .test_equality import ARCHITECTURES
from .test_same_training import STEPS, gap, reference_losses

pytestmark = [pytest.mark.megatron, pytest.mark.filterwarnings("ignore")]

HIDDEN = ("attn_qkv", "attn_out", "ffn_in", "ffn_out")


def megatron_losses(run: Run, built: Built, data: Path, seed: int) -> list[float]:
    """Train with Megatron's forward, backward, clipping, AdamW and schedule; two parts a step."""
    import torch

    from planner.train.data import Order, open_data

    from .megatron_checkout.gpu_is_cpu import gpu_is_cpu
    from .megatron_cpu import quiet

    optimizer, scheduler = built.engine
    scheduler.num_steps = 0
    scheduler.step(0)
    tokens = open_data(data)
    order = Order(tokens.windows(run.model.seq_len), seed)
    sequences, length = run.batch.sequences, run.model.seq_len
    positions = torch.arange(length).expand(sequences // 2, length)
    mask = torch.ones(1, 1, length, length).tril() < 0.5
    losses = []
    with quiet(), gpu_is_cpu():
        for step in range(run.steps):
            numbers = order.numbers(step * sequences, sequences)
            rows = torch.from_numpy(tokens.sequences(numbers, length))
            total = 0.0
            for part in rows.chunk(2):
                labels = part[:, 1:].contiguous()
                loss = built.model(part[:, :-1].contiguous(), positions, mask, labels=labels).mean()
                (loss / 2).backward()
                total += float(loss.detach()) / 2
            for parameter in built.model.parameters():
                parameter.main_grad = parameter.grad
            done, _, _ = optimizer.step()
            assert done
            scheduler.step(sequences)
            optimizer.zero_grad()
            losses.append(total)
    return losses


def wider(run: Run) -> Run:
    """The same run with the width ratio off by two: rates of hidden matrices, and logits."""
    rows = []
    for row in run.tensors:
        if row.tensor_class in HIDDEN:
            row = replace(row, lr=2 * row.lr)
        if row.tensor_class == "unembedding":
            row = replace(row, forward_multiplier=2 * row.forward_multiplier)
        rows.append(row)
    return replace(run, tensors=tuple(rows))


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("kind", list(ARCHITECTURES["megatron"]))
def test_thirty_steps_are_those_of_the_reference(
    kind: str, clip: float | None, tmp_path: Path, data: Path
) -> None:
    import torch

    torch.set_num_threads(1)
    rule = parametrization("mup", "coupled", base_lr=0.01)
    run = counted_run(
        rule,
        d_model=128,
        n_layers=4,
        vocab=97,
        steps=STEPS,
        warmup=3,
        clip=clip,
        precision="fp32",
        seeds=(3,),
        **ARCHITECTURES["megatron"][kind],
    )
    run = write(run, rule, "megatron", tmp_path).runs[0]
    built = BUILDERS["megatron"](run, tmp_path, 3)
    reference = copy_to_reference(run, built)
    control = copy_to_reference(run, built)
    rendered = megatron_losses(run, built, data, 3)
    same = gap(rendered, reference_losses(run, reference, data, 3))
    control.logit_multiplier *= 2
    off = gap(rendered, reference_losses(wider(run), control, data, 3))
    print(
        f"\nmegatron {kind} clip {clip}: loss {rendered[0]:.4f} -> {rendered[-1]:.4f}, "
        f"against the reference {same:.1e}, width ratio off by 2 {off:.1e}"
    )
    assert rendered[-1] < rendered[0] - 0.3
    assert same < 1e-4
    assert off > 1e-2
