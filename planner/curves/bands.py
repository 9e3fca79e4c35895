"""Which runs make a family's band: one schedule shape, one TPP, one tau (FACTS A1), or as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import RunFacts
from planner.curves.errors import CurveError
from planner.curves.reference import TAU_TOLERANCE, TPP_TOLERANCE
from planner.curves.schedule import Schedule
from planner.errors import did_you_mean
from planner.units import format_plain

# Largest difference of two schedules of one shape, in shares of the peak rate.
SCHEDULE_TOLERANCE = 0.05

_DEFAULT = ("tpp", "tau", "schedule")
_FIELDS = (
    *("tpp", "tau", "schedule", "params", "tokens", "batch_tokens", "seq_len", "total_steps"),
    *("warmup_steps", "lr", "weight_decay", "seed", "planned", "folder"),
)
_GRID = np.linspace(0.0, 1.0, 65)


@dataclass(frozen=True, slots=True)
class Band:
    """Runs that are to collapse.

    Attributes:
        label: In a few words.
        rows: Indices of its runs, rising.
        tpp: Their median tokens per parameter, if known.
        tau: Their median AdamW timescale, if known.
        schedule: A schedule of theirs, the one known furthest.
        unknown: Of what makes a band, what is not known of these runs.
    """

    label: str
    rows: tuple[int, ...]
    tpp: float | None
    tau: float | None
    schedule: Schedule | None
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alone:
    """Runs that are alone in their bands, where most are.

    Attributes:
        runs: How many.
        group_by: Fields that would put more of them together; None if none does.
        together: How many of them would then have company.
    """

    runs: int
    group_by: str | None
    together: int


def mostly_alone(
    facts: Sequence[RunFacts], schedules: Sequence[Schedule | None], bands: Sequence[Band]
) -> Alone | None:
    """Return what to do if more than half of the runs are alone; None if they are not.

    Runs of different tau or TPP do not collapse (FACTS A1): that they may be compared is for the
    user to say, so bands are not widened unasked.

    Args:
        facts: Of each run.
        schedules: Of each run.
        bands: By TPP, tau and schedule.
    """
    alone = {band.rows[0] for band in bands if len(band.rows) == 1}
    if 2 * len(alone) <= len(facts) or len(facts) < 3:
        return None
    for names in (("tpp", "schedule"), ("schedule",)):
        wider = make_bands(facts, schedules, names)
        together = sum(row in alone for band in wider if len(band.rows) > 1 for row in band.rows)
        if 2 * together >= len(alone):
            return Alone(len(alone), ",".join(names), together)
    return Alone(len(alone), None, 0)


def grouping(asked: str | None) -> tuple[str, ...]:
    """Return the fields that make a band: those asked for, else TPP, tau and schedule.

    Args:
        asked: Names, separated by commas; ``none`` for one band of all runs.

    Raises:
        CurveError: There is no such field.
    """
    if asked is None:
        return _DEFAULT
    names = tuple(name.strip() for name in asked.split(",") if name.strip())
    if names == ("none",):
        return ()
    for name in names:
        if name not in _FIELDS:
            raise CurveError(
                f"no field is called {name!r}; {did_you_mean(name, _FIELDS)}", field="--group-by"
            )
    if not names:
        raise CurveError("got nothing, wanted fields such as tpp,schedule", field="--group-by")
    return names


def make_bands(
    facts: Sequence[RunFacts],
    schedules: Sequence[Schedule | None],
    by: tuple[str, ...] = _DEFAULT,
) -> list[Band]:
    """Divide runs into bands, in order of their labels.

    Args:
        facts: Of each run.
        schedules: Of each run.
        by: Names of fields, from `grouping`.
    """
    keys: list[list[str]] = [[] for _ in facts]
    unknown: list[list[str]] = [[] for _ in facts]
    for name in by:
        for row, (text, known) in enumerate(_column(name, facts, schedules)):
            keys[row].append(text)
            if not known:
                unknown[row].append(name)
    rows_by_key: dict[tuple[str, ...], list[int]] = {}
    for row, texts in enumerate(keys):
        rows_by_key.setdefault(tuple(texts), []).append(row)
    bands = []
    for key in sorted(rows_by_key):
        rows = rows_by_key[key]
        shapes = [s for s in (schedules[row] for row in rows) if s is not None]
        longest = max(shapes, key=lambda s: float(s.fractions[-1]), default=None)
        bands.append(
            Band(
                ", ".join(key) or "all runs",
                tuple(rows),
                _median([facts[row].tpp for row in rows]),
                _median([facts[row].tau for row in rows]),
                longest,
                tuple(unknown[rows[0]]),
            )
        )
    return bands


def _column(
    name: str, facts: Sequence[RunFacts], schedules: Sequence[Schedule | None]
) -> list[tuple[str, bool]]:
    if name == "schedule":
        return _schedule_shapes(facts, schedules)
    if name == "folder":
        return [(f.name.rpartition("/")[0] or "no folder", True) for f in facts]
    values = [getattr(f, name) for f in facts]
    if name in ("tpp", "tau"):
        tolerance = TPP_TOLERANCE if name == "tpp" else TAU_TOLERANCE
        unit = ("{} TPP", 3) if name == "tpp" else ("tau {}", 2)
        labels = _clusters(values, tolerance, unit)
        return [(text or f"{name} unknown", bool(text)) for text in labels]
    shown = f"{name} {{}}"
    return [(f"{name} unknown", False) if v is None else (shown.format(v), True) for v in values]


def _clusters(values: Sequence[float | None], tolerance: float, unit: tuple[str, int]) -> list[str]:
    """Return a label for each value: neighbours are split at the widest gaps.

    A cluster spans no more than the tolerance; one that does is cut at its widest gap, so that
    what lies close together stays together.
    """
    numbers = sorted({float(v) for v in values if v is not None and v > 0})
    found: dict[float, str] = {}
    waiting = [numbers] if numbers else []
    while waiting:
        part = waiting.pop()
        if part[-1] > part[0] * (1.0 + tolerance):
            gaps = np.diff(np.log(part))
            cut = int(np.argmax(gaps)) + 1
            waiting += [part[:cut], part[cut:]]
            continue
        label = unit[0].format(format_plain(float(np.sqrt(part[0] * part[-1])), unit[1]))
        found.update(dict.fromkeys(part, label))
    return ["" if v is None or v <= 0 else found[float(v)] for v in values]


def _schedule_shapes(
    facts: Sequence[RunFacts], schedules: Sequence[Schedule | None]
) -> list[tuple[str, bool]]:
    """Return a label of each schedule's shape; equal shapes have equal labels.

    Warm-ups do not count. A schedule that is known only up to some fraction joins the first shape
    that agrees with it so far: a loss does not depend on later rates.
    """
    rows: dict[bytes, list[int]] = {}
    curves: dict[bytes, tuple[NDArray[np.float64], float, Schedule]] = {}
    labels: list[tuple[str, bool]] = [("schedule unknown", False)] * len(facts)
    for row, schedule in enumerate(schedules):
        if schedule is None:
            continue
        until = float(schedule.fractions[-1])
        t = schedule.warmup + (1.0 - schedule.warmup) * _GRID  # since the warm-up
        factors = np.where(t <= until + 0.5 / _GRID.size, schedule.at(t), np.nan)
        key = np.round(factors, 3).tobytes()
        rows.setdefault(key, []).append(row)
        curves.setdefault(key, (factors, until, schedule))
    shapes: list[tuple[NDArray[np.float64], str]] = []
    # whole schedules first, then the longest; by their numbers, so that order does not matter
    for key in sorted(curves, key=lambda k: (-round(curves[k][1], 2), k)):
        factors, _, schedule = curves[key]
        for other, name in shapes:
            label = name
            both = np.isfinite(factors) & np.isfinite(other)
            if not both.any() or np.abs(factors - other)[both].max() <= SCHEDULE_TOLERANCE:
                break
        else:
            label = _shape_name(schedule, facts[rows[key][0]])
            taken = sum(name.split(" #")[0] == label for _, name in shapes)
            label += f" #{taken + 1}" if taken else ""
            shapes.append((factors, label))
        for row in rows[key]:
            labels[row] = (label, True)
    return labels


def _shape_name(schedule: Schedule, facts: RunFacts) -> str:
    """Return a name such as "cosine to 10 %", from the shape itself where it is whole."""
    if not schedule.covers(1.0):
        return f"{facts.schedule or 'schedule'} known to {schedule.fractions[-1]:.0%}"
    t = _GRID[schedule.warmup + 0.01 < _GRID]
    factors = schedule.at(t)
    end = float(schedule.at(1.0))
    final = "zero" if end < 0.02 else f"{end:.0%}"
    if end > 0.95:
        return "constant"
    done = (t - schedule.warmup) / (1.0 - schedule.warmup)
    linear = 1.0 - (1.0 - end) * done
    cosine = end + (1.0 - end) * (1.0 + np.cos(np.pi * done)) / 2.0
    off = {"linear": np.abs(factors - linear).max(), "cosine": np.abs(factors - cosine).max()}
    nearest = min(off, key=lambda name: off[name])
    if off[nearest] < SCHEDULE_TOLERANCE:
        return f"{nearest} to {final}"
    held = t[factors > 0.98]
    if held.size and held[-1] > 0.05:
        return f"hold, decay over the last {1.0 - held[-1]:.0%} to {final}"
    return f"{facts.schedule or 'decay'} to {final}"


def _median(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known else None
