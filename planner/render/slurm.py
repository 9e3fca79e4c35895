"""The launcher ``slurm``: an sbatch script for every array of like jobs, and one that submits all.

Jobs that take the same machines for the same time (the seeds of a run, the settings of a sweep) are
one array. Larger sizes wait until the smaller ones have finished well.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from planner.render.check import Check, check_scripts
from planner.render.paths import short, slug
from planner.render.target import Context, Output
from planner.render.torchrun import (
    Start,
    TorchrunOptions,
    readme,
    start_scripts,
    starts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Run

# What sbatch's own reader of #SBATCH lines takes as it stands, without quotes.
_VALUE = re.compile(r"[A-Za-z0-9_.,:;/@%+=&|!*\[\](){}<>^~-]+\Z")
_TIME = re.compile(r"\d+|\d+:\d+|\d+:\d+:\d+|\d+-\d+(:\d+){0,2}\Z")
_MEMORY = re.compile(r"\d+[KMGTkmgt]?\Z")
_OPTION = re.compile(r"--[a-z][a-z-]*(=[A-Za-z0-9_.,:;/@%+=&|!*\[\](){}<>^~-]+)?\Z")
_MANAGED = ("--array", "--job-name", "--output", "--signal", "--nodes", "--dependency", "--chdir")


class SlurmOptions(TorchrunOptions):
    """Options of the launcher ``slurm``."""

    partition: str | None = Field(None, description="partition; default the cluster's")
    account: str | None = Field(None, description="account that is charged")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features that nodes must have")
    reservation: str | None = Field(None, description="reservation to run in")
    time: str | None = Field(
        None, description="time limit of one start, such as 24:00:00; the rest follows in requeues"
    )
    gpu_type: str | None = Field(None, description="type of GPU, such as h100")
    gpu_request: Literal["gpus-per-node", "gres"] = Field(
        "gpus-per-node", description="sbatch's option that GPUs are asked for by"
    )
    exclusive: bool = Field(False, description="whole nodes")
    cpus_per_task: int | None = Field(None, ge=1, description="CPUs of a node's processes together")
    mem: str | None = Field(None, description="memory of a node, such as 500G; 0 is all of it")
    array_limit: int | None = Field(None, ge=1, description="elements of an array at once")
    chain: Literal["sizes", "jobs", "none"] = Field(
        "sizes", description="what waits for what: each size, or each job, for the one before"
    )
    requeue: bool = Field(True, description="go back into the queue when time is over")
    max_requeues: int = Field(1000, ge=1, description="after so many starts it gives up")
    grace: int = Field(
        120, ge=1, le=65535, description="seconds before the end in which a checkpoint is written"
    )
    activate: str | None = Field(
        None, min_length=1, description="bash file that a job reads first, to set up its software"
    )
    sbatch: str = Field("", description="further options of sbatch, separated by blanks")

    @field_validator("partition", "account", "qos", "constraint", "reservation", "gpu_type")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and not _VALUE.match(value):
            raise ValueError("wanted letters, digits and punctuation without quotes and blanks")
        return value

    @field_validator("time")
    @classmethod
    def _limit(cls, value: str | None) -> str | None:
        if value is not None and not _TIME.fullmatch(value):
            raise ValueError("wanted minutes, hours:minutes:seconds or days-hours:minutes:seconds")
        return value

    @field_validator("mem")
    @classmethod
    def _memory(cls, value: str | None) -> str | None:
        if value is not None and not _MEMORY.match(value):
            raise ValueError("wanted a number with K, M, G or T, such as 500G")
        return value

    @field_validator("activate")
    @classmethod
    def _no_nul_in_path(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("a path cannot hold a NUL character")
        return value

    @field_validator("sbatch")
    @classmethod
    def _further(cls, value: str) -> str:
        for word in value.split():
            if not _OPTION.match(word):
                raise ValueError(f"{word!r} is not an option such as --nice=100")
            if word.partition("=")[0] in _MANAGED:
                raise ValueError(f"{word.partition('=')[0]} is set by the launcher itself")
        return value


@dataclass(frozen=True, slots=True)
class Element:
    """One element of an array: a run with a seed, where it writes, and its mark of being done."""

    folder: str
    seed: int
    output: str
    finished: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Runs whose jobs are one array.

    Attributes:
        name: Of the script.
        job_name: In the queue; the same for the same runs only.
        starts: The runs.
        elements: Their seeds, in the order of the array.
        waits: Whether it waits for what comes before.
    """

    name: str
    job_name: str
    starts: tuple[Start, ...]
    elements: tuple[Element, ...]
    waits: bool

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of its runs."""
        return tuple(start.folder for start in self.starts)


class Slurm:
    """Renders ``slurm/STAGE.sh`` for each array, ``RUN/start.sh``, and ``launch.sh``."""

    name = "slurm"
    summary = (
        "sbatch scripts with torchrun's rendezvous: arrays of seeds and settings, larger sizes "
        "after smaller ones, back into the queue before the time is over"
    )
    options = SlurmOptions

    def render(self, context: Context, output: Output, options: SlurmOptions) -> dict[str, str]:
        """Return the scripts and the README's part.

        Raises:
            CannotExpressError: If a job does not fit under torchrun or on the nodes.
            OptionError: If the accelerator is unknown.
            TemplateError: If a template fails.
        """
        found = starts(context, output, options)
        stages = _stages(context, found, options)
        files = start_scripts(context, found, options)
        common = {**context.common(), "options": options}
        for stage in stages:
            values = {**common, "stage": stage, "headers": _headers(stage, options)}
            files[f"slurm/{stage.name}.sh"] = context.engine.render("slurm/job.sh.j2", values)
        reads = tuple(dict.fromkeys(name for start in found for name in start.jobs[0].reads))
        more = {"stages": stages, "logs": f"{slug(context.plan.family)}/slurm", "reads": reads}
        files["launch.sh"] = context.engine.render(
            "slurm/launch.sh.j2", {**common, **more, "root": options.runs_dir}
        )
        files["README.md"] = readme(context, "slurm", found, options, more)
        return files

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash, shellcheck and Slurm itself say about the scripts."""
        return (*check_scripts(files), _test_only(files))


