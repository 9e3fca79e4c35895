"""The coordinate check: do activations keep their scale as the model widens and deepens?

Under muP (in width) and CompleteP (in width and depth) the residual stream after some updates has
the same size at every shape; under the standard parametrization it grows. Shapes are those of a
plan's run with width or depth multiplied, hyperparameters those of the plan's table at that shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from planner.models.parametrization import (
    BaseValues,
    Kind,
    attention_multiplier,
    tensor_rules,
)
from planner.plan.model import Multipliers
from planner.plan.tensors import tensor_table
from planner.train.data import Order, TokenData
from planner.train.errors import TrainError, memory_errors
from planner.train.model import Transformer
from planner.train.optimizer import make_optimizer, table_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from planner.plan.model import Parametrization, Run

ACTIVATIONS = ("embedding", "attention", "ffn", "added", "hidden", "logits")
"""What is measured: the token embedding, both branches of the last block as they are added, what
all blocks together add to the embedding, the residual stream after them, and the logits."""

CHECKED = ("added", "hidden")
"""What has to keep its scale. (Under CompleteP each single branch shrinks with depth, and logits at
initialization shrink with width; both are meant to.)"""

Axis = Literal["width", "depth"]


@dataclass(frozen=True, slots=True)
class Point:
    """One shape: root mean squares of the activations before and after the updates.

    Attributes:
        axis: What was multiplied.
        factor: By how much.
        d_model: Width.
        n_layers: Depth.
        before: RMS of each of `ACTIVATIONS` at initialization, mean over the seeds.
        after: The same after the updates.
        loss: Mean loss of the last update's batch, nats a token.
    """

    axis: Axis
    factor: float
    d_model: int
    n_layers: int
    before: dict[str, float]
    after: dict[str, float]
    loss: float


@dataclass(frozen=True, slots=True)
class Check:
    """A coordinate check.

    Attributes:
        parametrization: standard, mup or completep.
        steps: Updates, each at the peak learning rate.
        points: Width's, then depth's.
        spread: For each axis the largest relative difference of any of `CHECKED` after the updates
            from what it is at the first factor; NaN if a model diverged.
        tolerance: The spread that passes.
        promised: The axes that decide: width alone where the plan asks for muP.
    """

    parametrization: str
    steps: int
    points: tuple[Point, ...]
    spread: dict[str, float]
    tolerance: float
    promised: tuple[Axis, ...]

    @property
    def ok(self) -> bool:
        """Whether every axis that decides stays within the tolerance."""
        return all(self.spread[axis] <= self.tolerance for axis in self.promised)


def rescaled(
    run: Run, rule: Parametrization, d_model: int, n_layers: int, kind: Kind | None = None
) -> Run:
    """Return a run with another width and depth and its table worked out anew.

    Heads keep their width, the feed-forward block its ratio to the model width.

    Args:
        run: Gives the architecture and the base values of weight decay and epsilon.
        rule: Gives the parametrization and the other base values.
        d_model: Width.
        n_layers: Depth.
        kind: Parametrization to use instead of the rule's; standard drops its multipliers too.

    Raises:
        TrainError: If heads or key-value groups do not divide the width.
    """
    m = run.model
    kind = kind or rule.kind
    heads, rest = divmod(d_model, m.head_dim)
    group = m.n_heads // m.n_kv_heads
    if rest or heads % group:
        raise TrainError(
            f"got width {d_model}, wanted a multiple of {m.head_dim * group}: heads of "
            f"{m.head_dim}" + (f" in groups of {group}" if group > 1 else "")
        )
    d_ffn = max(1, round(m.d_ffn / m.d_model * d_model))
    shape = replace(
        m,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=heads,
        n_kv_heads=heads // group,
        d_ffn=d_ffn,
        attention_multiplier=attention_multiplier(kind, m.head_dim),
    )
    plain = kind == "standard"
    base = BaseValues(
        width=rule.base_width,
        ffn_width=rule.base_ffn_width,
        depth=rule.base_depth,
        depth_exponent=rule.depth_exponent,
        lr=rule.base_lr,
        init_std=rule.init_std,
        input_multiplier=1.0 if plain else rule.input_multiplier,
        output_multiplier=1.0 if plain else rule.output_multiplier,
    )
    ratios = Multipliers(
        d_model / rule.base_width, d_ffn / rule.base_ffn_width, n_layers / rule.base_depth
    )
    rules = tensor_rules(
        kind,
        rule.decay,
        rule.depth_exponent,
        biases=m.biases,
        experts=m.experts is not None,
    )
    rows = tensor_table(
        rules,
        base,
        weight_decay=run.optimizer.base_weight_decay,
        eps=run.optimizer.eps,
        width=ratios.width,
        ffn=ratios.ffn,
        depth=ratios.depth,
        tau=lambda lr, decay: None,
    )
    return replace(run, model=shape, multipliers=ratios, tensors=rows)


def coordinate_check(
    run: Run,
    rule: Parametrization,
    *,
    width: int,
    depth: int,
    factors: Sequence[int] = (1, 2, 4, 8),
    steps: int = 10,
    sequences: int = 8,
    seeds: Sequence[int] = (0, 1, 2),
    kind: Kind | None = None,
    data: TokenData | None = None,
    tolerance: float = 0.2,
    progress: Callable[[Point], None] | None = None,
) -> Check:
    """Train each shape for some updates at its peak learning rate and measure its activations.

    Args:
        run: Gives the architecture.
        rule: The plan's parametrization.
        width: Narrowest width; depth is multiplied at this width.
        depth: Shallowest depth; width is multiplied at this depth.
        factors: What width and depth are multiplied by, in turn; the first is what others are
            compared with.
        steps: Updates.
        sequences: Sequences an update.
        seeds: Of weights and data; the result is the mean over them.
        kind: Parametrization to use instead of the rule's.
        data: Tokens to train on; None makes some that can be learned.
        tolerance: Spread that passes.
        progress: Called after each shape.

    Raises:
        TrainError: If the run's table is not what the parametrization says, heads do not divide a
            width, or a shape does not fit in memory.
    """
    check_table(run, rule)
    shapes: list[tuple[Axis, int, int, int]] = [
        *(("width", factor, width * factor, depth) for factor in factors),
        *(("depth", factor, width, depth * factor) for factor in factors),
    ]
    variants = [
        (axis, factor, rescaled(run, rule, d_model, n_layers, kind))
        for axis, factor, d_model, n_layers in shapes
    ]
    points: list[Point] = []
    for axis, factor, variant in variants:
        shape = f"the shape of width {variant.model.d_model} and depth {variant.model.n_layers}"
        with memory_errors(shape, "try smaller --factors or fewer --sequences"):
            found = [_measure(variant, steps, sequences, seed, data) for seed in seeds]
        points.append(
            Point(
                axis,
                factor,
                variant.model.d_model,
                variant.model.n_layers,
                before=_mean([before for before, _, _ in found]),
                after=_mean([after for _, after, _ in found]),
                loss=float(np.mean([loss for _, _, loss in found])),
            )
        )
        if progress is not None:
            progress(points[-1])
    spread: dict[str, float] = {}
    for axis in ("width", "depth"):
        after = [point.after for point in points if point.axis == axis]
        ratios = [sizes[name] / after[0][name] for sizes in after for name in CHECKED]
        # NumPy's maximum, unlike Python's, is not a number as soon as one ratio is not
        spread[axis] = float(np.max(np.abs(np.array(ratios) - 1.0)))
    promised: tuple[Axis, ...] = ("width",) if rule.kind == "mup" else ("width", "depth")
    return Check(kind or rule.kind, steps, tuple(points), spread, tolerance, promised)


def check_table(run: Run, rule: Parametrization) -> None:
    """Refuse a run whose table is not what its parametrization says at its shape.

    Raises:
        TrainError: Naming the first class that differs.
    """
    own = rescaled(run, rule, run.model.d_model, run.model.n_layers)
    for wanted in own.tensors:
        row = run.tensor(wanted.tensor_class)
        for name in ("init_std", "lr", "weight_decay", "eps", "forward_multiplier"):
            if rule.kind == "standard" and name == "forward_multiplier":
                continue  # the plan's own, where it has some, are not part of it
            got, of = getattr(row, name), getattr(wanted, name)
            if (got is None) != (of is None) or (
                got is not None and of is not None and not math.isclose(got, of, rel_tol=1e-9)
            ):
                raise TrainError(
                    f"run {run.name}: {name} of {row.tensor_class} is {got}, but its "
                    f"parametrization says {of} at this shape; the check would not be of this plan"
                )


def _measure(
    run: Run, steps: int, sequences: int, seed: int, data: TokenData | None
) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the activations' sizes before and after the updates, and the last loss."""
    model = Transformer(run, seed)
    optimizer = make_optimizer(model.tensors(), table_values(model, run), run.optimizer.betas)
    probe = step_tokens(run, steps, sequences, seed, data)
    before = _sizes(model, probe)
    loss = float("nan")
    for step in range(steps):
        tokens = step_tokens(run, step, sequences, seed, data)
        value, _ = model(tokens[:, :-1], tokens[:, 1:])
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = float(value.detach())
    return before, _sizes(model, probe), loss


