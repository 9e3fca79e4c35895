"""Synthetic training logs: the same for the same seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.kernel import Ragged

Array = NDArray[np.float64]


def training_curves(n: int, seed: int = 0, shortest: int = 500, longest: int = 5000) -> Ragged:
    """Loss curves of log-uniform length with 0.5-1 % noise, 0-5 spikes and 0-3 gaps of NaN."""
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(n):
        points = int(np.exp(rng.uniform(np.log(shortest), np.log(longest))))
        t = np.arange(1, points + 1) / points
        x = (1 + 0.02) / (t + 0.02)
        loss = 2.5 * x ** rng.uniform(0.05, 0.2) * (1 - 0.1 * t**2)
        loss *= 1 + rng.uniform(0.005, 0.01) * rng.standard_normal(points)
        spikes = rng.integers(0, points, rng.integers(0, 6))
        loss[spikes] *= 1.5
        for _ in range(rng.integers(0, 4)):
            start = int(rng.integers(0, points))
            loss[start : start + int(rng.integers(1, 40))] = np.nan
        curves.append(loss)
    return Ragged.from_list(curves)
