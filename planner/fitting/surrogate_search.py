"""The joint fit of the surrogate's two laws by least absolute error.

The unknowns are (log b at the mean log tau, b's exponent, log q at the mean log TPP, q's exponent).
All four move together: Gauss-Newton steps on reweighted squares (weights 1/|r|, with a floor that
shrinks) from a grid of starts, then a pattern search on the sum of absolute errors itself, which no
step of any of the four directions lowers at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from planner.laws.surrogate import EPS1, EPS2, M

Float64 = NDArray[np.float64]

# b and q of single curves lie between about 0.1 and 1 (arXiv 2509.25087, Fig. 22)
_STARTS = tuple(product((0.05, 0.2, 0.7), (-0.6, 0.0), (0.1, 0.4, 1.5), (-0.6, 0.0)))
_FLOORS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
_KEPT = 4
_THIN = 4
_STEPS = 12
_REACH = 12.0  # of log b and log q; further out the term is nil or a constant
_EXPONENT_REACH = 6.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Normalized curves on a common grid.

    Attributes:
        fraction: Fractions of training, shape ``(grid,)``.
        loss: Normalized losses, not-a-number where missing, shape ``(curves, grid)``.
        lr: Learning rate in units of its peak, shape ``(curves, grid)``.
        end: Fraction of training at which a curve is 1, shape ``(curves,)``.
        end_lr: Learning rate there, in units of its peak, shape ``(curves,)``.
        log_tau: Centred, shape ``(curves,)``.
        log_tpp: Centred, shape ``(curves,)``.
        weight: How much each curve counts, shape ``(curves,)``.
        free: Which of the four unknowns are fitted; the others stay 0.
    """

    fraction: Float64
    loss: Float64
    lr: Float64
    end: Float64
    end_lr: Float64
    log_tau: Float64
    log_tpp: Float64
    weight: Float64
    free: NDArray[np.bool_]

    def weighted(self, weight: Float64) -> Problem:
        """Return the problem with other weights; curves of weight 0 are dropped."""
        kept = weight > 0
        return Problem(
            self.fraction,
            self.loss[kept],
            self.lr[kept],
            self.end[kept],
            self.end_lr[kept],
            self.log_tau[kept],
            self.log_tpp[kept],
            weight[kept],
            self.free,
        )

    def thinned(self, every: int) -> Problem:
        """Return the problem with fewer points a curve."""
        return Problem(
            self.fraction[::every],
            self.loss[:, ::every],
            self.lr[:, ::every],
            self.end,
            self.end_lr,
            self.log_tau,
            self.log_tpp,
            self.weight,
            self.free,
        )


class Evaluator:
    """Residuals and derivatives of a problem; holds what does not change."""

    def __init__(self, problem: Problem) -> None:
        self.p = problem
        self.used = np.isfinite(problem.loss)
        self.observed = np.where(self.used, problem.loss, 0.0)
        counts = np.maximum(self.used.sum(axis=1), 1)
        # the mean over a curve's points, then over curves
        share = problem.weight / problem.weight.sum() / counts
        self.share = self.used * share[:, None]
        self.power = ((1.0 + EPS1) / (problem.fraction + EPS1)) ** M
        self.log_rate = np.log(problem.lr + EPS2)
        self.end_power = ((1.0 + EPS1) / (problem.end + EPS1)) ** M
        self.log_end = np.log(problem.end_lr + EPS2)

    def terms(self, theta: Float64) -> tuple[Float64, Float64, Float64, Float64, Float64]:
        """Return prediction, b lr^q, the same at the end, the value at the end, and q."""
        log_b = theta[0] + theta[1] * self.p.log_tau
        q = np.exp(theta[2] + theta[3] * self.p.log_tpp)
        rate = np.exp(log_b[:, None] + q[:, None] * self.log_rate)
        end = np.exp(log_b + q * self.log_end)
        whole = self.end_power + end
        return (self.power + rate) / whole[:, None], rate, end, whole, q

    def error(self, theta: Float64) -> float:
        """Return the mean over curves of their mean absolute errors; infinity out of reach."""
        if not self.inside(theta):
            return np.inf
        predicted = self.terms(theta)[0]
        return float(np.sum(self.share * np.abs(predicted - self.observed)))

    def inside(self, theta: Float64) -> bool:
        """Return whether the unknowns are within reach."""
        reach = np.array([_REACH, _EXPONENT_REACH, _REACH, _EXPONENT_REACH])
        if not bool((np.abs(theta) <= reach).all()):
            return False
        q = theta[2] + theta[3] * self.p.log_tpp
        return bool(q.max() <= 4.0)

    def step(self, theta: Float64, floor: float) -> tuple[Float64, Float64, float]:
        """Return gradient and curvature of the reweighted squares, and their smooth objective."""
        predicted, rate, end, whole, q = self.terms(theta)
        residual = predicted - self.observed
        by_b = (rate - predicted * end[:, None]) / whole[:, None]
        by_q = (
            rate * (q[:, None] * self.log_rate) - predicted * (end * q * self.log_end)[:, None]
        ) / whole[:, None]
        columns = (
            by_b,
            by_b * self.p.log_tau[:, None],
            by_q,
            by_q * self.p.log_tpp[:, None],
        )
        size = np.abs(residual)
        weight = self.share / np.maximum(size, floor)
        gradient = np.array([np.sum(weight * residual * column) for column in columns])
        curvature = np.array([[np.sum(weight * a * b) for a in columns] for b in columns])
        smooth = np.where(size > floor, size - floor / 2, size * size / (2 * floor))
        return gradient, curvature, float(np.sum(self.share * smooth))


