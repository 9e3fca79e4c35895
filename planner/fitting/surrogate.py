"""The surrogate of normalized curves from an archive: b over tau and q over TPP, fitted jointly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.fitting.errors import FitError
from planner.fitting.inputs import select_curves, source_text
from planner.fitting.result import Fit, LeftOut, Residual, rounded
from planner.fitting.surrogate_search import Evaluator, Problem, search
from planner.kernel import Ragged
from planner.kernel.smoothing import Smoother, resample
from planner.laws.law import Law
from planner.laws.surrogate import EPS1, EPS2, M
from planner.units import format_count

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.curves import Curve

Float64 = NDArray[np.float64]

SEQUENCES = 12_288
"""Window of the moving average (arXiv 2509.25087, D.1)."""
LEAST_WINDOW = 0.01
"""Of training: logs of few, noisy values need more than the sequences to tell a final loss."""
MOST_WINDOW = 0.05
"""Of training: the sequences are so much of a very short run that its shape would be gone."""
START = 0.2
"""Curves are compared from this fraction of training on (arXiv 2509.25087, section 5)."""
GRID = np.linspace(START, 1.0, 161)
REPLICATES = 200

_CONSTANTS = ("b_coefficient", "b_exponent", "q_coefficient", "q_exponent")
_DETERMINED = 0.5
_SMALL = 0.1
# inputs that differ by less than this in the logarithm say nothing about an exponent
_ONE_VALUE = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """One normalized curve on `GRID`.

    Attributes:
        run: Id.
        name: Name.
        params: N, if known.
        tau: AdamW timescale, fraction of training.
        tpp: Tokens per parameter.
        loss: Loss over final loss, not-a-number where missing, shape ``(grid,)``.
        lr: Learning rate in units of its peak, shape ``(grid,)``.
        end: Where the curve is 1: the middle of the window that the divisor is the mean of. A decay
            to zero falls steeply there, and taking it for t = 1 would bias q.
        end_lr: Learning rate there, in units of its peak.
    """

    run: str
    name: str
    params: float | None
    tau: float
    tpp: float
    loss: Float64
    lr: Float64
    end: float
    end_lr: float


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
        source=source_text(selection, archive.path.name, len(samples), "normalized curves"),
        notes=notes,
        level=level,
        seed=seed,
        replicates=replicates,
        threads=threads,
    )


def normalized_samples(
    curves: Sequence[Curve], *, sequences: float = SEQUENCES, threads: int | None = None
) -> tuple[list[Sample], list[str]]:
    """Return the curves that can be fitted, normalized, and sentences about the others."""
    chosen, missing = [], Counter[str]()
    for curve in curves:
        why = _unusable(curve)
        if why is None:
            chosen.append(curve)
        else:
            missing[why] += 1
    notes = [f"{count} runs are left aside: {why}" for why, count in sorted(missing.items())]
    if not chosen:
        return [], notes
    finite = [np.isfinite(curve.values) for curve in chosen]
    values = Ragged.from_list([c.values[ok] for c, ok in zip(chosen, finite, strict=True)])
    times = Ragged.from_list([c.fraction[ok] for c, ok in zip(chosen, finite, strict=True)])
    points = np.array([_window(curve, sequences) for curve in chosen])
    smoother = Smoother.by_steps(points, centred=True)
    divisors = np.array(
        [float(v[-max(int(n), 1) :].mean()) for v, n in zip(values, points, strict=True)]
    )
    found = resample(
        values, GRID, smoother, positions=times, divisors=divisors, threads=threads
    ).values
    samples = []
    for curve, loss, t, window in zip(chosen, found, times, points, strict=True):
        assert curve.schedule is not None
        count = max(int(window), 1)
        end = float(t[-count:].mean())
        # further on, windows are not centred any more
        last = float(t[-1 - (count - 1) // 2]) if count <= t.size else end
        loss = np.where(last + 1e-9 < GRID, np.nan, loss)
        samples.append(
            Sample(
                run=curve.facts.run,
                name=curve.facts.name,
                params=float(curve.facts.params) if curve.facts.params else None,
                tau=float(curve.facts.tau or 0),
                tpp=float(curve.facts.tpp or 0),
                loss=loss,
                lr=curve.schedule.at(GRID),
                end=end,
                end_lr=float(curve.schedule.at(end)),
            )
        )
    return samples, notes


def _unusable(curve: Curve) -> str | None:
    if not curve.finished:
        return "unfinished" if curve.horizon is not None else "of unknown length"
    if np.isfinite(curve.values).sum() < 10:
        return "fewer than 10 points"
    if not np.isfinite(curve.values[-1]) or not curve.values[-1] > 0:
        return "without a finite final loss"
    if curve.values[-1] > 1.2 * float(np.nanmin(curve.values)):
        return "diverged: the loss ended far above its lowest"
    for known, what in (
        (curve.schedule, "schedule"),
        (curve.facts.tau, "tau"),
        (curve.facts.tpp, "TPP"),
    ):
        if not known:
            return f"unknown {what}"
    assert curve.schedule is not None
    return None if curve.schedule.covers(1.0) else "the schedule is known in part only"


def _window(curve: Curve, sequences: float) -> float:
    """Return the points of the moving average."""
    horizon = float(curve.horizon or curve.steps[-1])
    steps = LEAST_WINDOW * horizon
    facts = curve.facts
    if facts.batch_tokens and facts.seq_len:
        steps = max(steps, sequences / (facts.batch_tokens / facts.seq_len))
    steps = min(steps, MOST_WINDOW * horizon)
    return max(round(steps / max(curve.every, 1.0)), 1)


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


def curve_errors(samples: Sequence[Sample], constants: dict[str, float]) -> Float64:
    """Return each curve's mean absolute error over t >= 0.2, shape ``(curves,)``."""
    predicted = predict(samples, constants)
    observed = np.array([sample.loss for sample in samples])
    return np.asarray(np.nanmean(np.abs(predicted - observed), axis=1), np.float64)


