"""The surrogate of normalized curves from an archive: b over tau and q over TPP, fitted jointly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.fitting.curve_error import (
    Setting,
    error_note,
    pooled,
    settings,
    squares,
    with_curve_error,
)
from planner.fitting.errors import FitError
from planner.fitting.inputs import select_curves, source_text
from planner.fitting.result import Fit, LeftOut, Residual, rounded
from planner.fitting.samples import GRID, SEQUENCES, Sample, normalized_samples
from planner.fitting.surrogate_search import Evaluator, Problem, search
from planner.laws.law import Law
from planner.laws.surrogate import EPS1, EPS2, M
from planner.units import format_count

if TYPE_CHECKING:
    from planner.archive import Archive

Float64 = NDArray[np.float64]

REPLICATES = 200

_CONSTANTS = ("b_coefficient", "b_exponent", "q_coefficient", "q_exponent")
_DETERMINED = 0.5
_THIN = 4
_SMALL = 0.1
# inputs that differ by less than this in the logarithm say nothing about an exponent
_ONE_VALUE = 0.05


@dataclass(frozen=True, slots=True)
class JointFit:
    """The four constants, and how well they do.

    Attributes:
        constants: By name.
        error: Mean over curves of the mean absolute error over t >= 0.2.
        errors: Of each curve, shape ``(curves,)``.
        held: Exponents that the curves say nothing about, held at 0.
    """

    constants: dict[str, float]
    error: float
    errors: Float64
    held: tuple[str, ...]


def fit_surrogate(
    archive: Archive,
    *,
    name: str = "fitted-surrogate",
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    sequences: float = SEQUENCES,
    level: float = 0.9,
    seed: int = 0,
    replicates: int = REPLICATES,
    threads: int | None = None,
) -> Fit:
    """Fit ``b = b_c tau^b_e`` and ``q = q_c TPP^q_e`` of the surrogate (arXiv 2509.25087, Eq. 4-5).

    Curves are smoothed over 12,288 sequences, within 1 and 5 % of training, and divided by their
    last smoothed value. The four constants together minimize the mean over curves of the mean
    absolute error over t >= 0.2. Intervals are percentiles over resampled curves.

    Args:
        archive: The archive.
        name: What the law is called.
        metric: Series; see `planner.curves.choose_metric`.
        where: Conditions on runs, as for `planner.archive.list_runs`.
        runs: Patterns of names, of which one must match.
        sequences: Width of the moving average.
        level: Probability that an interval states.
        seed: Of the resampling.
        replicates: Refits of resampled curves; 0: no intervals.
        threads: None: all CPUs.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
        FitError: If there are fewer than two finished curves with known schedule, tau and TPP.
    """
    selection = select_curves(archive, metric=metric, where=where, runs=runs)
    samples, notes = normalized_samples(selection.curves, sequences=sequences, threads=threads)
    if len(samples) < 2:
        reasons = "; ".join(notes) or "there are no others"
        raise FitError(
            f"got {len(samples)} finished curves whose schedule, tau and TPP are known, wanted two "
            f"at least ({reasons})"
        )
    return fit_samples(
        samples,
        name=name,
        metric=selection.metric,
        source=source_text(archive, selection.metric, len(samples), "normalized curves"),
        notes=notes,
        level=level,
        seed=seed,
        replicates=replicates,
        threads=threads,
    )


def joint_fit(samples: Sequence[Sample]) -> JointFit:
    """Fit the four constants to normalized curves by least absolute error."""
    problem, centre, held = _problem(samples)
    theta, error = search(problem)
    return JointFit(
        _constants(theta, centre), error, curve_errors(samples, _constants(theta, centre)), held
    )


def _problem(samples: Sequence[Sample]) -> tuple[Problem, Float64, tuple[str, ...]]:
    log_tau = np.log([sample.tau for sample in samples])
    log_tpp = np.log([sample.tpp for sample in samples])
    centre = np.array([log_tau.mean(), log_tpp.mean()])
    one = [float(np.ptp(log_tau)) < _ONE_VALUE, float(np.ptp(log_tpp)) < _ONE_VALUE]
    held = tuple(key for key, is_it in zip(("b_exponent", "q_exponent"), one, strict=True) if is_it)
    problem = Problem(
        fraction=GRID,
        loss=np.array([sample.loss for sample in samples]),
        lr=np.array([sample.lr for sample in samples]),
        end=np.array([sample.end for sample in samples]),
        end_lr=np.array([sample.end_lr for sample in samples]),
        log_tau=log_tau - centre[0],
        log_tpp=log_tpp - centre[1],
        weight=np.ones(len(samples)),
        free=np.array([True, not one[0], True, not one[1]]),
    )
    return problem, centre, held


def _constants(theta: Float64, centre: Float64) -> dict[str, float]:
    b, be, q, qe = theta.tolist()
    return {
        "b_coefficient": math.exp(b - be * centre[0]),
        "b_exponent": be,
        "q_coefficient": math.exp(q - qe * centre[1]),
        "q_exponent": qe,
    }


def _unknowns(constants: dict[str, float], centre: Float64) -> Float64:
    c = constants
    return np.array(
        [
            math.log(c["b_coefficient"]) + c["b_exponent"] * centre[0],
            c["b_exponent"],
            math.log(c["q_coefficient"]) + c["q_exponent"] * centre[1],
            c["q_exponent"],
        ]
    )


def curve_errors(samples: Sequence[Sample], constants: dict[str, float]) -> Float64:
    """Return each curve's mean absolute error over t >= 0.2, shape ``(curves,)``."""
    predicted = predict(samples, constants)
    observed = np.array([sample.loss for sample in samples])
    return np.asarray(np.nanmean(np.abs(predicted - observed), axis=1), np.float64)