def _stages(context: Context, found: Sequence[Start], options: SlurmOptions) -> tuple[Stage, ...]:
    """Return the arrays in order: runs of one size and of like steps, batch and machines."""
    groups: dict[Any, list[Start]] = {}
    for start in found:
        groups.setdefault(_likeness(start), []).append(start)
    stages: list[Stage] = []
    before: Run | None = None
    for group in groups.values():
        first = group[0]
        name = first.folder if len(group) == 1 else f"{first.folder}-and-{len(group) - 1}-more"
        waits = before is not None and (
            options.chain == "jobs"
            or (options.chain == "sizes" and _size(before) != _size(first.run))
        )
        elements = tuple(
            Element(start.folder, job.seed, f"{start.place}/{job.output}", job.finished)
            for start in group
            for job in start.jobs
        )
        digest = short(first.run.digest)
        job_name = f"{slug(context.plan.family)}.{name}.{digest}"
        stages.append(Stage(name, job_name, tuple(group), elements, waits))
        before = first.run
    return tuple(stages)


def _size(run: Run) -> tuple[str, int]:
    return run.size, run.params.total


def _likeness(start: Start) -> tuple[Any, ...]:
    run = start.run
    return (run.size, run.model, run.steps, run.batch, run.precision, start.layout)


def _headers(stage: Stage, options: SlurmOptions) -> list[str]:
    """Return the sbatch options of a stage, one a line."""
    layout, count = stage.starts[0].layout, len(stage.elements)
    lines = [f"--job-name={stage.job_name}"]
    for name in ("account", "partition", "qos", "constraint", "reservation", "time"):
        if value := getattr(options, name):
            lines.append(f"--{name}={value}")
    lines += [f"--nodes={layout.nodes}", "--ntasks-per-node=1"]
    if layout.gpus:
        kind = f"{options.gpu_type}:" if options.gpu_type else ""
        what = "gres=gpu:" if options.gpu_request == "gres" else "gpus-per-node="
        lines.append(f"--{what}{kind}{layout.gpus}")
    if options.cpus_per_task:
        lines.append(f"--cpus-per-task={options.cpus_per_task}")
    if options.mem:
        lines.append(f"--mem={options.mem}")
    if options.exclusive:
        lines.append("--exclusive")
    if count > 1:
        limit = f"%{options.array_limit}" if options.array_limit else ""
        lines.append(f"--array=0-{count - 1}{limit}")
    lines.append(f"--output=%x-{'%A_%a' if count > 1 else '%j'}.out")
    lines += ["--open-mode=append", "--requeue" if options.requeue else "--no-requeue"]
    lines.append(f"--signal=B:USR1@{options.grace}")
    return lines + options.sbatch.split()


def _test_only(files: Mapping[str, str]) -> Check:
    """Return what ``sbatch --test-only`` says; it asks the cluster, so it needs one."""
    name = "sbatch --test-only"
    program = shutil.which("sbatch")
    if program is None:
        return Check(name, skipped="sbatch is not installed")
    sinfo = shutil.which("sinfo") or "sinfo"
    try:
        asked = subprocess.run([sinfo, "--noheader"], capture_output=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return Check(name, skipped="there is no Slurm cluster to ask")
    if asked.returncode:
        return Check(name, skipped="there is no Slurm cluster to ask")
    problems = []
    for path, text in files.items():
        if not (path.startswith("slurm/") and path.endswith(".sh")):
            continue
        done = subprocess.run(
            [program, "--test-only"],
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            problems.append(f"{path}: {said[-1] if said else 'refused'}")
    return Check(name, tuple(problems))