def step_tokens(run: Run, step: int, sequences: int, seed: int, data: TokenData | None) -> Tensor:
    """Return the tokens of a step, (sequences, S + 1): of the data, or made ones."""
    s = run.model.seq_len
    if data is not None:
        numbers = _order(data.windows(s), seed).numbers(step * sequences, sequences)
        return torch.from_numpy(data.sequences(numbers, s))
    # A walk around the vocabulary: the step is learned at once, the noise never.
    rng = np.random.default_rng((seed, step))
    start = rng.integers(0, run.model.vocab_size, (sequences, 1))
    walk = np.cumsum(1 + rng.integers(0, 4, (sequences, s)), axis=1)
    walk = np.concatenate([np.zeros_like(start), walk], axis=1) + start
    return torch.from_numpy(walk % run.model.vocab_size)


@lru_cache(maxsize=16)  # each shuffles a whole corpus
def _order(windows: int, seed: int) -> Order:
    return Order(windows, seed)


@torch.no_grad()
def _sizes(model: Transformer, tokens: Tensor) -> dict[str, float]:
    """Return the root mean square of each of `ACTIVATIONS`."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[object, object, object], None]:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    last = model.blocks[-1]
    hooks = [
        model.embedding.register_forward_hook(note("embedding")),
        last.attention.register_forward_hook(note("attention")),
        last.ffn.register_forward_hook(note("ffn")),
    ]
    h, _ = model.hidden(tokens[:, :-1])
    for hook in hooks:
        hook.remove()
    for name in ("attention", "ffn"):
        seen[name] = seen[name] * getattr(last, name).multiplier
    seen |= {"hidden": h, "added": h - seen["embedding"], "logits": model.logits(h)}
    return {name: _rms(seen[name]) for name in ACTIVATIONS}


def _rms(value: Tensor) -> float:
    return float(value.float().square().mean().sqrt())


def _mean(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in found])) for name in ACTIVATIONS}
