"""Divergence that needs no reference: a loss that is lost, or has lost much of what it gained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.bins import Binned

Float64 = NDArray[np.float64]

# A run that has given back this share of the fall of its loss has diverged.
_GIVEN_BACK = 0.25


@dataclass(frozen=True, slots=True)
class Blowup:
    """A run that diverged.

    Attributes:
        row: Which of the runs.
        since: Fraction of what the stretches cover.
        evidence: A sentence.
    """

    row: int
    since: float
    evidence: str


def find_blowups(binned: Binned) -> Iterator[Blowup]:
    """Yield the runs whose loss became not-a-number, or rose and stayed up.

    The rise is that of the median of three stretches over the lowest before, as a share of the fall
    from the first stretch to that lowest; it must hold at the end of the log.
    """
    mean = binned.mean.astype(np.float64)
    lasting = _medians(mean)
    filled = np.where(np.isnan(lasting), np.inf, lasting)
    lowest = np.minimum.accumulate(filled, axis=1)
    first_at = np.argmax(np.isfinite(mean), axis=1)
    rows = np.arange(len(binned))
    first = mean[rows, first_at]
    rise = lasting - lowest
    fall = np.exp(first)[:, None] - np.exp(np.where(np.isfinite(lowest), lowest, np.nan))
    with np.errstate(invalid="ignore"):
        back = (np.exp(lasting) - np.exp(lowest)) > np.maximum(_GIVEN_BACK * fall, 0.0)
        up = back & (rise > 0.02)
    width = mean.shape[1]
    final = width - 1 - np.argmax(np.isfinite(lasting)[:, ::-1], axis=1)
    suspect = (binned.missing_end > 0) | up[rows, final]
    for row in np.flatnonzero(suspect).tolist():
        if binned.missing_end[row] > 0 and np.isfinite(binned.logged[row]):
            since = float(binned.logged[row])
            yield Blowup(
                row, since, "its loss is not a finite number any more, to the end of the log"
            )
        elif up[row, final[row]]:
            quiet = np.flatnonzero(
                ~up[row, : final[row] + 1] & np.isfinite(lasting[row, : final[row] + 1])
            )
            begun = int(quiet[-1]) if quiet.size else 0
            low, now = (
                float(np.exp(lowest[row, final[row]])),
                float(np.exp(lasting[row, final[row]])),
            )
            yield Blowup(
                row,
                float(binned.time[row, begun]),
                f"its loss rose from {low:.2f} to {now:.2f} and stayed up",
            )


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
