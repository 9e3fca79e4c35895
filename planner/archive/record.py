"""What a reader hands over: runs, each with tables of numbers as they were logged.

Nothing is repaired here. Stitching, duplicates and missing values are `planner.archive.policies`.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.archive.errors import LogError

MAX_CELLS = 50_000_000  # of a table: 8 bytes each

Steps = NDArray[np.int64]
Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Column:
    """One logged quantity of a table.

    Attributes:
        values: One number a row; not-a-number and infinities as they were logged.
        present: Which rows logged it; None if all did.
        decimals: Decimals that the log printed, where the text shows them; None if unknown.
    """

    values: Values
    present: Mask | None = None
    decimals: int | None = None


@dataclass(slots=True)
class Table:
    """Rows in the order in which they were logged.

    Attributes:
        steps: The step of each row.
        columns: Quantities by the name that the log gives them.
        tokens: Training tokens seen at each row, not-a-number where unknown; None if not logged.
        appended: Whether the order of the rows is the order of time (a text file grows at its end;
            an exported table need not).
        window: Steps that each logged training loss is the mean of, if the format says so.
    """

    steps: Steps
    columns: dict[str, Column]
    tokens: Values | None = None
    appended: bool = True
    window: int | None = None


@dataclass(slots=True)
class LoggedRun:
    """A run as one source tells it.

    Attributes:
        label: What tells it from other runs of the same source; empty if it is the only one.
        tables: Its numbers.
        config: What the log says about the run, by the log's own names.
        name: The name that the log itself gives the run, if any.
        resumed_from: What the log says it was resumed from, if anything.
        notes: What a user should know about how it was read.
    """

    tables: list[Table]
    label: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    resumed_from: str | None = None
    notes: list[str] = field(default_factory=list)


class RowCollector:
    """Builds a table from rows that log different quantities.

    Rows are `add`-ed as ``(step, {name: value})``; every name becomes a column.
    """

    def __init__(self, *, tokens: tuple[str, ...] = (), appended: bool = True) -> None:
        # arrays, not lists: a number takes 8 bytes, not 32
        self._steps = array("q")
        self._columns: dict[str, tuple[array[int], array[float]]] = {}
        self._tokens = tokens
        self._appended = appended

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add a row."""
        row = len(self._steps)
        self._steps.append(step)
        columns = self._columns
        for name, value in values.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = (array("q"), array("d"))
            column[0].append(row)
            column[1].append(value)

    def table(self, window: int | None = None) -> Table:
        """Return the rows so far as a table.

        Raises:
            LogError: If it would hold more than `MAX_CELLS` values, present or not.
        """
        n = len(self._steps)
        if n * len(self._columns) > MAX_CELLS:
            raise LogError(
                f"holds {n:,} rows of {len(self._columns):,} quantities, "
                f"wanted at most {MAX_CELLS:,} values"
            )
        columns = {}
        tokens: Values | None = None
        for name, (rows, values) in self._columns.items():
            full = np.full(n, np.nan)
            present: Mask | None = None
            if len(rows) == n:
                full[:] = values
            else:
                index = np.frombuffer(rows, np.int64)
                full[index] = values
                present = np.zeros(n, np.bool_)
                present[index] = True
            if name in self._tokens and tokens is None:
                tokens = full
            else:
                columns[name] = Column(full, present)
        steps = np.array(self._steps, np.int64)
        return Table(steps, columns, tokens, self._appended, window)
