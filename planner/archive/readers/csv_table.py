"""CSV: a header, a column of steps, and a column for each quantity."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.errors import LogError
from planner.archive.names import LOGGER_NAMES, STEP_NAMES, TOKEN_NAMES, printable
from planner.archive.readers.csv_numbers import Unread, has_decimal_commas, line_of, numbers
from planner.archive.record import Column, LoggedRun, Mask, Steps, Table, Values
from planner.archive.source import (
    MAX_DOCUMENT_BYTES,
    MAX_LINE_BYTES,
    MAX_SHEET_BYTES,
    decode,
)
from planner.units import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from planner.archive.readers.protocol import Log

MAX_COLUMNS = 10_000
# What pandas calls the column of row numbers that it writes without a name.
_ROW_NUMBERS = "Unnamed: 0"
_DELIMITERS = ",;\t"
_HEAD_LINES = 4
_MAX_CELLS = 4_000_000  # of a table of runs, whose cells are all text


@dataclass
class Sheet:
    """A whole CSV file, as columns of text or numbers.

    Attributes:
        table: The columns.
        ragged: How many rows had another number of cells than the header and were left out.
        delimiter: What stands between cells; a comma can then be no decimal one.
        unread: Columns asked for so far to their cells that hold no number.
    """

    table: pa.Table
    ragged: int = 0
    delimiter: str = ","
    names: list[str] = field(init=False)
    unread: dict[str, Unread] = field(init=False, default_factory=dict)
    _commas: bool | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.names = self.table.column_names

    def numbers(self, name: str) -> tuple[Values, Mask | None] | None:
        """Return a column's numbers and which cells hold one; None if it holds text."""
        import pyarrow as pa

        column = self.table.column(name)
        kind = column.type
        if pa.types.is_null(kind):
            return None
        if pa.types.is_boolean(kind):
            column = column.cast(pa.int8())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            if self._commas is None:
                # one file is written one way: its clear cells tell how to read 1,234
                self._commas = self.delimiter != "," and has_decimal_commas(self.table)
            found, unread = numbers(column, self._commas)
            if unread is not None:
                self.unread[name] = unread
            return found
        present = None
        if column.null_count:
            present = column.is_valid().to_numpy()
        values = column.to_numpy()
        return values.astype(np.float64, copy=False), present

    def unread_notes(self, log: Log) -> list[str]:
        """Return a sentence for each column with cells that hold no number, naming the first."""
        if not self.unread:
            return []
        text = log.source.text(MAX_SHEET_BYTES)
        notes = []
        for name, unread in self.unread.items():
            line = line_of(text, self.delimiter, self.names.index(name), unread.first)
            place = printable(log.source.name) + ("" if line is None else f":{line}")
            why = ""
            if unread.comma and self.delimiter == ",":
                why = "; a decimal comma is read only where cells are separated by ; or tab"
            many = "the column" if unread.all else count_of(unread.count, "such cell")
            notes.append(
                f"{place}: column {printable(name)!r} says {printable(unread.first, 40)!r}, which "
                f"is no number{why}; {many} left out"
            )
        return notes

    def constant(self, name: str) -> Any:
        """Return the one value that a column holds in every filled cell, or None."""
        import pyarrow.compute as pc

        column = self.table.column(name)
        if column.null_count == len(column):
            return None
        unique = pc.unique(column.drop_null())
        return unique[0].as_py() if len(unique) == 1 else None


def header(log: Log) -> tuple[list[str], str] | None:
    """Return the column names and the delimiter, or None if this is no CSV with a header."""
    found = _header(tuple(log.first_lines[:_HEAD_LINES]))
    return None if found is None else (list(found[0]), found[1])


@lru_cache(maxsize=4)
def _header(lines: tuple[str, ...]) -> tuple[tuple[str, ...], str] | None:
    if not lines or not lines[0].strip():
        return None
    for names, delimiter in _headers(lines[0]):
        # prose has commas too, but not as many in every line
        counts = [_count(line, delimiter) for line in lines[1:] if line.strip()]
        if counts.count(len(names)) * 2 > len(counts) or not counts:
            return names, delimiter
    return None


