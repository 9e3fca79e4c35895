"""How far a curve strays from a law of curves that was fitted without it: scoring allows for that.

Left out together are the curves of one setting (size, tokens per parameter, timescale, schedule),
so that no repeat vouches for another. Of a curve's log residual its level between 25 and 50 % of
training is taken out, because there a scored run is aligned (`planner.curves.residual`); what is
left, in means over a twentieth of training that noise hardly moves, is the law's error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.curves.bands import SCHEDULE_TOLERANCE
from planner.curves.reference import TAU_TOLERANCE, TPP_TOLERANCE
from planner.curves.residual import ALIGN, WINDOW
from planner.laws.law import CURVES_FROM, FittedSchedule

if TYPE_CHECKING:
    from planner.laws.law import Law

Float64 = NDArray[np.float64]

LEAST_SETTINGS = 3
"""Fewer say nothing of how far the next one strays."""
MOST_SETTINGS = 60
"""So many are left out, evenly chosen: each is a fit."""
_STRETCHES = round((1.0 - CURVES_FROM) / WINDOW)
_MOST_SHAPES = 64


@dataclass(frozen=True, eq=False, slots=True)
class Setting:
    """What makes curves repeats of each other.

    Attributes:
        params: N, if known.
        tpp: Tokens per parameter, if known.
        tau: AdamW timescale, if known.
        shape: The schedule, from `planner.curves.schedule.since_warmup`.
    """

    params: float | None
    tpp: float | None
    tau: float | None
    shape: Float64

    def same(self, other: Setting) -> bool:
        """Return whether two curves are of one setting."""
        return (
            self.params == other.params
            and _near(self.tpp, other.tpp, TPP_TOLERANCE)
            and _near(self.tau, other.tau, TAU_TOLERANCE)
            and same_shape(self.shape, other.shape)
        )


def same_shape(one: Float64, other: Float64) -> bool:
    """Return whether two schedules are one, up to what scoring takes for one."""
    return float(np.max(np.abs(one - other))) <= SCHEDULE_TOLERANCE


def settings(of: Sequence[Setting]) -> list[list[int]]:
    """Return the indices of the curves of each setting, `MOST_SETTINGS` of them at most."""
    found: list[list[int]] = []
    for i, setting in enumerate(of):
        group = next((g for g in found if of[g[0]].same(setting)), None)
        if group is None:
            found.append([i])
        else:
            group.append(i)
    if len(found) > MOST_SETTINGS:
        return [found[k * len(found) // MOST_SETTINGS] for k in range(MOST_SETTINGS)]
    return found


def squares(fraction: Float64, log_residual: Float64) -> Float64 | None:
    """Return how far a curve strays from a law, squared, in each stretch of training.

    Args:
        fraction: Fractions of training, shape ``(points,)``.
        log_residual: Log loss less log of the law, not-a-number where missing, of that shape.

    Returns:
        Shape ``(stretches,)``, not-a-number where there is no point; None where it has few points,
        or none where it is aligned.
    """
    used = np.isfinite(log_residual) & (fraction >= CURVES_FROM) & (fraction <= 1.0 + 1e-9)
    if np.count_nonzero(used) < 2 * _STRETCHES:
        return None
    t, y = fraction[used], log_residual[used]
    done = (t - CURVES_FROM) / (1.0 - CURVES_FROM)
    place = np.minimum(done * _STRETCHES, _STRETCHES - 1).astype(np.int64)
    count = np.bincount(place, minlength=_STRETCHES)
    sums = np.bincount(place, y, _STRETCHES)
    means = np.divide(sums, count, out=np.full(_STRETCHES, np.nan), where=count > 0)
    aligned = (middles(_STRETCHES) > ALIGN[0]) & (middles(_STRETCHES) < ALIGN[1]) & (count > 0)
    if not aligned.any():
        return None
    return np.asarray((means - means[aligned].mean()) ** 2)


def pooled(found: Sequence[Float64 | None]) -> Float64 | None:
    """Return the mean of what `squares` found of several curves; None without one."""
    known = [row for row in found if row is not None]
    if not known:
        return None
    rows = np.array(known)
    count = np.isfinite(rows).sum(axis=0)
    whole = np.divide(np.nansum(rows, axis=0), count, out=np.zeros(count.size), where=count > 0)
    # a stretch without points is taken to be like the others
    return np.where(count > 0, whole, whole[count > 0].mean() if count.any() else 0.0)


def with_curve_error(
    law: Law, strays: Sequence[tuple[Float64, Float64]], shapes: Sequence[Float64]
) -> Law:
    """Return a law that states its error, and the schedules that it was fitted on with theirs.

    Args:
        law: The law.
        strays: Of each setting that was left out: the shape of its schedule, and what `pooled`
            found of its curves.
        shapes: Of the schedules of all curves, from `planner.curves.schedule.since_warmup`.
    """
    different: list[Float64] = []
    for shape in shapes:
        if not any(same_shape(shape, other) for other in different):
            different.append(shape)
    schedules = []
    for shape in different[:_MOST_SHAPES]:
        own = pooled([rows for other, rows in strays if same_shape(shape, other)])
        count = sum(same_shape(shape, other) for other, _ in strays)
        factors = tuple(np.round(shape, 2).tolist())
        error = None if own is None else math.sqrt(float(own.mean()))
        schedules.append(FittedSchedule(factors, error, count))
    every = pooled([rows for _, rows in strays])
    if len(strays) < LEAST_SETTINGS or every is None:
        return replace(law, schedules=tuple(FittedSchedule(s.factors) for s in schedules))
    return replace(
        law,
        curve_errors=tuple(np.sqrt(every).tolist()),
        curve_settings=len(strays),
        schedules=tuple(schedules),
    )


def middles(stretches: int) -> Float64:
    """Return the middles of even stretches of training from `CURVES_FROM` on."""
    done = (np.arange(stretches) + 0.5) / stretches
    return np.asarray(CURVES_FROM + (1.0 - CURVES_FROM) * done)


def error_note(law: Law) -> str:
    """Return a sentence on what `with_curve_error` found."""
    if law.curve_error is None:
        return (
            f"fewer than {LEAST_SETTINGS} settings could be left out: the law states no error, and "
            "scoring says nothing by it"
        )
    return (
        f"a curve strays by {law.curve_error:.2%} from the law fitted without its setting "
        f"({law.curve_settings} settings left out in turn)"
    )


def _near(a: float | None, b: float | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return abs(math.log(a / b)) <= math.log1p(tolerance)
