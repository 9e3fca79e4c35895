"""The learning-rate transfer check: does the best learning rate stay where it is as models widen?

Under muP and CompleteP the base learning rate that trains a narrow model best trains wide ones
best, too; under the standard parametrization the best one falls with width. Models are those of
the coordinate check (`planner.train.coordinates`) with width multiplied, each trained for a short
run of the plan's schedule at several base learning rates, without weight decay: its best value
moves with the learning rate, and is what tau is for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from planner.train.coordinates import check_table, rescaled, step_tokens
from planner.train.errors import memory_errors
from planner.train.model import Transformer
from planner.train.optimizer import make_optimizer, set_rate, table_values
from planner.train.schedule import rate_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from planner.models.parametrization import Kind
    from planner.plan.model import Parametrization, Run
    from planner.train.data import TokenData

TAIL = 0.1
"""Share of the updates, the last ones, over which the final loss is averaged."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One width at one learning rate.

    Attributes:
        factor: What the narrowest width was multiplied by.
        d_model: Width.
        lr: Base learning rate at the schedule's peak.
        loss: Final loss, nats a token: mean over the last updates and the seeds; NaN if a model
            diverged.
    """

    factor: int
    d_model: int
    lr: float
    loss: float


@dataclass(frozen=True, slots=True)
class Best:
    """The best learning rate of one width.

    Attributes:
        factor: What the narrowest width was multiplied by.
        d_model: Width.
        lr: Vertex of the parabola in log lr through the lowest loss and its two neighbours; NaN if
            the lowest loss is at an end of the rates, or beside a model that diverged.
        loss: Lowest loss that was measured; NaN if all models diverged.
    """

    factor: int
    d_model: int
    lr: float
    loss: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """A learning-rate transfer check.

    Attributes:
        parametrization: standard, mup or completep.
        steps: Updates of a run.
        rates: Every run, width by width.
        best: Every width.
        spread: Largest best learning rate over the smallest; NaN if one of them is not known.
        tolerance: The spread that passes.
    """

    parametrization: str
    steps: int
    rates: tuple[Rate, ...]
    best: tuple[Best, ...]
    spread: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the best learning rate stays within the tolerance; false if it is not known."""
        return self.spread <= self.tolerance


def transfer_check(
    run: Run,
    rule: Parametrization,
    *,
    width: int,
    depth: int,
    factors: Sequence[int] = (1, 2, 4, 8),
    rates: Sequence[float] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    steps: int = 200,
    sequences: int = 8,
    seeds: Sequence[int] = (0,),
    kind: Kind | None = None,
    data: TokenData | None = None,
    tolerance: float = 1.5,
    progress: Callable[[Rate], None] | None = None,
) -> Transfer:
    """Train each width at each learning rate and compare where the losses are lowest.

    Args:
        run: Gives the architecture, the schedule's shape and the optimizer.
        rule: The plan's parametrization.
        width: Narrowest width.
        depth: Depth of all models.
        factors: What the width is multiplied by.
        rates: What the plan's base learning rate is multiplied by, rising.
        steps: Updates of a run.
        sequences: Sequences an update.
        seeds: Of weights and data; losses are means over them.
        kind: Parametrization to use instead of the rule's.
        data: Tokens to train on; None makes some that can be learned.
        tolerance: Largest over smallest best learning rate that passes.
        progress: Called after each width and learning rate.

    Raises:
        TrainError: If the run's table is not what the parametrization says, heads do not divide a
            width, or a model does not fit in memory.
    """
    check_table(run, rule)
    plain = replace(run, optimizer=replace(run.optimizer, base_weight_decay=0.0))
    short = replace(plain, steps=steps, warmup_steps=round(steps * run.warmup_steps / run.steps))
    found: list[Rate] = []
    for factor in factors:
        for rate in rates:
            lr = rule.base_lr * rate
            own = replace(rule, base_lr=lr)
            variant = rescaled(short, own, width * factor, depth, kind)
            what = f"the model of width {width * factor} and depth {depth}"
            with memory_errors(what, "try smaller --factors or fewer --sequences"):
                losses = [_final_loss(variant, sequences, seed, data) for seed in seeds]
            found.append(Rate(factor, width * factor, lr, float(np.mean(losses))))
            if progress is not None:
                progress(found[-1])
    best = tuple(_best([each for each in found if each.factor == factor]) for factor in factors)
    where = [each.lr for each in best]
    return Transfer(
        parametrization=kind or rule.kind,
        steps=steps,
        rates=tuple(found),
        best=best,
        spread=float(np.max(where) / np.min(where)),  # NaN as soon as one is
        tolerance=tolerance,
    )


def _final_loss(run: Run, sequences: int, seed: int, data: TokenData | None) -> float:
    """Return the mean loss of the last updates; NaN if one is not finite."""
    model = Transformer(run, seed)
    optimizer = make_optimizer(model.tensors(), table_values(model, run), run.optimizer.betas)
    losses = []
    for step in range(run.steps):
        set_rate(optimizer, rate_factor(run, step))
        tokens = step_tokens(run, step, sequences, seed, data)
        loss, _ = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        if run.optimizer.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimizer.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            return float("nan")
    return float(np.mean(losses[-max(1, round(TAIL * run.steps)) :]))


def _best(rates: Sequence[Rate]) -> Best:
    """Return the best learning rate of the runs of one width."""
    loss = np.array([each.loss for each in rates])
    factor, d_model = rates[0].factor, rates[0].d_model
    if np.isnan(loss).all():
        return Best(factor, d_model, float("nan"), float("nan"))
    at = int(np.nanargmin(loss))
    around = loss[max(0, at - 1) : at + 2]
    if len(around) < 3 or np.isnan(around).any():
        return Best(factor, d_model, float("nan"), float(loss[at]))
    x = np.log([each.lr for each in rates[at - 1 : at + 2]])
    return Best(factor, d_model, float(np.exp(vertex(x, around))), float(loss[at]))


def vertex(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return where the parabola through three points (x rising, the middle y lowest) is lowest.

    The middle x where all three y are the same.
    """
    left, right = x[1] - x[0], x[2] - x[1]
    down, up = (y[1] - y[0]) / left, (y[2] - y[1]) / right
    if up == down:
        return float(x[1])
    # the slope is (down, up) at the middles of the two intervals, and straight between
    return float((x[0] + x[1]) / 2 - down * (left + right) / 2 / (up - down))
