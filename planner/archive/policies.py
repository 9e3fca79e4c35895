"""From rows as logged to series in order of training: every repair is counted and can be chosen.

A restarted run logs some steps twice. In a file that only grows, the order of rows is the order of
time: where the step goes back, the run was resumed, and what an earlier start logged from there on
is superseded. An exported table may list the later part first: a part that ends before another one
does is the earlier part, wherever it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import numpy as np

from planner.archive.errors import MappingError
from planner.archive.names import canonical
from planner.archive.record import Mask, Steps, Table, Values
from planner.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

_JITTER_ROWS = 4
_DECIMALS = 8
_FEW = 2
_SAMPLE = 250


@dataclass(frozen=True, slots=True)
class Policy:
    """How repairs are made.

    Attributes:
        duplicates: Which of several values at one step and start counts.
        restarts: ``stitch`` drops what a later start logged again; ``keep`` keeps every start.
        parts: ``sort`` puts the parts of an exported table in order; ``as_logged`` takes its rows
            to be in order of time, as those of a text log.
        nonfinite: ``missing`` keeps the steps of values that are not finite; ``drop`` does not.
        tokens: ``keep`` leaves tokens that went back; ``missing`` forgets them.
    """

    duplicates: Literal["last", "first"] = "last"
    restarts: Literal["stitch", "keep"] = "stitch"
    parts: Literal["sort", "as_logged"] = "sort"
    nonfinite: Literal["missing", "drop"] = "missing"
    tokens: Literal["keep", "missing"] = "keep"


def read_policy(texts: Iterable[str]) -> dict[str, str]:
    """Return what ``NAME=VALUE`` texts say about repairs.

    Raises:
        MappingError: If a name or a value is not known.
    """
    given = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise MappingError(f"got {text!r}, wanted NAME=VALUE", field="--policy")
        given[name.strip()] = value.strip()
    return check_policy(given)


def check_policy(given: Mapping[str, str]) -> dict[str, Any]:
    """Return what is given.

    Raises:
        MappingError: If a name or a value is not known.
    """
    for name, value in given.items():
        if name not in POLICIES:
            hint = did_you_mean(name, POLICIES)
            raise MappingError(f"no policy is called {name!r}; {hint}", field="policy")
        if value not in POLICIES[name]:
            wanted = " or ".join(POLICIES[name])
            raise MappingError(f"got {value!r} for {name}, wanted {wanted}", field="policy")
    return dict(given)


POLICIES: dict[str, tuple[str, ...]] = {
    name: get_args(kind) for name, kind in get_type_hints(Policy).items()
}


@dataclass(slots=True)
class Series:
    """One quantity in order of steps.

    Attributes:
        steps: Steps, not decreasing; strictly increasing within a segment.
        values: One a step; not-a-number where the log held no finite number.
        tokens: Tokens seen, not-a-number where unknown; None if never logged.
        segments: Which start of the run logged each value, from 0; None if there was one.
        nonfinite: How many values are missing because they were not finite.
        duplicates: How many values gave way to another of the same step and start.
        superseded: How many values a later start logged again.
        decimals: Decimals that the log printed, or None if it kept full precision.
        window: Steps that a value is the mean of, if known.
    """

    steps: Steps
    values: Values
    tokens: Values | None
    segments: NDArray[np.int32] | None
    nonfinite: int = 0
    duplicates: int = 0
    superseded: int = 0
    decimals: int | None = None
    window: int | None = None


@dataclass(slots=True)
class Repaired:
    """A table's series, and what had to be repaired.

    Attributes:
        series: Log's name to series.
        boundaries: Step at which each start after the first took over.
        out_of_order: Whether later parts stood before earlier ones.
        tokens_fell: How often tokens went back from one step to the next.
    """

    series: dict[str, Series] = field(default_factory=dict)
    boundaries: list[int] = field(default_factory=list)
    out_of_order: bool = False
    tokens_fell: int = 0


def repair(table: Table, policy: Policy) -> Repaired:
    """Return the series of a table in order of training."""
    done = Repaired()
    steps, tokens = table.steps, table.tokens
    order: NDArray[np.intp] | None = None
    segments: NDArray[np.int32] | None = None
    superseded: Mask | None = None
    rising = len(steps) < 2 or bool((steps[1:] > steps[:-1]).all())
    if not rising:
        in_time = table.appended or policy.parts == "as_logged"
        segments, done.out_of_order = _segments(steps, in_time)
        starts = _starts(steps, segments)
        superseded = _superseded(steps, segments, starts)
        done.boundaries = starts[1:].tolist()
        order = np.lexsort((np.arange(len(steps)), segments, steps))
        steps, segments, superseded = steps[order], segments[order], superseded[order]
        if tokens is not None:
            tokens = tokens[order]
        if not segments.any():
            segments = None
    if tokens is not None:
        seen = tokens[np.isfinite(tokens)]
        done.tokens_fell = int((seen[1:] < seen[:-1]).sum())
        if done.tokens_fell and policy.tokens == "missing":
            highest = np.fmax.accumulate(tokens)
            tokens = np.where(tokens < highest, np.nan, tokens)
    for name, column in table.columns.items():
        values = column.values if order is None else column.values[order]
        keep = column.present if order is None or column.present is None else column.present[order]
        made = _series(steps, values, tokens, segments, keep, superseded, policy)
        # of what is logged, trainers average only the training loss
        made.window = table.window if canonical(name) == "train/loss" else None
        if column.decimals is not None:
            made.decimals = column.decimals
        done.series[name] = made
    return done


def _series(
    steps: Steps,
    values: Values,
    tokens: Values | None,
    segments: NDArray[np.int32] | None,
    present: Mask | None,
    superseded: Mask | None,
    policy: Policy,
) -> Series:
    dropped = duplicates = 0
    if superseded is not None:
        logged = np.ones(len(steps), np.bool_) if present is None else present
        keep = logged
        if policy.restarts == "stitch":
            keep = logged & ~superseded
            dropped = int((logged & superseded).sum())
        rows = np.flatnonzero(keep)
        kept = steps[rows]
        again = kept[1:] == kept[:-1]
        if segments is not None:
            again &= segments[rows][1:] == segments[rows][:-1]
        if again.any():
            duplicates = int(again.sum())
            single = np.ones(len(rows), np.bool_)
            if policy.duplicates == "last":
                single[:-1] = ~again
            else:
                single[1:] = ~again
            rows = rows[single]
    elif present is not None:
        rows = np.flatnonzero(present)
    else:
        rows = None
    if rows is not None:
        steps, values = steps[rows], values[rows]
        tokens = None if tokens is None else tokens[rows]
        segments = None if segments is None else segments[rows]
    finite = np.isfinite(values)
    lost = len(values) - int(np.count_nonzero(finite))
    shown = decimals(values[finite] if lost else values)
    if lost and policy.nonfinite == "drop":
        steps, values = steps[finite], values[finite]
        tokens = None if tokens is None else tokens[finite]
        segments = None if segments is None else segments[finite]
    elif lost:
        values = np.where(finite, values, np.nan)
    return Series(steps, values, tokens, segments, lost, duplicates, dropped, shown)


def _segments(steps: Steps, appended: bool) -> tuple[NDArray[np.int32], bool]:
    """Number the starts of a run in order of time; also whether they stood in another order."""
    breaks = np.flatnonzero(steps[1:] < steps[:-1]) + 1
    if appended:
        breaks = np.asarray([b for b in breaks if _resumed(steps, int(b))], np.intp)
    edges = np.concatenate(([0], breaks, [len(steps)])).astype(np.intp)
    if len(edges) > 10_000:
        # no run restarts this often: rows in no order at all
        return np.zeros(len(steps), np.int32), True
    parts = [(int(a), int(b)) for a, b in pairwise(edges)]
    ranks = list(range(len(parts)))
    if not appended:
        ranks.sort(key=lambda i: int(steps[parts[i][0] : parts[i][1]].max()))
    segments = np.empty(len(steps), np.int32)
    for number, i in enumerate(ranks):
        segments[parts[i][0] : parts[i][1]] = number
    return segments, ranks != sorted(ranks)


def _resumed(steps: Steps, at: int) -> bool:
    """Return whether a run resumed here, rather than a few rows being written late."""
    low = max(0, at - _JITTER_ROWS - 1)
    before = steps[low:at]
    behind = before[before >= steps[at]]
    if len(behind) == len(before) and low > 0:
        return True
    after = steps[at : at + 50]
    return bool(np.isin(behind, after).any()) or len(behind) > _JITTER_ROWS


def _starts(steps: Steps, segments: NDArray[np.int32]) -> Steps:
    """Return the lowest step of each segment."""
    starts = np.full(int(segments.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(starts, segments, steps)
    return starts


def _superseded(steps: Steps, segments: NDArray[np.int32], starts: Steps) -> Mask:
    """Return which rows a later start logged again: those at or after its first step."""
    later = np.full(len(starts), np.iinfo(np.int64).max)
    if len(starts) > 1:
        later[:-1] = np.minimum.accumulate(starts[:0:-1])[::-1]
    result: Mask = steps >= later[segments]
    return result


def decimals(values: Values) -> int | None:
    """Return how many decimals a log printed, or None if its numbers are not rounded.

    Told from the numbers themselves: the fewest decimals to which all of a sample are rounded.

    Args:
        values: Finite numbers.
    """
    least = 0
    for value in values[len(values) // (_FEW + 1) :: max(1, len(values) // _FEW)].tolist():
        least = max(least, _digits(value))
        if least > _DECIMALS:
            return None
    if not len(values):
        return None
    sample = values[:: max(1, len(values) // _SAMPLE)][:_SAMPLE]
    nearly = 1e-15 * np.abs(sample)
    for digits in range(least, _DECIMALS + 1):
        if (np.abs(sample - sample.round(digits)) <= nearly).all():
            return digits
    return None


def _digits(value: float) -> int:
    """Return how many decimals the shortest text of a number has."""
    mantissa, _, exponent = repr(value).partition("e")
    fraction = mantissa.partition(".")[2]
    shown = 0 if fraction == "0" else len(fraction)
    return max(0, shown - int(exponent or 0))
