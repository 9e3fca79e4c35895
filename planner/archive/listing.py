"""The runs of an archive as records: filtered, sorted, with what was planned beside what ran."""

from __future__ import annotations

import fnmatch
import gc
import json
import operator
import re
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from planner.archive.errors import ArchiveError
from planner.archive.planned import match
from planner.archive.schema import runs_schema
from planner.errors import UnitError, did_you_mean
from planner.units import parse_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from planner.archive.store import Archive
    from planner.plan import Plan

_INTERNAL = ("unit", "settings", "content", "sizes")
JSON_FIELDS = ("policy", "origins", "config")
_LONG = ("series", "unknown", "notes", "sources", "readers", "boundaries", *JSON_FIELDS)
_CONDITION = re.compile(r"\s*([\w.]+)\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
_MATCHED = (
    *("run_digest", "sources", "params", "tokens", "batch_tokens"),
    *("total_steps", "seq_len", "lr", "config"),
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
SHORT = (
    "run", "name", "params", "tokens", "tpp", "tau", "lr", "metric", "final", "last_step", "points"
)  # fmt: skip


def list_runs(
    archive: Archive,
    *,
    where: Sequence[str] = (),
    sort: str = "name",
    limit: int | None = None,
    columns: Sequence[str] | None = None,
    plans: Sequence[Plan] = (),
    parsed: bool = True,
) -> list[dict[str, Any]]:
    """Return runs as records.

    Args:
        archive: The archive.
        where: Conditions that all must hold, such as ``params>=100M`` or ``name=*1xC*``; what is
            not known fulfils none but ``=null``.
        sort: Field to sort by, what is not known last; a leading ``-`` reverses.
        limit: At most so many.
        columns: Fields to return; all but internal ones if None.
        plans: Plans to match the runs to, besides those that the archive keeps. Each record then
            has ``planned``: plan, family, run, digest, and what it was matched ``by``; or None.
        parsed: Whether ``policy``, ``origins`` and ``config`` are objects, not JSON texts.

    Raises:
        ArchiveError: If there is no such field, a condition cannot be read, or the archive is
            damaged.
    """
    with _uncollected():
        return _list(archive, where, sort, limit, columns, plans, parsed)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector off: it would look through thousands of records for cycles."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _list(
    archive: Archive,
    where: Sequence[str],
    sort: str,
    limit: int | None,
    columns: Sequence[str] | None,
    plans: Sequence[Plan],
    parsed: bool,
) -> list[dict[str, Any]]:
    names = [name for name in runs_schema().names if name not in _INTERNAL]
    wanted = list(names if columns is None else columns)
    conditions = [_condition(text, names) for text in where]
    field = sort.removeprefix("-")
    for name in (field, *wanted):
        if name not in names:
            raise ArchiveError(f"no field is called {name!r}; {did_you_mean(name, names)}")
    if field in _LONG:
        raise ArchiveError(f"runs cannot be sorted by {field}")
    needed = {*wanted, field, *(name for name, _ in conditions)}
    known_plans = [*archive.plans(), *plans]
    if known_plans:
        needed |= set(_MATCHED)
    rows = archive.rows([name for name in names if name in needed])
    rows = [row for row in rows if all(holds(row[name]) for name, holds in conditions)]
    known = [row for row in rows if row[field] is not None]
    known.sort(key=lambda row: row[field], reverse=sort.startswith("-"))
    rows = known + [row for row in rows if row[field] is None]
    records = []
    for row in rows[:limit]:
        result = {name: row[name] for name in wanted}
        if parsed:
            result = record(result)
        if known_plans:
            planned = match(record(row), known_plans)
            result["planned"] = None if planned is None else asdict(planned)
        records.append(result)
    return records


def record(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the runs table as a record: without internal fields, JSON parsed."""
    return {
        name: json.loads(value) if name in JSON_FIELDS and value is not None else value
        for name, value in row.items()
        if name not in _INTERNAL
    }


def _condition(text: str, names: Sequence[str]) -> tuple[str, Callable[[Any], bool]]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ArchiveError(f"got the condition {text!r}, wanted such as params>=100M or name=*1xC*")
    name, sign, given = match[1], match[2], match[3]
    if name not in names or name in _LONG:
        raise ArchiveError(
            f"no field to filter by is called {name!r}; "
            f"{did_you_mean(name, [n for n in names if n not in _LONG])}"
        )
    if str(runs_schema().field(name).type) == "string":
        if sign in _COMPARE:
            raise ArchiveError(f"{name} is text: wanted = or != and a pattern, got {text!r}")
        same = _like(given)
        return name, same if sign in ("=", "==") else lambda value: not same(value)
    if given.lower() in ("null", "none"):
        if sign in _COMPARE:
            raise ArchiveError(f"got {text!r}: null can only be compared by = and !=")
        return name, (lambda v: v is None) if sign != "!=" else lambda v: v is not None
    number = _number(given, text)
    compare = _COMPARE.get(sign)
    if compare is not None:
        return name, lambda value: value is not None and compare(value, number)
    if sign == "!=":
        return name, lambda value: value is not None and value != number
    return name, lambda value: value is not None and value == number


def _like(pattern: str) -> Callable[[Any], bool]:
    if pattern.lower() in ("null", "none"):
        return lambda value: value is None
    return lambda value: value is not None and fnmatch.fnmatchcase(value, pattern)


def _number(given: str, text: str) -> float:
    try:
        return float(given)
    except ValueError:
        pass
    try:
        return float(parse_count(given))
    except UnitError as error:
        raise ArchiveError(f"in the condition {text!r}: {error.message}") from None
