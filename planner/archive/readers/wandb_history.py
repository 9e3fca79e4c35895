"""W&B history as CSV: a row for each call of the logger, a column for each quantity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from planner.archive.errors import LogError
from planner.archive.readers.csv_table import header, read_sheet, sheet_run, step_column
from planner.archive.readers.wandb import CALL_COUNTER, OWN_STEPS

if TYPE_CHECKING:
    from planner.archive.readers.csv_table import Sheet
    from planner.archive.readers.protocol import Log
    from planner.archive.record import LoggedRun


class WandbHistoryReader:
    """A table with W&B's own counter ``_step``, as ``run.history()`` returns it."""

    name = "wandb-history"
    version = 2

    def recognizes(self, log: Log) -> bool:
        """Return whether a header has W&B's counter."""
        found = header(log)
        return found is not None and CALL_COUNTER in found[0]

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        sheet = read_sheet(log)
        mapped = step_column(sheet.names, log) if "step" in log.fields else None
        step = mapped or _step(sheet)
        if step not in sheet.names:
            raise LogError(f"has no column {step!r}, which counts W&B's logger calls")
        run = sheet_run(sheet, log, step)
        if step != CALL_COUNTER:
            for table in run.tables:
                # the rows stand in the order of time if the logger's calls do
                table.appended = _rises(sheet)
                table.columns.pop(CALL_COUNTER, None)
            run.config.pop(CALL_COUNTER, None)
            if mapped is None:
                run.notes.append(f"steps are those of {step!r}; W&B's own count logger calls")
        return [run]


def _rises(sheet: Sheet) -> bool:
    counter = sheet.numbers(CALL_COUNTER) if CALL_COUNTER in sheet.names else None
    return counter is not None and bool((np.diff(counter[0]) >= 0).all())


def _step(sheet: Sheet) -> str:
    """Return the column of the trainer's own step, if most rows have one."""
    for name in OWN_STEPS:
        if name not in sheet.names:
            continue
        column = sheet.numbers(name)
        if column is None:
            continue
        values, present = column
        filled = np.isfinite(values) if present is None else present & np.isfinite(values)
        if 2 * int(filled.sum()) > len(values):
            return name
    return CALL_COUNTER
