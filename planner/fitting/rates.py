"""Curves with the learning rate of every step, as laws of the schedule need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planner.curves import Curve

Float64 = NDArray[np.float64]

# A change of the rate between two logged steps is a jump, not a slope, if it is more than this
# share of the rate, and so many times the change before and after.
_JUMP = 0.2
_ABRUPT = 4.0
# The law is about what follows the warm-up: curves of which less is known are left aside.
_LEAST_POINTS = 8


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A curve with the learning rate of every step.

    Attributes:
        curve: The curve.
        lr: Rate of every step from 0 to the last one that is used, shape ``(steps,)``.
        steps: Steps with a loss, after the warm-up.
        loss: Nats a token there.
    """

    curve: Curve
    lr: Float64
    steps: Float64
    loss: Float64


def scheduled(curve: Curve, *, warmup_steps: int | None = None) -> Scheduled | str:
    """Return a curve with the learning rate of every step, or why it cannot be told.

    The logged rates, straight between two logged steps but where they jump (by a fifth or more, out
    of step with the changes around): there the rate before holds up to the step that logs the one
    after. Before the first logged step the rate rises linearly from 0 over the warm-up. Without
    logged rates: the declared schedule times the peak rate.
    """
    finite = np.isfinite(curve.values) & (curve.values > 0)
    if finite.sum() < _LEAST_POINTS:
        return f"it has {int(finite.sum())} points, wanted {_LEAST_POINTS}"
    last = int(curve.steps[finite][-1])
    warmup = warmup_steps if warmup_steps is not None else curve.facts.warmup_steps
    lr = _logged(curve, last, warmup) if curve.lr[0].size else _declared(curve, last)
    if isinstance(lr, str):
        return lr
    if warmup is None:
        warmup = int(np.argmax(lr >= 0.999 * lr.max()))
    known = finite & (curve.steps >= max(warmup, 1)) & (curve.steps < lr.size)
    if known.sum() < _LEAST_POINTS:
        return f"{int(known.sum())} points follow the warm-up, wanted {_LEAST_POINTS}"
    return Scheduled(curve, lr, curve.steps[known].astype(np.float64), curve.values[known])


def _logged(curve: Curve, last: int, warmup: int | None) -> Float64 | str:
    steps, rates = curve.lr
    usable = np.isfinite(rates) & (rates >= 0)
    steps, rates = steps[usable], rates[usable]
    if not steps.size or rates.max() <= 0:
        return "no learning rate was logged"
    first = int(steps[0])
    begins = first <= 1.5 * curve.every  # the log starts with the run
    if not begins and warmup is None:
        return (
            f"its learning rate is logged from step {first} on, and how long the warm-up was is "
            "not known: say --warmup-steps, or warmup_steps in a mapping file"
        )
    every = np.arange(min(last, int(steps[-1])) + 1)
    lr = np.interp(every, steps, rates)
    for i in _jumps(rates):
        if warmup is None or steps[i] >= warmup:
            lr[int(steps[i]) : int(steps[i + 1])] = rates[i]
    end = min(warmup, first) if warmup is not None else first
    if end > 0:
        before = every < end
        lr[before] = lr[min(first, lr.size - 1)] * every[before] / end
    return np.asarray(lr, np.float64)


def _jumps(rates: Float64) -> list[int]:
    change = np.abs(np.diff(rates))
    around = np.zeros(change.size)
    around[1:] = change[:-1]
    around[:-1] = np.maximum(around[:-1], change[1:])
    return np.flatnonzero((change > _JUMP * rates[:-1]) & (change > _ABRUPT * around)).tolist()


def _declared(curve: Curve, last: int) -> Float64 | str:
    if curve.schedule is None or not curve.horizon or not curve.facts.lr:
        return "its learning rate is neither logged nor declared"
    every = np.arange(last + 1)
    return curve.facts.lr * curve.schedule.at(every / curve.horizon)
