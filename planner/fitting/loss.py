"""The loss law E + A / N^alpha + B / D^beta from final losses, and what the runs leave open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.fitting.errors import FitError
from planner.fitting.inputs import (
    FinalLoss,
    best_settings,
    require,
    select_final_losses,
    source_text,
)
from planner.fitting.result import Fit, LeftOut, Residual, rounded
from planner.fitting.statistics import t_quantile
from planner.kernel import Status
from planner.kernel.loss_law import (
    DELTA,
    LossLawFit,
    LossLawForm,
    bootstrap_loss_law,
    fit_loss_law,
    hoffmann_starts,
)
from planner.laws.law import Law
from planner.units import count_of, format_count

if TYPE_CHECKING:
    from planner.archive import Archive

Float64 = NDArray[np.float64]

REPLICATES = 2000
_PARAMETERS = 5
_FREE = LossLawForm()
# A constant counts as determined if the values that fit about equally well lie within this share
# of it on either side.
_DETERMINED = 0.5
_EXPONENT_MOST = 3.0
_BISECTIONS = 24
_EVERY_START = 37  # of Hoffmann's grid, for the many fits of a profile
_CONSTANTS = ("E", "A", "B", "alpha", "beta")


@dataclass(frozen=True, slots=True)
class _Data:
    n: Float64
    d: Float64
    loss: Float64

    def without_largest(self) -> tuple[_Data, _Data]:
        largest = self.n >= self.n.max() * 0.999
        return self.where(~largest), self.where(largest)

    def where(self, mask: NDArray[np.bool_]) -> _Data:
        return _Data(self.n[mask], self.d[mask], self.loss[mask])

    def fit(
        self,
        form: LossLawForm | None = None,
        threads: int | None = None,
        starts: Float64 | None = None,
    ) -> LossLawFit:
        return fit_loss_law(self.n, self.d, self.loss, form=form, threads=threads, starts=starts)


def fit_loss(
    archive: Archive,
    *,
    name: str = "fitted-loss",
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    level: float = 0.9,
    seed: int = 0,
    threads: int | None = None,
) -> Fit:
    """Fit L = E + A/N^alpha + B/D^beta to the final losses of an archive's finished runs.

    By Huber on log residuals (`planner.kernel.loss_law`). Runs that diverged or left their band far
    are left aside. Where runs of one size and budget differ in their settings, those of the best
    setting count. Intervals are percentiles over resampled runs; the range in which E, alpha and
    beta fit about equally well is that of the profile of the objective (Ronchetti's robust
    likelihood ratio test, with Student's quantile for the few runs).

    Args:
        archive: The archive.
        name: What specs are to call the law.
        metric: Series; see `planner.curves.choose_metric`.
        where: Conditions on runs, as for `planner.archive.list_runs`.
        runs: Patterns of names, of which one must match.
        level: Probability that an interval states.
        seed: Of the resampling.
        threads: None: all CPUs.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
        FitError: If there are too few runs, sizes or budgets.
    """
    series, finished, notes = select_final_losses(
        archive, metric=metric, where=where, runs=runs, healthy=True
    )
    known, unknown = require(finished, ("params", "tokens"))
    chosen, others = best_settings(known)
    notes += unknown
    if others:
        notes.append(
            f"{count_of(others, 'run')} left aside: another setting of the same size and tokens "
            "ended lower"
        )
    return fit_final_losses(
        chosen,
        name=name,
        metric=series,
        source=source_text(archive, series, len(chosen), "final losses"),
        notes=notes,
        level=level,
        seed=seed,
        threads=threads,
    )


def fit_final_losses(
    runs: Sequence[FinalLoss],
    *,
    name: str,
    metric: str,
    source: str,
    notes: Sequence[str] = (),
    level: float = 0.9,
    seed: int = 0,
    threads: int | None = None,
) -> Fit:
    """Fit the loss law to runs; arguments and errors as `fit_loss`."""
    data = _Data(
        np.array([float(run.facts.params or 0) for run in runs]),
        np.array([float(run.facts.tokens or 0) for run in runs]),
        np.array([run.loss for run in runs]),
    )
    _check(data)
    fit = data.fit(threads=threads)
    if not np.isfinite(fit.objective):
        raise FitError(f"the loss law cannot be fitted: {fit.status.name}")
    found = _constants(fit.theta)
    boot = bootstrap_loss_law(
        data.n, data.d, data.loss, fit, replicates=REPLICATES, seed=seed, threads=threads
    )
    tails = (50 * (1 - level), 50 * (1 + level))
    low, high = (_constants(row) for row in boot.percentiles(tails))
    intervals = {key: (min(low[key], found[key]), max(high[key], found[key])) for key in found}
    warnings, unidentified = [], []
    profile = _Profile(data, fit, level, threads)
    for key in ("E", "alpha", "beta"):
        reach = profile.interval(key)
        # the wider of the two: resampling few runs knows too little, too
        intervals[key] = (min(intervals[key][0], reach[0]), max(intervals[key][1], reach[1]))
        first, last = intervals[key]
        if max(found[key] - first, last - found[key]) > _DETERMINED * found[key]:
            unidentified.append(key)
            warnings.append(
                f"the runs do not determine {key}: from {_number(first)} to {_number(last)} it "
                f"fits about equally well ({found[key]:.4g} is best)"
            )
    unidentified += [of for of, by in (("A", "alpha"), ("B", "beta")) if by in unidentified]
    residual = np.log(data.loss) - np.log(fit.predict(data.n, data.d))
    freedom = max(data.n.size - _PARAMETERS, 1)
    covariance = _covariance(fit, boot.covariance, trust_bootstrap=not unidentified)
    if covariance is None:
        warnings.append("no covariance can be stated: plans will predict a loss without interval")
    left_out, why = _leave_largest_out(data, threads)
    law = Law(
        name=name,
        quantity="loss",
        form="chinchilla",
        input="params_and_tokens",
        constants=found,
        source=source,
        confidence="fitted",
        fitted_range={
            "params": (float(data.n.min()), float(data.n.max())),
            "tokens": (float(data.d.min()), float(data.d.max())),
        },
        covariance=covariance,
        scatter=float(np.sqrt(np.sum(residual**2) / freedom)),
        intervals=intervals,
        level=level,
        unidentified=tuple(key for key in _CONSTANTS if key in unidentified),
    )
    predicted = fit.predict(data.n, data.d)
    return Fit(
        law=rounded(law),
        kind="loss",
        metric=metric,
        runs=len(runs),
        error=float(np.mean(np.abs(predicted / data.loss - 1))),
        unit="relative",
        left_out=left_out,
        residuals=tuple(
            Residual(
                run.facts.run,
                run.facts.name,
                {"params": float(n), "tokens": float(d)},
                run.loss,
                float(value),
            )
            for run, n, d, value in zip(runs, data.n, data.d, predicted, strict=True)
        ),
        notes=(*notes, *why),
        warnings=tuple(warnings),
    )


def _check(data: _Data) -> None:
    sizes, budgets = np.unique(data.n).size, np.unique(data.d).size
    if data.n.size < _PARAMETERS + 1 or sizes < 2 or budgets < 2:
        raise FitError(
            f"got {count_of(data.n.size, 'finished run')} of {count_of(sizes, 'size')} and "
            f"{count_of(budgets, 'token budget')}; "
            "a loss law needs at least 6 runs, 2 sizes and 2 budgets"
        )


def _constants(theta: Float64) -> dict[str, float]:
    a, b, e, alpha, beta = theta[:5].tolist()
    with np.errstate(over="ignore"):
        big = [float(np.exp(min(value, 69.0))) for value in (e, a, b)]
    return {"E": big[0], "A": big[1], "B": big[2], "alpha": alpha, "beta": beta}


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.4g}"


class _Profile:
    """How much worse the best fit gets with one constant held.

    The statistic ``2 (rho(held) - rho(best)) E[psi'] / E[psi^2]`` is chi-squared with one degree of
    freedom where the held value is the true one (Ronchetti 1982; Heritier and Ronchetti 1994).
    """

    def __init__(self, data: _Data, fit: LossLawFit, level: float, threads: int | None) -> None:
        self.data, self.fit, self.threads = data, fit, threads
        self.starts = np.vstack([fit.theta[:5], hoffmann_starts()[::_EVERY_START]])
        freedom = max(data.n.size - _PARAMETERS, 1)
        residual = np.log(data.loss) - np.log(fit.predict(data.n, data.d))
        spread = 1.4826 * float(np.median(np.abs(residual)))
        window = max(DELTA, 1.84 * spread * data.n.size**-0.2)
        curvature = float(np.mean(np.abs(residual) <= window)) * DELTA / window
        psi2 = float(np.sum(np.clip(residual, -DELTA, DELTA) ** 2)) / freedom
        # residuals at the last digit of a loss say nothing about noise
        self.scale = 2.0 * curvature / max(psi2, 1e-24)
        self.most = t_quantile(level, freedom) ** 2

    def rejected(self, key: str, value: float) -> bool:
        form = LossLawForm(
            fixed_e=value if key == "E" else None,
            alpha_bounds=(value, value) if key == "alpha" else _FREE.alpha_bounds,
            beta_bounds=(value, value) if key == "beta" else _FREE.beta_bounds,
        )
        held = self.data.fit(form, self.threads, self.starts)
        if not np.isfinite(held.objective):
            return True
        return bool(self.scale * (held.objective - self.fit.objective) > self.most)

    def interval(self, key: str) -> tuple[float, float]:
        """Return the values not rejected around the best one; 0 or the bound where none is."""
        best = _constants(self.fit.theta)[key]
        lowest = 1e-3 * best
        highest = float(self.data.loss.min()) if key == "E" else _EXPONENT_MOST
        edge = lambda value: self.rejected(key, value)  # noqa: E731
        low = _edge(edge, best, lowest)
        high = _edge(edge, best, max(highest, best))
        return (0.0 if low <= lowest else low), high


def _edge(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where values begin to be rejected, by bisection in the logarithm."""
    if outside == inside or not rejected(outside):
        return outside
    a, b = np.log(inside), np.log(outside)
    for _ in range(_BISECTIONS):
        middle = (a + b) / 2
        if abs(b - a) < 1e-3:
            break
        if rejected(float(np.exp(middle))):
            b = middle
        else:
            a = middle
    return float(np.exp(a))


def _covariance(
    fit: LossLawFit, resampled: Float64, *, trust_bootstrap: bool
) -> tuple[tuple[float, ...], ...] | None:
    """Return the covariance of (log E, log A, log B, alpha, beta).

    Of the resampled fits; where constants are open, these run along a curved valley, and the
    sandwich at the best fit describes predictions within the fitted range better.
    """
    order = [2, 0, 1, 3, 4]
    for matrix in (resampled, fit.covariance) if trust_bootstrap else (fit.covariance, resampled):
        part = matrix[np.ix_(order, order)]
        if np.isfinite(part).all() and (np.diag(part) > 0).all():
            part = (part + part.T) / 2
            return tuple(tuple(row) for row in part.tolist())
    return None


def _leave_largest_out(
    data: _Data, threads: int | None
) -> tuple[tuple[LeftOut, ...], tuple[str, ...]]:
    rest, largest = data.without_largest()
    label = format_count(float(largest.n.max()))
    try:
        _check(rest)
    except FitError:
        return (), (f"too few runs to leave the largest size ({label}) out",)
    fit = rest.fit(threads=threads)
    if fit.status in (Status.NON_FINITE, Status.TOO_FEW_POINTS, Status.EMPTY):
        return (), (f"no fit without the largest size ({label})",)
    error = np.abs(fit.predict(largest.n, largest.d) / largest.loss - 1)
    what = f"the largest size, {label}"
    return (LeftOut(what, largest.n.size, float(error.mean()), "relative"),), ()
