"""Uncertainty of Besiroglu et al.'s fit of the Chinchilla loss law, by bootstrap.

Besiroglu, Erdil, Barnett and You, "Chinchilla Scaling: A replication attempt" (arXiv 2404.10102,
2024) fit ``L(N, D) = E + A / N^alpha + B / D^beta`` to 240 points digitised from figure 4 of
Hoffmann et al. (arXiv 2203.15556, 2022), but print standard errors only. A predicted loss needs the
whole covariance: log A and alpha, and log B and beta, are almost perfectly correlated, and
independent errors would give intervals many times too wide. This script refits the same points
and prints the covariance of ``(log E, log A, log B, alpha, beta)``.

Fit: the sum (never the mean, whose small gradients stop optimizers early) over the points of the
Huber loss, delta = 1e-3, of ``log L_observed - logsumexp(log E, log A - alpha log N,
log B - beta log D)``. Bootstrap: the points are resampled with replacement and each replicate is
refitted from the point fit and a few perturbed starts, of which the best is kept.

Usage::

    python tools/loss_law_covariance.py svg_extracted_data.csv --replicates 4000 --seed 20240415

Units: N in parameters, D in tokens, C in FLOPs, losses in nats per token.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, ndtri

FloatArray = NDArray[np.float64]

PARAMETERS = ("log_E", "log_A", "log_B", "alpha", "beta")
HUBER_DELTA = 1e-3
"""Width of the quadratic part of the Huber loss, in log loss (Hoffmann et al., appendix D.3)."""
DROPPED_HIGHEST = 5
"""Besiroglu et al. leave out the five points of highest loss as outliers."""
EXPONENT_BOUNDS = (0.0, 3.0)
_BOUNDS = ((-5.0, 2.0), (-40.0, 60.0), (-40.0, 60.0), EXPONENT_BOUNDS, EXPONENT_BOUNDS)
_PERTURBATION = np.array([0.03, 0.10, 0.10, 0.04, 0.06])
"""Spread of the perturbed starts, about two standard errors, in centred coordinates."""


@dataclass(frozen=True)
class Points:
    """Training runs: parameters N, tokens D and final loss, each of shape (points,)."""

    n: FloatArray
    d: FloatArray
    loss: FloatArray

    @property
    def flops(self) -> FloatArray:
        """Training compute C = 6 N D, FLOPs, shape (points,)."""
        return 6.0 * self.n * self.d


@dataclass(frozen=True)
class Fit:
    """A minimum: ``theta`` ordered as PARAMETERS, and the summed Huber objective there."""

    theta: FloatArray
    objective: float


@dataclass(frozen=True)
class Bootstrap:
    """Refitted replicates.

    ``theta`` has shape (replicates, 5); ``at_bound`` (replicates,) marks the runaway ones, whose
    alpha or beta ended on a bound. `covariance` leaves those out, and only those.
    """

    theta: FloatArray
    at_bound: NDArray[np.bool_]

    @property
    def kept(self) -> FloatArray:
        """The replicates that did not run away, shape (kept, 5)."""
        return self.theta[~self.at_bound]

    @property
    def covariance(self) -> FloatArray:
        """Sample covariance of the kept replicates, ordered as PARAMETERS, shape (5, 5)."""
        return np.cov(self.kept, rowvar=False)


def load_points(path: Path, dropped: int = DROPPED_HIGHEST) -> Points:
    """Read the digitised points, leaving out the ``dropped`` points of highest loss.

    The file has the columns "Model Size" (N), "Training FLOP" (C) and "loss"; D = C / (6 N).
    Raises OSError for an unreadable file and ValueError for one without those columns or with
    values that are not positive.
    """
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    try:
        table = np.array(
            [[float(row[key]) for key in ("Model Size", "Training FLOP", "loss")] for row in rows]
        )
    except KeyError as error:
        raise ValueError(f"{path}: no column {error}") from None
    if len(table) <= dropped or not (np.isfinite(table).all() and (table > 0).all()):
        raise ValueError(f"{path}: want more than {dropped} rows of positive, finite numbers")
    keep = np.sort(np.argsort(table[:, 2], kind="stable")[: len(table) - dropped])
    n, flops, loss = table[keep].T
    return Points(n=n, d=flops / (6.0 * n), loss=loss)


def predict_log_loss(theta: FloatArray, n: FloatArray, d: FloatArray) -> FloatArray:
    """Log of the predicted loss. ``theta`` is (..., 5); ``n`` and ``d`` broadcast against (...)."""
    log_e, log_a, log_b, alpha, beta = np.moveaxis(np.asarray(theta, dtype=float), -1, 0)
    terms = np.broadcast_arrays(log_e, log_a - alpha * np.log(n), log_b - beta * np.log(d))
    return np.asarray(logsumexp(np.stack(terms), axis=0), dtype=float)


def log_loss_gradient(theta: FloatArray, n: FloatArray, d: FloatArray) -> FloatArray:
    """Gradient of log L with respect to theta: ``theta`` (5,), ``n`` and ``d`` (points,).

    Shape (points, 5). The shares of E, A/N^alpha and B/D^beta in L are the softmax of the terms.
    """
    log_n, log_d = np.log(n), np.log(d)
    log_e, log_a, log_b, alpha, beta = theta
    log_loss = predict_log_loss(theta, n, d)
    share_e = np.exp(log_e - log_loss)
    share_a = np.exp(log_a - alpha * log_n - log_loss)
    share_b = np.exp(log_b - beta * log_d - log_loss)
    return np.stack([share_e, share_a, share_b, -share_a * log_n, -share_b * log_d], axis=-1)


def objective(
    theta: FloatArray,
    points: Points,
    weights: FloatArray | None = None,
    delta: float = HUBER_DELTA,
) -> tuple[float, FloatArray]:
    """Summed Huber loss of the log residuals, and its gradient, shape (5,).

    ``weights`` (points,) counts how often each point is in a bootstrap sample; None means once.
    """
    residual = np.log(points.loss) - predict_log_loss(theta, points.n, points.d)
    counts = np.ones_like(residual) if weights is None else weights
    clipped = np.clip(residual, -delta, delta)
    value = float(np.sum(counts * clipped * (residual - 0.5 * clipped)))
    gradient = -(counts * clipped) @ log_loss_gradient(theta, points.n, points.d)
    return value, gradient


class _CentredProblem:
    """The same objective in coordinates in which it is well conditioned.

    log A and log B are replaced by the log of their terms at the points' geometric-mean N and D,
    which takes out their correlation with alpha and beta; the value is divided by delta^2 so that
    the optimizer's absolute gradient tolerance means something.
    """

    def __init__(self, points: Points, weights: FloatArray | None = None) -> None:
        self._log_n, self._log_d = np.log(points.n), np.log(points.d)
        self._log_loss = np.log(points.loss)
        self._mean_n, self._mean_d = float(self._log_n.mean()), float(self._log_d.mean())
        self._log_n -= self._mean_n
        self._log_d -= self._mean_d
        self._weights = np.ones_like(self._log_loss) if weights is None else weights

    def centre(self, theta: FloatArray) -> FloatArray:
        out = np.array(theta, dtype=float)
        out[1] -= out[3] * self._mean_n
        out[2] -= out[4] * self._mean_d
        return out

    def restore(self, centred: FloatArray) -> FloatArray:
        out = np.array(centred, dtype=float)
        out[1] += out[3] * self._mean_n
        out[2] += out[4] * self._mean_d
        return out

    def __call__(self, centred: FloatArray) -> tuple[float, FloatArray]:
        log_e, log_a, log_b, alpha, beta = centred
        term_e = np.exp(log_e)
        term_a = np.exp(log_a - alpha * self._log_n)
        term_b = np.exp(log_b - beta * self._log_d)
        total = term_e + term_a + term_b
        residual = self._log_loss - np.log(total)
        clipped = np.clip(residual, -HUBER_DELTA, HUBER_DELTA)
        value = float(self._weights @ (clipped * (residual - 0.5 * clipped)))
        slope = -self._weights * clipped / total
        slope_a, slope_b = slope * term_a, slope * term_b
        gradient = np.array(
            [
                slope.sum() * term_e,
                slope_a.sum(),
                slope_b.sum(),
                -(slope_a @ self._log_n),
                -(slope_b @ self._log_d),
            ]
        )
        return value / HUBER_DELTA**2, gradient / HUBER_DELTA**2

    def minimize(self, start: FloatArray) -> tuple[FloatArray, float]:
        """Local minimum from a start in centred coordinates: the point and the value there."""
        result = minimize(
            self,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=_BOUNDS,
            options={"maxiter": 2000, "maxfun": 4000, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-6},
        )
        return result.x, float(result.fun)


def fit(points: Points) -> Fit:
    """The global minimum, by L-BFGS-B from a grid of 108 starts, polished by restarting twice."""
    problem = _CentredProblem(points)
    log_floor = float(np.log(points.loss.min()))
    grid = product((log_floor - 0.5, log_floor - 0.1), (-2.0, -1.0, 0.0), (-2.0, -1.0))
    exponents = list(product((0.2, 0.5, 1.0), (0.2, 0.5, 1.0)))
    starts = [np.array([*head, *tail]) for head in grid for tail in exponents]
    centred, _ = min((problem.minimize(start) for start in starts), key=lambda found: found[1])
    for _ in range(2):
        centred, _ = problem.minimize(centred)
    theta = problem.restore(centred)
    return Fit(theta=theta, objective=objective(theta, points)[0])


def bootstrap(
    points: Points, start: FloatArray, replicates: int, seed: int, perturbed_starts: int = 3
) -> Bootstrap:
    """Refit ``replicates`` resamples of the points, warm-started at ``start`` (theta, (5,)).

    Each is also refitted from ``perturbed_starts`` random neighbours, and the lowest objective
    wins. Same seed, same replicates; the resamples do not depend on ``perturbed_starts``.
    """
    resampler, jitter = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)
    )
    count = len(points.loss)
    theta = np.empty((replicates, len(PARAMETERS)))
    for index in range(replicates):
        weights = resampler.multinomial(count, np.full(count, 1.0 / count)).astype(float)
        problem = _CentredProblem(points, weights)
        centre = problem.centre(start)
        noise = jitter.standard_normal((perturbed_starts, len(PARAMETERS))) * _PERTURBATION
        found = [problem.minimize(point) for point in (centre, *(centre + noise))]
        theta[index] = problem.restore(min(found, key=lambda pair: pair[1])[0])
    low, high = EXPONENT_BOUNDS
    exponents = theta[:, 3:]
    at_bound = np.any((exponents <= low + 1e-6) | (exponents >= high - 1e-6), axis=1)
    return Bootstrap(theta=theta, at_bound=at_bound)


def natural(theta: FloatArray) -> FloatArray:
    """(log E, log A, log B, alpha, beta) to (E, A, B, alpha, beta), along the last axis."""
    out = np.array(theta, dtype=float)
    out[..., :3] = np.exp(out[..., :3])
    return out


def delta_interval(
    theta: FloatArray, covariance: FloatArray, n: float, d: float, level: float = 0.9
) -> tuple[float, float, float]:
    """Predicted loss at (N, D) and its interval by the delta method on log L: (loss, low, high)."""
    where = np.array([n]), np.array([d])
    centre = float(predict_log_loss(theta, *where)[0])
    slope = log_loss_gradient(theta, *where)[0]
    half = float(ndtri(0.5 + level / 2.0) * np.sqrt(slope @ covariance @ slope))
    return float(np.exp(centre)), float(np.exp(centre - half)), float(np.exp(centre + half))


def percentile_interval(
    replicates: FloatArray, n: float, d: float, level: float = 0.9
) -> tuple[float, float]:
    """Interval of the predicted loss at (N, D) over bootstrap replicates (replicates, 5)."""
    losses = np.exp(predict_log_loss(replicates, np.array(n), np.array(d)))
    low, high = np.quantile(losses, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return float(low), float(high)


def summarize(points: Points, point_fit: Fit, sample: Bootstrap, seed: int) -> dict[str, Any]:
    """Everything the script prints, as plain numbers."""
    names = ("E", "A", "B", "alpha", "beta")
    kept = natural(sample.kept)
    spread = np.quantile(kept, [0.16, 0.84], axis=0)
    return {
        "points": len(points.loss),
        "range": {
            name: [float(values.min()), float(values.max())]
            for name, values in (("N", points.n), ("D", points.d), ("C", points.flops))
        },
        "objective": point_fit.objective,
        "parameters": dict(zip(names, natural(point_fit.theta).tolist(), strict=True)),
        "theta": dict(zip(PARAMETERS, point_fit.theta.tolist(), strict=True)),
        "replicates": len(sample.theta),
        "runaway": int(sample.at_bound.sum()),
        "seed": seed,
        "bootstrap_mean": dict(zip(PARAMETERS, sample.kept.mean(axis=0).tolist(), strict=True)),
        "standard_error": dict(zip(names, kept.std(axis=0, ddof=1).tolist(), strict=True)),
        "half_width_68": dict(zip(names, (np.diff(spread, axis=0)[0] / 2).tolist(), strict=True)),
        "order": list(PARAMETERS),
        "covariance": sample.covariance.tolist(),
    }


def _print_text(summary: dict[str, Any]) -> None:
    print(f"{summary['points']} points, summed Huber objective {summary['objective']:.8f}")
    for name, (low, high) in summary["range"].items():
        print(f"  {name}: {low:.4g} to {high:.4g}")
    print(
        f"{summary['replicates']} replicates (seed {summary['seed']}), "
        f"{summary['runaway']} at an exponent bound and left out"
    )
    print(f"{'':8}{'fit':>14}{'s.e.':>14}{'68% half':>14}")
    for name, value in summary["parameters"].items():
        error, half = summary["standard_error"][name], summary["half_width_68"][name]
        print(f"{name:8}{value:14.6g}{error:14.4g}{half:14.4g}")
    print(f"covariance of ({', '.join(summary['order'])}):")
    for row in summary["covariance"]:
        print("  [" + ", ".join(f"{value!r}" for value in row) + "]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="svg_extracted_data.csv")
    parser.add_argument("--replicates", type=int, default=4000, help="bootstrap replicates")
    parser.add_argument("--seed", type=int, default=20240415, help="seed of the resampling")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    if options.replicates < 2:
        parser.error("--replicates must be at least 2")
    try:
        points = load_points(options.path)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    point_fit = fit(points)
    sample = bootstrap(points, point_fit.theta, options.replicates, options.seed)
    summary = summarize(points, point_fit, sample, options.seed)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        _print_text(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
