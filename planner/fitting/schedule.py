"""The Multi-Power Law from curves with a known learning rate: the loss under any schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from planner.fitting.errors import FitError
from planner.fitting.inputs import select_curves, source_text
from planner.fitting.result import Fit, LeftOut, Residual, rounded
from planner.kernel import Ragged
from planner.kernel.multi_power_law import (
    MultiPowerLawFit,
    bootstrap_multi_power_law,
    fit_multi_power_law,
)
from planner.laws.law import Law
from planner.units import format_count

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.curves import Curve

Float64 = NDArray[np.float64]

CONSTANTS = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
REPLICATES = 100
# Where fewer schedules than this are known, gamma is held: it says how the answer to a drop depends
# on the rate after it, of which one or two drops show little. The value is the one of a coarse grid
# that predicts the other schedules of a 25M model best from three of them, and is tested on a 100M
# model (docs/accuracy.md).
GAMMA = 0.4
_FREE_FROM = 5
# A change of the rate between two logged steps is a jump, not a slope, if it is more than this
# share of the rate, and so many times the change before and after.
_JUMP = 0.2
_ABRUPT = 4.0
# The law is about what follows the warm-up: curves of which less is known are left aside.
_LEAST_POINTS = 8
_DETERMINED = 0.5
_VALLEY = ("B", "C", "beta", "gamma")


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A curve with the learning rate of every step.

    Attributes:
        curve: The curve.
        lr: Rate of every step from 0 to the last one that is used, shape ``(steps,)``.
        steps: Steps with a loss, after the warm-up.
        loss: Nats a token there.
    """

    curve: Curve
    lr: Float64
    steps: Float64
    loss: Float64


def fit_schedule(
    archive: Archive,
    *,
    name: str = "fitted-schedule",
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    warmup_steps: int | None = None,
    gamma: float | Literal["auto", "free"] = "auto",
    level: float = 0.9,
    seed: int = 0,
    replicates: int = REPLICATES,
    leave_out: bool = True,
    threads: int | None = None,
) -> list[Fit]:
    """Fit the Multi-Power Law (arXiv 2503.12811) to the curves of each size of an archive.

    Runs of one N are fitted together; where N is unknown, runs whose names share a folder. Huber on
    log residuals over all logged points after the warm-up.

    Args:
        archive: The archive.
        name: What the law is called; with several sizes, the size follows.
        metric: Series; see `planner.curves.choose_metric`.
        where: Conditions on runs, as for `planner.archive.list_runs`.
        runs: Patterns of names, of which one must match.
        warmup_steps: Steps of the linear warm-up, for logs that do not tell.
        gamma: Hold gamma at a number, or fit it; ``auto`` holds it at `GAMMA` where fewer than
            five different schedules are known.
        level: Probability that an interval states.
        seed: Of the resampling.
        replicates: Refits of resampled stretches of the curves, for the intervals; 0: none.
        leave_out: Whether to fit again without each curve in turn.
        threads: None: all CPUs.

    Returns:
        A fit for each size, smallest first.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
        FitError: If no curve has a learning rate known from step 0 on.
    """
    selection = select_curves(archive, metric=metric, where=where, runs=runs)
    usable, notes, reasons = [], [], []
    for curve in selection.curves:
        found = scheduled(curve, warmup_steps=warmup_steps)
        if isinstance(found, str):
            reasons.append(f"{curve.facts.name}: {found}")
        else:
            usable.append(found)
    if not usable:
        raise FitError(f"no curve can be fitted; {reasons[0]}")
    if reasons:
        notes.append(f"{len(reasons)} runs are left aside, such as {reasons[0]}")
    sizes: dict[str, list[Scheduled]] = {}
    for item in sorted(usable, key=lambda item: item.curve.facts.params or 0):
        sizes.setdefault(_label(item.curve), []).append(item)
    return [
        fit_curves_of_a_size(
            members,
            name=name if len(sizes) == 1 else f"{name}-{label}",
            metric=selection.metric,
            source=source_text(selection, archive.path.name, len(members), f"curves of {label}"),
            notes=notes,
            gamma=gamma,
            level=level,
            seed=seed,
            replicates=replicates,
            leave_out=leave_out,
            threads=threads,
        )
        for label, members in sizes.items()
    ]


def _label(curve: Curve) -> str:
    if curve.facts.params:
        return format_count(float(curve.facts.params))
    return curve.facts.name.rpartition("/")[0].replace("/", "-") or "runs"


