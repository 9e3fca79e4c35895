"""What the archive's verbs print: lists that may be long, so plain text rather than tables."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from planner.archive.listing import logged
from planner.cli.columns import cut, fitted, print_text, terminal_width
from planner.units import count_of, format_count, format_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from planner.archive import Inspected, Progress, Report

_SHOWN = 20
# Left out where room is short, in this order: what other columns tell as well comes first.
_SPARE = ("last step", "tokens", "planned as", "run", "lr", "tau", "params", "TPP", "logged")


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress | None]:
    """Show a bar on a terminal, nothing in a pipe."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from planner.cli.tables import console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console(err=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int, /) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tell


def print_report(report: Report, archive: str) -> None:
    """Print what an ingest did; what could not be read goes to standard error."""
    parts = [f"{count_of(len(report.added), 'run')} added"]
    if report.replaced:
        parts.append(f"{len(report.replaced):,} read again")
    if report.unchanged:
        parts.append(f"{report.unchanged:,} unchanged")
    print(
        f"{archive}: {', '.join(parts)}; {count_of(report.points, 'point')} from "
        f"{count_of(report.files, 'file')}"
    )
    if report.plans:
        print(f"kept beside the runs: {count_of(report.plans, 'plan')}")
    if report.skipped:
        count = len(report.skipped)
        print(f"{count_of(count, 'file')} skipped as no log; planner inspect says why")
    _print_failed(report.failed)


def print_runs(runs: Sequence[dict[str, Any]]) -> None:
    """Print runs, one a line, in columns; the least useful are left out where room is short."""
    header: tuple[str, ...] = (
        "run",
        "name",
        "params",
        "tokens",
        "TPP",
        "tau",
        "lr",
        "last loss",
        "last step",
        "logged",
    )
    planned = bool(runs) and "planned" in runs[0]
    if planned:
        header = (*header, "planned as")
    rows: list[tuple[str, ...]] = [header]
    for run in runs:
        rows.append(
            (
                run["run"],
                run["name"],
                _text(run["params"], format_count),
                _text(run["tokens"], format_count),
                _text(run["tpp"], lambda value: format_plain(value, 4)),
                _text(run["tau"], format_plain),
                _text(run["lr"], "{:.3g}".format),
                _final(run),
                _text(run["last_step"], str),
                _logged(run),
                *((_text(run["planned"], lambda p: f"{p['run']} ({p['by']})"),) if planned else ()),
            )
        )
    room = terminal_width()
    kept, widths = fitted(rows, room, name=1, spare=_SPARE)
    for row in rows:
        cells = []
        for i, width in zip(kept, widths, strict=True):
            cells.append(cut(row[i], width).ljust(width) if i < 2 else row[i].rjust(width))
        print("  ".join(cells).rstrip())
    missing = [text for i, text in enumerate(header) if i not in kept]
    if missing:
        print_text(f"no room for: {', '.join(missing)}; --json tells all")


def print_runs_json(lines: Iterable[str]) -> None:
    """Print runs, each a JSON object already, as one JSON document: a run a line."""
    sys.stdout.write('{"schema": "planner.runs/1", "runs": [')
    between = "\n"
    for line in lines:
        sys.stdout.write(between + line)
        between = ",\n"
    sys.stdout.write("\n]}\n")


def inspection(found: Inspected) -> dict[str, Any]:
    """Return what an inspection found, for JSON."""
    from planner.archive.listing import record

    return {
        "files": [
            {
                "file": item.source.name,
                "status": item.status,
                "reader": item.reader or None,
                "reason": item.reason or None,
                "bytes": item.size or None,
            }
            for item in found.surveyed
        ],
        "runs": [record(stored.row) for stored in found.runs],
        "failed": [{"file": name, "reason": reason} for name, reason in found.failed],
    }


def print_inspection(found: Inspected) -> None:
    """Print each run that would be read with its series, then each file that would not."""
    for stored in found.runs:
        row = stored.row
        known = ", ".join(
            f"{name} {_text(row[name], _short)}"
            for name in ("params", "tokens", "batch_tokens", "lr", "weight_decay", "tpp", "tau")
            if row[name] is not None
        )
        print(f"{row['name']}  ({', '.join(row['readers'])})")
        if known:
            print(f"  {known}")
        if row["unknown"]:
            print(f"  not known: {', '.join(row['unknown'])}")
        if row["diverged_step"] is not None:
            print(
                f"  diverged: {row['metric']} is not finite from step {row['diverged_step']:,} on"
            )
        for note in row["notes"]:
            print(f"  note: {note}")
        losses_first = sorted(row["series"], key=lambda s: not s["name"].endswith("loss"))
        for series in losses_first[:_SHOWN]:
            last = "none" if series["last"] is None else f"{series['last']:.6g}"
            lost = f", {series['nonfinite']} not finite" if series["nonfinite"] else ""
            print(
                f"  {series['name']}: {count_of(series['points'], 'point')}, "
                f"steps {series['first_step']:,} to {series['last_step']:,}, last {last}{lost}"
            )
        if len(row["series"]) > _SHOWN:
            print(f"  and {len(row['series']) - _SHOWN} more series")
    for item in found.surveyed:
        if item.status in ("skipped", "beside", "plan"):
            print(f"not read: {_printable(item.source.name)}: {item.reason}")
    logs = sum(item.status == "log" for item in found.surveyed)
    print(
        f"{count_of(len(found.runs), 'run')} in {logs:,} of {count_of(len(found.surveyed), 'file')}"
    )
    _print_failed(found.failed)


def _print_failed(failed: Sequence[tuple[str, str]]) -> None:
    for name, reason in failed:
        print(f"error: {_printable(name)}: {_printable(reason)}", file=sys.stderr)


def _printable(text: str) -> str:
    from planner.archive.names import printable

    return printable(text)


def _final(run: dict[str, Any]) -> str:
    if run["diverged_step"] is not None:
        return f"diverged at step {run['diverged_step']}"
    return _text(run["final"], "{:.4f}".format)


def _logged(run: dict[str, Any]) -> str:
    """Return how much of its training a run logged: only of a whole run the last loss is final."""
    found = logged(run["last_step"], run["total_steps"])
    if found is None:
        return "?"
    return f"{found:.0%}" if found >= 0.995 or found < 0.985 else f"{found:.1%}"


def _short(value: float) -> str:
    return format_count(value) if value >= 1000 else f"{value:.4g}"


def _text(value: Any, form: Callable[[Any], str]) -> str:
    return "" if value is None else form(value)
