"""The loss law L = E + A / N^alpha + B / D^beta, fitted by Huber on log residuals.

Parameters, always in the order of :data:`PARAMETERS`: a = log A, b = log B, e = log E, alpha, beta,
and log R* for repeated tokens. The objective is the *sum* over runs of the Huber loss (delta in log
loss) of ``log L - log(E + A / N^alpha + B / D^beta)`` (Hoffmann et al., arXiv 2203.15556,
approach 3).

- :func:`fit_loss_law`: from a grid of starts; screening drops most of them early.
- :func:`bootstrap_loss_law`: refits of resampled runs, started at the fit.

Forms people fit beside the plain one: ``fixed_e`` (E known), ``equal_exponents`` (alpha = beta),
and ``unique`` with ``r_star``: where D tokens are U unique ones, repeated R = D / U - 1 times, the
law sees ``D' = U + U R* (1 - exp(-R / R*))`` (Muennighoff et al., arXiv 2305.16264), with R* given
or fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner import _core
from planner.kernel.status import Status

Float64 = NDArray[np.float64]

PARAMETERS = ("a", "b", "e", "alpha", "beta", "log_r_star")
"""log A, log B, log E, the two exponents; log R* is NaN where it is no parameter."""

DELTA = 1e-3
"""Huber width in log loss (Hoffmann et al.)."""

KEPT_STARTS = 64
"""Distinct starts that screening keeps."""

_TERM_REACH = 60.0  # bounds on a, b about the mean log loss, at the runs' mean N and D
_E_REACH = 30.0
_FIXED_E_REACH = 400.0
_NATS = 3.0  # of log loss
_R_STAR_BOUNDS = (np.log(1e-2), np.log(1e4))
_R_STAR_STARTS = (2.0, 15.0)
_MAX_EVALUATIONS = 400


def hoffmann_starts() -> Float64:
    """The 4500 starts of Hoffmann et al. (2022), shape (4500, 5)."""
    terms = np.arange(0.0, 26.0, 5.0)
    exponents = np.arange(0.0, 2.1, 0.5)
    grid = np.meshgrid(terms, terms, np.arange(-1.0, 1.1, 0.5), exponents, exponents, indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=1)


@dataclass(frozen=True, slots=True)
class LossLawForm:
    """Which form of the law is fitted.

    Args:
        fixed_e: E in nats, where it is known.
        equal_exponents: alpha = beta.
        r_star: R* of repeated tokens, or "free" to fit it; only with ``unique``.
        alpha_bounds: Lowest and highest alpha.
        beta_bounds: Lowest and highest beta.

    Raises:
        ValueError: a number is out of range, or bounds are out of order.
    """

    fixed_e: float | None = None
    equal_exponents: bool = False
    r_star: float | Literal["free"] | None = None
    alpha_bounds: tuple[float, float] = (0.0, 3.0)
    beta_bounds: tuple[float, float] = (0.0, 3.0)

    def __post_init__(self) -> None:
        if self.fixed_e is not None and not 0.0 < self.fixed_e < np.inf:
            raise ValueError(f"fixed_e must be positive, got {self.fixed_e}.")
        if isinstance(self.r_star, str):
            if self.r_star != "free":
                raise ValueError(f'r_star must be a number, "free" or None, got {self.r_star!r}.')
        elif self.r_star is not None and not 1e-3 <= self.r_star <= 1e6:
            raise ValueError(f"r_star must be between 0.001 and 1e6, got {self.r_star}.")
        for name, (low, high) in (("alpha", self.alpha_bounds), ("beta", self.beta_bounds)):
            if not -100.0 < low <= high < 100.0:
                raise ValueError(f"{name}_bounds must be in order and within 100.")

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which of the six parameters have a freedom of their own, shape (6,)."""
        return np.array(
            [
                True,
                True,
                self.fixed_e is None,
                self.alpha_bounds[0] < self.alpha_bounds[1],
                self.beta_bounds[0] < self.beta_bounds[1] and not self.equal_exponents,
                self.r_star == "free",
            ]
        )


