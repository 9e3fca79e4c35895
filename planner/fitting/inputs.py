"""Runs out of an archive as the fits need them: finished ones, with their final loss."""

from __future__ import annotations

import fnmatch
import math
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from planner.archive import list_runs
from planner.curves import Curve, load_curves
from planner.curves.bins import bin_curves, join
from planner.curves.forecast.healthy import sick_runs
from planner.fitting.errors import FitError
from planner.units import count_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from planner.archive import Archive
    from planner.curves import RunFacts, Schedule
    from planner.curves.bins import Binned
    from planner.plan import Plan

# The final loss is the mean over this last fraction of training: one noisy step does not decide,
# and at the end of a decay the loss hardly moves within it.
TAIL = 0.01
# A run whose final loss is this much above its lowest value has diverged, whatever it was set to;
# single values scatter by a few percent about a healthy end.
_DIVERGED = 1.2
_NAMED = 3  # what deviates is named, up to so many
# two schedules are one shape if they differ by less than this share of the peak
_SAME_SHAPE = 0.03
# two budgets, sizes or settings are one if they differ by less than this
SAME = 0.005


@dataclass(frozen=True, slots=True)
class FinalLoss:
    """A finished run and its final loss.

    Attributes:
        facts: What is known of the run.
        loss: Nats a token as a rule.
        schedule: Shape of its learning rate, if known.
    """

    facts: RunFacts
    loss: float
    schedule: Schedule | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What a fit is made of.

    Attributes:
        metric: Series.
        curves: Curves of the runs that match, by name.
    """

    metric: str
    curves: list[Curve]


def select_curves(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    plans: Sequence[Plan] = (),
) -> Selection:
    """Return the curves of the runs that match; arguments and errors as `matching_curves`."""
    batches = matching_curves(archive, metric=metric, where=where, runs=runs, plans=plans)
    curves = [curve for batch in batches for curve in batch]
    return Selection(curves[0].metric, curves)


def select_final_losses(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    plans: Sequence[Plan] = (),
    healthy: bool = False,
) -> tuple[str, list[FinalLoss], list[str]]:
    """Return the metric, the finished runs that match, and sentences about the others.

    Curves are read some at a time, and only their final losses are kept. The final loss is the mean
    over the last 1 % of training, or the last value of a sparser log. A run of one point, such as a
    row of a table, is taken as finished. Other arguments and errors as `matching_curves`.

    Args:
        archive: The archive.
        metric: As for `matching_curves`.
        where: As for `matching_curves`.
        runs: As for `matching_curves`.
        plans: As for `matching_curves`.
        healthy: Leave aside what no forecast would rest on either
            (`planner.curves.forecast.healthy.sick_runs`). Not for sweeps: most of their settings
            are meant to be worse.
    """
    found, missing, name = [], Counter[str](), ""
    binned: list[Binned] = []
    for batch in matching_curves(archive, metric=metric, where=where, runs=runs, plans=plans):
        whole = []
        for curve in batch:
            name = curve.metric
            run = _finished(curve)
            if isinstance(run, str):
                missing[run] += 1
            else:
                found.append(run)
                whole += [curve] if curve.steps.size > 1 else []
        if healthy and whole:
            binned.append(bin_curves(whole))
    notes = [
        f"{count_of(count, 'run')} left aside: {why}" for why, count in sorted(missing.items())
    ]
    if binned:
        sick = sick_runs(join(binned), name)
        gone = {each.run for each in sick}
        found = [run for run in found if run.facts.run not in gone]
        notes += [f"{each.name} left aside, it deviates: {each.reason}" for each in sick[:_NAMED]]
        if len(sick) > _NAMED:
            notes.append(f"{len(sick) - _NAMED:,} more runs left aside: they deviate, too")
    return name, found, notes


def matching_curves(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    plans: Sequence[Plan] = (),
) -> Iterator[list[Curve]]:
    """Yield the curves of the runs that match, some at a time.

    Args:
        archive: The archive.
        metric: Series; see `planner.curves.choose_metric`.
        where: Conditions that all must hold, as for `planner.archive.list_runs`.
        runs: Patterns of names or ids, of which one must match; all runs if none.
        plans: Plans to match the runs to, besides those that the archive keeps.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
        FitError: If no run matches.
    """
    asked = [*where, *runs]
    nothing = FitError("no run matches " + " and ".join(asked) if asked else "there are no runs")
    if not list_runs(archive, where=where, columns=("run",)):
        raise nothing
    found = False
    for batch in load_curves(archive, metric=metric, where=where, plans=plans):
        chosen = [
            curve
            for curve in batch
            if not runs or any(_matches(curve.facts, pattern) for pattern in runs)
        ]
        if chosen:
            found = True
            yield chosen
    if not found:
        raise nothing


def _matches(facts: RunFacts, pattern: str) -> bool:
    return facts.run == pattern or fnmatch.fnmatchcase(facts.name, pattern)


def _finished(curve: Curve) -> FinalLoss | str:
    """Return a finished run, or why it is none."""
    if curve.values.size != 1 and not curve.finished:
        return "unfinished" if curve.horizon is not None else "of unknown length"
    loss = final_loss(curve)
    if loss is None:
        return "without a finite final loss"
    if loss > _DIVERGED * float(np.nanmin(curve.values)):
        return "diverged: the loss ended far above its lowest"
    return FinalLoss(curve.facts, loss, curve.schedule)


def final_loss(curve: Curve) -> float | None:
    """Return the final loss of a curve; None where its end is not finite or not positive."""
    if not curve.values.size:
        return None
    last = curve.values[curve.fraction >= curve.fraction[-1] - TAIL]
    if not np.isfinite(last).all():
        return None
    value = float(last.mean())
    return value if value > 0 else None


def require(runs: Iterable[FinalLoss], fields: Sequence[str]) -> tuple[list[FinalLoss], list[str]]:
    """Return the runs of which all fields are known, and sentences about the others."""
    found, missing = [], Counter[str]()
    for run in runs:
        absent = [name for name in fields if not getattr(run.facts, name)]
        if absent:
            missing[", ".join(absent)] += 1
        else:
            found.append(run)
    notes = [
        f"{count_of(count, 'run')} left aside: unknown {names} (say it in a mapping file)"
        for names, count in sorted(missing.items())
    ]
    return found, notes


def same(a: float | None, b: float | None) -> bool:
    """Return whether two settings are one, to rounding; unknown ones are alike."""
    if a is None or b is None:
        return a is b
    return abs(a - b) <= SAME * max(abs(a), abs(b))


def same_schedule(a: FinalLoss, b: FinalLoss) -> bool:
    """Return whether two runs have one schedule shape, as far as is known."""
    if a.schedule is not None and b.schedule is not None:
        return a.schedule.distance(b.schedule) <= _SAME_SHAPE
    return a.facts.schedule == b.facts.schedule


def group(
    runs: Iterable[FinalLoss], fields: Sequence[str], *, by_schedule: bool = True
) -> list[list[FinalLoss]]:
    """Return runs that share some facts, and the schedule's shape, in order of appearance."""
    groups: list[list[FinalLoss]] = []
    # groups by rounded facts, so that thousands of runs are not compared each with each
    places: dict[tuple[int | None, ...], list[int]] = {}
    for run in runs:
        key = tuple(_place(getattr(run.facts, name)) for name in fields)
        near = product(*((k,) if k is None else (k - 1, k, k + 1) for k in key))
        for i in sorted(i for place in near for i in places.get(place, ())):
            first = groups[i][0]
            if all(
                same(getattr(first.facts, name), getattr(run.facts, name)) for name in fields
            ) and (not by_schedule or same_schedule(first, run)):
                groups[i].append(run)
                break
        else:
            places.setdefault(key, []).append(len(groups))
            groups.append([run])
    return groups


def _place(value: float | None) -> int | None:
    """Return a number that differs by at most 1 between values that are the same."""
    if value is None:
        return None
    return round(math.log(value) / (1.01 * SAME)) if value > 0 else 0


def best_settings(runs: Sequence[FinalLoss]) -> tuple[list[FinalLoss], int]:
    """Return, for each size and budget, the runs of the best setting, and how many others were.

    Repeats of that setting all stay: they say how far single runs scatter.
    """
    kept: list[FinalLoss] = []
    for members in group(runs, ("params", "tokens"), by_schedule=False):
        settings = group(members, ("lr", "batch_tokens", "weight_decay"))
        kept += min(settings, key=lambda alike: float(np.mean([run.loss for run in alike])))
    return kept, len(runs) - len(kept)


def source_text(archive: Archive, metric: str, runs: int, what: str) -> str:
    """Return where a law comes from, in one sentence that does not depend on the machine."""
    return (
        f"planner fit: {what} of {count_of(runs, 'run')} of {archive.path.resolve().name}, {metric}"
    )
