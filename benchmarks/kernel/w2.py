"""W2: robust multi-start curve fits, measured against other fitters.

    python benchmarks/kernel/w2.py [--quick] [--json]

Curves of 500 to 5000 points (log-uniform) with noise, spikes, gaps and three kinds of schedule.
Every fitter minimizes the same Huber objective over the same curves from the same eight starts
("brute"); the kernel also runs coarse to fine. Rounds are interleaved; the figure is fits per
core-second: process CPU time, all threads. Beside it the objective: how many curves end within
1e-8 of the best that anyone reached, and how many are better or worse than the kernel by more.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.kernel import Ragged
from planner.kernel.fits import ETA_FLOOR, Fits, fit_curves, fit_power

Float64 = NDArray[np.float64]

DELTA = 0.01
LOWER = np.array([math.log(1e-6), 0.0, -2.0, 0.02])
UPPER = np.array([math.log(10.0), 5.0, 5.0, 20.0])
STARTS = np.array(
    [
        (math.log(eps), m, 0.1, q)
        for eps in (0.003, 0.05)
        for m in (0.05, 0.2)
        for q in (0.5, 2.0)
    ]
)


@dataclass(frozen=True)
class Curves:
    y: Ragged
    x: Float64
    eta: Float64


def schedule(t: Float64, kind: int, warmup: float) -> Float64:
    after = np.clip((t - warmup) / (1.0 - warmup), 0.0, 1.0)
    if kind == 0:
        decay = 0.5 + 0.5 * np.cos(np.pi * after)
    elif kind == 1:
        decay = 1.0 - after
    else:
        decay = np.clip((1.0 - after) / 0.2, 0.0, 1.0)
    return np.minimum(t / warmup, decay)


def make_curves(count: int, seed: int, normalized: bool = False) -> Curves:
    """Random curves of the four-parameter model, or of the surrogate."""
    rng = np.random.default_rng(seed)
    ys, xs, etas = [], [], []
    for _ in range(count):
        n = int(np.exp(rng.uniform(np.log(500), np.log(5000))))
        t = np.arange(1, n + 1) / n
        eta = schedule(t, int(rng.integers(3)), rng.uniform(0.01, 0.1))
        b, q = rng.uniform(0.05, 0.5), np.exp(rng.uniform(np.log(0.2), np.log(3.0)))
        if normalized:
            model = (1.001 / (t + 0.001)) ** 0.05 + b * (eta + 0.1) ** q
            y = model / (1.0 + b * (eta[-1] + 0.1) ** q)
        else:
            eps, m = np.exp(rng.uniform(np.log(0.001), np.log(0.1))), rng.uniform(0.03, 0.3)
            y = ((1 + eps) / (t + eps)) ** m + b * np.maximum(eta, ETA_FLOOR) ** q
        y = y + rng.normal(size=n) * rng.uniform(0.005, 0.01)
        for _ in range(rng.integers(6)):
            at = int(rng.integers(n))
            y[at : at + int(rng.integers(1, 10))] += rng.uniform(0.1, 2.0)
        for _ in range(rng.integers(4)):
            at = int(rng.integers(n))
            y[at : at + int(rng.integers(1, max(2, n // 20)))] = np.nan
        ys.append(y)
        xs.append(t)
        etas.append(eta)
    return Curves(Ragged.from_list(ys), np.concatenate(xs), np.concatenate(etas))
