"""JSON lines: one object a line, with a step and any number of quantities."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from planner.archive.errors import LogError
from planner.archive.names import LOGGER_NAMES, STEP_NAMES, TOKEN_NAMES
from planner.archive.record import LoggedRun, RowCollector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from planner.archive.readers.protocol import Log

_MAX_DEPTH = 20
_MAX_FIELDS = 10_000
_HEAD_LINES = 20


class NestedTooDeepError(ValueError):
    """JSON that nobody writes by accident."""


def parse_json(text: str) -> Any:
    """Return a JSON value; deep nesting and endless integers are errors, not crashes.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise NestedTooDeepError("is nested too deep") from None


def flatten(
    value: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested objects, their names joined by slashes."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            if depth < _MAX_DEPTH:
                yield from flatten(item, f"{name}/", depth + 1)
        else:
            yield name, item


def number(value: Any) -> float | None:
    """Return a logged value as a number, or None if it is none; JSON's null is not-a-number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if value is None:
        return math.nan
    if isinstance(value, str) and len(value) < 40:
        try:
            return float(value)
        except ValueError:
            return None
    return None


def whole(value: Any) -> int | None:
    """Return a logged step, or None if it is none."""
    found = None if value is None else number(value)
    if found is None or not math.isfinite(found) or abs(found) >= 2.0**53:
        return None
    return round(found)


def step_name(record: Mapping[str, Any], log: Log) -> str | None:
    """Return the name of a record's step field."""
    mapped = log.fields.get("step")
    if mapped is not None:
        return mapped if mapped in record else None
    return next((name for name in STEP_NAMES if name in record), None)


class JsonLinesReader:
    """One JSON object a line; a line without a step describes the run."""

    name = "jsonl"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether the first lines are objects and one of them has a step."""
        if not log.is_json:
            return False
        lines = [line for line in log.head_lines[:_HEAD_LINES] if line.strip()]
        if not lines or not lines[0].lstrip("\ufeff \t").startswith("{"):
            return False
        stepped = False
        for line in lines:
            try:
                record = parse_json(line.lstrip("\ufeff"))
            except ValueError:
                return False
            if not isinstance(record, dict):
                return False
            stepped = stepped or step_name(dict(flatten(record)), log) is not None
        return stepped

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        tokens = log.fields.get("tokens")
        rows = RowCollector(tokens=(tokens,) if tokens else TOKEN_NAMES)
        run = LoggedRun([])
        names: set[str] = set()
        bad = 0
        last_bad = False
        for line in log.source.lines():
            if not line.strip():
                continue
            last_bad = False
            try:
                record = parse_json(line.lstrip("\ufeff"))
            except NestedTooDeepError:
                raise LogError("holds JSON nested too deep") from None
            except ValueError:
                bad += 1
                last_bad = True
                continue
            if not isinstance(record, dict):
                bad += 1
                continue
            fields = dict(flatten(record))
            key = step_name(fields, log)
            step = whole(fields[key]) if key is not None else None
            if step is None:
                run.config.update(fields)
                continue
            values = {}
            for name, value in fields.items():
                if name == key or name.lower() in LOGGER_NAMES:
                    continue
                found = number(value)
                if found is not None:
                    values[name] = found
                elif isinstance(value, (str, bool)):
                    run.config[name] = value
            names.update(values)
            if len(names) > _MAX_FIELDS:
                raise LogError(f"has more than {_MAX_FIELDS:,} different fields")
            rows.add(step, values)
        if last_bad:
            bad -= 1
            run.notes.append("its last line is cut short and was left out")
        if bad:
            run.notes.append(f"{bad} lines that are no JSON objects were left out")
        if bad > len(rows):
            raise LogError("most of its lines are no JSON objects")
        run.tables.append(rows.table())
        return [run]