def predict(samples: Sequence[Sample], constants: dict[str, float]) -> Float64:
    """Return the surrogate of each curve on `GRID`, shape ``(curves, grid)``."""
    problem, centre, _ = _problem(samples)
    return Evaluator(problem).terms(_unknowns(constants, centre))[0]


def oracle_errors(samples: Sequence[Sample]) -> Float64:
    """Return the errors of the best b and q of each curve by itself, shape ``(curves,)``."""
    return np.array([joint_fit([sample]).error for sample in samples])


def fit_samples(
    samples: Sequence[Sample],
    *,
    name: str,
    metric: str,
    source: str,
    notes: Sequence[str] = (),
    level: float = 0.9,
    seed: int = 0,
    replicates: int = REPLICATES,
    threads: int | None = None,
) -> Fit:
    """Fit the surrogate's law to normalized curves; arguments and errors as `fit_surrogate`."""
    joint = joint_fit(samples)
    constants = joint.constants
    intervals = _intervals(samples, joint, level, seed, replicates)
    warnings, unidentified = _identified(samples, joint, intervals)
    taus = [sample.tau for sample in samples]
    tpps = [sample.tpp for sample in samples]
    predicted = predict(samples, constants)
    observed = np.array([sample.loss for sample in samples])
    ranges = {"tau": (min(taus), max(taus)), "tpp": (min(tpps), max(tpps))}
    sizes = [sample.params for sample in samples if sample.params]
    if len(sizes) == len(samples):
        ranges["params"] = (min(sizes), max(sizes))
    law = Law(
        name=name,
        quantity="curve",
        form="collapse-surrogate",
        input="tau_and_tpp",
        constants={**constants, "eps1": EPS1, "eps2": EPS2, "m": M},
        source=source,
        confidence="fitted",
        fitted_range=ranges,
        scatter=float(np.nanstd(np.log(observed) - np.log(predicted))),
        intervals=intervals,
        level=level if intervals else None,
        unidentified=unidentified,
        metric=metric,
    )
    shapes = [sample.shape for sample in samples]
    law = with_curve_error(law, _strays(samples, joint), shapes)
    left_out, why = _leave_largest_out(samples)
    return Fit(
        law=rounded(law),
        kind="surrogate",
        metric=metric,
        runs=len(samples),
        error=joint.error,
        unit="relative",
        left_out=left_out,
        residuals=tuple(
            Residual(sample.run, sample.name, {"fraction": float(t)}, float(y), float(value))
            for sample, line in zip(samples, predicted, strict=True)
            for t, y, value in zip(GRID[::4], sample.loss[::4], line[::4], strict=True)
            if math.isfinite(y)
        ),
        notes=(*notes, *why, error_note(law)),
        warnings=tuple(warnings),
    )


