"""What `planner train` shows and says, and what `planner coordinate-check` runs."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any, cast, get_args

from planner.errors import UnitError

if TYPE_CHECKING:
    from pathlib import Path

    from planner.train.config import Job
    from planner.train.coordinates import Point
    from planner.train.loop import Outcome


def run_training(job: Job, output: Path) -> Outcome:
    """Train, with a progress bar on a terminal."""
    from planner.train.loop import train

    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        return train(job, output)
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(job.run.name, total=job.run.steps, loss=float("nan"))
        return train(job, output, lambda step, _, loss: bar.update(task, completed=step, loss=loss))


def report(job: Job, outcome: Outcome, output: Path) -> int:
    """Say how it ended, once for all processes; return the exit code."""
    steps = f"{outcome.step} of {job.run.steps} steps"
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
    first = os.environ.get("RANK", "0") == "0"
    if outcome.status == "diverged":
        if first:
            print(
                f"error: run {job.run.name} diverged: loss or gradient is not finite at step "
                f"{outcome.step}; the last checkpoint before it is kept",
                file=sys.stderr,
            )
        return 1
    if outcome.status == "interrupted":
        if first:
            print(
                f"interrupted by {outcome.signal} after {steps}{loss}; "
                "the same command goes on from there",
                file=sys.stderr,
            )
        return 130
    if first:
        print(f"{job.run.name}: {steps}{loss}; {output}")
    return 0


def check_coordinates(
    file: str,
    name: str | None,
    *,
    width: int | None,
    depth: int | None,
    factors: str,
    steps: int,
    sequences: int,
    seeds: int,
    kind: str | None,
    data: str | None,
    tolerance: float,
    threads: int | None,
) -> dict[str, Any]:
    """Run a coordinate check on a plan; return its JSON document.

    Raises:
        PlannerError: If the plan, its run, the data or a number does not fit.
    """
    from planner.cli.archive_tables import progress_bar
    from planner.models.parametrization import Kind
    from planner.plan import read_plan
    from planner.plan.codec import to_json
    from planner.train.config import choose_run
    from planner.train.data import check_fits, open_data

    kinds = get_args(Kind)
    if kind is not None and kind not in kinds:
        raise UnitError(
            f"got {kind!r}, wanted one of {', '.join(kinds)}", field="--parametrization"
        )
    for field, number in (
        ("--width", width),
        ("--depth", depth),
        ("--steps", steps),
        ("--sequences", sequences),
        ("--seeds", seeds),
        ("--threads", threads),
    ):
        if number is not None and number < 1:
            raise UnitError(f"got {number}, wanted a positive number", field=field)
    if not 0 < tolerance < math.inf:
        raise UnitError(f"got {tolerance:g}, wanted a positive number", field="--tolerance")
    ratios = _factors(factors)
    plan = read_plan(file)
    run = choose_run(plan, name, file, default_first=True)
    tokens = None if data is None else open_data(data)
    if tokens is not None:
        check_fits(tokens, run)

    import torch

    from planner.train.coordinates import coordinate_check

    if threads is not None:
        torch.set_num_threads(threads)
    rule = plan.parametrization
    # only CompleteP has a depth that its values are tuned at
    shallowest = rule.base_depth if rule.kind == "completep" else run.model.n_layers
    with progress_bar(quiet=False) as tell:
        done: list[Point] = []

        def note(point: Point) -> None:
            done.append(point)
            if tell is not None:
                tell("shapes", len(done), 2 * len(ratios))

        check = coordinate_check(
            run,
            rule,
            width=width or rule.base_width,
            depth=depth or shallowest,
            factors=ratios,
            steps=steps,
            sequences=sequences,
            seeds=range(seeds),
            kind=cast("Kind | None", kind),
            data=tokens,
            tolerance=tolerance,
            progress=note,
        )
    return {
        "schema": "planner.coordinates/1",
        "plan": plan.digest,
        "run": run.name,
        "parametrization": check.parametrization,
        "steps": check.steps,
        "seeds": seeds,
        "tolerance": tolerance,
        "spread": _finite(check.spread),
        "promised": list(check.promised),
        "ok": check.ok,
        "points": [_finite(to_json(point)) for point in check.points],
    }


def _finite(value: Any) -> Any:
    """Return a JSON value with null for what is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _factors(text: str) -> list[int]:
    wanted = "rising whole numbers such as 1,2,4,8, at least two"
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) < 2 or found[0] < 1 or found != sorted(set(found)):
        raise UnitError(f"got {text!r}, wanted {wanted}", field="--factors")
    return found
