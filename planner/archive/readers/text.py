"""What the readers of text logs share: bounded lines, and numbers with the decimals they show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from planner.archive.errors import LogError
from planner.archive.record import RowCollector, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from planner.archive.readers.protocol import Log

# Longer lines hold no step of any format here. The bound keeps patterns linear in the file.
MAX_LINE = 8192
# Every repetition is bounded: neither int() nor float() ever sees a long string.
NUMBER = r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?(?:[eE][-+]?\d{1,4})?|\.\d{1,40}|nan|inf(?:inity)?)"
STEP = r"\d{1,15}"
MAX_NAMES = 10_000  # of quantities, and of facts
_MAX_DECIMALS = 15
_SIMPLE = re.compile(r"\d+\.(\d+)")


def short_lines(log: Log) -> Iterator[str]:
    """Yield the lines of a log, leaving out those that are too long to be a step.

    Raises:
        LogError: If the file cannot be read.
    """
    for line in log.source.lines():
        if len(line) <= MAX_LINE:
            yield line.strip("\ufeff\r\n")


def short_head(log: Log, *marks: bytes, count: int = 2000) -> list[str]:
    """Return the first lines of a log, leaving out those that are too long to be a step.

    Args:
        log: The log.
        marks: Where none of these is in the head there are no lines: it is another format.
        count: How many lines at most.
    """
    if marks and not any(mark in log.utf8_head for mark in marks):
        return []
    return [line for line in log.head_lines[:count] if len(line) <= MAX_LINE]


def decimals_shown(text: str) -> int:
    """Return how many decimals a printed number shows; ``1.5E-02`` shows three."""
    match = _SIMPLE.fullmatch(text)
    if match:
        return min(len(match[1]), _MAX_DECIMALS)
    mantissa, _, exponent = text.lower().partition("e")
    shown = len(mantissa.partition(".")[2])
    if exponent:
        shown -= int(exponent)
    return min(max(shown, 0), _MAX_DECIMALS)


def state(config: dict[str, Any], name: str, value: Any) -> None:
    """Keep a fact, unless a log states too many."""
    if name in config or len(config) < MAX_NAMES:
        config[name] = value


class TextRows:
    """Builds a table from printed numbers, and keeps how many decimals each quantity shows."""

    def __init__(self, *, tokens: tuple[str, ...] = ()) -> None:
        self._rows = RowCollector(tokens=tokens)
        self._decimals: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, step: int, printed: Mapping[str, str]) -> None:
        """Add a row of numbers as they were printed.

        Raises:
            LogError: If there are too many different names.
        """
        values = {}
        known = self._decimals
        for name, text in printed.items():
            values[name] = float(text)
            shown = decimals_shown(text)
            if shown > known.get(name, -1):
                known[name] = shown
        if len(known) > MAX_NAMES:
            raise LogError(f"has more than {MAX_NAMES:,} different quantities")
        self._rows.add(step, values)

    def table(self, window: int | None = None) -> Table:
        """Return the rows so far as a table."""
        table = self._rows.table(window)
        for name, column in table.columns.items():
            column.decimals = self._decimals.get(name)
        return table
