"""The critical batch from final losses at several batches and budgets.

For one size, the final losses of each batch over D follow ``L_B(D) = E + c D^-beta``. Where they
reach a target loss, D_B lies on the hyperbola ``D_B = D_min (1 + B / B_crit)`` (McCandlish et al.,
arXiv 1812.06162), a line in B. Targets along the losses that all batches reach, and sizes, give
points of B_crit over D_min, and those a power law (Power Lines, arXiv 2505.13738).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.fitting.inputs import FinalLoss, group
from planner.fitting.result import Fit, Residual, rounded
from planner.fitting.statistics import fit_line
from planner.kernel import Ragged, Status
from planner.kernel.fits import fit_power
from planner.laws.law import Law
from planner.units import format_count

Float64 = NDArray[np.float64]

TARGETS = 5
REPLICATES = 300
_LEAST_BATCHES = 3
_LEAST_BUDGETS = 4  # three determine the curve through them and leave no residual
_MOST_UNDETERMINED = 0.5


@dataclass(frozen=True, slots=True)
class _Size:
    """The runs of one size: final losses by batch, over tokens."""

    params: float
    batches: Float64
    tokens: list[Float64]
    losses: list[Float64]


@dataclass(frozen=True, slots=True)
class _Point:
    params: float
    minimum: float
    critical: float


def fit_critical_batch(
    runs: Sequence[FinalLoss],
    *,
    name: str,
    metric: str,
    source: str,
    level: float = 0.9,
    seed: int = 0,
) -> Fit | str:
    """Fit B_crit in tokens as a power law of D_min, or say why the runs do not allow it.

    Intervals are percentiles over refits with the final losses' own scatter about their curves
    added anew.
    """
    sizes = _sizes(runs)
    if not sizes:
        return (
            f"it needs one size with {_LEAST_BATCHES} batches, each at {_LEAST_BUDGETS} or more "
            "token budgets"
        )
    (curves,) = _fit_curves(sizes, [[size.losses for size in sizes]])
    points = _points(sizes, curves)
    spread = np.array([point.minimum for point in points])
    if spread.size < 2 or spread.max() < 1.05 * spread.min():
        return "no target loss that all batches reach lies on a hyperbola"
    line = fit_line(np.log(spread), np.log([point.critical for point in points]), level=level)
    if not 0 <= line.slope < 1:
        return f"its exponent comes out at {line.slope:.3g}, and a law's is from 0 to 1"
    resampled = _resampled(sizes, curves, seed)
    tails = [50 * (1 - level), 50 * (1 + level)]
    warnings: list[str] = []
    intervals: dict[str, tuple[float, float]] = {}
    unidentified: tuple[str, ...] = ()
    if len(resampled) >= REPLICATES // 2:
        low, high = np.percentile(resampled, tails, axis=0)
        intervals = {
            "coefficient": (math.exp(low[0]), math.exp(high[0])),
            "exponent": (float(low[1]), float(high[1])),
        }
    if not intervals or (high[1] - low[1]) / 2 > _MOST_UNDETERMINED * line.slope:
        unidentified = ("coefficient", "exponent")
        between = f"from {low[1]:.3g} to {high[1]:.3g} it fits" if intervals else "any value fits"
        warnings.append(
            f"the runs do not determine the exponent: {between} about equally well "
            f"({line.slope:.3g} is best)"
        )
    coefficient = math.exp(line.intercept)
    predicted = [coefficient * point.minimum**line.slope for point in points]
    law = Law(
        name=name,
        quantity="critical_batch",
        form="power",
        input="tokens",
        constants={"coefficient": coefficient, "exponent": line.slope},
        source=source,
        confidence="fitted",
        fitted_range={"tokens": (float(spread.min()), float(spread.max()))},
        scatter=line.scatter if len(points) > 2 else None,
        intervals=intervals,
        level=level if intervals else None,
        unidentified=unidentified,
    )
    return Fit(
        law=rounded(law),
        kind="batch",
        metric=metric,
        runs=sum(loss.size for size in sizes for loss in size.losses),
        error=float(
            np.mean([abs(p / q.critical - 1) for p, q in zip(predicted, points, strict=True)])
        ),
        unit="relative",
        residuals=tuple(
            Residual(
                f"{format_count(point.params)} #{i}",
                format_count(point.params),
                {"tokens": point.minimum, "params": point.params},
                point.critical,
                value,
            )
            for i, (point, value) in enumerate(zip(points, predicted, strict=True))
        ),
        notes=(f"{len(points)} points of B_crit over D_min from {len(sizes)} sizes",),
        warnings=tuple(warnings),
    )


def _sizes(runs: Sequence[FinalLoss]) -> list[_Size]:
    found = []
    for members in group(runs, ("params",)):
        batches, tokens, losses = [], [], []
        for alike in group(members, ("batch_tokens",), by_schedule=False):
            budgets = group(alike, ("tokens",), by_schedule=False)
            if len(budgets) < _LEAST_BUDGETS:
                continue
            best = [min(budget, key=lambda run: run.loss) for budget in budgets]
            best.sort(key=lambda run: run.facts.tokens or 0)
            batches.append(float(alike[0].facts.batch_tokens or 0))
            tokens.append(np.array([float(run.facts.tokens or 0) for run in best]))
            losses.append(np.array([run.loss for run in best]))
        if len(batches) >= _LEAST_BATCHES:
            params = float(members[0].facts.params or 0)
            found.append(_Size(params, np.array(batches), tokens, losses))
    return found


@dataclass(frozen=True, slots=True)
class _Curves:
    """L_B(D) of one size: ``e + a (D / 1e9)^-alpha`` of each batch, shape ``(batches,)`` each."""

    e: Float64
    a: Float64
    alpha: Float64
    good: NDArray[np.bool_]

    def at(self, batch: int, tokens: Float64) -> Float64:
        line: Float64 = self.e[batch] + self.a[batch] * (tokens / 1e9) ** -self.alpha[batch]
        return line


def _fit_curves(
    sizes: Sequence[_Size], losses: Sequence[Sequence[Sequence[Float64]]]
) -> list[list[_Curves]]:
    """Return the curves of every replicate and size; ``losses`` by replicate, size and batch."""
    tokens = [
        t / 1e9
        for replicate in losses
        for size, _ in zip(sizes, replicate, strict=True)
        for t in size.tokens
    ]
    values = [v for replicate in losses for by_size in replicate for v in by_size]
    fits = fit_power(Ragged.from_list(values), np.concatenate(tokens), covariance=False)
    e, a, alpha = fits["e"], fits["a"], fits["alpha"]
    good = np.isin(fits.status, (Status.OK, Status.BOUND_ACTIVE, Status.SINGULAR_COVARIANCE))
    good &= np.isfinite(alpha) & (a > 0) & (alpha > 0)
    found, at = [], 0
    for _ in losses:
        of_sizes = []
        for size in sizes:
            part = slice(at, at + size.batches.size)
            of_sizes.append(_Curves(e[part], a[part], alpha[part], good[part]))
            at += size.batches.size
        found.append(of_sizes)
    return found


def _points(sizes: Sequence[_Size], curves: Sequence[_Curves]) -> list[_Point]:
    """Return points of (D_min, B_crit) along the losses that all batches of a size reach."""
    points = []
    for size, of in zip(sizes, curves, strict=True):
        good = of.good
        if good.sum() < _LEAST_BATCHES:
            continue
        lines = [of.at(int(i), size.tokens[int(i)]) for i in np.flatnonzero(good)]
        # targets that every batch reached: nothing is extrapolated
        low = max(float(line.min()) for line in lines)
        high = min(float(line.max()) for line in lines)
        if not low < high:
            continue
        for target in np.linspace(low, high, TARGETS + 2)[1:-1]:
            reached = (of.a[good] / (target - of.e[good])) ** (1 / of.alpha[good]) * 1e9
            if not np.isfinite(reached).all():
                continue
            # relative errors of the tokens are alike
            design = np.stack([1 / reached, size.batches[good] / reached], axis=1)
            found, *_ = np.linalg.lstsq(design, np.ones(reached.size), rcond=None)
            minimum, per_batch = found.tolist()
            if minimum > 0 and per_batch > 0:
                points.append(_Point(size.params, minimum, minimum / per_batch))
    return points


def _resampled(
    sizes: Sequence[_Size], curves: Sequence[_Curves], seed: int
) -> list[tuple[float, float]]:
    random = np.random.default_rng(seed)
    lines = [
        [of.at(i, tokens) for i, tokens in enumerate(size.tokens)]
        for size, of in zip(sizes, curves, strict=True)
    ]
    rest, freedom = 0.0, 0
    for size, by_batch in zip(sizes, lines, strict=True):
        for loss, line in zip(size.losses, by_batch, strict=True):
            if np.isfinite(line).all():
                rest += float(np.sum((loss / line - 1) ** 2))
                freedom += loss.size - 3
    noise = math.sqrt(rest / max(freedom, 1))
    replicates = [
        [
            [line * (1 + noise * random.standard_normal(line.size)) for line in by_batch]
            for by_batch in lines
        ]
        for _ in range(REPLICATES)
    ]
    found = []
    for refit in _fit_curves(sizes, replicates):
        points = _points(sizes, refit)
        x = np.log([point.minimum for point in points])
        if np.unique(x).size < 2:
            continue
        law = fit_line(x, np.log([point.critical for point in points]))
        found.append((law.intercept, law.slope))
    return found
