"""What planner fit prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from planner.cli.tables import console, print_warnings
from planner.units import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.fitting import Fit


def print_fits(fits: Sequence[Fit], output: str | None, kept: Sequence[str]) -> None:
    """Print fitted laws, one table each; warnings go to standard error."""
    out = console()
    for fit in fits:
        _print_fit(fit, out)
        print_warnings(f"{fit.law.name}: {text}" for text in fit.warnings)
    if output is not None:
        beside = f" beside {', '.join(kept)}" if kept else ""
        out.print(Text(f"wrote {', '.join(fit.law.name for fit in fits)} to {output}{beside}"))


def _print_fit(fit: Fit, out: object) -> None:
    from rich.console import Console

    assert isinstance(out, Console)
    law = fit.law
    out.print(Text(law.name, style="bold"), Text(law.formula, style="dim"))
    out.print(Text(law.source))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    level = f"{100 * (law.level or 0.9):.3g} %"
    for header in ("constant", "value", f"{level} interval", ""):
        table.add_column(header, justify="left" if header in ("constant", "") else "right")
    for key, value in law.constants.items():
        pair = law.intervals.get(key)
        interval = f"{pair[0]:.4g} to {pair[1]:.4g}" if pair else "-"
        table.add_row(
            key, f"{value:.5g}", interval, "not determined" if key in law.unidentified else ""
        )
    out.print(table)
    if law.fitted_range:
        ranges = ", ".join(f"{key} {a:.4g} to {b:.4g}" for key, (a, b) in law.fitted_range.items())
        out.print(Text(f"fitted on {count_of(fit.runs, 'run')}: {ranges}"))
    out.print(Text(f"mean absolute residual {_error(fit.error, fit.unit)}"))
    for left in fit.left_out:
        oracle = (
            "" if left.oracle is None else f" (best of this form: {_error(left.oracle, left.unit)})"
        )
        out.print(Text(f"left out: {left.what}: {_error(left.error, left.unit)}{oracle}"))
    for note in fit.notes:
        out.print(Text(note, style="dim"))
    out.print()


def _error(value: float, unit: str) -> str:
    return f"{100 * value:.3g} %" if unit == "relative" else f"{value:.4g} {unit}"
