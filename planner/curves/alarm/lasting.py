"""Divergence of many runs at once, as they stand at the end of their logs.

The rules are those of `planner.curves.alarm.divergence`, asked about the means of stretches of
training instead of single points. Two things differ, because nothing more is to come: a run is
named only if the rule still holds there or has held for half of the log, as in a run that is far
too hot and comes down with its learning rate; and a loss that is no number at the end of the log
needs no second one after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.alarm.divergence import LEAST_RISE, STALL_LEVEL, all_divergences
from planner.curves.bins import Binned

Float64 = NDArray[np.float64]

_ROWS_AT_A_TIME = 2000
_HALF = 0.5  # of the log


@dataclass(frozen=True, slots=True)
class Lasting:
    """A run that diverged and has not recovered, or only after half of its log.

    Attributes:
        row: Which of the runs.
        since: Fraction of what the stretches cover.
        evidence: A sentence.
        cause: ``divergence`` or ``stall``.
    """

    row: int
    since: float
    evidence: str
    cause: str


def lasting_divergence(binned: Binned) -> Iterator[Lasting]:
    """Yield the runs that have diverged and stand so at the end, or for half, of their logs."""
    for start in range(0, len(binned), _ROWS_AT_A_TIME):
        rows = np.arange(start, min(start + _ROWS_AT_A_TIME, len(binned)))
        for row in rows[_suspect(binned, rows)].tolist():
            found = _lasting(binned, row)
            if found is not None:
                yield found


def _suspect(binned: Binned, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which runs may be named: a cheap look at all of them.

    They end without a number, above their lowest or where a stalled one does, or are above the
    lowest reached before for half of their logs.
    """
    mean = binned.mean[rows].astype(np.float64)
    known = np.isfinite(mean)
    final = mean.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    last = np.where(known, mean, -np.inf)[np.arange(rows.size), final]
    lowest = np.where(known, mean, np.inf).min(axis=1)
    above = (last - lowest > LEAST_RISE) | (last > np.log(STALL_LEVEL))
    before = np.minimum.accumulate(np.where(known, mean, np.inf), axis=1)
    risen = known[:, 1:] & (mean[:, 1:] > before[:, :-1] + LEAST_RISE)
    above |= risen.sum(axis=1) >= _HALF * known.sum(axis=1)
    return np.asarray((known.any(axis=1) & above) | (binned.missing_end[rows] > 0))


def _lasting(binned: Binned, row: int) -> Lasting | None:
    if binned.missing_end[row] > 0:
        evidence = "its loss is not a finite number any more, to the end of the log"
        return Lasting(row, float(binned.logged[row]), evidence, "divergence")
    known = np.flatnonzero(binned.count[row] > 0)
    logs = binned.mean[row, known].astype(np.float64)
    time = binned.time[row, known].astype(np.float64)
    steps = np.rint(time * binned.span[row]).astype(np.int64)
    last = float(np.exp(np.median(logs[-3:])))
    for found in all_divergences(steps, np.exp(logs)):
        cause = "stall" if found.kind == "stalled" else "divergence"
        since = found.since / float(binned.span[row])
        if last > found.bar:
            return Lasting(row, since, found.evidence, cause)
        high = (steps >= found.since) & (np.exp(logs) > found.bar)
        if cause == "divergence" and np.mean(high) >= _HALF:
            return Lasting(row, since, f"{found.evidence}; it was so for half of its log", cause)
    return None
