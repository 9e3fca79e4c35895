"""The Multi-Power Law: the loss of a run at any step, under any learning-rate schedule.

Luo et al. (arXiv 2503.12811, 2025)::

    L(t) = L0 + A (S1(t) + S_W)^-alpha - B sum_{k=1}^t (lr_{k-1} - lr_k) G(lr_k^-gamma S_k(t))
    G(x) = 1 - (C x + 1)^-beta

S1(t) + S_W is the sum of all learning rates up to t, warm-up included, and S_k(t) that from step k
to t. The sum runs from step 1: the rise of the warm-up counts too, with a negative drop.

- :class:`MultiPowerLaw`: seven constants, and the loss they predict.
- :func:`fit_multi_power_law`: the constants of several curves together.
- :func:`bootstrap_multi_power_law`: refits of resampled stretches of the curves.

The sum over steps is done in blocks, as large as their distance from t and the roughness of the
schedule allow, within 1e-6 of the sum step by step (``blocked=False``) for constants like those
published.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    the curves do not determine it. Too small for B, C, beta and gamma, which lie in a curved valley
    of nearly equal fits: take the percentiles of :func:`bootstrap_multi_power_law` there."""


@dataclass(frozen=True, slots=True)
class MultiPowerLawBootstrap:
    """Refits of resampled points."""

    constants: Float64
    """Shape (replicates, 7), in the order of PARAMETERS."""
    objective: Float64
    """Shape (replicates,); NaN where there is no fit."""
    status: NDArray[np.int32]
    """Shape (replicates,): :class:`planner.kernel.Status`."""

    @property
    def covariance(self) -> Float64:
        """Sample covariance over all fits, in the coordinates of MultiPowerLawFit.covariance.

        Shape (7, 7); NaN below two fits.
        """
        found = self.constants[np.isfinite(self.objective)].copy()
        if len(found) < 2:
            return np.full((7, 7), np.nan)
        found[:, _LOGGED] = np.log(found[:, _LOGGED])
        return np.asarray(np.cov(found, rowvar=False), dtype=np.float64)

    def percentiles(self, q: Sequence[float] = (5.0, 50.0, 95.0)) -> Float64:
        """Percentiles of each constant over all fits, shape (len(q), 7)."""
        found = self.constants[np.isfinite(self.objective)]
        if len(found) == 0:
            return np.full((len(q), 7), np.nan)
        return np.asarray(np.percentile(found, list(q), axis=0), dtype=np.float64)


