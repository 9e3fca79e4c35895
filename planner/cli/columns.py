"""Plain tables that fit the terminal: names give way where room is short, then whole columns."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

_LEAST = 12
_READABLE = 20  # a column is left out before a name is cut to less
_GAP = 2


def terminal_width() -> int | None:
    """Return the width of the terminal that standard output goes to; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted(
    table: Sequence[Sequence[str]], room: int | None, *, name: int, spare: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return which columns of a table fit, and the width of each of them.

    Args:
        table: Rows of the same length; the first is the header.
        room: Characters a line may have; None for any number.
        name: The column that may be cut.
        spare: Headers of what may be left out, the least useful first.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    kept = list(range(len(widths)))
    if room is None:
        return kept, widths

    def left() -> int:
        return room - sum(widths[i] + _GAP for i in kept if i != name)

    for header in spare:
        if left() >= min(widths[name], _READABLE):
            break
        kept = [i for i in kept if table[0][i] != header]
    widths[name] = max(1, min(widths[name], left()))
    return kept, [widths[i] for i in kept]


def cut(name: str, width: int) -> str:
    """Return the end of a name that is too long, with three dots for the rest."""
    if len(name) <= width:
        return name
    return "..." + name[len(name) - width + 3 :] if width > 3 else name[-width:]


def print_text(text: str, *, first: str = "", then: str = "") -> None:
    """Print a line; on a terminal that is narrower it is broken between words.

    Args:
        text: The line.
        first: What comes before it.
        then: What comes before what follows a break.
    """
    width = terminal_width()
    if width is None or len(first + text) <= width:
        print(first + text)
        return
    lines = textwrap.wrap(
        text,
        max(width, 2 * len(first), 2 * len(then)),
        initial_indent=first,
        subsequent_indent=then,
        break_on_hyphens=False,
    )
    print("\n".join(lines))


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below a header in columns: the first to the left, the others to the right."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminal = terminal_width()
    if terminal is not None:
        room = terminal - sum(widths[1:]) - _GAP * (len(widths) - 1)
        widths[0] = max(_LEAST, min(widths[0], room))
    for row in table:
        cells = [cut(row[0], widths[0]).ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())