def scheduled(curve: Curve, *, warmup_steps: int | None = None) -> Scheduled | str:
    """Return a curve with the learning rate of every step, or why it cannot be told.

    The logged rates, straight between two logged steps but where they jump (by a fifth or more, out
    of step with the changes around): there the rate before holds up to the step that logs the one
    after. Before the first logged step the rate rises linearly from 0 over the warm-up. Without
    logged rates: the declared schedule times the peak rate.
    """
    finite = np.isfinite(curve.values) & (curve.values > 0)
    if finite.sum() < _LEAST_POINTS:
        return f"it has {int(finite.sum())} points, wanted {_LEAST_POINTS}"
    last = int(curve.steps[finite][-1])
    warmup = warmup_steps if warmup_steps is not None else curve.facts.warmup_steps
    lr = _logged(curve, last, warmup) if curve.lr[0].size else _declared(curve, last)
    if isinstance(lr, str):
        return lr
    if warmup is None:
        warmup = int(np.argmax(lr >= 0.999 * lr.max()))
    known = finite & (curve.steps >= max(warmup, 1)) & (curve.steps < lr.size)
    if known.sum() < _LEAST_POINTS:
        return f"{int(known.sum())} points follow the warm-up, wanted {_LEAST_POINTS}"
    return Scheduled(curve, lr, curve.steps[known].astype(np.float64), curve.values[known])


def _logged(curve: Curve, last: int, warmup: int | None) -> Float64 | str:
    steps, rates = curve.lr
    usable = np.isfinite(rates) & (rates >= 0)
    steps, rates = steps[usable], rates[usable]
    if not steps.size or rates.max() <= 0:
        return "no learning rate was logged"
    first = int(steps[0])
    begins = first <= 1.5 * curve.every  # the log starts with the run
    if not begins and warmup is None:
        return (
            f"its learning rate is logged from step {first} on, and how long the warm-up was is "
            "not known: say --warmup-steps, or warmup_steps in a mapping file"
        )
    every = np.arange(min(last, int(steps[-1])) + 1)
    lr = np.interp(every, steps, rates)
    for i in _jumps(rates):
        if warmup is None or steps[i] >= warmup:
            lr[int(steps[i]) : int(steps[i + 1])] = rates[i]
    end = min(warmup, first) if warmup is not None else first
    if end > 0:
        before = every < end
        lr[before] = lr[min(first, lr.size - 1)] * every[before] / end
    return np.asarray(lr, np.float64)


def _jumps(rates: Float64) -> list[int]:
    change = np.abs(np.diff(rates))
    around = np.zeros(change.size)
    around[1:] = change[:-1]
    around[:-1] = np.maximum(around[:-1], change[1:])
    return np.flatnonzero((change > _JUMP * rates[:-1]) & (change > _ABRUPT * around)).tolist()


def _declared(curve: Curve, last: int) -> Float64 | str:
    if curve.schedule is None or not curve.horizon or not curve.facts.lr:
        return "its learning rate is neither logged nor declared"
    every = np.arange(last + 1)
    return curve.facts.lr * curve.schedule.at(every / curve.horizon)


def ragged(items: Sequence[Scheduled]) -> tuple[Ragged, Ragged, Ragged]:
    """Return rates, steps and losses as the kernel takes them."""
    return (
        Ragged.from_list([item.lr for item in items]),
        Ragged.from_list([item.steps for item in items]),
        Ragged.from_list([item.loss for item in items]),
    )


