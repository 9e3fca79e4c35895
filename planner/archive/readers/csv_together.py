"""Several small CSV files with the same columns, read as one: a call costs more than a file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.errors import LogError
from planner.archive.readers.csv_table import Sheet, arrow_table, header, unique_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from planner.archive.readers.protocol import Log
    from planner.archive.record import Mask, Values

_MOST_COLUMNS = 1000
_END = ord("\n")


@dataclass(slots=True)
class _Plain:
    """A file of which each line but the first is a row, and nothing else is."""

    index: int
    columns: tuple[tuple[str, ...], str]  # names and delimiter
    rows: int
    body: memoryview


class Part(Sheet):
    """Some rows of a table all of whose columns are numbers.

    Args:
        table: These rows.
        columns: Numbers of the whole table by name, and where there are any.
        rows: Which rows.
    """

    def __init__(
        self, table: pa.Table, columns: dict[str, tuple[Values, Mask | None]], rows: slice
    ) -> None:
        super().__init__(table)  # all numbers: no cell is looked into for commas
        self._columns = columns
        self._rows = rows

    def numbers(self, name: str) -> tuple[Values, Mask | None] | None:
        """Return a column's numbers and which cells hold one; None if none does."""
        values, present = self._columns[name]
        values = values[self._rows]
        if present is None:
            return values, None
        present = present[self._rows]
        if present.all():
            return values, None
        return (values, present) if present.any() else None


def sheets(logs: Sequence[Log]) -> list[Sheet | None]:
    """Return the sheet of each file as `planner.archive.readers.csv_table.read_sheet` does.

    Returns:
        None for a file that has to be read by itself.
    """
    found: list[Sheet | None] = [None] * len(logs)
    alike: dict[Any, list[_Plain]] = {}
    for plain in _plain(logs):
        alike.setdefault(plain.columns, []).append(plain)
    for (names, delimiter), files in alike.items():
        for plain, sheet in _together(list(names), delimiter, files):
            found[plain.index] = sheet
    return found


def _plain(logs: Sequence[Log]) -> Iterator[_Plain]:
    for index, log in enumerate(logs):
        try:
            columns = header(log)
            data = log.source.read()
        except LogError:
            continue
        if columns is None or len(columns[0]) > _MOST_COLUMNS:
            continue
        # what makes rows and lines differ: quoted ends of lines, and other ends
        if not data.isascii() or b'"' in data or b"\r" in data:
            continue
        first = data.find(b"\n") + 1
        if not first or first == len(data):
            continue
        if not data.endswith(b"\n"):
            data += b"\n"
        body = memoryview(data)[first:]
        rows = int(np.count_nonzero(np.frombuffer(body, np.uint8) == _END))
        names, delimiter = columns
        yield _Plain(index, (tuple(names), delimiter), rows, body)


def _together(
    names: list[str], delimiter: str, files: list[_Plain]
) -> Iterator[tuple[_Plain, Sheet]]:
    import pyarrow as pa

    data = b"".join(plain.body for plain in files)
    names = unique_names(names)
    try:
        table, _ = arrow_table(data, names, delimiter, skip_rows=0)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError):
        return
    # Left out rows and empty lines make fewer rows, nothing makes more: if all lines together are
    # as many as all rows, then those of each file are, too.
    if table.num_rows != sum(plain.rows for plain in files):
        return
    columns = {}
    for name in names:
        column = table.column(name)
        if not (
            pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
            or pa.types.is_null(column.type)
        ):
            return  # text in one file makes text of all
        present = column.is_valid().to_numpy() if column.null_count else None
        values = (
            np.full(table.num_rows, np.nan)
            if pa.types.is_null(column.type)
            else column.to_numpy().astype(np.float64, copy=False)
        )
        columns[name] = values, present
    ends = accumulate(plain.rows for plain in files)
    for plain, end in zip(files, ends, strict=True):
        rows = slice(end - plain.rows, end)
        yield plain, Part(table.slice(rows.start, plain.rows), columns, rows)
