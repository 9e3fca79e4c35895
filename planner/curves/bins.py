"""Curves in even stretches of training: what scoring looks at, a few kilobytes a run.

A stretch holds the mean log loss of its points, and the mean of their fractions of training, so
that a reference is read off where the points lie. It ends at ``(k + 1) / STRETCHES`` of training
and depends on nothing later: a run scored in progress has the stretches of the finished run.

Single outliers (hard batches, one-step spikes) are left out of the means and listed: points that
stray from the mean of their stretch by 6 standard deviations of the run's own points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.curves.schedule import Schedule

if TYPE_CHECKING:
    from planner.curves.curve import Curve, RunFacts
    from planner.curves.load import CurveBatch

STRETCHES = 256
_OUTLIER = 6.0
_SETTLED = 0.02  # of training; before, the loss falls fast within a stretch

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Binned:
    """R curves in K stretches of training.

    Attributes:
        facts: What is known of each run.
        schedules: Their learning-rate schedules; None where not known.
        horizon: Steps of each whole run, not-a-number where unknown: its stretches are then those
            of what was logged, shape ``(R,)``.
        logged: Fraction of training of the last usable point, shape ``(R,)``.
        every: Steps from one logged point to the next, shape ``(R,)``.
        mean: Mean log loss of each stretch, not-a-number where it has no point, shape ``(R, K)``.
        time: Mean fraction of training of its points, shape ``(R, K)``.
        count: Points, shape ``(R, K)``.
        missing: Points that were logged but are not positive finite numbers, shape ``(R,)``.
        missing_end: Of those, after the last usable point, shape ``(R,)``.
        outliers: Index of the run, step, and height (log loss above its stretch) of each single
            outlier.
    """

    facts: list[RunFacts]
    schedules: list[Schedule | None]
    horizon: Float64
    logged: Float64
    every: Float64
    mean: Float32
    time: Float32
    count: NDArray[np.uint16]
    missing: Int64
    missing_end: Int64
    outliers: tuple[Int64, Int64, Float32]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.facts)

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Whether each run was logged to its end, as far as T is known, shape ``(R,)``."""
        slack = np.maximum(0.01, 1.5 * self.every / self.horizon)
        return np.asarray(self.logged >= 1.0 - slack)

    def rows(self, chosen: NDArray[np.int64]) -> tuple[Float64, Float64, NDArray[np.bool_]]:
        """Return mean, time, and where they are known, of some runs, as float64."""
        known = self.count[chosen] > 0
        return self.mean[chosen].astype(np.float64), self.time[chosen].astype(np.float64), known


def bin_batch(batch: CurveBatch, *, stretches: int = STRETCHES, offset: float = 0.0) -> Binned:
    """Put a batch of curves into stretches; runs without points are left out.

    Args:
        batch: The curves.
        stretches: How many.
        offset: Subtracted from the losses, nats a token.
    """
    rows = np.flatnonzero(np.diff(batch.offsets) > 0)
    facts = batch.facts
    return _binned(
        [facts[i] for i in rows.tolist()],
        [batch.schedule(i) for i in rows.tolist()],
        batch.horizons()[rows],
        np.diff(batch.offsets)[rows],
        batch.steps,  # runs without points have none here
        batch.values - offset if offset else batch.values,
        stretches,
    )


def bin_curves(
    curves: Sequence[Curve], *, stretches: int = STRETCHES, offset: float = 0.0
) -> Binned:
    """Put curves into stretches; arguments as for `bin_batch`."""
    some = [curve for curve in curves if curve.steps.size]
    return _binned(
        [curve.facts for curve in some],
        [curve.schedule for curve in some],
        np.array([np.nan if c.horizon is None else c.horizon for c in some], np.float64),
        np.array([curve.steps.size for curve in some], np.int64),
        np.concatenate([c.steps for c in some]) if some else np.zeros(0, np.int64),
        np.concatenate([c.values for c in some]) - offset if some else np.zeros(0),
        stretches,
    )


