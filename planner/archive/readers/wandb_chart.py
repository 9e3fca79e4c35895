"""W&B chart as CSV: a column ``RUN - METRIC`` for each line of the chart, with its band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from planner.archive.errors import LogError
from planner.archive.names import LOGGER_NAMES, STEP_NAMES
from planner.archive.readers.csv_table import header, integers, read_sheet
from planner.archive.record import Column, LoggedRun, Table

if TYPE_CHECKING:
    from planner.archive.readers.csv_table import Sheet
    from planner.archive.readers.protocol import Log
    from planner.archive.record import Mask, Values

_BETWEEN = " - "
_LOW, _HIGH = "__MIN", "__MAX"
_GROUP = "Group: "


class WandbChartReader:
    """What "Export CSV" of a chart in W&B's user interface saves."""

    name = "wandb-chart"
    version = 1

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
        for name in sheet.names[1:]:
            label, _, metric = name.rpartition(_BETWEEN)
            plain = metric.removesuffix(_LOW).removesuffix(_HIGH)
            if plain.lower() in LOGGER_NAMES or plain in STEP_NAMES or plain.startswith("_"):
                continue
            run = runs.setdefault(label, LoggedRun([], label=label, name=label))
            column = _column(sheet, name, keep)
            if column is None or _band_says_nothing(sheet, name, keep, column[0]):
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
        return [run for run in runs.values() if run.tables]


def _column(sheet: Sheet, name: str, keep: Mask) -> tuple[Values, Mask | None] | None:
    column = sheet.numbers(name)
    if column is None:
        return None
    values, present = column
    return values[keep], None if present is None else present[keep]


def _band_says_nothing(sheet: Sheet, name: str, keep: Mask, values: Values) -> bool:
    """Return whether this is an edge of a band that lies on its line: one run has no band."""
    for edge in (_LOW, _HIGH):
        middle = name.removesuffix(edge)
        if middle != name and middle in sheet.names:
            line = _column(sheet, middle, keep)
            return line is not None and np.array_equal(line[0], values, equal_nan=True)
    return False
