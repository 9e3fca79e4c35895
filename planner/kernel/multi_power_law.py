"""The Multi-Power Law: the loss of a run at any step, under any learning-rate schedule.

Luo et al. (arXiv 2503.12811, 2025)::

    L(t) = L0 + A (S1(t) + S_W)^-alpha - B sum_{k=1}^t (lr_{k-1} - lr_k) G(lr_k^-gamma S_k(t))
    G(x) = 1 - (C x + 1)^-beta

S1(t) + S_W is the sum of all learning rates up to t, warm-up included, and S_k(t) that from step k
to t. The sum runs from step 1: the rise of the warm-up counts too, with a negative drop.

- :class:`MultiPowerLaw`: seven constants, and the loss they predict.
- :func:`fit_multi_power_law`: the constants of several curves together.

The sum over steps is done in blocks, as large as their distance from t and the roughness of the
schedule allow, within 1e-6 of the sum step by step (``blocked=False``) for constants like those
published.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner import _core
from planner.kernel.ragged import Ragged
from planner.kernel.status import Status

Float64 = NDArray[np.float64]

PARAMETERS = ("l0", "a", "alpha", "b", "c", "beta", "gamma")
DELTA = 1e-3
"""Huber width in log loss (Luo et al.)."""

_LOGGED = np.array([False, True, False, True, True, True, False])
_LOWER = np.array([0.0, -40.0, 0.0, -60.0, -30.0, -6.0, -1.0])
_UPPER = np.array([1e5, 60.0, 2.0, 60.0, 30.0, 2.0, 2.0])
_MAX_EVALUATIONS = 300
_RUN_STARTS = 1


@dataclass(frozen=True, slots=True)
class MultiPowerLaw:
    """The seven constants; losses in nats per token, learning rates as they are."""

    l0: float
    a: float
    alpha: float
    b: float
    c: float
    beta: float
    gamma: float

    def predict(
        self,
        lr: Ragged,
        steps: Ragged | None = None,
        *,
        blocked: bool = True,
        threads: int | None = None,
    ) -> Ragged:
        """Loss at the steps asked for.

        Args:
            lr: The learning rate of every step of each curve, step 0 first, warm-up included.
            steps: Whole numbers, for each curve; every step by default.
            blocked: False sums over steps one by one.
            threads: At least 1; None: all CPUs.

        Raises:
            ValueError: a step lies outside its curve, a learning rate is negative or not finite,
                or the constants are out of range (A, B, C, beta positive).
        """
        wanted = _steps(lr, steps)
        peak = _peak(lr.values)
        loss, _ = _core.schedule_predict(
            lr.values / peak,
            lr.offsets,
            wanted.values.astype(np.int64),
            wanted.offsets,
            _scaled(np.array(astuple(self)), peak),
            blocked=blocked,
            threads=threads,
        )
        return wanted.with_values(loss[0])


@dataclass(frozen=True, slots=True)
class MultiPowerLawFit:
    """A fitted Multi-Power Law."""

    law: MultiPowerLaw
    """NaN constants where there is no fit."""
    objective: float
    """Summed Huber loss of the log residuals."""
    status: Status
    evaluations: int
    """Passes over the points, of all starts; the first over every few points only."""
    used: NDArray[np.bool_]
    """Points that are finite and positive, shape ``(points,)``."""
    covariance: Float64
    """Sandwich covariance of ``(L0, log A, alpha, log B, log C, log beta, gamma)``, shape (7, 7),
    with the correlation of neighbouring points (Newey and West); 0 in what is at a bound, NaN where
    the curves do not determine it."""


def fit_multi_power_law(
    lr: Ragged,
    steps: Ragged,
    loss: Ragged,
    *,
    starts: ArrayLike | None = None,
    delta: float = DELTA,
    blocked: bool = True,
    threads: int | None = None,
) -> MultiPowerLawFit:
    """Fit the seven constants to several curves together, by Huber on log residuals.

    Without ``starts``, L0, A and B are solved for on a grid of the four others, and the best of
    the grid is run to the end. L0, A and B are solved for at every step of the search, too.

    Args:
        lr: The learning rate of every step of each curve, step 0 first, warm-up included.
        steps: Steps with a loss, whole numbers, for each curve.
        loss: Nats per token at those steps; what is NaN, infinite or not positive is left out.
        starts: Shape ``(starts, 7)`` in the order of PARAMETERS, or one such row.
        delta: Huber width in log loss.
        blocked: False sums over steps one by one.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: shapes differ, a step lies outside its curve, a learning rate is negative or
            not finite, or a start is out of range.
    """
    if not (np.array_equal(steps.offsets, loss.offsets) and len(steps) == len(lr)):
        raise ValueError("lr, steps and loss must hold the same curves, steps and loss alike.")
    if not 0.0 < delta < np.inf:
        raise ValueError(f"delta must be positive, got {delta}.")
    wanted = _steps(lr, steps)
    with np.errstate(invalid="ignore"):
        used = (loss.values > 1e-300) & (loss.values < 1e300)
    in_curves = np.zeros(loss.values.size, dtype=np.bool_)
    in_curves[loss.offsets[0] : loss.offsets[-1]] = True
    used &= in_curves
    if used.sum() < len(PARAMETERS):
        status = (
            Status.EMPTY
            if not in_curves.any()
            else Status.TOO_FEW_POINTS
            if used.any()
            else Status.NON_FINITE
        )
        nothing = MultiPowerLaw(*[np.nan] * 7)
        return MultiPowerLawFit(nothing, np.nan, status, 0, used, np.full((7, 7), np.nan))

    peak = _peak(lr.values)
    counts = np.add.reduceat(np.append(used, False).astype(np.int64), wanted.offsets[:-1])
    counts[wanted.lengths == 0] = 0
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    curves = (lr.values / peak, lr.offsets, wanted.values[used].astype(np.int64), offsets)
    log_loss = np.log(loss.values[used])
    weights = np.ones(log_loss.size)
    if starts is None:
        begin = _grid()
    else:
        rows = np.atleast_2d(np.asarray(starts, dtype=np.float64))
        if rows.shape[1:] != (7,):
            raise ValueError(f"starts must have the shape (starts, 7), got {rows.shape}.")
        begin = np.array([_scaled(row, peak) for row in rows])
    theta, objective, evaluations, statuses, ended, gradient = _core.schedule_fit(
        *curves,
        log_loss,
        weights,
        begin.reshape(-1),
        _LOWER,
        _UPPER,
        delta=float(delta),
        max_evaluations=_MAX_EVALUATIONS,
        solve=_RUN_STARTS if starts is None else 0,
        blocked=blocked,
        threads=threads,
    )
    best = int(np.argmin(np.where(np.isfinite(objective), objective, np.inf)))
    status = Status(int(statuses[best]))
    covariance = np.full((7, 7), np.nan)
    if np.isfinite(objective[best]):
        covariance = _sandwich(offsets, log_loss, theta[best], ended, gradient, delta, peak)
        if status is Status.OK and not np.isfinite(covariance).all():
            status = Status.SINGULAR_COVARIANCE
    return MultiPowerLawFit(
        law=MultiPowerLaw(*_natural(theta[best], peak).tolist()),
        objective=float(objective[best]),
        status=status,
        evaluations=int(evaluations.sum()),
        used=used,
        covariance=covariance,
    )


_Curves = tuple[Float64, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _steps(lr: Ragged, steps: Ragged | None) -> Ragged:
    """Check the steps; all of them by default."""
    if steps is None:
        lengths = lr.lengths
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        every = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(every.astype(np.float64), offsets)
    if len(steps) != len(lr):
        raise ValueError(f"there are {len(lr)} schedules, but steps of {len(steps)} curves.")
    if steps.offsets[0] != 0 or steps.offsets[-1] != steps.values.size:
        raise ValueError("the steps must lie one curve after the other, without gaps.")
    if not np.array_equal(steps.values, np.rint(steps.values)) or np.any(
        np.abs(steps.values) > 2**52
    ):
        raise ValueError("steps must be whole numbers.")
    return steps


def _peak(lr: Float64) -> float:
    """Unit of the learning rate inside: with it, S counts steps and C and gamma are separate."""
    peak = float(np.max(lr, initial=0.0))
    return peak if 0.0 < peak < np.inf else 1.0


def _scaled(constants: Float64, peak: float) -> Float64:
    """Constants as users give them to the kernel's parameters, for lr in units of the peak."""
    l0, a, alpha, b, c, beta, gamma = constants.tolist()
    if not min(a, b, c, beta) > 0.0:
        raise ValueError(f"A, B, C and beta must be positive, got {a}, {b}, {c} and {beta}.")
    unit = np.log(peak)
    return np.array(
        [
            l0,
            np.log(a) - alpha * unit,
            alpha,
            np.log(b) + unit,
            np.log(c) + (1.0 - gamma) * unit,
            np.log(beta),
            gamma,
        ]
    )


