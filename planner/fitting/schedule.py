"""The Multi-Power Law from curves with a known learning rate: the loss under any schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from planner.curves.schedule import Schedule, since_warmup
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
from planner.fitting.rates import Scheduled, scheduled
from planner.fitting.result import Fit, LeftOut, Residual, rounded
from planner.kernel import Ragged
from planner.kernel.multi_power_law import (
    MultiPowerLawFit,
    bootstrap_multi_power_law,
    fit_multi_power_law,
)
from planner.laws.law import Law
from planner.units import count_of, format_count

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
_DETERMINED = 0.5
_VALLEY = ("B", "C", "beta", "gamma")


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
        notes.append(f"{count_of(len(reasons), 'run')} left aside, such as {reasons[0]}")
    sizes: dict[str, list[Scheduled]] = {}
    for item in sorted(usable, key=lambda item: item.curve.facts.params or 0):
        sizes.setdefault(_label(item.curve), []).append(item)
    return [
        fit_curves_of_a_size(
            members,
            name=name if len(sizes) == 1 else f"{name}-{label}",
            metric=selection.metric,
            source=source_text(archive, selection.metric, len(members), f"curves of {label}"),
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
        metric=metric,
    )
    left_out, strays = _leave_each_out(items, held, threads) if leave_out else ((), [])
    law = with_curve_error(law, strays, [_since_warmup(item) for item in items])
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
        left_out=left_out,
        residuals=residuals,
        notes=(*notes, error_note(law)) if leave_out else tuple(notes),
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


def _since_warmup(item: Scheduled) -> Float64:
    every = np.arange(item.lr.size) / max(item.lr.size - 1, 1)
    return since_warmup(Schedule(every, item.lr / item.lr.max(), "logged"))


def _leave_each_out(
    items: Sequence[Scheduled], held: float | None, threads: int | None
) -> tuple[tuple[LeftOut, ...], list[tuple[Float64, Float64]]]:
    """Leave out each setting in turn.

    Returns:
        The error on each curve of a fit to the curves of the other settings; and each setting's
        schedule with how far its shape strays from such a fit, squared.
    """
    # steps and peak rate stand for TPP and tau, of which the law knows nothing
    of = [
        Setting(
            float(item.curve.facts.params) if item.curve.facts.params else None,
            float(item.lr.size),
            float(item.lr.max()),
            _since_warmup(item),
        )
        for item in items
    ]
    found: dict[int, LeftOut] = {}
    strays = []
    for group in settings(of):
        rest = [other for k, other in enumerate(items) if k not in group]
        fit = fit_multi_power_law(*ragged(rest), gamma=held, threads=threads) if rest else None
        if fit is None or not np.isfinite(fit.objective):
            continue
        lr, steps, _ = ragged([items[i] for i in group])
        found_squares = []
        for i, predicted in zip(group, fit.law.predict(lr, steps, threads=threads), strict=True):
            item = items[i]
            error = float(np.mean(np.abs(predicted - item.loss)))
            found[i] = LeftOut(item.curve.facts.name, 1, error, "nats")
            fraction = item.steps / (item.lr.size - 1)
            found_squares.append(squares(fraction, np.log(item.loss) - np.log(predicted)))
        stray = pooled(found_squares)
        if stray is not None:
            strays.append((of[group[0]].shape, stray))
    return tuple(found[i] for i in sorted(found)), strays
