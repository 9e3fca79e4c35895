"""What `planner train` shows and says."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from planner.train.config import Job
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
    code = _say(job, outcome, output)
    if outcome.epochs > 1 and os.environ.get("RANK", "0") == "0":
        print(
            f"note: the whole run sees its data {outcome.epochs:.3g} times; laws of tokens per "
            "parameter are of data seen once",
            file=sys.stderr,
        )
    return code


def _say(job: Job, outcome: Outcome, output: Path) -> int:
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