def search(problem: Problem, starts: Float64 | None = None) -> tuple[Float64, float]:
    """Return the best unknowns, shape ``(4,)``, and the error there.

    Args:
        problem: The curves.
        starts: Shape ``(starts, 4)``; a grid by default.
    """
    full = Evaluator(problem)
    if starts is None:
        grid = np.array([[np.log(b), be, np.log(q), qe] for b, be, q, qe in _STARTS])
        grid[:, ~problem.free] = 0.0
        grid = np.unique(grid, axis=0)
        thin = Evaluator(problem.thinned(_THIN))
        ends = [_descend(thin, start, _FLOORS[:3]) for start in grid]
        errors = np.array([thin.error(end) for end in ends])
        order = np.argsort(errors, kind="stable")
        chosen = _distinct([ends[i] for i in order], _KEPT)
    else:
        chosen = list(np.atleast_2d(starts))
    polished = [_pattern(full, _descend(full, start, _FLOORS)) for start in chosen]
    best = min(polished, key=full.error)
    return best, full.error(best)


def _distinct(points: list[Float64], count: int) -> list[Float64]:
    kept: list[Float64] = []
    for point in points:
        if all(np.max(np.abs(point - other)) > 1e-2 for other in kept):
            kept.append(point)
        if len(kept) == count:
            break
    return kept


def _descend(of: Evaluator, start: Float64, floors: tuple[float, ...]) -> Float64:
    """Return where damped Gauss-Newton steps lead, with ever sharper weights."""
    theta = start.copy()
    free = of.p.free
    for floor in floors:
        damping = 1e-3
        gradient, curvature, value = of.step(theta, floor)
        for _ in range(_STEPS):
            part = curvature[np.ix_(free, free)]
            diagonal = np.diag(np.maximum(np.diag(part), 1e-12))
            move = np.zeros(4)
            move[free] = -np.linalg.solve(part + damping * diagonal, gradient[free])
            move *= min(1.0, 2.0 / max(float(np.abs(move).max()), 1e-300))
            ahead = theta + move
            if not of.inside(ahead):
                damping *= 10
                if damping > 1e6:
                    break
                continue
            gradient_, curvature_, value_ = of.step(ahead, floor)
            if value_ < value:
                drop = value - value_
                theta, gradient, curvature, value = ahead, gradient_, curvature_, value_
                damping = max(damping / 5, 1e-9)
                if drop < 1e-9 * value:
                    break
            else:
                damping *= 10
                if damping > 1e6:
                    break
    return theta


def _pattern(of: Evaluator, start: Float64) -> Float64:
    """Return where no step along the principal directions lowers the error any more."""
    free = of.p.free
    _, curvature, _ = of.step(start, 1e-3)
    scale, turn = np.linalg.eigh(curvature[np.ix_(free, free)])
    scale = np.maximum(scale, 1e-12 * max(float(scale.max()), 1e-300))
    directions = np.zeros((scale.size, 4))
    directions[:, free] = (turn / np.sqrt(scale)).T
    theta, error = start, of.error(start)
    length = 0.03 * np.sqrt(max(error, 1e-12))
    least = 1e-6 * length
    for _ in range(400):
        moved = False
        for direction in directions:
            for sign in (1.0, -1.0):
                ahead = theta + sign * length * direction
                there = of.error(ahead)
                if there < error:
                    theta, error, moved = ahead, there, True
                    break
        if moved:
            length *= 1.5
        else:
            length /= 3.0
            if length < least:
                break
    return theta