def _binned(
    facts: list[RunFacts],
    schedules: list[Schedule | None],
    horizon: Float64,
    counts: Int64,
    steps: Int64,
    values: Float64,
    stretches: int,
) -> Binned:
    runs = len(facts)
    ends = np.cumsum(counts)
    last = steps[ends - 1].astype(np.float64)
    which = np.repeat(np.arange(runs), counts)
    span = np.where(np.isnan(horizon), np.maximum(last, 1.0), horizon)
    t = steps / span[which]
    usable = (values > 0) & (values < 1e300) & (t > 0)
    logs = np.log(values, out=np.zeros(values.size), where=usable)
    place = np.ceil(t * stretches - 1e-9).astype(np.int64) - 1
    np.clip(place, 0, stretches - 1, out=place)
    place += which * stretches
    cells = runs * stretches
    weight = usable.astype(np.float64)
    n = _sums(place, cells, weight)
    sums = _sums(place, cells, logs)
    squares = _sums(place, cells, logs * logs)
    mean = np.divide(sums, n, out=np.zeros(cells), where=n > 0)
    sigma = _point_sigma(n, squares, mean, runs)
    deviation = logs - mean[place]
    far = usable & (np.abs(deviation) > _OUTLIER * sigma[which]) & (t >= _SETTLED)
    at = np.flatnonzero(far)
    if at.size:
        cell = place[at]
        n -= _sums(cell, cells, np.ones(cell.size))
        sums -= _sums(cell, cells, logs[at])
        weight[at] = 0.0
        mean = np.divide(sums, n, out=np.zeros(cells), where=n > 0)
    time = np.divide(_sums(place, cells, t * weight), n, out=np.zeros(cells), where=n > 0)
    mean[n <= 0] = np.nan
    final = np.zeros(runs, np.int64)  # index of the last usable point of each run
    good = np.flatnonzero(usable)
    _last(final, which, good)
    logged = np.where(np.bincount(which, weight, runs) > 0, t[final], 0.0)
    missing = counts - np.bincount(which, usable, runs).astype(np.int64)
    tail = np.where(logged > 0, ends - 1 - final, counts)
    spread = steps[ends - 1] - steps[ends - counts]
    return Binned(
        facts,
        schedules,
        horizon,
        logged,
        np.where(counts > 1, spread / np.maximum(counts - 1, 1), 1.0),
        mean.reshape(runs, stretches).astype(np.float32),
        time.reshape(runs, stretches).astype(np.float32),
        np.minimum(n, 65535).reshape(runs, stretches).astype(np.uint16),
        missing,
        tail.astype(np.int64),
        (which[at], steps[at], (logs[at] - mean[place[at]]).astype(np.float32)),
    )


def _sums(place: Int64, cells: int, weight: Float64) -> Float64:
    return np.bincount(place, weight, cells).astype(np.float64)


def _last(final: Int64, which: Int64, good: Int64) -> None:
    """Set the index of the last usable point of each run that has one."""
    runs = which[good]
    ends = np.flatnonzero(np.diff(runs, append=-1))
    final[runs[ends]] = good[ends]


def _point_sigma(n: Float64, squares: Float64, mean: Float64, runs: int) -> Float64:
    """Return the standard deviation of each run's points within stretches; infinite if unknown."""
    enough = n >= 4
    within = np.where(enough, (squares - n * mean**2) / np.maximum(n - 1.0, 1.0), np.nan)
    within = within.reshape(runs, -1)
    known = np.count_nonzero(enough.reshape(runs, -1), axis=1) >= 8
    sigma = np.full(runs, np.inf)
    if known.any():
        sigma[known] = np.sqrt(np.maximum(np.nanmedian(within[known], axis=1), 0.0))
    return np.asarray(np.maximum(sigma, 1e-9))


def join(parts: Iterable[Binned]) -> Binned:
    """Join batches into one.

    Raises:
        ValueError: There is none.
    """
    listed = list(parts)
    if not listed:
        raise ValueError("nothing to join")
    if len(listed) == 1:
        return listed[0]
    starts = np.cumsum([0, *(len(part) for part in listed[:-1])])
    columns = ("horizon", "logged", "every", "mean", "time", "count", "missing", "missing_end")
    joined = {name: np.concatenate([getattr(p, name) for p in listed]) for name in columns}
    return Binned(
        facts=[f for part in listed for f in part.facts],
        schedules=[s for part in listed for s in part.schedules],
        outliers=(
            np.concatenate([p.outliers[0] + s for p, s in zip(listed, starts, strict=True)]),
            np.concatenate([p.outliers[1] for p in listed]),
            np.concatenate([p.outliers[2] for p in listed]),
        ),
        **joined,
    )
