"""Members of a reference that are one run repeated, and how far repeats stray from each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.curves.member import GRID, Float64, Member


def group_repeats(members: Sequence[Member]) -> list[list[int]]:
    """Return the members, by their places, that are repeats of one run: two or more each."""
    groups: dict[tuple[float, ...], list[int]] = {}
    for i, member in enumerate(members):
        same = (member.params, member.tpp, member.tau)
        if member.params is not None:  # else nothing says that they are repeats
            key = tuple(round(math.log(v), 1) if v else -1.0 for v in same)
            groups.setdefault(key, []).append(i)
    return [rows for rows in groups.values() if len(rows) > 1]


def scatter(shapes: Float64, repeats: list[list[int]], level: NDArray[np.bool_]) -> Float64:
    """Return the standard deviation among repeats, smoothed; 0 if there are none.

    Args:
        shapes: Log normalized curves of members on `GRID`, shape ``(members, points)``.
        repeats: Rows that are repeats of each other.
        level: Over which part of `GRID` the mean of each is taken out first.

    Returns:
        Relative, shape of `GRID`.
    """
    levels = shapes[:, level].mean(axis=1)
    squares, freedom = np.zeros(GRID.size), 0
    for rows in repeats:
        group = shapes[rows] - levels[rows, None]
        squares += ((group - group.mean(axis=0)) ** 2).sum(axis=0)
        freedom += len(rows) - 1
    if not freedom:
        return np.zeros(GRID.size)
    # one or two repeats tell little at one point: pooled over a twentieth of training
    width = np.maximum(0.05, 0.2 * GRID)
    cumulated = np.concatenate([[0.0], np.cumsum(squares / freedom)])
    low = np.searchsorted(GRID, GRID - width)
    high = np.searchsorted(GRID, GRID + width, side="right")
    return np.asarray(np.sqrt((cumulated[high] - cumulated[low]) / (high - low)))
