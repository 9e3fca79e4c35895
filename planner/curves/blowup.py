"""Divergence that needs no reference, of many runs at once, as they stand at the end of their logs.

`planner.curves.alarm.find_divergence` watches one run step by step; here a run is named only if it
has not recovered: its loss is no number any more, it has given back much of what it had learned, or
it never learned (which is left to `find_divergence`, asked only about runs that may have stalled).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.alarm.divergence import STALL_LEVEL, find_divergence
from planner.curves.bins import Binned

Float64 = NDArray[np.float64]

# A run that has given back this share of the fall of its loss has diverged.
_GIVEN_BACK = 0.25
_LEAST_RISE = 0.02  # of log loss
_ROWS_AT_A_TIME = 2000


@dataclass(frozen=True, slots=True)
class Blowup:
    """A run that diverged.

    Attributes:
        row: Which of the runs.
        since: Fraction of what the stretches cover.
        evidence: A sentence.
        cause: ``divergence`` or ``stall``.
    """

    row: int
    since: float
    evidence: str
    cause: str = "divergence"


def find_blowups(binned: Binned) -> Iterator[Blowup]:
    """Yield the runs whose loss became not-a-number, or rose and stayed up.

    The rise is that of the median of three stretches over the lowest before, as a share of the fall
    from the first stretch to that lowest; it must hold at the end of the log.
    """
    for start in range(0, len(binned), _ROWS_AT_A_TIME):
        yield from _find(binned, np.arange(start, min(start + _ROWS_AT_A_TIME, len(binned))))


def _find(binned: Binned, rows: NDArray[np.int64]) -> Iterator[Blowup]:
    mean = binned.mean[rows].astype(np.float64)
    lasting = _medians(mean)
    lowest = np.minimum.accumulate(np.where(np.isnan(lasting), np.inf, lasting), axis=1)
    places = np.arange(rows.size)
    first = mean[places, np.argmax(np.isfinite(mean), axis=1)]
    final = mean.shape[1] - 1 - np.argmax(np.isfinite(lasting)[:, ::-1], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        fall = np.exp(first)[:, None] - np.exp(lowest)
        back = (np.exp(lasting) - np.exp(lowest)) > np.maximum(_GIVEN_BACK * fall, 0.0)
        up = back & (lasting - lowest > _LEAST_RISE)
    last = np.where(np.isfinite(lasting), lasting, -np.inf)[places, final]
    lost = binned.missing_end[rows] > 0
    stuck = (last > np.log(STALL_LEVEL)) & (first > last) & ~up[places, final] & ~lost
    for i in np.flatnonzero(stuck | lost | up[places, final]).tolist():
        row = int(rows[i])
        if lost[i]:
            evidence = "its loss is not a finite number any more, to the end of the log"
            yield Blowup(row, float(binned.logged[row]), evidence)
        elif stuck[i]:
            yield from _stalled(binned, row)
        else:
            quiet = np.flatnonzero(~up[i, : final[i] + 1] & np.isfinite(lasting[i, : final[i] + 1]))
            begun = int(quiet[-1]) if quiet.size else 0
            low, now = (float(np.exp(of[i, final[i]])) for of in (lowest, lasting))
            evidence = f"its loss rose from {low:.2f} to {now:.2f} and stayed up"
            yield Blowup(row, float(binned.time[row, begun]), evidence)


def _stalled(binned: Binned, row: int) -> Iterator[Blowup]:
    known = np.flatnonzero(binned.count[row] > 0)
    time = binned.time[row, known].astype(np.float64)
    steps = np.rint(time * binned.span[row]).astype(np.int64)
    for found in find_divergence(steps, np.exp(binned.mean[row, known].astype(np.float64))):
        if found.kind == "stalled":
            yield Blowup(row, found.since / float(binned.span[row]), found.evidence, "stall")


def _medians(mean: Float64) -> Float64:
    """Return the median of each stretch and the two logged ones before it."""
    known = np.isfinite(mean)
    order = np.argsort(~known, axis=1, kind="stable")
    packed = np.take_along_axis(mean, order, axis=1)  # what is known to the left
    padded = np.concatenate([packed[:, :1], packed[:, :1], packed], axis=1)
    a, b, c = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    found = np.full_like(mean, np.nan)
    np.put_along_axis(found, order, middle, axis=1)
    found[~known] = np.nan
    return found
