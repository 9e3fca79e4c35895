"""What the launchers of torchrun jobs share: machines, the script of a node, the estimate.

Every such launcher starts ``RUN/start.sh SEED`` once on each node and tells torchrun by its own
``PET_...`` variables (an environment variable for each of its options) where the nodes meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pydantic import Field

from planner.render.errors import CannotExpressError
from planner.render.estimate import Estimate, estimate
from planner.render.scripts import ScriptOptions, bash_words, place
from planner.render.target import Context, Job, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Run


class TorchrunOptions(ScriptOptions):
    """Options of every such launcher."""

    nodes: int | None = Field(
        None, ge=1, description="nodes of a job; default what the plan's devices fill, else 1"
    )
    gpus: int | None = Field(
        None, ge=0, description="GPUs of a node; default the plan's devices up to 8, else 1; 0 none"
    )
    processes: int | None = Field(
        None, ge=1, description="processes of a node; default one for each GPU, or one"
    )
    accelerator: str | None = Field(
        None, min_length=1, description="device to estimate hours on; default the plan's"
    )
    mfu: float | None = Field(
        None, gt=0, le=1, description="model FLOPs utilization to assume; default the plan's"
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """The machines of one job: `nodes`, each with `gpus` and torchrun's `processes`."""

    nodes: int
    gpus: int
    processes: int

    @property
    def devices(self) -> int:
        """All GPUs, or all processes where there is no GPU."""
        return self.nodes * (self.gpus or self.processes)


@dataclass(frozen=True, slots=True)
class Start:
    """One run as a launcher starts it, with all its seeds.

    Attributes:
        run: The run.
        folder: Its folder in the bundle.
        jobs: Its jobs, one a seed.
        layout: The machines of each job.
        cost: The estimate for each job, if there is one.
        place: Where the run writes below the root of all runs: family, run's digest.
    """

    run: Run
    folder: str
    jobs: tuple[Job, ...]
    layout: Layout
    cost: Estimate | None
    place: str

    @property
    def header(self) -> str:
        """The estimate in words."""
        if self.cost is None:
            return "not estimated: neither the plan nor an option names accelerator and MFU"
        return self.cost.sentence


def starts(context: Context, output: Output, options: TorchrunOptions) -> tuple[Start, ...]:
    """Return every run of the jobs, the cheapest first.

    Raises:
        CannotExpressError: If a job does not run under torchrun, or its processes do not divide
            the run's batch.
        OptionError: If the accelerator is unknown.
    """
    runs = {run.name: run for run in context.plan.runs}
    found = []
    ordered = sorted(output.jobs, key=lambda job: (job.cost[:-1], job.folder, job.cost))
    for folder, group in groupby(ordered, key=lambda job: job.folder):
        jobs = tuple(group)
        run = runs[jobs[0].run]
        layout = _layout(run, jobs[0], options)
        cost = estimate(
            context.plan, run, layout.devices, accelerator=options.accelerator, mfu=options.mfu
        )
        found.append(Start(run, folder, jobs, layout, cost, place(context.plan, run)))
    return tuple(found)


def start_scripts(
    context: Context, starts: Sequence[Start], options: TorchrunOptions
) -> dict[str, str]:
    """Return ``RUN/start.sh`` for every run: what each node of a job executes.

    Raises:
        TemplateError: If a template fails.
    """
    files = {}
    for start in starts:
        values = {
            **context.common(),
            "start": start,
            "root": options.runs_dir,
            "cases": [
                {
                    "seed": job.seed,
                    "config": job.config,
                    "output": job.output,
                    "finished": job.finished,
                    "words": bash_words(job.torchrun),
                }
                for job in start.jobs
            ],
            "reads": start.jobs[0].reads,
            "variables": {
                name: bash_words([word]) for name, word in start.jobs[0].variables.items()
            },
        }
        files[f"{start.folder}/start.sh"] = context.engine.render("torchrun/start.sh.j2", values)
    return files


def files_by_run(starts: Sequence[Start], output: Output) -> dict[str, dict[str, str]]:
    """Return the trainer's files that a run's jobs read, by the run's folder and their path."""
    found: dict[str, dict[str, str]] = {start.folder: {} for start in starts}
    for path, text in output.files.items():
        folder = path.partition("/")[0]
        if folder in found and folder != path:
            found[folder][path] = text
    for start in starts:
        for path in sorted({path for job in start.jobs for path in job.files}):
            found[start.folder][path] = output.files[path]
    return found


def readme(
    context: Context,
    launcher: str,
    starts: Sequence[Start],
    options: TorchrunOptions,
    more: Mapping[str, Any] | None = None,
) -> str:
    """Return the launcher's part of the bundle's README.

    Raises:
        TemplateError: If a template fails.
    """
    reads = tuple(dict.fromkeys(name for start in starts for name in start.jobs[0].reads))
    values = {"starts": starts, "options": options, "reads": reads, **(more or {})}
    return context.engine.render(f"{launcher}/README.md.j2", {**context.common(), **values})


def _layout(run: Run, job: Job, options: TorchrunOptions) -> Layout:
    if not job.torchrun:
        raise CannotExpressError(f"run {run.name} is not one that torchrun starts")
    planned = job.processes
    gpus = options.gpus
    if gpus is None:
        gpus = options.processes or min(8, (planned or 1) // (options.nodes or 1) or 1)
    processes = options.processes or gpus or 1
    nodes = options.nodes or math.ceil((planned or processes) / processes)
    layout = Layout(nodes, gpus, processes)
    replicas, rest = divmod(nodes * processes, job.model_parallel)
    if rest:
        raise CannotExpressError(
            f"run {run.name} splits each replica over {job.model_parallel} processes, which do "
            f"not divide {nodes} nodes with {processes}",
            field="nodes",
        )
    if run.batch.sequences % replicas:
        raise CannotExpressError(
            f"run {run.name} has {run.batch.sequences} sequences a step, which {replicas} "
            f"replicas ({nodes} nodes with {processes} processes) do not divide",
            field="nodes",
        )
    return layout