@lru_cache(maxsize=64)
def _headers(line: str) -> list[tuple[tuple[str, ...], str]]:
    """Return what a first line may be: column names, and what stands between them."""
    line = line.lstrip("\ufeff")
    found = []
    for delimiter in _DELIMITERS:
        if delimiter not in line:
            continue
        names = _cells(line, delimiter)
        if names and not names[0]:
            names[0] = _ROW_NUMBERS
        if len(names) >= 2 and all(names) and not any(map(_number, names)):
            found.append((tuple(names), delimiter))
    return found


def _count(line: str, delimiter: str) -> int:
    """Return how many cells a line has."""
    return len(_cells(line, delimiter)) if '"' in line else line.count(delimiter) + 1


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except (csv.Error, StopIteration):
        return []


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_sheet(log: Log) -> Sheet:
    """Read a whole CSV file.

    Raises:
        LogError: If it is no CSV, or has too many columns.
    """
    import pyarrow as pa

    found = header(log)
    if found is None:
        first = log.head.split(b"\n", 1)[0]
        if len(first) >= len(log.head) and first.count(b",") > MAX_COLUMNS:
            raise LogError(f"has more than {MAX_COLUMNS:,} columns in its first line")
        raise LogError("is not a CSV table with a header")
    names, delimiter = found
    if len(names) > MAX_COLUMNS:
        raise LogError(f"has more than {MAX_COLUMNS:,} columns, which is the bound")
    if not log.first_line_ends:
        raise LogError("has no end of line in its first mebibyte")
    data = log.source.read(MAX_SHEET_BYTES)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = decode(data).encode()
    elif not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode("latin1").encode()
    try:
        table, ragged = arrow_table(data, unique_names(names), delimiter, skip_rows=1)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise LogError(f"is not a CSV table: {reason}") from None
    return Sheet(table, ragged, delimiter)