def fit_curves_of_a_size(
    items: Sequence[Scheduled],
    *,
    name: str,
    metric: str,
    source: str,
    notes: Sequence[str] = (),
    gamma: float | Literal["auto", "free"] = "auto",
    level: float = 0.9,
    seed: int = 0,
    replicates: int = REPLICATES,
    leave_out: bool = True,
    threads: int | None = None,
) -> Fit:
    """Fit one law to the curves of one size; arguments and errors as `fit_schedule`."""
    lr, steps, loss = ragged(items)
    shapes = {_shape(item) for item in items}
    held = None if gamma == "free" or (gamma == "auto" and len(shapes) >= _FREE_FROM) else gamma
    if held == "auto":
        held = GAMMA
        notes = (*notes, f"gamma is held at {GAMMA}: {len(shapes)} schedules hardly determine it")
    assert held is None or isinstance(held, (int, float))
    fit = fit_multi_power_law(lr, steps, loss, gamma=held, threads=threads)
    if not np.isfinite(fit.objective):
        raise FitError(f"the Multi-Power Law cannot be fitted to {name}: {fit.status.name}")
    constants = dict(zip(CONSTANTS, astuple(fit.law), strict=True))
    intervals, warnings, unidentified = _uncertainty(
        fit, (lr, steps, loss), constants, held, level, seed, replicates, threads
    )
    if len(shapes) < 2:
        warnings.append(
            "all curves have one learning-rate schedule: how the loss answers to others is not "
            "determined"
        )
        unidentified = tuple(key for key in CONSTANTS if key in {*unidentified, *_VALLEY})
    predicted = fit.law.predict(lr, steps, threads=threads)
    sizes = sorted({float(item.curve.facts.params) for item in items if item.curve.facts.params})
    peaks = [float(item.lr.max()) for item in items]
    ranges = {
        "peak_lr": (min(peaks), max(peaks)),
        "steps": (float(min(item.steps[-1] for item in items)), float(lr.lengths.max() - 1)),
    }
    if sizes:
        ranges["params"] = (sizes[0], sizes[-1])
    log_residual = np.log(loss.values) - np.log(predicted.values)
    law = Law(
        name=name,
        quantity="schedule",
        form="multi-power",
        input="lr_schedule",
        constants=constants,
        source=source,
        confidence="fitted",
        fitted_range=ranges,
        scatter=float(np.std(log_residual)),
        intervals=intervals,
        level=level if intervals else None,
        unidentified=unidentified,
    )
    residuals = tuple(
        Residual(
            item.curve.facts.run, item.curve.facts.name, {"step": float(s)}, float(y), float(p)
        )
        for item, found in zip(items, predicted, strict=True)
        for s, y, p in zip(item.steps, item.loss, found, strict=True)
    )
    errors = [
        float(np.mean(np.abs(found - item.loss)))
        for item, found in zip(items, predicted, strict=True)
    ]
    return Fit(
        law=rounded(law),
        kind="schedule",
        metric=metric,
        runs=len(items),
        error=float(np.mean(errors)),
        unit="nats",
        left_out=_leave_each_out(items, held, threads) if leave_out else (),
        residuals=residuals,
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _shape(item: Scheduled) -> tuple[float, ...]:
    """Return the rate at some steps, in hundredths of the peak: the same for equal schedules."""
    at = item.lr / item.lr.max()
    ends = np.linspace(0, at.size - 1, 9).astype(int)
    return (*np.round(at[ends], 2).tolist(), float(at.size))


def _uncertainty(
    fit: MultiPowerLawFit,
    data: tuple[Ragged, Ragged, Ragged],
    constants: dict[str, float],
    held: float | None,
    level: float,
    seed: int,
    replicates: int,
    threads: int | None,
) -> tuple[dict[str, tuple[float, float]], list[str], tuple[str, ...]]:
    if replicates <= 0:
        return {}, [], ()
    boot = bootstrap_multi_power_law(
        *data, fit, gamma=held, replicates=replicates, seed=seed, threads=threads
    )
    low, high = boot.percentiles((50 * (1 - level), 50 * (1 + level)))
    if not np.isfinite(low).all():
        return {}, ["no interval can be stated: no refit of resampled curves succeeded"], CONSTANTS
    intervals = {
        key: (min(float(a), constants[key]), max(float(b), constants[key]))
        for key, a, b in zip(CONSTANTS, low, high, strict=True)
        if key != "gamma" or held is None
    }
    open_ = tuple(
        key
        for key, (a, b) in intervals.items()
        if max(b - constants[key], constants[key] - a) > _DETERMINED * abs(constants[key])
    )
    if not open_:
        return intervals, [], ()
    spans = ", ".join(f"{key} {intervals[key][0]:.3g} to {intervals[key][1]:.3g}" for key in open_)
    return (
        intervals,
        [f"the curves do not determine {spans}: such values fit about equally well together"],
        open_,
    )


def _leave_each_out(
    items: Sequence[Scheduled], held: float | None, threads: int | None
) -> tuple[LeftOut, ...]:
    """Return the error on each curve of a fit to the others."""
    if len(items) < 2:
        return ()
    found = []
    for i, item in enumerate(items):
        rest = [other for k, other in enumerate(items) if k != i]
        fit = fit_multi_power_law(*ragged(rest), gamma=held, threads=threads)
        if not np.isfinite(fit.objective):
            continue
        lr, steps, loss = ragged([item])
        predicted = fit.law.predict(lr, steps, threads=threads)
        error = float(np.mean(np.abs(predicted.values - loss.values)))
        found.append(LeftOut(item.curve.facts.name, 1, error, "nats"))
    return tuple(found)