def fit_multi_power_law(
    lr: Ragged,
    steps: Ragged,
    loss: Ragged,
    *,
    starts: ArrayLike | None = None,
    delta: float = DELTA,
    gamma: float | None = None,
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
        gamma: Hold gamma at this; None fits it. Few schedules hardly determine it, and a fit that
            uses it all the same predicts other schedules worse.
        blocked: False sums over steps one by one.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: shapes differ, a step lies outside its curve, a learning rate is negative or
            not finite, or a start or gamma is out of range.
    """
    if not 0.0 < delta < np.inf:
        raise ValueError(f"delta must be positive, got {delta}.")
    lower, upper = _bounds(gamma)
    points = _Points(lr, steps, loss)
    used, peak = points.used, points.peak
    if used.sum() < len(PARAMETERS):
        status = (
            Status.EMPTY
            if not points.in_curves.any()
            else Status.TOO_FEW_POINTS
            if used.any()
            else Status.NON_FINITE
        )
        nothing = MultiPowerLaw(*[np.nan] * 7)
        return MultiPowerLawFit(nothing, np.nan, status, 0, used, np.full((7, 7), np.nan))

    if starts is None:
        begin = _grid()
    else:
        rows = np.atleast_2d(np.asarray(starts, dtype=np.float64))
        if rows.shape[1:] != (7,):
            raise ValueError(f"starts must have the shape (starts, 7), got {rows.shape}.")
        begin = np.array([_scaled(row, peak) for row in rows])
    theta, objective, evaluations, statuses, ended, gradient = _core.schedule_fit(
        *points.curves,
        points.log_loss,
        np.ones(points.log_loss.size),
        np.clip(begin, lower, upper).reshape(-1),
        lower,
        upper,
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
        covariance = _sandwich(
            points.curves[3],
            points.log_loss,
            theta[best],
            ended,
            gradient,
            delta,
            peak,
            lower,
            upper,
        )
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


def bootstrap_multi_power_law(
    lr: Ragged,
    steps: Ragged,
    loss: Ragged,
    fit: MultiPowerLawFit,
    *,
    delta: float = DELTA,
    gamma: float | None = None,
    replicates: int = 200,
    block: int = 0,
    seed: int = 0,
    threads: int | None = None,
) -> MultiPowerLawBootstrap:
    """Refit resampled curves, each from the fit.

    Every curve is resampled by stretches of ``block`` neighbouring points, drawn with replacement
    around its ends (circular block bootstrap, Politis and Romano 1992), so that noise may be
    correlated over less than that.

    Args:
        lr: As in the fit.
        steps: As in the fit.
        loss: As in the fit.
        fit: Where to start.
        delta: Huber width in log loss.
        gamma: As in the fit.
        replicates: How many refits.
        block: Points; 0: the cube root of each curve's number of points, rounded up.
        seed: The same seed gives the same samples.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: as the fit does, there is no fit to start from, or a number is out of range.
    """
    if not np.isfinite(fit.objective):
        raise ValueError("there is no fit to start from.")
    if not 0.0 < delta < np.inf:
        raise ValueError(f"delta must be positive, got {delta}.")
    if replicates < 0 or block < 0:
        raise ValueError(
            f"replicates and block must not be negative, got {replicates} and {block}."
        )
    lower, upper = _bounds(gamma)
    points = _Points(lr, steps, loss)
    random = np.random.default_rng(seed)
    begin = np.clip(_scaled(np.array(astuple(fit.law)), points.peak), lower, upper)
    constants = np.full((replicates, 7), np.nan)
    objective = np.full(replicates, np.nan)
    status = np.full(replicates, int(Status.NON_FINITE), dtype=np.int32)
    for i in range(replicates):
        theta, reached, _, ended, _, _ = _core.schedule_fit(
            *points.curves,
            points.log_loss,
            _block_counts(points.curves[3], block, random),
            begin,
            lower,
            upper,
            delta=float(delta),
            max_evaluations=_MAX_EVALUATIONS,
            threads=threads,
        )
        objective[i], status[i] = reached[0], ended[0]
        if np.isfinite(reached[0]):
            constants[i] = _natural(theta[0], points.peak)
    return MultiPowerLawBootstrap(constants, objective, status)


def _bounds(gamma: float | None) -> tuple[Float64, Float64]:
    """Return the bounds of the parameters, shape (7,) each; both are one for what is held."""
    lower, upper = _LOWER.copy(), _UPPER.copy()
    if gamma is not None:
        if not _LOWER[6] <= gamma <= _UPPER[6]:
            raise ValueError(f"gamma must be from {_LOWER[6]:g} to {_UPPER[6]:g}, got {gamma}.")
        lower[6] = upper[6] = gamma
    return lower, upper


def _block_counts(offsets: NDArray[np.int64], block: int, random: np.random.Generator) -> Float64:
    """How often each point is drawn, in stretches of its curve."""
    counts = np.zeros(int(offsets[-1]))
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        n = end - begin
        if n == 0:
            continue
        length = min(block or int(np.ceil(np.cbrt(n))), n)
        first = random.integers(0, n, -(-n // length))
        drawn = (first[:, None] + np.arange(length)).reshape(-1)[:n] % n
        counts[begin:end] = np.bincount(drawn, minlength=n)
    return counts


class _Points:
    """The usable points of several curves, as the kernel takes them.

    Raises:
        ValueError: shapes differ, or a step is no whole number.
    """

    def __init__(self, lr: Ragged, steps: Ragged, loss: Ragged) -> None:
        if not (np.array_equal(steps.offsets, loss.offsets) and len(steps) == len(lr)):
            raise ValueError("lr, steps and loss must hold the same curves, steps and loss alike.")
        wanted = _steps(lr, steps)
        self.in_curves = np.zeros(loss.values.size, dtype=np.bool_)
        self.in_curves[loss.offsets[0] : loss.offsets[-1]] = True
        with np.errstate(invalid="ignore"):
            self.used = (loss.values > 1e-300) & (loss.values < 1e300) & self.in_curves
        self.peak = _peak(lr.values)
        counts = np.add.reduceat(np.append(self.used, False).astype(np.int64), wanted.offsets[:-1])
        counts[wanted.lengths == 0] = 0
        self.curves: tuple[Float64, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] = (
            lr.values / self.peak,
            lr.offsets,
            wanted.values[self.used].astype(np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )
        self.log_loss: Float64 = np.log(loss.values[self.used])


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
    lower: Float64,
    upper: Float64,
) -> Float64:
    """Covariance of MultiPowerLawFit, as in planner.kernel.loss_law.

    The scores of neighbouring points of a curve count as correlated (Bartlett weights).
    """
    residual = log_loss - np.log(loss)
    free = (theta > lower) & (theta < upper)
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
