"""The surrogate's published way of fitting: alternating grid searches (arXiv 2509.25087, D.1).

With q's law held, every pair of a grid over b's coefficient and exponent is tried; then with b's
law held, every pair over q's; and again until neither changes. The paper leaves the grids open:
here they are wide, and after convergence they close in around the best pair and the search goes on,
so that resolution is not what it loses by. The objective is the one of `planner.fitting.surrogate`.
"""

from __future__ import annotations

import numpy as np

from planner.fitting.surrogate import Sample, _constants, _problem
from planner.fitting.surrogate_search import Evaluator

LEVELS = np.linspace(np.log(0.01), np.log(3.0), 31)  # of b, or q, at the mean tau, or TPP
EXPONENTS = np.linspace(-4.0, 2.0, 31)
REFINEMENTS = 4
SHRINK = 0.2
_MOST_ROUNDS = 60


def alternating_fit(samples: list[Sample], *, thin: int = 4) -> tuple[dict[str, float], float]:
    """Return the constants, and the error at them on the full grid of fractions."""
    problem, centre, _ = _problem(samples)
    coarse, full = Evaluator(problem.thinned(thin)), Evaluator(problem)
    theta = np.array([np.log(0.2), 0.0, np.log(0.4), 0.0])
    levels = [LEVELS, LEVELS]
    exponents = [EXPONENTS, EXPONENTS]
    width = 1.0
    for _ in range(REFINEMENTS + 1):
        error = coarse.error(theta)
        for _ in range(_MOST_ROUNDS):
            for pair in (0, 1):
                theta = _scan(coarse, theta, pair, levels[pair], exponents[pair])
            reached = coarse.error(theta)
            if reached >= error - 1e-12:
                break
            error = reached
        width *= SHRINK
        levels = [theta[2 * i] + width * (LEVELS - LEVELS.mean()) for i in (0, 1)]
        exponents = [theta[2 * i + 1] + width * (EXPONENTS - EXPONENTS.mean()) for i in (0, 1)]
    return _constants(theta, centre), full.error(theta)


def _scan(
    of: Evaluator, theta: np.ndarray, pair: int, levels: np.ndarray, exponents: np.ndarray
) -> np.ndarray:
    best, error = theta, of.error(theta)
    for level in levels:
        for exponent in exponents:
            tried = theta.copy()
            tried[2 * pair], tried[2 * pair + 1] = level, exponent
            if not of.p.free[2 * pair + 1]:
                tried[2 * pair + 1] = 0.0
            there = of.error(tried)
            if there < error:
                best, error = tried, there
            if not of.p.free[2 * pair + 1]:
                break
    return best
