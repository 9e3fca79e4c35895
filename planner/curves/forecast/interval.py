"""Intervals of forecasts."""

from __future__ import annotations

import math
from statistics import NormalDist

from planner.curves.forecast.choose import BackTest
from planner.curves.forecast.method import Estimate

LARGEST_LOG = 700.0
"""A loss whose logarithm is beyond this is none."""

_HALVINGS = 60


def interval(
    estimate: Estimate, test: BackTest | None, level: float
) -> tuple[float | None, float | None]:
    """Return the ends of a forecast's interval.

    The method's own error counts as normal; that of back-tests, whose errors have the mean 0 by
    assumption, has a degree of freedom for each test.

    Args:
        estimate: The forecast.
        test: Its back-tests, for a method that does not tell its error.
        level: Probability.

    Returns:
        Both ends in units of the loss; None where nothing tells the error.
    """
    if estimate.error is not None:
        half = NormalDist().inv_cdf(0.5 + level / 2.0) * estimate.error
    elif test is not None and test.rms is not None:
        half = student_quantile(level, len(test.errors)) * test.rms
    else:
        return None, None
    if not abs(estimate.log_final) + half < LARGEST_LOG:
        return None, None
    return math.exp(estimate.log_final - half), math.exp(estimate.log_final + half)


def student_quantile(level: float, freedom: int) -> float:
    """Return how far Student's t strays from 0 with a probability, either way.

    Args:
        level: Probability of staying within, between 0 and 1.
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return 0.5 * (low + high)


def _within(t: float, freedom: int) -> float:
    """Probability of |T| < t: finite sums (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(1, (freedom - 1) // 2 + 1):
            total += term
            term *= cosine**2 * (2 * k) / (2 * k + 1)
        return 2.0 / math.pi * (angle + sine * total)
    term, total = 1.0, 0.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * k - 1) / (2 * k)
    return sine * total
