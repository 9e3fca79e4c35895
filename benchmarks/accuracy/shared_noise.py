"""How soon a drift is seen against a reference that saw the same batches, and how often wrongly."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from planner.curves import Curve, Reference
from planner.curves.alarm import find_drift


def simulate(
    curve: Curve,
    noises: tuple[Any, Any],
    steps: Any,
    drift: Any,
    block: int,
    runs: tuple[int, int],
    seed: int,
    *,
    same: bool,
) -> tuple[Any, Any, Any, float, float]:
    """Watch simulated runs with the product's own detector, each against a reference of its own.

    Both follow the run's spline; the noise of run and reference comes from two real runs on one
    data order, resampled in the same blocks, or each in its own.

    Args:
        curve: The run.
        noises: Residuals of the run and of the other from their splines, at ``steps``.
        steps: Shape ``(points,)``.
        drift: Added to the drifting runs' log loss, shape ``(points,)``.
        block: Mean length of the blocks, points.
        runs: Healthy and drifting runs.
        seed: Of the resampling.
        same: In the same blocks.

    Returns:
        Highest score of each healthy run, scores of each drifting one (minus infinity before the
        watched points), their fractions of training, the mean share of the reference's noise that
        was subtracted, and the noise that is left.
    """
    rng = np.random.default_rng(seed)
    horizon = int(curve.horizon or steps[-1])
    place = np.isin(curve.steps, steps)
    smooth = np.log(curve.values[place]) - noises[0]

    def made(name: str, logs: Any) -> Curve:
        facts = replace(curve.facts, run=name, name=name)
        return replace(curve, facts=facts, steps=steps, values=np.exp(logs), horizon=horizon)

    highest, paths, shares, left = [], [], [], []
    for i in range(sum(runs)):
        own = _places(steps.size, block, rng)
        theirs = own if same else _places(steps.size, block, rng)
        reference = Reference.build([made("reference", smooth + noises[1][theirs])])
        extra = drift if i >= runs[0] else 0.0
        report = find_drift(made("run", smooth + noises[0][own] + extra), reference)
        if i < runs[0]:
            highest.append(report.score.max())
            shares.append(report.shared)
            left.append(report.residual.std())
        else:
            path = np.full(steps.size, -math.inf)
            path[np.isin(steps, report.steps)] = report.score
            paths.append(path)
    shared, rest = float(np.mean(shares)), float(np.mean(left))
    return np.array(highest), np.array(paths), steps / horizon, shared, rest


def _places(n: int, block: int, rng: np.random.Generator) -> Any:
    fresh = rng.random(n) < 1.0 / block
    fresh[0] = True
    begin = np.maximum.accumulate(np.where(fresh, np.arange(n), 0))
    return (rng.integers(0, n, n)[begin] + np.arange(n) - begin) % n
