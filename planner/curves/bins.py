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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.curves.schedule import Schedule

if TYPE_CHECKING:
    from planner.curves.curve import Curve, RunFacts
    from planner.curves.load import CurveBatch

STRETCHES = 256
_OUTLIER = 6.0
_SETTLED = 0.02  # of training; before, the loss falls fast within a stretch

_COLUMNS = (
    *("horizon", "span", "logged", "every", "mean", "time", "count", "missing", "missing_end"),
)

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
        span: Steps that the stretches divide: the horizon, else what was logged, shape ``(R,)``.
        logged: Fraction of training of the last usable point, shape ``(R,)``.
        every: Steps from one logged point to the next, shape ``(R,)``.
        mean: Mean log loss of each stretch, not-a-number where it has no point, shape ``(R, K)``.
        time: Mean fraction of training of its points, shape ``(R, K)``.
        count: Points, shape ``(R, K)``.
        missing: Points that were logged but are no finite numbers, shape ``(R,)``.
        missing_end: Of those, after the last finite one, shape ``(R,)``.
        outliers: Index of the run, step, and height (log loss above its stretch) of each single
            outlier.
    """

    facts: list[RunFacts]
    schedules: list[Schedule | None]
    horizon: Float64
    span: Float64
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
    span = np.where(np.isnan(horizon), np.maximum(last, 1.0), horizon)
    t = steps / np.repeat(span, counts)
    usable = (values > 0) & (values < 1e300) & (t > 0)
    logs = np.log(values, out=np.zeros(values.size), where=usable)
    place = np.ceil(t * stretches - 1e-9).astype(np.int64) - 1
    np.clip(place, 0, stretches - 1, out=place)
    place += np.repeat(np.arange(runs) * stretches, counts)
    cells = runs * stretches
    weight = usable.astype(np.float64)
    groups = _Groups(place, cells)
    n = groups.sums(weight)
    sums = groups.sums(logs)
    squares = groups.sums(logs * logs)
    mean = np.divide(sums, n, out=np.zeros(cells), where=n > 0)
    sigma = _point_sigma(n, squares, mean, runs)
    deviation = np.abs(logs - groups.spread(mean))
    far = usable & (deviation > np.repeat(_OUTLIER * sigma, counts)) & (t >= _SETTLED)
    at = np.flatnonzero(far)
    if at.size:
        cell = place[at]
        n -= np.bincount(cell, minlength=cells)
        sums -= np.bincount(cell, logs[at], cells)
        weight[at] = 0.0
        mean = np.divide(sums, n, out=np.zeros(cells), where=n > 0)
    time = np.divide(groups.sums(t * weight), n, out=np.zeros(cells), where=n > 0)
    mean[n <= 0] = np.nan
    starts = ends - counts
    final = _last(usable, starts, ends)  # index of the last usable point of each run
    logged = np.where(final >= starts, t[np.maximum(final, 0)], 0.0)
    finite = np.isfinite(values)
    if finite.all():
        missing = tail = np.zeros(runs, np.int64)
    else:
        missing = counts - np.add.reduceat(finite, starts, dtype=np.int64)
        tail = ends - 1 - _last(finite, starts, ends)
    spread = steps[ends - 1] - steps[ends - counts]
    return Binned(
        facts,
        schedules,
        horizon,
        span,
        logged,
        np.where(counts > 1, spread / np.maximum(counts - 1, 1), 1.0),
        mean.reshape(runs, stretches).astype(np.float32),
        time.reshape(runs, stretches).astype(np.float32),
        np.minimum(n, 65535).reshape(runs, stretches).astype(np.uint16),
        missing,
        tail,
        (
            np.searchsorted(ends, at, side="right"),
            steps[at],
            (logs[at] - mean[place[at]]).astype(np.float32),
        ),
    )


class _Groups:
    """Points that lie side by side and share a cell.

    Args:
        place: The cell of each point, not falling.
        cells: How many cells there are.
    """

    def __init__(self, place: Int64, cells: int) -> None:
        new = np.empty(place.size, np.bool_)
        new[:1] = True
        np.not_equal(place[1:], place[:-1], out=new[1:])
        self._starts = np.flatnonzero(new)
        self._cells = place[self._starts]
        self._counts = np.diff(self._starts, append=place.size)
        self._size = cells

    def sums(self, values: Float64) -> Float64:
        """Return the sum over each cell, shape ``(cells,)``."""
        found = np.zeros(self._size)
        if values.size:
            found[self._cells] = np.add.reduceat(values, self._starts)
        return found

    def spread(self, values: Float64) -> Float64:
        """Return the value of each point's cell."""
        return np.repeat(values[self._cells], self._counts)


def _last(good: NDArray[np.bool_], starts: Int64, ends: Int64) -> Int64:
    """Return the index of the last good point of each run, one before its first if it has none."""
    found = ends - 1
    for i in np.flatnonzero(~good[found]).tolist():
        some = np.flatnonzero(good[starts[i] : ends[i]])
        found[i] = starts[i] + (some[-1] if some.size else -1)
    return found


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


def join(parts: Iterable[Binned], *, runs: int | None = None) -> Binned:
    """Join batches into one.

    Args:
        parts: The batches; each may be dropped once it is taken.
        runs: How many runs they hold at most, so that memory is taken once; counted if None.

    Raises:
        ValueError: There is none.
    """
    if runs is None:
        parts = list(parts)
        runs = sum(len(part) for part in parts)
    facts: list[RunFacts] = []
    schedules: list[Schedule | None] = []
    columns: dict[str, NDArray[Any]] = {}
    outliers: list[tuple[Int64, Int64, Float32]] = []
    for part in parts:
        start, end = len(facts), len(facts) + len(part)
        for name in _COLUMNS:
            column = getattr(part, name)
            if name not in columns:
                columns[name] = np.empty((runs, *column.shape[1:]), column.dtype)
            columns[name][start:end] = column
        outliers.append((part.outliers[0] + start, part.outliers[1], part.outliers[2]))
        facts += part.facts
        schedules += part.schedules
    if not columns:
        raise ValueError("nothing to join")
    rows, steps, heights = (np.concatenate(some) for some in zip(*outliers, strict=True))
    return Binned(
        facts=facts,
        schedules=schedules,
        outliers=(rows, steps, heights),
        **{name: column[: len(facts)] for name, column in columns.items()},
    )
