"""The verb ``watch``: a run while it trains."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.app import (
    Json,
    LawOption,
    LawsOption,
    MappingOption,
    given_reference,
    print_json,
    read_plans,
    verb,
)
from planner.units import count_of

if TYPE_CHECKING:
    from planner.curves import Curve, Reference
    from planner.curves.law_reference import LawReferences
    from planner.curves.watch import Assessment, Follower, Hook

_LONGEST_NOTE = 300


@verb
def watch(
    log: Annotated[
        list[str], typer.Argument(metavar="LOG...", help="Files, folders or patterns of one log.")
    ],
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Reference file; without one, no drift is looked for."),
    ] = None,
    laws: LawsOption = None,
    law: LawOption = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Series; that of the reference, else the train loss."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Name or id, where the log holds several runs.")
    ] = None,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Drift alarms per whole healthy run, 0.001 to 0.2.")
    ] = 0.01,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="How far a healthy run may stray besides."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps of the whole run, if not logged.")
    ] = None,
    params: Annotated[
        str | None, typer.Option("--params", help="Parameters, such as 300M, if not logged.")
    ] = None,
    mapping: MappingOption = None,
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="What the run was meant to be.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end: for CI.")] = False,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between looks.")] = 10.0,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="End after so many seconds without news."),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Watch on after an alarm, to the run's end.")
    ] = False,
    command: Annotated[
        list[str] | None,
        typer.Option("--command", help="Run at an alarm, JSON on its standard input."),
    ] = None,
    webhook: Annotated[
        list[str] | None, typer.Option("--webhook", help="Post JSON to this address at an alarm.")
    ] = None,
    json: Json = False,
) -> None:
    """Watch a run while it trains; exit code 1 at an alarm."""
    from planner.curves import CurveError
    from planner.curves.watch import Follower, Told, assess, command_hook
    from planner.curves.watch import webhook as web_hook
    from planner.units import parse_count

    if not 0.001 <= alpha <= 0.2:
        raise CurveError(f"got {alpha:g}, wanted 0.001 to 0.2", field="--alpha")
    # versions of typer differ in whether a least value lets not-a-number through
    for field, value, least in (
        ("--tolerance", tolerance, 0.0),
        ("--interval", interval, 0.1),
        ("--timeout", timeout, 0.0),
    ):
        if value is not None and not (math.isfinite(value) and value >= least):
            raise CurveError(f"got {value:g}, wanted {least:g} or more", field=field)
    if json and not once:
        raise CurveError("needs --once", field="--json")
    hooks = [command_hook(text) for text in command or []]
    hooks += [web_hook(text) for text in webhook or []]
    known: Reference | LawReferences | None = given_reference(reference, laws, law)
    told = Told(
        metric or (known.metric if known else None),
        run,
        steps,
        None if params is None else int(parse_count(params)),
    )
    rules = None
    if mapping is not None:
        from planner.archive import read_mapping

        rules = read_mapping(mapping)
    follower = Follower(log, told=told, mapping=rules, plans=read_plans(plan or []))

    def judged(curve: Curve) -> Assessment:
        return assess(curve, known, alpha=alpha, tolerance=tolerance)

    if once:
        found = _once(follower, judged, json)
        if found.alarms:
            _tell(hooks, found)
            raise typer.Exit(1)
        return
    if _follow(follower, judged, hooks, interval, timeout, keep_going):
        raise typer.Exit(1)


def _once(follower: Follower, judged: Callable[[Curve], Assessment], json: bool) -> Assessment:
    from planner.archive import LogError
    from planner.cli.watch_view import lines

    curve = follower.poll()
    if curve is None:
        raise LogError(follower.problem)
    found = judged(curve)
    if json:
        print_json(found.document())
    else:
        print("\n".join(lines(found)))
    return found


def _follow(
    follower: Follower,
    judged: Callable[[Curve], Assessment],
    hooks: list[Hook],
    interval: float,
    timeout: float | None,
    keep_going: bool,
) -> bool:
    """Watch until the run ends, or an alarm; return whether there was one."""
    from planner.cli.watch_view import line

    draw = _screen() if sys.stdout.isatty() else None
    if draw is None:
        print("watching; one line for each change", flush=True)
    said: set[str] = set()
    alarmed = False
    news = time.monotonic()
    problem = ""
    try:
        while True:
            curve = follower.poll()
            if follower.problem != problem:
                problem = follower.problem
                if problem:
                    _note(f"{problem}; waiting")
            if curve is not None:
                news = time.monotonic()
                found = judged(curve)
                if draw is not None:
                    draw.show(found)
                else:
                    print(line(found), flush=True)
                fresh = [alarm for alarm in found.alarms if alarm.kind not in said]
                if fresh:
                    alarmed = True
                    said |= {alarm.kind for alarm in fresh}
                    if draw is None:
                        for alarm in fresh:
                            print(
                                f"ALARM {alarm.kind} at step {alarm.step:,}: {alarm.evidence}",
                                flush=True,
                            )
                    _tell(hooks, found)
                if (alarmed and not keep_going) or curve.finished:
                    return alarmed
            if timeout is not None and time.monotonic() - news > timeout:
                _note(f"no news for {timeout:g} seconds")
                return alarmed
            time.sleep(interval)
    finally:
        if draw is not None:
            draw.close()


class _Screen:
    """The live view on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(highlight=False), auto_refresh=False)
        self._live.start()

    def show(self, found: Assessment) -> None:
        from rich.text import Text

        from planner.cli.watch_view import lines

        style = {"alarm": "bold red", "quiet": "green"}.get(found.state, "yellow")
        text = Text("\n".join(lines(found)))
        text.highlight_regex(r"(?m)^(state|ALARM) .*$", style)
        self._live.update(text, refresh=True)

    def close(self) -> None:
        self._live.stop()


def _screen() -> _Screen:
    return _Screen()


def _tell(hooks: list[Hook], found: Assessment) -> None:
    from planner.curves.watch import tell

    for hook in hooks:
        told = tell(hook, found.document())
        if told.error:
            _note(f"{told.hook}: {told.error} ({count_of(told.attempts, 'attempt')})")


def _note(text: str) -> None:
    plain = "".join(c if c.isprintable() else " " for c in text)
    print(plain[:_LONGEST_NOTE], file=sys.stderr, flush=True)
