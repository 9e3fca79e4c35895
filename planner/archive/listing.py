"""The runs of an archive as records: filtered, sorted, with what was planned beside what ran."""

from __future__ import annotations

import fnmatch
import gc
import json
import math
import re
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from planner.archive.errors import ArchiveError
from planner.archive.json_lines import json_lines
from planner.archive.planned import match
from planner.archive.rules import canonical_json
from planner.archive.schema import runs_schema
from planner.errors import UnitError, did_you_mean
from planner.units import parse_count, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from planner.archive.store import Archive
    from planner.plan import Plan

_INTERNAL = ("unit", "settings", "content", "sizes")
JSON_FIELDS = ("policy", "origins", "config")
_LONG = ("series", "unknown", "notes", "sources", "readers", "boundaries", *JSON_FIELDS)
_CONDITION = re.compile(r"\s*([\w.]+)\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
_MATCHED = (
    *("run_digest", "sources", "params", "tokens", "batch_tokens"),
    *("total_steps", "seq_len", "lr", "config", "origins", "tau", "tpp"),
)
_BY_PLAN = ("tau", "tpp", "origins")
_DERIVED = "derived"
# Steps and batches are whole numbers, and some logs keep float32: 20 TPP comes out at 19.99 or so.
_ACHIEVED = ("tpp", "tau", "lr", "min_lr", "weight_decay")
_REACH = 0.005
_COMPARE: dict[str, Callable[[Any, Any, float], bool]] = {
    "=": lambda value, number, reach: value == number or abs(value - number) <= reach,
    "==": lambda value, number, reach: value == number or abs(value - number) <= reach,
    "!=": lambda value, number, reach: value != number and not abs(value - number) <= reach,
    ">=": lambda value, number, reach: value >= number - reach,
    "<=": lambda value, number, reach: value <= number + reach,
    ">": lambda value, number, reach: value > number + reach,
    "<": lambda value, number, reach: value < number - reach,
}
_ORDER = (">=", "<=", ">", "<")
SHORT = (
    "run", "name", "params", "tokens", "tpp", "tau", "lr", "metric", "final", "diverged_step",
    "last_step", "points", "total_steps",
)  # fmt: skip


def logged(last_step: int | None, total_steps: int | None) -> float | None:
    """Return the fraction of training that a run logged; None where its length is not known."""
    if last_step is None or not total_steps:
        return None
    return min(1.0, last_step / total_steps)


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
    """Return runs as records; with all columns, each has ``logged`` too, as `logged` returns it.

    A run that is matched to a planned run has the plan's tau, unless its log or a person states
    one, and its TPP counts parameters as the plan does: what a log says of rate and decay may be
    base values, from which neither follows.

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
        table, planned = _chosen(archive, where, sort, limit, columns, plans)
        rows: list[dict[str, Any]] = table.to_pylist()
        if parsed:
            rows = [record(row) for row in rows]
        if columns is None:
            for row in rows:
                row["logged"] = logged(row["last_step"], row["total_steps"])
        if planned is not None:
            for row, found in zip(rows, planned, strict=True):
                row["planned"] = found
        return rows


def run_lines(
    archive: Archive,
    *,
    where: Sequence[str] = (),
    sort: str = "name",
    limit: int | None = None,
    plans: Sequence[Plan] = (),
) -> Iterator[str]:
    """Yield runs as `list_runs` returns them, each a JSON object; for thousands, this is faster.

    Raises:
        ArchiveError: As `list_runs`.
    """
    with _uncollected():
        table, planned = _chosen(archive, where, sort, limit, None, plans)
    steps = zip(table["last_step"].to_pylist(), table["total_steps"].to_pylist(), strict=True)
    for number, (line, known) in enumerate(zip(json_lines(table, JSON_FIELDS), steps, strict=True)):
        more = f', "logged": {json.dumps(logged(*known))}'
        more += "" if planned is None else f', "planned": {json.dumps(planned[number])}'
        yield f"{{{line}{more}}}"


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


def _chosen(
    archive: Archive,
    where: Sequence[str],
    sort: str,
    limit: int | None,
    columns: Sequence[str] | None,
    plans: Sequence[Plan],
) -> tuple[pa.Table, list[dict[str, Any] | None] | None]:
    """Return the runs asked for in order, and what each was planned as if there are plans."""
    names = [name for name in runs_schema().names if name not in _INTERNAL]
    wanted = list(names if columns is None else columns)
    conditions = [_condition(text, names) for text in where]
    field = sort.removeprefix("-")
    for name in (field, *wanted):
        if name not in names:
            raise ArchiveError(f"no field is called {name!r}; {did_you_mean(name, names)}")
    if field in _LONG:
        raise ArchiveError(f"runs cannot be sorted by {field}")
    known_plans = [*archive.plans(), *plans]
    looked_at = {field, *(name for name, _ in conditions)}
    if known_plans:
        looked_at |= set(_MATCHED)
    table = archive.runs([name for name in names if name in looked_at or name in wanted])
    rows = table.select([name for name in names if name in looked_at]).to_pylist()
    planned: list[dict[str, Any] | None] | None = None
    if known_plans:
        planned = _planned(rows, known_plans)
        table = _with(table, rows, [name for name in _BY_PLAN if name in table.column_names])
    numbers = [
        i for i, row in enumerate(rows) if all(holds(row[name]) for name, holds in conditions)
    ]
    known = [i for i in numbers if rows[i][field] is not None]
    known.sort(key=lambda i: rows[i][field], reverse=sort.startswith("-"))
    numbers = (known + [i for i in numbers if rows[i][field] is None])[:limit]
    import pyarrow as pa

    return (
        table.select(wanted).take(pa.array(numbers, pa.int64())),
        None if planned is None else [planned[i] for i in numbers],
    )


def _planned(rows: list[dict[str, Any]], plans: Sequence[Plan]) -> list[dict[str, Any] | None]:
    """Return what each run was planned as, and give it what only the plan knows."""
    runs = {run.digest: run for plan in plans for run in plan.runs}
    result: list[dict[str, Any] | None] = []
    for row in rows:
        found = match(record(row), plans)
        result.append(None if found is None else asdict(found))
        if found is None:
            continue
        run = runs[found.digest]
        origins = json.loads(row["origins"] or "{}")
        if origins.get("tau", _DERIVED).startswith(_DERIVED):
            row["tau"], origins["tau"] = run.optimizer.tau, f"plan: {run.name}"
        if row["tokens"] is not None and origins.get("tpp", _DERIVED).startswith(_DERIVED):
            # the plan's N, whatever its convention counts
            row["tpp"] = row["tokens"] / (run.tokens / run.tpp)
            origins["tpp"] = f"plan: {run.name}"
        row["origins"] = canonical_json(origins)
    return result


def _with(table: pa.Table, rows: list[dict[str, Any]], names: Sequence[str]) -> pa.Table:
    """Return a table with some columns as rows have them."""
    import pyarrow as pa

    for name in names:
        at = table.schema.get_field_index(name)
        kind = table.schema.field(name).type
        table = table.set_column(at, name, pa.array([row[name] for row in rows], kind))
    return table


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
        if sign in _ORDER:
            raise ArchiveError(f"{name} is text: wanted = or != and a pattern, got {text!r}")
        same = _like(given)
        return name, same if sign in ("=", "==") else lambda value: not same(value)
    if given.lower() in ("null", "none"):
        if sign in _ORDER:
            raise ArchiveError(f"got {text!r}: null can only be compared by = and !=")
        return name, (lambda v: v is None) if sign != "!=" else lambda v: v is not None
    number = _number(given, text)
    reach = _REACH * abs(number) if name in _ACHIEVED and math.isfinite(number) else 0.0
    compare = _COMPARE[sign]
    return name, lambda value: value is not None and compare(value, number, reach)


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
    except UnitError:
        raise ArchiveError(
            f"in the condition {text!r}: got {show(given)}, wanted a number such as 8 or 0.2, or a "
            "whole count of at most 1e18 such as '375M'"
        ) from None
