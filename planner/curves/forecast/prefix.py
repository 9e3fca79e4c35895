"""What is read off a run that is under way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import Curve, RunFacts
from planner.curves.normalize import log_excess
from planner.curves.schedule import Schedule
from planner.units import count_of

Float64 = NDArray[np.float64]

# of what is logged: what lies further back says less about the end
WINDOW = 0.8


class UndecidableError(Exception):
    """A method cannot forecast this run; the message says why, without a full stop."""


def usable(curve: Curve) -> tuple[Float64, Float64]:
    """Return the fractions of training and the logarithms of the loss where there is one.

    Both have the shape ``(usable points,)``; the start, fraction 0, is left out.
    """
    logs = log_excess(curve.values)
    known = np.isfinite(logs) & (curve.steps > 0)
    return curve.fraction[known], logs[known]


def last_fifth(prefix: Curve, *, least: int) -> tuple[Float64, Float64]:
    """Return fractions and log losses of the last fifth of what is logged.

    Args:
        prefix: The run.
        least: So many points at least, from before if need be.

    Raises:
        UndecidableError: There are fewer points.
    """
    times, logs = usable(prefix)
    if times.size < least:
        raise UndecidableError(f"{count_of(times.size, 'point')} logged, and {least} are needed")
    first = min(int(np.searchsorted(times, WINDOW * times[-1] - 1e-12)), times.size - least)
    return times[first:], logs[first:]


def learning_rates(curve: Curve) -> Float64:
    """Return the learning rate of every step, the first step's first, shape ``(horizon,)``.

    Raises:
        UndecidableError: The schedule or its peak is not known, or not to the end.
    """
    return schedule_rates(curve.facts, curve.schedule, curve.horizon)


def schedule_rates(facts: RunFacts, schedule: Schedule | None, horizon: int | None) -> Float64:
    """Return the same of what is known of a run.

    Raises:
        UndecidableError: As `learning_rates`.
    """
    if horizon is None or schedule is None or not facts.lr:
        raise UndecidableError("the learning rate of every step is not known")
    if not schedule.covers(1.0):
        raise UndecidableError("the learning-rate schedule is known for the logged part only")
    steps = np.arange(1, horizon + 1)
    rates = facts.lr * schedule.at(steps / horizon)
    warmup = min(facts.warmup_steps or 0, horizon)
    if warmup:  # logs seldom show the first steps
        rates[:warmup] = np.minimum(rates[:warmup], facts.lr * steps[:warmup] / warmup)
    rates[0] = max(rates[0], 1e-9 * facts.lr)
    return np.asarray(rates)


def local_noise(times: Float64, logs: Float64, low: float, high: float, *, least: int = 8) -> float:
    """Return the standard deviation of points about the line through their two neighbours.

    Args:
        times: Fractions of training, rising, shape ``(points,)``.
        logs: Log losses there.
        low: The points from here,
        high: to here count,
        least: or so many around the middle of it.

    Returns:
        Not-a-number below five points.
    """
    if times.size < 5:
        return float("nan")
    share = (times[2:] - times[1:-1]) / (times[2:] - times[:-2])
    rest = logs[1:-1] - (share * logs[:-2] + (1.0 - share) * logs[2:])
    variance = rest**2 / (1.0 + share**2 + (1.0 - share) ** 2)
    chosen = np.flatnonzero((times[1:-1] >= low) & (times[1:-1] <= high))
    if chosen.size < least:
        chosen = np.argsort(np.abs(times[1:-1] - (low + high) / 2.0), kind="stable")[:least]
    return float(np.sqrt(np.mean(variance[chosen])))