@dataclass(frozen=True, slots=True)
class LossLawFit:
    """A fitted loss law."""

    theta: Float64
    """In the order of PARAMETERS, shape (6,); NaN where there is no fit."""
    objective: float
    """Summed Huber loss; NaN where there is no fit."""
    status: Status
    evaluations: int
    """Passes over the points in the start that won."""
    used: NDArray[np.bool_]
    """Runs that are finite and positive, shape (runs,)."""
    covariance: Float64
    """Sandwich covariance of theta, shape (6, 6): zero in what is fixed or at a bound, NaN where
    the runs do not determine it. Of the log constants: exp(theta[:3]) are A, B and E."""
    form: LossLawForm
    delta: float
    start_objectives: Float64 = field(repr=False)
    """Where each start ended, shape (starts,); of screened-out starts the score of screening."""
    start_statuses: NDArray[np.int32] = field(repr=False)

    @property
    def standard_error(self) -> Float64:
        """Of theta, shape (6,)."""
        return np.asarray(np.sqrt(np.diag(self.covariance)), dtype=np.float64)

    def predict(self, n: ArrayLike, d: ArrayLike, unique: ArrayLike | None = None) -> Float64:
        """Loss in nats at N parameters and D tokens, of which ``unique`` are distinct."""
        return predict_loss(self.theta, n, d, unique=unique)


@dataclass(frozen=True, slots=True)
class LossLawBootstrap:
    """Refits of resampled runs."""

    theta: Float64
    """Shape (replicates, 6), in the order of PARAMETERS."""
    objective: Float64
    """Shape (replicates,)."""
    status: NDArray[np.int32]
    """Shape (replicates,): :class:`planner.kernel.Status`."""
    evaluations: NDArray[np.int32]
    """Shape (replicates,)."""

    @property
    def kept(self) -> Float64:
        """Replicates that converged inside the bounds, shape (kept, 6)."""
        return np.asarray(self.theta[self.status == Status.OK], dtype=np.float64)

    @property
    def covariance(self) -> Float64:
        """Sample covariance over the kept replicates, shape (6, 6); NaN below two of them."""
        kept = self.kept
        if len(kept) < 2:
            return np.full((6, 6), np.nan)
        return np.asarray(np.cov(kept, rowvar=False), dtype=np.float64)

    def percentiles(self, q: Sequence[float] = (5.0, 50.0, 95.0)) -> Float64:
        """Percentiles of each parameter over all finite replicates, shape (len(q), 6)."""
        finite = self.theta[np.isfinite(self.objective)]
        if len(finite) == 0:
            return np.full((len(q), 6), np.nan)
        return np.asarray(np.percentile(finite, list(q), axis=0), dtype=np.float64)


def effective_tokens(d: ArrayLike, unique: ArrayLike, r_star: float) -> Float64:
    """D' of Muennighoff et al. (arXiv 2305.16264): D where no token is repeated."""
    tokens = np.asarray(d, dtype=np.float64)
    distinct = np.minimum(np.asarray(unique, dtype=np.float64), tokens)
    repeats = tokens / distinct - 1.0
    return np.asarray(distinct * (1.0 - r_star * np.expm1(-repeats / r_star)), dtype=np.float64)


def predict_loss(
    theta: ArrayLike, n: ArrayLike, d: ArrayLike, *, unique: ArrayLike | None = None
) -> Float64:
    """Loss in nats; ``theta`` has shape (6,), or (5,) without R*; N, D and U broadcast."""
    a, b, e, alpha, beta, *rest = np.asarray(theta, dtype=np.float64).tolist()
    tokens = np.asarray(d, dtype=np.float64)
    if unique is not None and rest and np.isfinite(rest[0]):
        tokens = effective_tokens(tokens, unique, float(np.exp(rest[0])))
    log_n = np.log(np.asarray(n, dtype=np.float64))
    return np.asarray(
        np.exp(e) + np.exp(a - alpha * log_n) + np.exp(b - beta * np.log(tokens)), dtype=np.float64
    )


