"""The verbs that read logs into an archive and list it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from planner.cli.app import (
    Json,
    LogPaths,
    MappingOption,
    PolicyOption,
    print_json,
    read_plans,
    verb,
)


@verb
def ingest(
    paths: LogPaths,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="ARCHIVE", help="Folder of the archive.")
    ],
    mapping: MappingOption = None,
    policy: PolicyOption = None,
    workers: Annotated[
        int | None, typer.Option("-j", "--workers", min=1, help="Processes; default: all cores.")
    ] = None,
    json: Json = False,
) -> None:
    """Read training logs into an archive; exit code 1 if a file could not be read."""
    from planner.archive import ingest as ingest_logs
    from planner.cli.archive_tables import print_report, progress_bar

    with progress_bar(quiet=json) as progress:
        report = ingest_logs(
            paths,
            output,
            mapping=_mapping(mapping),
            policy=_policy(policy),
            workers=workers or _cores(),
            progress=progress,
        )
    if json:
        print_json({"schema": "planner.ingest/1", "archive": output, **_report(report)})
    else:
        print_report(report, output)
    if not report.ok:
        raise typer.Exit(1)


@verb
def runs(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="An archive.")],
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Such as 'params>=100M' or 'name=*1xC*'; may be repeated."),
    ] = None,
    sort: Annotated[str, typer.Option("--sort", help="Field; -FIELD reverses.")] = "name",
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most so many.")] = None,
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="Match runs to this plan; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """List the runs of an archive."""
    from planner.archive import Archive
    from planner.archive.listing import SHORT, list_runs, run_lines
    from planner.cli.archive_tables import print_runs, print_runs_json

    opened, conditions, plans = Archive(archive), where or (), read_plans(plan or [])
    if json:
        lines = run_lines(opened, where=conditions, sort=sort, limit=limit, plans=plans)
        print_runs_json(lines)
    else:
        print_runs(
            list_runs(opened, where=conditions, sort=sort, limit=limit, columns=SHORT, plans=plans)
        )


@verb
def inspect(
    paths: LogPaths,
    mapping: MappingOption = None,
    policy: PolicyOption = None,
    json: Json = False,
) -> None:
    """Say what an ingest would read, and why not, changing nothing."""
    from planner.archive import inspect as inspect_logs
    from planner.cli.archive_tables import inspection, print_inspection

    found = inspect_logs(paths, mapping=_mapping(mapping), policy=_policy(policy))
    if json:
        print_json({"schema": "planner.inspect/1", **inspection(found)})
    else:
        print_inspection(found)
    if found.failed:
        raise typer.Exit(1)


def _mapping(name: str | None) -> Any:
    from planner.archive import read_mapping

    return read_mapping(name) if name else None


def _policy(given: list[str] | None) -> dict[str, str]:
    if not given:
        return {}  # without what reads it, which loads much
    from planner.archive import read_policy

    return read_policy(given)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(report: Any) -> dict[str, Any]:
    def files(items: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"file": name, "reason": reason} for name, reason in items]

    return {
        "files": report.files,
        "points": report.points,
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "plans": report.plans,
        "skipped": files(report.skipped),
        "failed": files(report.failed),
    }