def predict(samples: Sequence[Sample], constants: dict[str, float]) -> Float64:
    """Return the surrogate of each curve on `GRID`, shape ``(curves, grid)``."""
    problem, centre, _ = _problem(samples)
    theta = np.array(
        [
            math.log(constants["b_coefficient"]) + constants["b_exponent"] * centre[0],
            constants["b_exponent"],
            math.log(constants["q_coefficient"]) + constants["q_exponent"] * centre[1],
            constants["q_exponent"],
        ]
    )
    return Evaluator(problem).terms(theta)[0]


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
    law = Law(
        name=name,
        quantity="curve",
        form="collapse-surrogate",
        input="tau_and_tpp",
        constants={**constants, "eps1": EPS1, "eps2": EPS2, "m": M},
        source=source,
        confidence="fitted",
        fitted_range={"tau": (min(taus), max(taus)), "tpp": (min(tpps), max(tpps))},
        scatter=float(np.nanstd(np.log(observed) - np.log(predicted))),
        intervals=intervals,
        level=level if intervals else None,
        unidentified=unidentified,
    )
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
        notes=(*notes, *why),
        warnings=tuple(warnings),
    )


def _intervals(
    samples: Sequence[Sample], joint: JointFit, level: float, seed: int, replicates: int
) -> dict[str, tuple[float, float]]:
    if replicates <= 0 or len(samples) < 3:
        return {}
    problem, centre, _ = _problem(samples)
    c = joint.constants
    start = np.array(
        [
            math.log(c["b_coefficient"]) + c["b_exponent"] * centre[0],
            c["b_exponent"],
            math.log(c["q_coefficient"]) + c["q_exponent"] * centre[1],
            c["q_exponent"],
        ]
    )
    thin = problem.thinned(4)
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
