"""Simulate how high the drift score of healthy runs comes; writes thresholds.json.

    python tools/alarm_thresholds.py [-o planner/curves/alarm/thresholds.json]

Noise without correlation, but with heavy tails and growing, is simulated whole: calibration,
running noise, variance ratios, all windows. Takes a few minutes on one core. Rows are smoothed by
what must hold: the score rises with the length of a run and with 1/alpha; where a cell has fewer
than five simulated runs beyond it, the step from the next larger alpha is that of the next shorter
length.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from planner.curves.alarm.drift import calibration_points
from planner.curves.alarm.ramps import ramp_scores
from planner.curves.alarm.tame import tame

SEED = 20261122
# points of a run, and how many runs are simulated
RUNS = {
    30: 10000,
    60: 10000,
    120: 10000,
    250: 6000,
    500: 5000,
    1000: 3000,
    2500: 1500,
    5000: 800,
    10000: 400,
    20000: 200,
}
ALPHAS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
# as uncomfortable as the noise of real logs: theirs has kurtosis 3 to 14, and grows by up to a
# fifth from the first to the last quarter of training
TAILS = 4
GROWTH = 1.25
_AT_A_TIME = 200_000
_LEAST = 5


def highest(rng: np.random.Generator, points: int, runs: int) -> Any:
    """Return the highest score of each simulated run."""
    count = calibration_points(points)
    batch = max(1, _AT_A_TIME // points)
    found = []
    for start in range(0, runs, batch):
        shape = (min(batch, runs - start), points)
        noise = rng.standard_t(TAILS, shape) * np.linspace(1.0, GROWTH, points)
        found.append(ramp_scores(*tame(noise, count), points, count).score.max(axis=1))
    return np.concatenate(found)


def table(highest_by_points: dict[int, Any]) -> dict[str, Any]:
    """Return the document of thresholds.json."""
    rows: list[list[float]] = []
    for scores in highest_by_points.values():
        row: list[float] = []
        for j, alpha in enumerate(ALPHAS):
            if alpha * scores.size >= _LEAST:
                value = float(np.quantile(scores, 1.0 - alpha))
            else:
                value = row[-1] + rows[-1][j] - rows[-1][j - 1]
            row.append(max(value, row[-1]) if row else value)
        rows.append(row)
    # the shortest runs, whose noise is known worst, may stand above longer ones
    score = np.array(rows)
    score[2:] = np.maximum.accumulate(score[2:], axis=0)
    return {
        "about": "made by tools/alarm_thresholds.py",
        "points": list(highest_by_points),
        "alpha": list(ALPHAS),
        "runs": [int(s.size) for s in highest_by_points.values()],
        "score": [[round(float(v), 3) for v in row] for row in score],
    }


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parents[1] / "planner/curves/alarm/thresholds.json"
    parser.add_argument("-o", "--output", type=Path, default=default)
    given = parser.parse_args()
    rng = np.random.default_rng(SEED)
    found = {}
    for points, runs in RUNS.items():
        found[points] = highest(rng, points, runs)
        print(f"{points:6d} points: {np.quantile(found[points], 0.99):.3f} at 1 %", flush=True)
    given.output.write_text(json.dumps(table(found), indent=1) + "\n")


if __name__ == "__main__":
    main()
