"""How high the drift score of a healthy run comes, by simulation.

``thresholds.json`` holds quantiles of the highest score over a whole run of noise without
correlation, but with heavy tails (Student's t, 4 degrees of freedom) and growing by a quarter, all
estimates included, for runs of 30 to 20,000 watched points (`tools/alarm_thresholds.py` makes it).
The statistic is divided by its own past size at each scale, so correlated noise hardly moves them:
benchmarks/accuracy/detection.py counts false alarms on noise resampled from real runs.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

# smallest and largest probability of a false alarm that the table reaches
ALPHAS = (0.001, 0.2)


def threshold(alpha: float, points: int) -> float:
    """Return the score that a healthy run passes with probability ``alpha`` over its whole length.

    Straight between the simulated cells, in log alpha and log points; constant beyond their range
    of points.

    Args:
        alpha: Within `ALPHAS`.
        points: Watched points of the whole run.

    Raises:
        ValueError: ``alpha`` is out of range, or there is no point.
    """
    if not ALPHAS[0] <= alpha <= ALPHAS[1]:
        raise ValueError(f"alpha must be {ALPHAS[0]} to {ALPHAS[1]}, got {alpha}.")
    if points < 1:
        raise ValueError(f"points must be at least 1, got {points}.")
    table = _table()
    lengths, alphas = np.log(table["points"]), np.log(table["alpha"])
    rows = np.array(table["score"])
    column = [np.interp(np.log(points), lengths, rows[:, j]) for j in range(alphas.size)]
    # the table runs from large alpha to small
    return float(np.interp(np.log(alpha), alphas[::-1], column[::-1]))


@cache
def _table() -> dict[str, Any]:
    text = files("planner.curves.alarm").joinpath("thresholds.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