def arrow_table(
    data: bytes, names: list[str], delimiter: str, *, skip_rows: int
) -> tuple[pa.Table, int]:
    """Return CSV text as a table, and how many rows had another number of cells."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    ragged = 0

    def skip(_: Any) -> str:
        nonlocal ragged
        ragged += 1
        return "skip"

    def parse(types: dict[str, Any] | None) -> pa.Table:
        nonlocal ragged
        ragged = 0
        return arrow.read_csv(
            pa.BufferReader(data),
            read_options=arrow.ReadOptions(
                # the serial reader starts and ends a thread of its own for every file
                use_threads=True,
                column_names=names,
                skip_rows=skip_rows,
                block_size=max(1 << 20, min(len(data) + 1, MAX_LINE_BYTES)),
            ),
            parse_options=arrow.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
            convert_options=arrow.ConvertOptions(
                # a cell that says nan was logged; an empty one was not
                null_values=["", "null", "None"],
                strings_can_be_null=True,
                column_types=types,
            ),
        )

    try:
        return parse(None), ragged
    except pa.ArrowInvalid:
        # a column turns from numbers to text further down
        return parse(dict.fromkeys(names, pa.string())), ragged


def unique_names(names: list[str]) -> list[str]:
    """Return column names, of which repeated ones have got a number."""
    taken = set(names)
    following: dict[str, int] = {}
    result = []
    for name in names:
        if name not in following:
            following[name] = 1
            result.append(name)
            continue
        while (unique := f"{name}.{following[name]}") in taken:
            following[name] += 1
        taken.add(unique)
        result.append(unique)
    return result


def step_column(names: list[str], log: Log) -> str | None:
    """Return the name of the column of steps."""
    mapped = log.fields.get("step")
    if mapped is not None:
        return mapped if mapped in names else None
    return next((name for name in STEP_NAMES if name in names), None)


def integers(values: Values, present: Mask | None) -> tuple[Steps, Mask | None]:
    """Return whole steps, and which rows have one; None if all do."""
    good = np.isfinite(values) & (np.abs(values) < 2.0**53)
    if present is not None:
        good &= present
    if good.all():
        return np.rint(values).astype(np.int64), None
    steps = np.zeros(len(values), np.int64)
    steps[good] = np.rint(values[good]).astype(np.int64)
    return steps, good


def sheet_run(sheet: Sheet, log: Log, step: str) -> LoggedRun:
    """Return a sheet of one run: each number column a quantity, each constant one a fact too.

    Raises:
        LogError: If the step column holds no numbers.
    """
    found = sheet.numbers(step)
    if found is None:
        why = "".join(f"; {note}" for note in sheet.unread_notes(log))
        raise LogError(f"its column {step!r} holds no steps{why}")
    steps, good = integers(*found)
    run = LoggedRun([])
    tokens_name = log.fields.get("tokens") or next((n for n in TOKEN_NAMES if n in sheet.names), "")
    table = Table(steps if good is None else steps[good], {}, appended=False)
    for name in sheet.names:
        if name in (step, _ROW_NUMBERS) or name.lower() in LOGGER_NAMES:
            continue
        column = sheet.numbers(name)
        if column is None:
            value = sheet.constant(name)
            if value is not None:
                run.config[name] = value
            continue
        values, present = column
        if good is not None:
            values = values[good]
            present = None if present is None else present[good]
        if name == tokens_name:
            table.tokens = values
        else:
            if len(values) and (values[0] == values[-1]) and sheet.constant(name) is not None:
                run.config[name] = float(values[0])
            table.columns[name] = Column(values, present)
    if good is not None:
        run.notes.append(f"{int((~good).sum())} rows without a step were left out")
    if sheet.ragged:
        run.notes.append(f"{sheet.ragged} rows with another number of cells were left out")
    unread = sheet.unread_notes(log)
    if unread and not table.columns:
        raise LogError(f"holds no points; {unread[0]}")
    run.notes.extend(unread)
    run.tables.append(table)
    return run


class CsvReader:
    """Any CSV with a header, one of whose columns counts steps."""

    name = "csv"
    version = 2

    def recognizes(self, log: Log) -> bool:
        """Return whether there is a header with a known or mapped step column."""
        found = header(log)
        return found is not None and step_column(found[0], log) is not None

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        sheet = read_sheet(log)
        step = step_column(sheet.names, log)
        if step is None:
            raise LogError("no column counts steps; name it in a mapping file")
        return [sheet_run(sheet, log, step)]

    def read_several(self, logs: Sequence[Log]) -> list[list[LoggedRun] | None]:
        """Return what `read` does for each file; None for one that has to be read by itself."""
        from planner.archive.readers.csv_together import sheets

        return [
            None if sheet is None else self._runs(sheet, log)
            for sheet, log in zip(sheets(logs), logs, strict=True)
        ]

    def _runs(self, sheet: Sheet, log: Log) -> list[LoggedRun] | None:
        step = step_column(sheet.names, log)
        try:
            return None if step is None else [sheet_run(sheet, log, step)]
        except LogError:
            return None


def text_rows(log: Log) -> list[dict[str, str]]:
    """Return a CSV file as rows of text; for tables of runs, which are short.

    Raises:
        LogError: If it is no CSV, or holds too many cells.
    """
    found = header(log)
    if found is None:
        raise LogError("is not a CSV table with a header")
    names, delimiter = found
    text = log.source.text(MAX_DOCUMENT_BYTES)
    if text.count(delimiter) + text.count("\n") > _MAX_CELLS:
        raise LogError(f"holds more than {_MAX_CELLS:,} cells, which is the bound")
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise LogError(f"is not a CSV table: {error}") from None
    return [dict(zip(names, row, strict=False)) for row in rows[1:] if row]
