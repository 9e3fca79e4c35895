"""W&B chart as CSV: a column ``RUN - METRIC`` for each line of the chart, with its band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from planner.archive.errors import LogError
from planner.archive.names import LOGGER_NAMES, STEP_NAMES
from planner.archive.readers.csv_table import header, integers, read_sheet
from planner.archive.record import Column, LoggedRun, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.archive.readers.csv_table import Sheet
    from planner.archive.readers.protocol import Log
    from planner.archive.record import Mask, Values

    Cells = tuple[Values, Mask | None]

_BETWEEN = " - "
_LOW, _HIGH = "__MIN", "__MAX"
_GROUP = "Group: "


class WandbChartReader:
    """What "Export CSV" of a chart in W&B's user interface saves."""

    name = "wandb-chart"
    version = 2

    def recognizes(self, log: Log) -> bool:
        """Return whether all columns but the first are named after a run and a metric."""
        found = header(log)
        if found is None:
            return False
        first, *others = found[0]
        return _BETWEEN not in first and all(_BETWEEN in name for name in others)

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the runs of the chart; raises `LogError`."""
        sheet = read_sheet(log)
        axis = sheet.names[0]
        if axis not in STEP_NAMES and axis != log.fields.get("step"):
            raise LogError(f"its axis {axis!r} counts no steps; export the chart over Step")
        found = sheet.numbers(axis)
        if found is None:
            raise LogError(f"its column {axis!r} holds no steps")
        steps, good = integers(*found)
        keep = np.ones(len(steps), np.bool_) if good is None else good
        runs: dict[str, LoggedRun] = {}
        for name, label, metric, line in _curves(log, sheet):
            plain = metric.removesuffix(_LOW).removesuffix(_HIGH)
            if plain.lower() in LOGGER_NAMES or plain in STEP_NAMES or plain.startswith("_"):
                continue
            run = runs.setdefault(label, LoggedRun([], label=label, name=label))
            column = _column(sheet, name, keep)
            if column is None or (line and _same(column, _column(sheet, line, keep))):
                # one run has no band: its edges lie on its line
                continue
            values, present = column
            if not run.tables:
                run.tables.append(Table(steps[keep], {}, appended=False))
                if label.startswith(_GROUP):
                    run.notes.append("a group of runs: its values are the group's mean")
            run.tables[0].columns[metric] = Column(values, present)
        if not all(keep):
            for run in runs.values():
                run.notes.append(f"{int((~keep).sum())} rows without a step were left out")
        unread = sheet.unread_notes(log)
        for run in runs.values():
            run.notes.extend(unread)
        return [run for run in runs.values() if run.tables]


def _curves(log: Log, sheet: Sheet) -> Iterator[tuple[str, str, str, str]]:
    """Yield (column, run, metric, column of the line that this is an edge of, if any).

    Runs of the same name have columns of the same name: they are told apart by a number.
    """
    found = header(log)
    seen: dict[str, int] = {}
    names = set(sheet.names)
    for given, name in zip(found[0] if found else [], sheet.names, strict=False):
        run, between, metric = given.rpartition(_BETWEEN)
        if not between:
            continue
        count = seen[given] = seen.get(given, 0) + 1
        line = given.removesuffix(_LOW).removesuffix(_HIGH) + name[len(given) :]
        line = line if line != name and line in names else ""
        yield name, run if count == 1 else f"{run}-{count}", metric, line


def _column(sheet: Sheet, name: str, keep: Mask) -> Cells | None:
    column = sheet.numbers(name)
    if column is None:
        return None
    values, present = column
    return values[keep], None if present is None else present[keep]


def _same(edge: Cells, line: Cells | None) -> bool:
    return line is not None and np.array_equal(edge[0], line[0], equal_nan=True)
