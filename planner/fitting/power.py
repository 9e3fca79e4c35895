"""A power law through the optima of sweeps: tau over TPP, batch over tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from planner.fitting.errors import FitError
from planner.fitting.optimum import Optimum, Sweep, find_optimum, pooled_errors
from planner.fitting.result import Fit, LeftOut, Residual, rounded
from planner.fitting.statistics import Line, fit_line
from planner.laws.law import QUANTITIES, Law
from planner.units import format_count

if TYPE_CHECKING:
    from planner.fitting.statistics import Float64

# An exponent counts as determined if its interval reaches less far than this share of it, or this.
_DETERMINED = 0.5
_SMALL = 0.1
# inputs that differ by less are one
_DIFFERENT = 1.05


def fit_optima(
    sweeps: Sequence[Sweep],
    *,
    quantity: str,
    kind: str,
    name: str,
    metric: str,
    source: str,
    unit: str,
    notes: Sequence[str],
    level: float,
) -> Fit:
    """Fit ``best = coefficient * input^exponent`` to the optima of sweeps.

    Raises:
        FitError: If fewer than two sweeps at different inputs have an optimum.
    """
    form, argument = QUANTITIES[quantity]
    optima, failed = [], []
    for sweep in sweeps:
        found = find_optimum(sweep)
        if isinstance(found, Optimum):
            optima.append(found)
        else:
            failed.append(f"{sweep.name}: {found}")
    inputs = np.array([optimum.sweep.at for optimum in optima])
    if not optima or inputs.max() < inputs.min() * _DIFFERENT:
        at = ", ".join(sorted({f"{value:.4g}" for value in inputs})) or "none"
        reasons = "; ".join(failed[:4]) or "no runs differ in this setting alone"
        raise FitError(
            f"a power law needs optima at two different {argument} at least, got {at} ({reasons})"
        )
    errors = pooled_errors(optima)
    line = _line(optima, errors, level)
    coefficient, exponent = math.exp(line.intercept), line.slope
    warnings = []
    if failed:
        # what is left out this way is not left out at random: the law leans towards the others
        warnings.append(
            f"{len(failed)} of {len(sweeps)} sweeps do not enclose their optimum, such as "
            + failed[0]
        )
    intervals, unidentified = _intervals(line, warnings, argument)
    predicted = coefficient * inputs**exponent
    best = np.array([optimum.best for optimum in optima])
    used = {run for optimum in optima for run in optimum.sweep.runs}
    law = Law(
        name=name,
        quantity=quantity,
        form=form,
        input=argument,
        constants={"coefficient": coefficient, "exponent": exponent},
        source=source,
        confidence="fitted",
        fitted_range={argument: (float(inputs.min()), float(inputs.max()))},
        scatter=line.scatter if len(optima) > 2 else None,
        intervals=intervals,
        level=level if intervals else None,
        unidentified=unidentified,
    )
    left_out, why = _leave_largest_out(optima, errors, level)
    tried = ", ".join(f"{optimum.sweep.name}: {optimum.best:.4g}" for optimum in optima[:6]) + (
        f" and {len(optima) - 6} more" if len(optima) > 6 else ""
    )
    return Fit(
        law=rounded(law),
        kind=kind,
        metric=metric,
        runs=len(used),
        error=float(np.mean(np.abs(predicted / best - 1))),
        unit="relative",
        left_out=left_out,
        residuals=tuple(
            Residual(
                optimum.sweep.name,
                optimum.sweep.name,
                {argument: optimum.sweep.at, "params": optimum.sweep.params},
                optimum.best,
                float(value),
            )
            for optimum, value in zip(optima, predicted, strict=True)
        ),
        notes=(*notes, f"optima{f' in {unit}' if unit else ''}: {tried}", *why),
        warnings=tuple(warnings),
    )


def _line(optima: Sequence[Optimum], errors: Float64, level: float) -> Line:
    x = np.log([optimum.sweep.at for optimum in optima])
    y = np.log([optimum.best for optimum in optima])
    return fit_line(x, y, errors, level=level)


def _intervals(
    line: Line, warnings: list[str], argument: str
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    if not np.isfinite(line.covariance).all():
        warnings.append("nothing tells how sure the constants are: two optima, each of three runs")
        return {}, ("coefficient", "exponent")
    low, high = line.interval(1)
    first, last = line.interval(0)
    # beyond this the coefficient, at an input of 1, is no number to state
    first, last = max(first, -69.0), min(last, 69.0)
    intervals = {"coefficient": (math.exp(first), math.exp(last)), "exponent": (low, high)}
    reach = (high - low) / 2
    if reach > max(_DETERMINED * abs(line.slope), _SMALL):
        warnings.append(
            f"the runs do not determine the exponent: from {low:.3g} to {high:.3g} it fits "
            f"about equally well ({line.slope:.3g} is best); sweeps at further {argument} would"
        )
        return intervals, ("coefficient", "exponent")
    return intervals, ()


def _leave_largest_out(
    optima: Sequence[Optimum], errors: Float64, level: float
) -> tuple[tuple[LeftOut, ...], tuple[str, ...]]:
    sizes = np.array([optimum.sweep.params for optimum in optima])
    largest = sizes >= sizes.max() * 0.999
    rest = [optimum for optimum, is_it in zip(optima, largest, strict=True) if not is_it]
    label = format_count(float(sizes.max()))
    at = [optimum.sweep.at for optimum in rest]
    if not rest or max(at) < min(at) * _DIFFERENT:
        return (), (f"too few optima to leave the largest size ({label}) out",)
    line = _line(rest, errors[~largest], level)
    off = [
        abs(math.exp(line.intercept + line.slope * math.log(optimum.sweep.at)) / optimum.best - 1)
        for optimum, is_it in zip(optima, largest, strict=True)
        if is_it
    ]
    return (LeftOut(f"the largest size, {label}", len(off), float(np.mean(off)), "relative"),), ()