def _intervals(
    samples: Sequence[Sample], joint: JointFit, level: float, seed: int, replicates: int
) -> dict[str, tuple[float, float]]:
    if replicates <= 0 or len(samples) < 3:
        return {}
    problem, centre, _ = _problem(samples)
    c = joint.constants
    start = _unknowns(c, centre)
    thin = problem.thinned(_THIN)
    random = np.random.default_rng(seed)
    n = len(samples)
    found = []
    for _ in range(replicates):
        counts = random.multinomial(n, np.full(n, 1.0 / n)).astype(np.float64)
        theta, _error = search(thin.weighted(counts), start)
        found.append(list(_constants(theta, centre).values()))
    low, high = np.percentile(found, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return {
        key: (min(float(a), c[key]), max(float(b), c[key]))
        for key, a, b in zip(_CONSTANTS, low, high, strict=True)
        if key not in joint.held
    }


def _identified(
    samples: Sequence[Sample], joint: JointFit, intervals: dict[str, tuple[float, float]]
) -> tuple[list[str], tuple[str, ...]]:
    warnings, found = [], []
    for term, argument, value in (
        ("b", "tau", samples[0].tau),
        ("q", "TPP", samples[0].tpp),
    ):
        coefficient, exponent = f"{term}_coefficient", f"{term}_exponent"
        if exponent in joint.held:
            found += [coefficient, exponent]
            warnings.append(
                f"all curves have one {argument}, {value:.4g}: {exponent} is held at 0, any value "
                "fits equally well"
            )
            continue
        if exponent not in intervals:
            continue
        low, high = intervals[exponent]
        best = joint.constants[exponent]
        if (high - low) / 2 > max(_DETERMINED * abs(best), _SMALL):
            found += [coefficient, exponent]
            warnings.append(
                f"the curves do not determine {exponent}: from {low:.3g} to {high:.3g} it fits "
                f"about equally well ({best:.3g} is best)"
            )
    if not intervals:
        warnings.append(f"{len(samples)} curves tell no intervals, wanted three at least")
    return warnings, tuple(key for key in _CONSTANTS if key in found)


def _strays(samples: Sequence[Sample], joint: JointFit) -> list[tuple[Float64, Float64]]:
    """Return each setting's schedule, and how far it strays from a fit without it, squared."""
    problem, centre, _ = _problem(samples)
    start, thin = _unknowns(joint.constants, centre), problem.thinned(_THIN)
    observed = np.log(problem.loss)
    found = []
    for group in settings([Setting(s.params, s.tpp, s.tau, s.shape) for s in samples]):
        weight = np.ones(len(samples))
        weight[group] = 0.0
        if np.count_nonzero(weight) < 2:
            continue
        theta, _ = search(thin.weighted(weight), start)
        predicted = np.log(Evaluator(problem).terms(theta)[0])
        strays = pooled([squares(GRID, observed[i] - predicted[i]) for i in group])
        if strays is not None:
            found.append((samples[group[0]].shape, strays))
    return found


def _leave_largest_out(
    samples: Sequence[Sample],
) -> tuple[tuple[LeftOut, ...], tuple[str, ...]]:
    known = [sample.params for sample in samples if sample.params]
    if len(known) < len(samples) or max(known) < 1.01 * min(known):
        return (), ("one size only, or unknown sizes: none can be left out",)
    edge = 0.99 * max(known)
    rest = [sample for sample in samples if (sample.params or 0) < edge]
    largest = [sample for sample in samples if (sample.params or 0) >= edge]
    label = format_count(max(known))
    if len(rest) < 2:
        return (), (f"too few curves to leave the largest size ({label}) out",)
    fit = joint_fit(rest)
    error = float(curve_errors(largest, fit.constants).mean())
    oracle = float(oracle_errors(largest).mean())
    what = f"the largest size, {label}"
    return (LeftOut(what, len(largest), error, "relative", oracle),), ()
