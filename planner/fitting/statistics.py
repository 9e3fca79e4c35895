"""Quantiles, and straight lines through points with errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
_Solve = Callable[[float], tuple[Float64, Float64, float]]


def t_quantile(level: float, freedom: int) -> float:
    """Return the half-width of a central interval of Student's t, in standard errors.

    Exact for one and two degrees of freedom, else the Cornish-Fisher expansion about the normal
    quantile to third order (within 0.4 % at three degrees of freedom and a level of 0.9).

    Raises:
        ValueError: If the level is not between 0 and 1, or ``freedom`` is below 1.
    """
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"wanted a level between 0 and 1 and freedom, got {level}, {freedom}.")
    p = (1 + level) / 2
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = NormalDist().inv_cdf(p)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


@dataclass(frozen=True, slots=True)
class Line:
    """``y = intercept + slope x`` through points with errors.

    Attributes:
        intercept: At x = 0.
        slope: Of the line.
        covariance: Of both, shape (2, 2); NaN where nothing tells how far the points scatter.
        scatter: Standard deviation of the points about the line beyond their own errors.
        half_width: Standard errors to the end of an interval of level ``level``.
        level: Probability that an interval states.
    """

    intercept: float
    slope: float
    covariance: Float64
    scatter: float
    half_width: float
    level: float

    def interval(self, which: int) -> tuple[float, float]:
        """Return the interval of the intercept (0) or the slope (1)."""
        value = (self.intercept, self.slope)[which]
        reach = self.half_width * math.sqrt(float(self.covariance[which, which]))
        return value - reach, value + reach


def fit_line(
    x: ArrayLike, y: ArrayLike, errors: ArrayLike | None = None, *, level: float = 0.9
) -> Line:
    """Fit a line by least squares, weighted by the points' own errors and a common scatter.

    The scatter is the one at which the weighted squares sum to the degrees of freedom (Mandel and
    Paule, 1970); 0 if the points' errors explain all of it. Without errors this is ordinary least
    squares with Student's intervals.

    Args:
        x: Shape ``(points,)``, at least two different.
        y: Shape ``(points,)``.
        errors: Standard errors of y; NaN or None where unknown.
        level: Probability that an interval states.

    Raises:
        ValueError: If x has fewer than two different values.
    """
    at, value = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if np.unique(at).size < 2:
        raise ValueError("a line needs two different x.")
    own = np.zeros(at.size) if errors is None else np.asarray(errors, np.float64) ** 2
    if not np.isfinite(own).all():
        own = np.zeros(at.size)
    freedom = at.size - 2
    centre = float(at.mean())
    design = np.stack([np.ones(at.size), at - centre], axis=1)

    def solve(extra: float) -> tuple[Float64, Float64, float]:
        weight = 1.0 / np.maximum(own + extra, 1e-300)
        inverse = np.linalg.inv(design.T @ (design * weight[:, None]))
        found = inverse @ (design.T @ (weight * value))
        rest = value - design @ found
        return found, np.asarray(inverse, np.float64), float(rest @ (weight * rest))

    known = bool((own > 0).all())
    extra = 0.0
    if freedom > 0:
        found, _, _ = solve(1.0)
        # the scatter of ordinary least squares: all there is where the errors are unknown
        extra = float(np.sum((value - design @ found) ** 2)) / freedom
        if known:
            extra = _mandel_paule(solve, extra, freedom)
    if not known and extra == 0.0:
        found, _, _ = solve(1.0)
        covariance = np.zeros((2, 2)) if freedom > 0 else np.full((2, 2), np.nan)
    else:
        found, covariance, _ = solve(extra)
    shift = np.array([[1.0, -centre], [0.0, 1.0]])
    half = t_quantile(level, freedom) if freedom > 0 else NormalDist().inv_cdf((1 + level) / 2)
    return Line(
        intercept=float(found[0] - found[1] * centre),
        slope=float(found[1]),
        covariance=shift @ covariance @ shift.T,
        scatter=math.sqrt(extra),
        half_width=half,
        level=level,
    )


def _mandel_paule(solve: _Solve, start: float, freedom: int) -> float:
    """Return the common variance at which the weighted squares sum to the degrees of freedom."""
    if solve(0.0)[2] <= freedom:
        return 0.0
    low, high = 0.0, max(start, 1e-300)
    while solve(high)[2] > freedom:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if solve(middle)[2] > freedom:
            low = middle
        else:
            high = middle
    return (low + high) / 2
