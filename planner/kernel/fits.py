"""Robust multi-start fits of thousands of ragged curves.

Two families of models, each parameter fixed or free within bounds:

- :func:`fit_curves`: ``scale (((1 + eps1) / (x + eps1))^m + b (eta + eps2)^q)``, a normalized loss
  curve over the training fraction ``x`` under the learning-rate schedule ``eta`` (peak 1); with
  ``normalized=True`` divided by its value at the end of training, as in arXiv 2509.25087, equation
  4, where ``eps1 = 0.001``, ``eps2 = 0.1`` and ``m = 0.05`` are fixed.
- :func:`fit_power`: ``e + a (x + x0)^-alpha``.

The objective is ``sum(w rho(r))`` with Huber's ``rho(r) = r^2 / 2`` up to ``delta`` and
``delta |r| - delta^2 / 2`` beyond; ``delta=inf`` is least squares. Levenberg-Marquardt runs from
several starts on block medians first, and the distinct good optima are polished on all points
(``method="two-level"``), or from all starts on all points (``method="brute"``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner import _core
from planner.kernel.ragged import Ragged

Float64 = NDArray[np.float64]

Bound = float | tuple[float, float] | Float64
"""A number or an array of shape ``(curves,)``: the parameter is fixed; a pair ``(lower, upper)``:
it is free between them (infinity: unbounded)."""

CURVE_PARAMETERS = ("log_eps1", "m", "b", "q", "eps2", "scale")
POWER_PARAMETERS = ("e", "a", "alpha", "x0")

FOUR_PARAMETERS: Mapping[str, Bound] = {
    "log_eps1": (math.log(1e-6), math.log(10.0)),
    "m": (0.0, 5.0),
    "b": (-2.0, 5.0),
    "q": (0.02, 20.0),
    "eps2": 0.0,
    "scale": 1.0,
}
"""Everything free but the offset of the schedule and the scale."""

SURROGATE: Mapping[str, Bound] = {
    "log_eps1": math.log(1e-3),
    "m": 0.05,
    "b": (-2.0, 5.0),
    "q": (0.02, 20.0),
    "eps2": 0.1,
    "scale": 1.0,
}
"""The fixed constants of arXiv 2509.25087, section 5; meant for ``normalized=True``."""

POWER_LAW: Mapping[str, Bound] = {
    "e": (-math.inf, math.inf),
    "a": (-math.inf, math.inf),
    "alpha": (0.0, 10.0),
    "x0": 0.0,
}

ETA_FLOOR = 1e-6
"""``eta + eps2`` below this counts as this: a linear decay ends at exactly 0."""

# Rows of (log_eps1, m, b, q, eps2, scale); NaN: solved for by linear least squares. The first two,
# from either side, do for a curve of many points unless they end apart (a small eps1 with a small
# m, or a large one with a large m): of 12,000 synthetic curves, one missed its best optimum. Few
# noisy points have more optima.
_CURVE_STARTS = [
    (math.log(eps1), m, b, q, 0.1, math.nan)
    for eps1, m, b, q in (
        (1e-5, 0.2, 0.1, 0.5),
        (0.1, 0.2, 0.1, 2.0),
        (0.003, 0.1, 0.1, 0.5),
        (0.05, 0.1, 0.1, 2.0),
        (0.02, 0.1, -0.2, 0.1),
        (1e-4, 0.05, 0.1, 6.0),
        (0.5, 0.5, -0.3, 1.0),
        (0.003, 0.1, 0.1, 2.0),
        (0.05, 0.1, 0.1, 0.5),
    )
] + [
    (math.log(eps1), m, b, q, 0.1, math.nan)
    for eps1 in (1e-4, 0.7)
    for m, b in ((0.1, 0.1), (0.5, -0.3))
    for q in (0.1, 0.5, 2.0, 8.0)
]
_LONG_STARTS = 2
# Rows of (e, a, alpha, x0), x0 in spans of x above its lower bound.
_POWER_STARTS = [
    (math.nan, math.nan, alpha, x0)
    for alpha in (-3.0, -1.0, 0.1, 0.3, 0.7, 1.5, 4.0)
    for x0 in (0.001, 0.1, 1.0)
]


@dataclass(frozen=True, slots=True)
class Fits:
    """Fits of a batch of curves.

    ``P`` is the number of parameters, fixed ones included, in the order of ``names``. Where the
    status is EMPTY, NON_FINITE or TOO_FEW_POINTS all numbers are NaN.
    """

    names: tuple[str, ...]
    theta: Float64
    """Parameters, shape ``(curves, P)``."""
    objective: Float64
    """Sum of the weighted losses, shape ``(curves,)``, in squared units of ``y``."""
    covariance: Float64 | None
    """Shape ``(curves, P, P)``: Huber's sandwich for noise of one variance (over the weight) whose
    autocorrelation falls off as a power of the lag. 0 for a fixed parameter, NaN for one at its
    bound and where the curve does not determine the parameters. None if not asked for."""
    autocorrelation: Float64 | None
    """Of the clipped residuals at lag one, shape ``(curves,)``, which the covariance allows for;
    corrected for its small-sample bias. None without covariance."""
    samples: Float64 | None
    """Block bootstrap: shape ``(curves, replicates, P)``. None if not asked for."""
    evaluations: NDArray[np.int64]
    """Passes over all points, bootstrap included, shape ``(curves,)``."""
    coarse_evaluations: NDArray[np.int64]
    """Passes over the block medians, shape ``(curves,)``."""
    iterations: NDArray[np.int64]
    """Steps of the winning start on all points, shape ``(curves,)``."""
    n_points: NDArray[np.int64]
    """Usable points, shape ``(curves,)``."""
    status: NDArray[np.int32]
    """:class:`planner.kernel.Status`, shape ``(curves,)``."""

    def __getitem__(self, name: str) -> Float64:
        """Return one parameter, shape ``(curves,)``.

        Raises:
            KeyError: no parameter has that name.
        """
        if name not in self.names:
            raise KeyError(name)
        return self.theta[:, self.names.index(name)]

    @property
    def standard_error(self) -> Float64:
        """Square roots of the covariance's diagonal, shape ``(curves, P)``.

        Raises:
            ValueError: the fit was made without covariance.
        """
        if self.covariance is None:
            raise ValueError("standard errors need a fit with covariance=True.")
        diagonal = np.diagonal(self.covariance, axis1=1, axis2=2)
        root: Float64 = np.sqrt(np.where(diagonal >= 0, diagonal, np.nan))
        return root

    def interval(self, level: float = 0.9) -> tuple[Float64, Float64]:
        """Bootstrap intervals of the parameters: two arrays of shape ``(curves, P)``.

        The basic (reflected) ones: estimate minus the quantiles of the replicates' deviations.

        Args:
            level: Probability that an interval states, between 0 and 1.

        Raises:
            ValueError: the fit was made without replicates, or the level is out of range.
        """
        if self.samples is None:
            raise ValueError("bootstrap intervals need a fit with replicates > 0.")
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must lie between 0 and 1, got {level}.")
        tails = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
        # A curve without a fit has NaN samples throughout; so has a failed replicate.
        ordered = np.sort(self.samples, axis=1)  # NaN last
        counts = np.isfinite(self.samples).sum(axis=1)
        low, high = (_quantile(ordered, counts, tail) for tail in tails)
        return 2.0 * self.theta - high, 2.0 * self.theta - low


def fit_curves(
    y: Ragged,
    x: ArrayLike,
    eta: ArrayLike,
    *,
    parameters: Mapping[str, Bound] | None = None,
    normalized: bool = False,
    eta_end: ArrayLike | None = None,
    delta: float | ArrayLike = 0.01,
    weights: ArrayLike | None = None,
    starts: Sequence[Sequence[float]] | None = None,
    method: Literal["two-level", "brute"] = "two-level",
    ftol: float = 1e-10,
    max_iterations: int = 100,
    covariance: bool = True,
    replicates: int = 0,
    block: int = 0,
    seed: int = 0,
    threads: int | None = None,
) -> Fits:
    """Fit the curve model, normalized or not, to each curve.

    A point counts as missing where ``y`` is NaN, infinite or of magnitude 1e300 and above, where
    ``x`` is not in 0..1e6, ``eta`` is not in 0..1e100, or the weight is not in (0, 1e100].

    Args:
        y: Curves, any units; ``delta`` is in the same.
        x: Fraction of training, shape ``(points,)`` like ``y.values``; increasing along a curve,
            or the fit runs on all points from all starts.
        eta: Learning rate over its peak, shape ``(points,)``.
        parameters: Bounds that replace those of :data:`FOUR_PARAMETERS`, or of :data:`SURROGATE`
            with ``normalized``, by name: a number or one per curve fixes, a pair bounds.
        normalized: Divide by the value at ``x = 1``.
        eta_end: ``eta`` at the end of training, shape ``(curves,)``; for ``normalized``. Default:
            the last finite ``eta`` of each curve, which is wrong for a curve that was cut off.
        delta: Huber's threshold, one or shape ``(curves,)``; infinity for least squares.
        weights: Shape ``(points,)``; default 1.
        starts: Rows of the six parameters of :data:`CURVE_PARAMETERS`; NaN: solved for. At most 64.
        method: Coarse to fine, or all starts on all points.
        ftol: Converged when the quadratic model predicts a relative drop below this.
        max_iterations: Steps from one start.
        covariance: Estimate the covariance; about two passes over the points.
        replicates: Block bootstrap replicates of the residuals.
        block: Length of its blocks in points; 0: from the autocorrelation of each curve.
        seed: Of the bootstrap; the same seed gives the same samples.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: shapes differ, a bound is out of order or out of its domain, a name is unknown.
    """
    chosen = dict(SURROGATE if normalized else FOUR_PARAMETERS)
    lower, upper = _bounds(CURVE_PARAMETERS, chosen, parameters, len(y))
    _domain("log_eps1", lower[..., 0], upper[..., 0], -40.0, 20.0)
    _domain("eps2", lower[..., 4], upper[..., 4], 0.0, 1e6)
    schedule = _per_point(eta, y, "eta")
    ends = None
    if normalized:
        ends = _last_finite(y, schedule) if eta_end is None else _vector(eta_end)
    thin_starts = None if starts is not None else _LONG_STARTS
    if starts is None:
        starts = _CURVE_STARTS
    return _fit(
        CURVE_PARAMETERS,
        "normalized" if normalized else "curve",
        y,
        _per_point(x, y, "x"),
        schedule,
        ends,
        lower,
        upper,
        delta,
        weights,
        starts,
        thin_starts,
        method,
        ftol,
        max_iterations,
        covariance,
        replicates,
        block,
        seed,
        threads,
    )


def fit_power(
    y: Ragged,
    x: ArrayLike,
    *,
    parameters: Mapping[str, Bound] | None = None,
    delta: float | ArrayLike = math.inf,
    weights: ArrayLike | None = None,
    starts: Sequence[Sequence[float]] | None = None,
    method: Literal["two-level", "brute"] = "two-level",
    ftol: float = 1e-12,
    max_iterations: int = 200,
    covariance: bool = True,
    replicates: int = 0,
    block: int = 0,
    seed: int = 0,
    threads: int | None = None,
) -> Fits:
    """Fit ``e + a (x + x0)^-alpha`` to each curve.

    A free ``x0`` is kept above minus the smallest ``x`` of the curve; with a fixed one, points with
    ``x + x0 <= 0`` count as missing. Default: ``x0 = 0`` and least squares.

    Args:
        y: Curves, any units; ``delta`` is in the same.
        x: Shape ``(points,)`` like ``y.values``, any units; ``x0`` is in the same.
        parameters: Bounds that replace those of :data:`POWER_LAW`, by name.
        delta: Huber's threshold, one or shape ``(curves,)``; infinity for least squares.
        weights: Shape ``(points,)``; default 1.
        starts: Rows of the four parameters of :data:`POWER_PARAMETERS`, where ``x0`` is in spans of
            x above its lower bound (above 0 where it has none); NaN: solved for. At most 64.
        method: Coarse to fine, or all starts on all points.
        ftol: Converged when the quadratic model predicts a relative drop below this.
        max_iterations: Steps from one start.
        covariance: Estimate the covariance.
        replicates: Block bootstrap replicates of the residuals.
        block: Length of its blocks in points; 0: from the autocorrelation of each curve.
        seed: Of the bootstrap.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: shapes differ, a bound is out of order, a name is unknown.
    """
    lower, upper = _bounds(POWER_PARAMETERS, dict(POWER_LAW), parameters, len(y))
    if starts is None:
        shift = bool((lower[..., 3] < upper[..., 3]).any())
        reach = (lower[..., 2].min(), upper[..., 2].max())
        starts = [
            row
            for row in _POWER_STARTS
            if reach[0] <= row[2] <= reach[1] and (shift or row[3] < 0.01)
        ] or [(math.nan, math.nan, 0.5 * (reach[0] + reach[1]), 0.1)]
    return _fit(
        POWER_PARAMETERS,
        "power",
        y,
        _per_point(x, y, "x"),
        None,
        None,
        lower,
        upper,
        delta,
        weights,
        starts,
        None,
        method,
        ftol,
        max_iterations,
        covariance,
        replicates,
        block,
        seed,
        threads,
    )


def _fit(
    names: tuple[str, ...],
    model: str,
    y: Ragged,
    x: Float64,
    eta: Float64 | None,
    eta_end: Float64 | None,
    lower: Float64,
    upper: Float64,
    delta: float | ArrayLike,
    weights: ArrayLike | None,
    starts: Sequence[Sequence[float]],
    thin_starts: int | None,
    method: str,
    ftol: float,
    max_iterations: int,
    covariance: bool,
    replicates: int,
    block: int,
    seed: int,
    threads: int | None,
) -> Fits:
    if method not in ("two-level", "brute"):
        raise ValueError(f"method must be 'two-level' or 'brute', got {method!r}.")
    thresholds = _vector(delta)
    if not (thresholds > 0.0).all():
        raise ValueError("delta must be above 0.")
    if not ftol > 0.0:
        raise ValueError(f"ftol must be above 0, got {ftol}.")
    grid = np.asarray(starts, dtype=np.float64)
    if grid.ndim != 2 or grid.shape[1] != len(names):
        raise ValueError(f"starts must be rows of {len(names)} numbers, got shape {grid.shape}.")
    result = _core.fit(
        y.values,
        x,
        eta,
        None if weights is None else _per_point(weights, y, "weights"),
        y.offsets,
        eta_end=eta_end,
        model=model,
        lower=np.ascontiguousarray(lower).reshape(-1),
        upper=np.ascontiguousarray(upper).reshape(-1),
        delta=thresholds,
        starts=np.ascontiguousarray(grid).reshape(-1),
        thin_starts=thin_starts or grid.shape[0],
        brute=method == "brute",
        ftol=ftol,
        max_iterations=max_iterations,
        covariance=covariance,
        block=block,
        replicates=replicates,
        seed=seed,
        threads=threads,
    )
    return Fits(names, *result)


def _bounds(
    names: tuple[str, ...],
    bounds: dict[str, Bound],
    changes: Mapping[str, Bound] | None,
    curves: int,
) -> tuple[Float64, Float64]:
    """Lower and upper bounds: shape ``(P,)``, or ``(curves, P)`` if one differs between curves."""
    for name, bound in (changes or {}).items():
        if name not in bounds:
            raise ValueError(f"unknown parameter {name!r}; there are {', '.join(names)}.")
        bounds[name] = bound
    many = any(isinstance(bound, np.ndarray) and bound.ndim for bound in bounds.values())
    shape = (curves, len(names)) if many else (len(names),)
    lower, upper = np.empty(shape), np.empty(shape)
    for i, name in enumerate(names):
        bound = bounds[name]
        low, high = bound if isinstance(bound, tuple) else (bound, bound)
        lower[..., i], upper[..., i] = low, high
        if not (lower[..., i] <= upper[..., i]).all():
            raise ValueError(f"the bounds of {name} are out of order or NaN.")
        fixed = not isinstance(bound, tuple)
        if fixed and not np.isfinite(lower[..., i]).all():
            raise ValueError(f"{name} is fixed at a number that is not finite.")
    return lower, upper


def _domain(name: str, lower: Float64, upper: Float64, least: float, most: float) -> None:
    if not ((lower >= least) & (upper <= most)).all():
        raise ValueError(f"{name} must stay within {least:g} to {most:g}.")


def _vector(x: ArrayLike) -> Float64:
    """One number or one per curve, as a contiguous array; the kernel checks the size."""
    return np.atleast_1d(np.ascontiguousarray(x, dtype=np.float64))


def _per_point(x: ArrayLike, y: Ragged, name: str) -> Float64:
    array = np.ascontiguousarray(x, dtype=np.float64)
    if array.shape != y.values.shape:
        raise ValueError(
            f"{name} must have one number per value, shape {y.values.shape}, got {array.shape}."
        )
    return array


def _last_finite(y: Ragged, eta: Float64) -> Float64:
    """Last finite ``eta`` of each curve; 1 where there is none."""
    good = np.isfinite(eta)
    index = np.where(good, np.arange(eta.size), -1)
    last = np.maximum.accumulate(index) if eta.size else index
    ends = np.ones(len(y))
    filled = y.lengths > 0
    at = last[y.offsets[1:][filled] - 1]
    found = at >= y.offsets[:-1][filled]
    ends[filled] = np.where(found, eta[at], 1.0)
    return ends


def _quantile(ordered: Float64, counts: NDArray[np.int64], tail: float) -> Float64:
    """Linear quantile over axis 1 of numbers sorted with NaN last, ``counts`` of them finite."""
    at = tail * np.maximum(counts - 1, 0)[:, None, :]
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, ordered.shape[1] - 1)
    a = np.take_along_axis(ordered, low, axis=1)
    b = np.take_along_axis(ordered, high, axis=1)
    part = at - low
    result: Float64 = np.where(part > 0, a + part * (b - a), a)[:, 0, :]
    return result