class _Problem:
    """The usable runs, centred; translates parameters in both directions."""

    def __init__(
        self,
        n: ArrayLike,
        d: ArrayLike,
        loss: ArrayLike,
        form: LossLawForm,
        unique: ArrayLike | None,
        weights: ArrayLike | None,
    ) -> None:
        columns = [np.asarray(column, dtype=np.float64) for column in (n, d, loss)]
        if unique is not None:
            columns.append(np.asarray(unique, dtype=np.float64))
        if weights is not None:
            columns.append(np.asarray(weights, dtype=np.float64))
        if any(column.ndim != 1 or column.shape != columns[0].shape for column in columns):
            raise ValueError("n, d, loss, unique and weights must be vectors of one length.")
        if (form.r_star is None) != (unique is None):
            raise ValueError("unique tokens and r_star need each other.")
        used = np.ones(columns[0].shape, dtype=np.bool_)
        for column in columns[: 3 if unique is None else 4]:
            with np.errstate(invalid="ignore"):
                used &= (column > 1e-300) & (column < 1e300)
        if weights is not None:
            with np.errstate(invalid="ignore"):
                used &= (columns[-1] > 0.0) & (columns[-1] < 1e100)
        self.form = form
        self.used = used
        self.n, self.d, self.loss = (column[used] for column in columns[:3])
        self.weights = np.ones(self.n.size) if weights is None else columns[-1][used]
        self.repeats: Float64 | None = None
        tokens = self.d
        if unique is not None:
            distinct = np.minimum(columns[3][used], self.d)
            if form.r_star == "free":
                self.repeats = self.d / distinct - 1.0
                tokens = distinct
            else:
                assert isinstance(form.r_star, (int, float))
                tokens = effective_tokens(self.d, distinct, float(form.r_star))
        if self.n.size == 0:
            return
        self.x, self.y, self.z = np.log(self.n), np.log(tokens), np.log(self.loss)
        self.x_mean, self.y_mean = float(self.x.mean()), float(self.y.mean())
        self.x = self.x - self.x_mean
        self.y = self.y - self.y_mean
        self.z_mean = float(self.z.mean())
        self.z = self.z - self.z_mean
        e = None if form.fixed_e is None else float(np.log(form.fixed_e)) - self.z_mean
        if e is not None and abs(e) > _FIXED_E_REACH:
            raise ValueError(f"fixed_e is out of reach of the losses, got {form.fixed_e}.")
        r_star = _R_STAR_BOUNDS if form.r_star == "free" else (0.0, 0.0)
        beta = form.alpha_bounds if form.equal_exponents else form.beta_bounds
        bounds = [
            (-_TERM_REACH, _TERM_REACH),
            (-_TERM_REACH, _TERM_REACH),
            (float(self.z.min()) - _E_REACH, float(self.z.max()) + 1.0) if e is None else (e, e),
            form.alpha_bounds,
            beta,
            r_star,
        ]
        self.lower, self.upper = (
            np.array(side, dtype=np.float64) for side in zip(*bounds, strict=True)
        )

    def centre(self, theta: Float64) -> Float64:
        """(starts, 5 or 6) as users give them to (starts, 6) as the kernel takes them."""
        out = np.zeros((len(theta), 6))
        out[:, : theta.shape[1]] = theta
        if self.form.r_star != "free":
            out[:, 5] = 0.0
        if self.form.equal_exponents:
            out[:, 3:5] = out[:, 3:5].mean(axis=1, keepdims=True)
        out[:, :3] -= self.z_mean
        out[:, 0] -= out[:, 3] * self.x_mean
        out[:, 1] -= out[:, 4] * self.y_mean
        return out

    def restore(self, centred: Float64) -> Float64:
        """Back: (starts, 6) of the kernel to (starts, 6) for users."""
        out = np.array(centred)
        out[:, :3] += self.z_mean
        out[:, 0] += out[:, 3] * self.x_mean
        out[:, 1] += out[:, 4] * self.y_mean
        if self.form.r_star is None:
            out[:, 5] = np.nan
        elif self.form.r_star != "free":
            out[:, 5] = np.log(self.form.r_star)
        return out

    def default_starts(self) -> Float64:
        """Hoffmann's grid, moved where losses are far from some nats; for each of a few R*."""
        starts = hoffmann_starts()
        if abs(self.z_mean) > _NATS:
            starts[:, :3] += self.z_mean
        if self.form.r_star != "free":
            return starts
        return np.concatenate(
            [np.column_stack([starts, np.full(len(starts), np.log(r))]) for r in _R_STAR_STARTS]
        )

    def sandwich(self, theta: Float64, delta: float) -> Float64:
        """Covariance at a minimum, centred coordinates in, user's out; shape (6, 6).

        H^-1 M H^-1 with M = sum w^2 psi^2 g g' and H = sum w k g g'. Where delta is far below the
        spread of the residuals, few lie within it, and the share of them that k stands for is
        estimated over a wider window (as Powell does for least absolute deviations): k = delta / h
        for |r| <= h, with Silverman's h for a uniform kernel.
        """
        a, b, e, alpha, beta, s = theta
        y = self.y
        slope = np.zeros_like(y)
        if self.repeats is not None:
            r_star = float(np.exp(s))
            left = np.exp(-self.repeats / r_star)
            h = 1.0 + r_star * (1.0 - left)
            y = y + np.log(h)
            slope = r_star * (1.0 - left * (1.0 + self.repeats / r_star)) / h
        terms = np.array(
            [np.exp(a - alpha * self.x), np.exp(b - beta * y), np.full_like(y, np.exp(e))]
        )
        total = terms.sum(axis=0)
        p1, p2, p0 = terms / total
        residual = self.z - np.log(total)
        gradient = np.stack([p1, p2, p0, -p1 * self.x, -p2 * y, -beta * p2 * slope], axis=1)
        free = self.form.free & (theta > self.lower) & (theta < self.upper)
        if self.form.equal_exponents:
            gradient[:, 3] += gradient[:, 4]
        spread = 1.4826 * float(np.median(np.abs(residual)))
        count = max(float(self.weights.sum()), 1.0)
        window = max(delta, 1.84 * spread * count**-0.2)
        near = (np.abs(residual) <= window) * (delta / window)
        psi = np.clip(residual, -delta, delta)
        columns = gradient[:, free]
        bread = columns.T @ (columns * (self.weights * near)[:, None])
        meat = columns.T @ (columns * (self.weights * psi)[:, None] ** 2)
        out = np.full((6, 6), np.nan)
        scale = np.sqrt(np.abs(np.diag(bread)))
        if not (free.any() and np.all(scale > 0.0)):
            return out
        scaled = bread / np.outer(scale, scale)
        if np.linalg.cond(scaled) > 1e13:
            return out
        inverse = np.linalg.inv(scaled) / np.outer(scale, scale)
        out[:] = 0.0
        out[np.ix_(free, free)] = inverse @ meat @ inverse
        if self.form.equal_exponents:
            out[4, :] = out[3, :]
            out[:, 4] = out[:, 3]
        turn = np.eye(6)
        turn[0, 3], turn[1, 4] = self.x_mean, self.y_mean
        return np.asarray(turn @ out @ turn.T, dtype=np.float64)


