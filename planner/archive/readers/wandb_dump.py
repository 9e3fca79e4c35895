"""W&B run as JSON: its configuration, its summary and its history in one document."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.errors import LogError
from planner.archive.names import LOGGER_NAMES, STEP_NAMES, TOKEN_NAMES
from planner.archive.readers.json_document import outer_keys, read_json_document
from planner.archive.readers.jsonl import flatten, number, whole
from planner.archive.readers.wandb import (
    CALL_COUNTER,
    OWN_STEPS,
    is_result,
    last_step,
    mapping,
    results,
    unique_labels,
    unwrap,
)
from planner.archive.record import Column, LoggedRun, RowCollector, Table

if TYPE_CHECKING:
    from collections.abc import Container

    from planner.archive.readers.protocol import Log

_MAX_COLUMNS = 10_000
_MAX_DEPTH = 5


class WandbDumpReader:
    """A JSON object with ``config``, ``summary`` and ``history``, or a list of such objects.

    The history is a list of rows, or columns by name, or such columns in groups by name.
    """

    name = "wandb-dump"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether the outer keys are a run's."""
        keys = outer_keys(log)
        described = [keys.get(name, "?") in '{"' for name in ("config", "summary")]
        history = keys.get("history", "?") in "{["
        # a long configuration may fill the whole head
        return (history and any(described)) or all(described)

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the runs of the document; raises `LogError`."""
        document = read_json_document(log)
        runs = document if isinstance(document, list) else [document]
        found = [_run(value, log) for value in runs if isinstance(value, dict)]
        if not found:
            raise LogError("holds no runs")
        if isinstance(document, list):
            labels = unique_labels(run.name or "run" for run in found)
            for run, label in zip(found, labels, strict=True):
                run.label = label
        return found


def _run(value: dict[str, Any], log: Log) -> LoggedRun:
    summary = dict(flatten(mapping(value.get("summary")) or {}))
    run = LoggedRun([], config=unwrap(mapping(value.get("config")) or {}))
    run.config.update((k, v) for k, v in summary.items() if not is_result(k))
    for key in ("name", "display_name", "id"):
        if isinstance(value.get(key), str) and value[key]:
            run.name = value[key]
            break
    for key in ("id", "state", "group", "created_at", "url"):
        if isinstance(value.get(key), str):
            run.config.setdefault(key, value[key])
    _history(value.get("history"), run, log, 0)
    if not run.tables:
        found, step = results(summary), last_step(summary)
        if found and step is not None:
            rows = RowCollector(tokens=TOKEN_NAMES)
            rows.add(step[1], found)
            run.tables.append(rows.table())
            run.notes.append("there is no history: only the last value of each series is kept")
    return run


def _history(value: Any, run: LoggedRun, log: Log, depth: int) -> None:
    """Add the tables of a history."""
    if isinstance(value, list):
        table = _from_rows(value, log)
    elif isinstance(value, dict):
        table = _from_columns(value, run, log)
        if table is None and depth < _MAX_DEPTH:
            for part in value.values():
                _history(part, run, log, depth + 1)
    else:
        return
    if table is not None and table.columns:
        _separate(table, run)
        run.tables.append(table)


def _step_names(names: Container[str], log: Log) -> list[str]:
    """Return which names count steps, the trainer's own first."""
    mapped = log.fields.get("step")
    wanted = (*OWN_STEPS, CALL_COUNTER, "Step") if mapped is None else (mapped,)
    return [name for name in wanted if name in names]


def _rises(counter: list[Any]) -> bool:
    """Return whether the logger's calls are in order: then the rows are in the order of time."""
    calls = [number(item) for item in counter]
    return bool(calls) and all(
        a is not None and b is not None and a <= b for a, b in pairwise(calls)
    )


def _from_rows(rows: list[Any], log: Log) -> Table | None:
    flat = [dict(flatten(row)) for row in rows if isinstance(row, dict)]
    # one name for all rows: the trainer's own step, if most rows have it
    counts = Counter(name for row in flat for name in _step_names(row, log))
    names = [name for name in _step_names(counts, log) if 2 * counts[name] > len(flat)]
    names = names or _step_names(counts, log)[-1:]
    if not names:
        return None
    step = names[0]
    in_time = _rises([row[CALL_COUNTER] for row in flat if CALL_COUNTER in row])
    collector = RowCollector(tokens=TOKEN_NAMES, appended=in_time)
    columns: set[str] = set()
    for row in flat:
        at = whole(row.get(step))
        if at is None:
            continue
        values = {}
        for name, item in row.items():
            if item is None or name in STEP_NAMES or name == step or _own(name):
                continue
            found = number(item)
            if found is not None:
                values[name] = found
        columns.update(values)
        if len(columns) > _MAX_COLUMNS:
            raise LogError(f"has more than {_MAX_COLUMNS:,} different series")
        if values:
            collector.add(at, values)
    return collector.table()


def _from_columns(columns: dict[str, Any], run: LoggedRun, log: Log) -> Table | None:
    """Return a table of columns that are as long as their steps; None if there are no steps."""
    step = next(iter(_step_names(columns, log)), None)
    steps = None if step is None else _cells(columns[step])
    if steps is None:
        return None
    if len(columns) > _MAX_COLUMNS:
        raise LogError(f"has more than {_MAX_COLUMNS:,} different series")
    whole_steps = [whole(item) for item in steps]
    rows = [i for i, at in enumerate(whole_steps) if at is not None]
    in_time = _rises(_cells(columns.get(CALL_COUNTER)) or [])
    table = Table(np.asarray([whole_steps[i] for i in rows], np.int64), {}, appended=in_time)
    for name, cells in columns.items():
        values = None if name == step or name in STEP_NAMES or _own(name) else _cells(cells)
        if not values:
            continue
        if len(values) != len(steps):
            run.notes.append(
                f"the series {name!r} has {len(values)} values for {len(steps)} steps "
                "and was left out"
            )
            continue
        # null pads the rows of other quantities; a loss that is not a number says so
        numbers = [None if values[i] is None else number(values[i]) for i in rows]
        present = np.asarray([item is not None for item in numbers], np.bool_)
        if not present.any():
            continue
        full = np.asarray([np.nan if item is None else item for item in numbers], np.float64)
        if name in TOKEN_NAMES and table.tokens is None:
            table.tokens = full
        else:
            table.columns[name] = Column(full, None if present.all() else present)
    return table


def _cells(value: Any) -> list[Any] | None:
    """Return a column's cells: a list, or pandas' cells by row number."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and all(key.isdecimal() for key in value):
        return list(value.values())
    return None


def _own(name: str) -> bool:
    """Return whether a name is the logger's own."""
    return name.startswith("_") or name.lower() in LOGGER_NAMES


def _separate(table: Table, run: LoggedRun) -> None:
    """Give a series another name if a table before has one of that name already."""
    taken = {name for other in run.tables for name in other.columns}
    for name in [name for name in table.columns if name in taken]:
        new = name
        while new in taken or new in table.columns:
            new += "'"
        table.columns[new] = table.columns.pop(name)
