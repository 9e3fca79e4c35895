"""Plain tables whose first column gives way where room is short."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

_LEAST = 12


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below a header in columns: the first to the left, the others to the right."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - sum(widths[1:]) - 2 * (len(widths) - 1)
        widths[0] = max(_LEAST, min(widths[0], room))
    for row in table:
        name = row[0]
        if len(name) > widths[0]:
            name = "..." + name[len(name) - widths[0] + 3 :]
        cells = [name.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())