def fit_loss_law(
    n: ArrayLike,
    d: ArrayLike,
    loss: ArrayLike,
    *,
    form: LossLawForm | None = None,
    unique: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    starts: ArrayLike | None = None,
    delta: float = DELTA,
    screened: bool = True,
    threads: int | None = None,
) -> LossLawFit:
    """Fit the loss law from many starts and take the lowest end.

    Runs with a value that is NaN, infinite or not positive are left out, and so are those of weight
    0. With screening each start makes six reweighted Gauss-Newton steps on at most every fourth
    run; the 64 best that differ are run to the end. Without it, all are.

    Args:
        n: Parameters, shape ``(runs,)``.
        d: Tokens, shape ``(runs,)``.
        loss: Final loss, nats per token, shape ``(runs,)``.
        form: The form of the law and its bounds; the plain one by default.
        unique: Distinct tokens, shape ``(runs,)``; only with ``form.r_star``.
        weights: How much each run counts, shape ``(runs,)``; 1 by default.
        starts: Shape ``(starts, 5)``, or 6 with log R*; Hoffmann's 4500 by default.
        delta: Huber width in log loss.
        screened: False runs every start to the end.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: shapes differ, a start is not finite, or an option is out of range.
    """
    form = form or LossLawForm()
    problem = _Problem(n, d, loss, form, unique, weights)
    if not 0.0 < delta < np.inf:
        raise ValueError(f"delta must be positive, got {delta}.")
    used = int(problem.used.sum())
    if used < int(form.free.sum()) or used == 0:
        status = (
            Status.EMPTY
            if problem.used.size == 0
            else Status.NON_FINITE
            if used == 0
            else Status.TOO_FEW_POINTS
        )
        return LossLawFit(
            theta=np.full(6, np.nan),
            objective=np.nan,
            status=status,
            evaluations=0,
            used=problem.used,
            covariance=np.full((6, 6), np.nan),
            form=form,
            delta=delta,
            start_objectives=np.empty(0),
            start_statuses=np.empty(0, dtype=np.int32),
        )
    given = problem.default_starts() if starts is None else np.atleast_2d(np.asarray(starts, float))
    if given.ndim != 2 or given.shape[1] not in (5, 6) or given.shape[0] == 0:
        raise ValueError(
            f"starts must have the shape (starts, 5) or (starts, 6), got {given.shape}."
        )
    theta, objective, evaluations, status_of = _core.losslaw_fit(
        problem.x,
        problem.y,
        problem.z,
        problem.weights,
        problem.repeats,
        problem.centre(given).reshape(-1),
        problem.lower,
        problem.upper,
        tied=form.equal_exponents,
        delta=float(delta),
        keep=KEPT_STARTS if screened else 0,
        max_evaluations=_MAX_EVALUATIONS,
        threads=threads,
    )
    ended = (status_of != Status.SCREENED_OUT) & np.isfinite(objective)
    if not ended.any():
        best, status = 0, Status.NON_FINITE
        covariance = np.full((6, 6), np.nan)
    else:
        best = int(np.argmin(np.where(ended, objective, np.inf)))
        status = Status(int(status_of[best]))
        covariance = problem.sandwich(theta[best], delta)
        if status is Status.OK and not np.isfinite(covariance).all():
            status = Status.SINGULAR_COVARIANCE
    return LossLawFit(
        theta=problem.restore(theta[best : best + 1])[0],
        objective=float(objective[best]),
        status=status,
        evaluations=int(evaluations[best]),
        used=problem.used,
        covariance=covariance,
        form=form,
        delta=delta,
        start_objectives=objective,
        start_statuses=status_of,
    )


