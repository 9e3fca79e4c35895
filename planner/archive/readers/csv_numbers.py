"""Numbers from the text cells of a CSV file, and which cells hold none."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from planner.archive.record import Mask, Values

# 1,234 and 12,345,678.5; a group never starts with a zero, so 0,012 is none
_THOUSANDS = r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+)?"
_DECIMAL = r"[+-]?([0-9]+,[0-9]*|,[0-9]+)([eE][+-]?[0-9]+)?"
_GROUPS, _ONE_COMMA = re.compile(_THOUSANDS), re.compile(_DECIMAL)


@dataclass(frozen=True, slots=True)
class Unread:
    """Cells of a column that hold text instead of a number.

    Attributes:
        count: How many there are.
        first: Text of the first.
        comma: Whether the first would be a number if its comma were a point.
        all: Whether the column holds too few numbers to be read.
    """

    count: int
    first: str
    comma: bool
    all: bool


def has_decimal_commas(table: pa.Table) -> bool:
    """Return whether some cell is a number only if its comma is a decimal one.

    A table whose only commas stand as in 1,234 has none: these separate thousands.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in table.columns:
        if not pa.types.is_string(column.type):
            continue
        single = pc.match_substring_regex(column, rf"^\s*{_DECIMAL}\s*$")
        groups = pc.match_substring_regex(column, rf"^\s*{_THOUSANDS}\s*$")
        if pc.any(pc.and_(single, pc.invert(groups))).as_py():
            return True
    return False


def number(text: str, decimal_comma: bool) -> float | None:
    """Return the number in a cell, None if it holds none."""
    text = text.strip()
    if "," in text:
        if decimal_comma:
            if not _ONE_COMMA.fullmatch(text):
                return None
            text = text.replace(",", ".")
        elif _GROUPS.fullmatch(text):
            text = text.replace(",", "")
        else:
            return None
    try:
        return float(text)
    except ValueError:
        return None


def numbers(
    column: Any, decimal_comma: bool
) -> tuple[tuple[Values, Mask | None] | None, Unread | None]:
    """Return the numbers of a text column if most filled cells are some, and what is none.

    What is not read is told where the column is one of numbers, or would be one if its commas were
    decimal ones; a column of text is no mistake.

    Returns:
        Values and whether each is one, both of shape ``(rows,)``, or None; and what is no number.
    """
    values = np.full(len(column), np.nan)
    present = np.zeros(len(column), np.bool_)
    good = bad = commas = 0
    first = ""
    for i, cell in enumerate(column):
        text = "" if (found := cell.as_py()) is None else str(found)
        if not text.strip():
            continue
        value = number(text, decimal_comma)
        if value is None:
            first = first if bad else text
            bad += 1
            commas += bool(_ONE_COMMA.fullmatch(text.strip()))
            continue
        values[i] = value
        present[i] = True
        good += 1
    comma = bool(_ONE_COMMA.fullmatch(first.strip()))
    if good > bad:
        return (values, present), Unread(bad, first, comma, all=False) if bad else None
    return None, Unread(bad, first, comma, all=True) if good + commas > bad - commas else None


def line_of(text: str, delimiter: str, column: int, cell: str) -> int | None:
    """Return the number of the line, from 1, on which a cell of a column stands first."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in rows:
            if column < len(row) and row[column] == cell:
                return rows.line_num
    except csv.Error:
        pass
    return None
