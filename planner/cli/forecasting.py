"""The verbs that look ahead: planner forecast and planner select."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.app import (
    ArchiveFolder,
    Json,
    MetricOption,
    PlanOption,
    print_json,
    read_plans,
    verb,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.curves.forecast import Forecast, LeftOut
    from planner.curves.select import Sweep

_LISTED = 5

MethodOption = Annotated[
    str, typer.Option("--method", help="How; auto: what does best on finished runs.")
]


@verb
def forecast(
    archive: ArchiveFolder,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="Names or ids; default: all unfinished runs."),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option("--at", help="Pretend that only this fraction of each run was logged."),
    ] = None,
    metric: MetricOption = None,
    level: Annotated[float, typer.Option("--level", help="Probability of the interval.")] = 0.9,
    method: MethodOption = "auto",
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            help="Run to rest on, or the file of a reference; may be repeated; "
            "default: all finished runs.",
        ),
    ] = None,
    laws: Annotated[
        str | None,
        typer.Option("--laws", help="Laws file, as planner fit writes it: adds methods."),
    ] = None,
    plan: PlanOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if a forecast is undecidable.")
    ] = False,
    json: Json = False,
) -> None:
    """Forecast the final loss of runs, with an interval, from what they logged so far."""
    from dataclasses import asdict
    from pathlib import Path

    from planner.archive import Archive
    from planner.curves import Reference
    from planner.curves.forecast import forecast_archive
    from planner.laws import load_laws

    asked: list[str] | Reference = reference or []
    if reference and len(reference) == 1 and (reference[0] == "-" or Path(reference[0]).is_file()):
        asked = Reference.load(reference[0])
    found = forecast_archive(
        Archive(archive),
        runs or (),
        at=at,
        metric=metric,
        level=level,
        method=method,
        references=asked,
        laws=load_laws(laws) if laws else None,
        plans=read_plans(plan or []),
    )
    if json:
        print_json(
            {
                "schema": "planner.forecast/1",
                "forecasts": [_forecast_record(f) for f in found.runs],
                "left_out": [asdict(run) for run in found.left_out],
            }
        )
    else:
        _print_forecasts(found.runs)
        _print_left_out(found.left_out)
    if strict and not all(f.decided for f in found.runs):
        raise typer.Exit(1)


def _forecast_record(forecast: Forecast) -> dict[str, object]:
    return {
        "run": forecast.run,
        "name": forecast.name,
        "metric": forecast.metric,
        "reference": ", ".join(forecast.references) or None,
        "at": forecast.at,
        "final": forecast.final,
        "low": forecast.low,
        "high": forecast.high,
        "level": forecast.level,
        "method": forecast.method,
        "why": forecast.why,
        "actual": forecast.actual,
        "back_tests": dict(forecast.back_tests),
    }


def _print_forecasts(forecasts: Sequence[Forecast]) -> None:
    from planner.cli.columns import print_columns

    if not forecasts:
        print("no run is unfinished; --at FRACTION back-tests on finished runs")
        return
    header = ["run", "at", "final", "low", "high", "method"]
    known = any(f.actual is not None for f in forecasts)
    if known:
        header += ["actual", "error"]
    rows = []
    for f in forecasts:
        row = [
            f.name,
            "?" if f.at is None else f"{f.at:.0%}",
            _loss(f.final),
            _loss(f.low),
            _loss(f.high),
            f.method,
        ]
        if known:
            wrong = f.final / f.actual - 1 if f.final and f.actual else None
            row += [_loss(f.actual), "" if wrong is None else f"{wrong:+.2%}"]
        rows.append(row)
    print(f"{forecasts[0].metric}, intervals at {100 * forecasts[0].level:.10g}%")
    print_columns(header, rows)
    reasons: dict[str, list[Forecast]] = {}
    for f in forecasts:
        if not f.decided:
            reasons.setdefault(re.sub(r"\d[\d.,]*", "#", f.why), []).append(f)
    for which in reasons.values():
        more = f" and {len(which) - 1} more" if len(which) > 1 else ""
        same = len({f.why for f in which}) == 1
        why = which[0].why + ("" if same else " (the first of them)")
        print(f"undecidable: {which[0].name}{more}: {why}")


def _print_left_out(left_out: Sequence[LeftOut]) -> None:
    """Say which finished runs nothing rests on."""
    for run in left_out[:_LISTED]:
        print(f"not relied on: {run.name}, which deviates: {run.reason}")
    if len(left_out) > _LISTED:
        print(f"not relied on: {len(left_out) - _LISTED:,} more that deviate (planner score)")


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


@verb
def select(
    archive: ArchiveFolder,
    metric: MetricOption = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Which runs are candidates, such as 'lr>=1e-4'; repeatable."),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option("--at", help="Pretend that only this fraction of each candidate was logged."),
    ] = None,
    method: MethodOption = "auto",
    plan: PlanOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if a sweep is undecidable.")
    ] = False,
    json: Json = False,
) -> None:
    """Say which settings of a sweep to stop now; exit code 1 if there are any."""
    from dataclasses import asdict

    from planner.archive import Archive
    from planner.curves.select import select_runs

    sweeps = select_runs(
        Archive(archive),
        metric=metric,
        where=where or (),
        at=at,
        method=method,
        plans=read_plans(plan or []),
    )
    if json:
        print_json({"schema": "planner.select/1", "sweeps": [asdict(s) for s in sweeps]})
    else:
        _print_sweeps(sweeps)
        _print_left_out(sweeps[0].left_out if sweeps else ())
    stop = any(c.verdict == "stop" for s in sweeps for c in s.candidates)
    if stop or (strict and any(s.method == "undecidable" for s in sweeps)):
        raise typer.Exit(1)


def _print_sweeps(sweeps: Sequence[Sweep]) -> None:
    from planner.cli.columns import print_columns
    from planner.units import format_count

    if not sweeps:
        print("no sweep is under way: two or more runs of one size, batch and horizon, unfinished")
    for i, sweep in enumerate(sweeps):
        size = "unknown size" if sweep.params is None else format_count(sweep.params)
        at = "" if sweep.at is None else f", compared at {sweep.at:.0%} of training"
        print(("\n" if i else "") + f"{size}, {sweep.horizon} steps, {sweep.metric}{at}")
        print(f"{sweep.method}: {sweep.why}")
        header = ["run", "lr", "loss now", "final", "best with", "regret", "verdict"]
        known = any(c.actual is not None for c in sweep.candidates)
        rows = []
        for c in sweep.candidates:
            row = [
                c.name,
                "" if c.lr is None else f"{c.lr:.3g}",
                _loss(c.loss),
                _loss(c.final),
                "" if c.probability is None else f"{c.probability:.1%}",
                "" if c.regret is None else f"{c.regret:.2%}",
                c.verdict,
            ]
            rows.append([*row, _loss(c.actual)] if known else row)
        print_columns([*header, "actual"] if known else header, rows)
        if sweep.error is not None:
            count = sum(c.verdict == "stop" for c in sweep.candidates)
            print(
                f"stopping {count} of {len(sweep.candidates)} saves {sweep.saved:.0%} of the "
                f"sweep's compute; one forecast errs against another by {sweep.error:.2%}"
            )
