"""Single outliers, and hard batches: outliers that runs on the same data share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.curves.bins import Binned

_LEAST_RUNS = 3


@dataclass(frozen=True, slots=True)
class HardBatch:
    """A step at which several runs have an outlier: the batch was hard, no run is at fault.

    Attributes:
        step: The step.
        runs: Ids of the runs that have it, sorted.
        of: Runs that were logged as far.
        height: Median height above the stretch around it, in log loss.
    """

    step: int
    runs: tuple[str, ...]
    of: int
    height: float


def hard_batches(binned: Binned) -> tuple[HardBatch, ...]:
    """Return the steps at which three runs or more, and a third of those that got there, stand out.

    Runs that train on the same data in the same order share their hard batches; which do is not
    logged, so the step is what they are told by. By chance, outliers of independent runs hardly
    meet: each run has few in thousands of steps.
    """
    rows, steps, heights = binned.outliers
    up = heights > 0
    rows, steps, heights = rows[up], steps[up], heights[up]
    if not rows.size:
        return ()
    order = np.lexsort((rows, steps))
    rows, steps, heights = rows[order], steps[order], heights[order]
    starts = np.flatnonzero(np.concatenate([[True], steps[1:] != steps[:-1]]))
    counts = np.diff(np.append(starts, steps.size))
    span = np.where(np.isnan(binned.horizon), np.inf, binned.horizon)
    reached = np.sort(np.where(np.isfinite(span), binned.logged * span, np.inf))
    found = []
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if count < _LEAST_RUNS:
            continue
        step = int(steps[start])
        there = int(reached.size - np.searchsorted(reached, step))
        if 3 * count < there:
            continue
        part = slice(start, start + count)
        names = sorted(binned.facts[row].run for row in rows[part].tolist())
        found.append(HardBatch(step, tuple(names), there, float(np.median(heights[part]))))
    return tuple(found)
