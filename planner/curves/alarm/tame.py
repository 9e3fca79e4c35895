"""Residuals made fit for sums: outliers bounded, the noise followed as it changes.

All of it is causal: what is said of a point uses that point and the ones before it, but for the
points of the calibration, in which no alarm is raised.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

CLIP = 3.0  # standard deviations that a point may stand off the points before it
_MEMORY = 1000  # points over which the noise is followed
_CENTRE = 200  # points whose mean an outlier is measured from
_FAR = 50.0
# mean absolute difference of two normal variables, in their standard deviations
_GINI = 2.0 / math.sqrt(math.pi)


def tame(residual: Float64, calibration: int) -> tuple[Float64, Float64]:
    """Return residuals with outliers bounded, and the standard deviation of one point.

    The deviation is taken from differences of neighbours, which a drift hardly touches; it is that
    of white noise, and what correlation adds is found by `planner.curves.alarm.ramps`.

    Args:
        residual: Shape ``(..., points)``, finite, in order of time.
        calibration: Points at the start that stand for themselves; 3 at least.

    Returns:
        Values and deviations, both of the shape of ``residual``.
    """
    n = residual.shape[-1]
    count = min(calibration, n)
    first = residual[..., :count]
    rough = np.abs(np.diff(residual, axis=-1))
    usual = np.median(rough[..., : count - 1], axis=-1, keepdims=True)
    sigma = _before(np.minimum(rough, 5.0 * usual), count, _MEMORY) / _GINI
    sigma = np.maximum(sigma, 1e-12)
    middle = np.median(first, axis=-1, keepdims=True)
    near = np.clip(residual, middle - _FAR * sigma, middle + _FAR * sigma)
    centre = _before(near[..., 1:], count, _CENTRE)
    values = np.clip(residual, centre - CLIP * sigma, centre + CLIP * sigma)
    squares = np.diff(values, axis=-1) ** 2 / 2.0
    return values, np.sqrt(np.maximum(_before(squares, count, _MEMORY), 1e-24))


def _before(between: Float64, count: int, memory: int) -> Float64:
    """Return, for each point, the mean over the points before it of what lies between points.

    Args:
        between: Shape ``(..., points - 1)``; entry i belongs to point i + 1.
        count: Points of the calibration, which all get its mean.
        memory: How many points back it goes at most.
    """
    n = between.shape[-1] + 1
    sums = np.zeros((*between.shape[:-1], n))
    np.cumsum(between, axis=-1, out=sums[..., 1:])
    # point i looks at entries low .. high - 1, that is at points up to i - 1
    high = np.maximum(np.arange(n) - 1, count - 1)
    low = np.maximum(high - memory, 0)
    return np.asarray((sums[..., high] - sums[..., low]) / (high - low))