def resample_counts(runs: int, replicates: int, seed: int) -> NDArray[np.uint8]:
    """How often each run is drawn, with replacement, shape (replicates, runs)."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(runs, np.full(runs, 1.0 / runs), size=replicates)
    return np.minimum(counts, 255).astype(np.uint8)


def bootstrap_loss_law(
    n: ArrayLike,
    d: ArrayLike,
    loss: ArrayLike,
    fit: LossLawFit,
    *,
    unique: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    counts: NDArray[np.uint8] | None = None,
    replicates: int = 4000,
    seed: int = 0,
    restarts: int = 2,
    threads: int | None = None,
) -> LossLawBootstrap:
    """Refit resampled runs, each from the fit and from a few starts around it.

    Args:
        n: Parameters, shape ``(runs,)``: the runs that were fitted.
        d: Tokens, shape ``(runs,)``.
        loss: Final loss, nats per token, shape ``(runs,)``.
        fit: Where to start; its form and delta are used again.
        unique: Distinct tokens, as in the fit.
        weights: As in the fit; they multiply the counts.
        counts: How often each run counts, uint8, shape ``(replicates, runs)``; drawn with
            replacement from the usable runs by default.
        replicates: How many to draw, where no counts are given.
        seed: Of the resampling and of the further starts.
        restarts: Random starts around the fit, beside the fit itself; about one replicate in a
            thousand needs them to leave a neighbouring minimum.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: shapes differ, or there is no fit to start from.
    """
    problem = _Problem(n, d, loss, fit.form, unique, weights)
    if not np.isfinite(fit.objective):
        raise ValueError("there is no fit to start from.")
    if restarts < 0:
        raise ValueError(f"restarts must not be negative, got {restarts}.")
    if counts is None:
        drawn = resample_counts(int(problem.used.sum()), replicates, seed)
    else:
        drawn = np.asarray(counts)
        if drawn.dtype != np.uint8 or drawn.ndim != 2 or drawn.shape[1] != problem.used.size:
            raise ValueError("counts must be uint8 of shape (replicates, runs).")
        drawn = np.ascontiguousarray(drawn[:, problem.used])
    centre = problem.centre(fit.theta[None])
    theta, objective, evaluations, status = _core.losslaw_refit(
        problem.x,
        problem.y,
        problem.z,
        problem.weights,
        problem.repeats,
        drawn,
        np.concatenate([centre, _around(centre[0], restarts, seed)]).reshape(-1),
        problem.lower,
        problem.upper,
        tied=fit.form.equal_exponents,
        delta=fit.delta,
        max_evaluations=_MAX_EVALUATIONS,
        threads=threads,
    )
    return LossLawBootstrap(problem.restore(theta), objective, status, evaluations)


def _around(centre: Float64, restarts: int, seed: int) -> Float64:
    """Starts around a centred theta, shape (restarts, 6)."""
    noise = np.random.default_rng([seed, 1]).standard_normal((restarts, 6))
    spread = np.array([0.1, 0.1, 0.03, 0.04, 0.06, 0.2])
    return np.asarray(centre + noise * spread, dtype=np.float64)