def _natural(theta: Float64, peak: float) -> Float64:
    """The reverse of _scaled."""
    out = _unscale(peak, theta) @ theta + _shift(peak)
    out[_LOGGED] = np.exp(out[_LOGGED])
    return np.asarray(out, dtype=np.float64)


def _unscale(peak: float, theta: Float64) -> Float64:
    """Turn the kernel's parameters to those of lr as it is, but for a shift."""
    turn = np.eye(theta.size)
    turn[1, 2] = turn[4, 6] = np.log(peak)
    return turn


def _shift(peak: float) -> Float64:
    return np.array([0.0, 0.0, 0.0, -np.log(peak), -np.log(peak), 0.0, 0.0])


def _grid() -> Float64:
    """Starts whose L0, A and B are to be solved for, shape (8, 7)."""
    grid = np.zeros((8, 7))
    grid[:, [2, 4, 5, 6]] = list(product((0.5,), (-3.5, -2.0), (-1.8, -0.7), (0.6, 1.0)))
    return grid


def _sandwich(
    offsets: NDArray[np.int64],
    log_loss: Float64,
    theta: Float64,
    loss: Float64,
    jacobian: Float64,
    delta: float,
    peak: float,
) -> Float64:
    """Covariance of MultiPowerLawFit, as in planner.kernel.loss_law.

    The scores of neighbouring points of a curve count as correlated (Bartlett weights).
    """
    residual = log_loss - np.log(loss)
    free = (theta > _LOWER) & (theta < _UPPER)
    columns = jacobian[:, free] / loss[:, None]
    spread = 1.4826 * float(np.median(np.abs(residual)))
    window = max(delta, 1.84 * spread * residual.size**-0.2)
    near = (np.abs(residual) <= window) * (delta / window)
    scores = columns * np.clip(residual, -delta, delta)[:, None]
    bread = columns.T @ (columns * near[:, None])
    meat = scores.T @ scores
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        part = scores[begin:end]
        lags = min(int(np.ceil(4.0 * (max(len(part), 1) / 100.0) ** (2.0 / 9.0))), len(part) - 1)
        for lag in range(1, lags + 1):
            cross = part[lag:].T @ part[:-lag]
            meat += (1.0 - lag / (lags + 1.0)) * (cross + cross.T)
    out = np.full((7, 7), np.nan)
    scale = np.sqrt(np.diag(bread))
    if not (free.any() and np.all(scale > 0.0)):
        return out
    scaled = bread / np.outer(scale, scale)
    if np.linalg.cond(scaled) > 1e13:
        return out
    inverse = np.linalg.inv(scaled) / np.outer(scale, scale)
    out[:] = 0.0
    out[np.ix_(free, free)] = inverse @ meat @ inverse
    turn = _unscale(peak, theta)
    return np.asarray(turn @ out @ turn.T, dtype=np.float64)
