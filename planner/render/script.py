"""What trainers have in common that are a rendered Python script and a YAML file for each run.

The script lies in every run's folder, so that a folder can be taken away alone; the file beside it
says everything that differs. ``train.py CONFIG... --check`` is the target's own validator: it
builds model and optimizer with the target's classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from planner.render.about import about_run
from planner.render.errors import CannotExpressError
from planner.render.schedule import pieces
from planner.render.target import Job, Output, Slot, Word
from planner.render.training_options import TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from planner.plan.model import Run
    from planner.render.contract import Contract
    from planner.render.groups import Group
    from planner.render.target import Context

SCRIPT = "train.py"


class ScriptTrainerOptions(TrainingOptions):
    """Options of every such trainer."""

    checkpoint_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints; default a tenth of all"
    )
    log_steps: int = Field(1, ge=1, description="steps between lines of the log")


class Lowered(Protocol):
    """What every such trainer makes of a run before its templates do."""

    @property
    def model(self) -> dict[str, Any]:
        """Settings of the target's model, by its own names."""
        ...

    @property
    def groups(self) -> tuple[Group, ...]:
        """The optimizer's groups."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""
        ...


def render_script(
    context: Context,
    options: ScriptTrainerOptions,
    *,
    contract: Contract,
    lower: Callable[[Run], Lowered],
    finished: Callable[[Run], str],
    modes: Mapping[str, Sequence[str]] | None = None,
    torchrun: bool = True,
    run_values: Callable[[Run], Mapping[str, Any]] | None = None,
    reads: tuple[str, ...] | None = None,
    job: Callable[[Run], Mapping[str, Any]] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Output:
    """Return ``RUN/train.py`` and ``RUN/config-seedK.yaml`` of every run, and their jobs.

    Args:
        context: What is rendered.
        options: The trainer's options.
        contract: Its contract, whose name is also that of its folder of templates.
        lower: What makes the target's settings of a run.
        finished: The file, below a run's output, that is there once it is done.
        modes: Further modes of the launcher, and what they add to the arguments of a training.
        torchrun: Whether torchrun can start the script.
        run_values: Further values for a run's template.
        reads: Environment variables that the script reads; default that of the data, if any.
        job: Further facts of a run's jobs (`planner.render.target.Job`).
        values: Further values for the templates.

    Raises:
        CannotExpressError: If the target cannot run what the plan says.
        TemplateError: If a template fails.
    """
    name = contract.trainer
    script = context.engine.render(f"{name}/train.py.j2", context.common())
    files: dict[str, str] = {}
    jobs: list[Job] = []
    warnings: list[str] = []
    if reads is None:
        given = options.data_dir
        reads = (given.removeprefix("env:"),) if given.startswith("env:") else ()
    values = values or {}
    for run in context.plan.runs:
        settings = lower(run)
        warnings += settings.warnings
        if options.micro_batch and run.batch.sequences % options.micro_batch:
            raise CannotExpressError(
                f"run {run.name} has a global batch of {run.batch.sequences} sequences, which "
                f"a micro batch of {options.micro_batch} does not divide",
                field="micro_batch",
            )
        folder = context.folders[run.name]
        files[f"{folder}/{SCRIPT}"] = script
        program = (Slot.BUNDLE, f"/{folder}/{SCRIPT}")
        fit = (program, Slot.CONFIG, "--output", Slot.OUTPUT)
        shared = {
            **context.common(),
            **values,
            "run": run,
            "settings": settings,
            "pieces": pieces(run),
            "options": options,
            "precision": options.precision or run.precision,
            "micro": options.micro_batch or run.batch.micro,
            "checkpoint_steps": options.checkpoint_steps or max(1, run.steps // 10),
            **(run_values(run) if run_values else {}),
        }
        further: dict[str, tuple[Word, ...]] = {
            mode: ("python", *fit, *more) for mode, more in (modes or {}).items()
        }
        for seed in run.seeds:
            config = f"{folder}/config-seed{seed}.yaml"
            of_seed = {**shared, "seed": seed, "about": about_run(context.plan, run, seed)}
            files[config] = context.engine.render(f"{name}/config.yaml.j2", of_seed)
            jobs.append(
                context.job(
                    run,
                    seed,
                    config=config,
                    finished=finished(run),
                    commands={
                        "fit": ("python", *fit),
                        "validate": ("python", program, Slot.CONFIG, "--check"),
                        **further,
                    },
                    program="python",
                    torchrun=fit if torchrun else (),
                    reads=reads,
                    **{"processes": run.batch.data_parallel, **(job(run) if job else {})},
                )
            )
    files["README.md"] = context.engine.render(
        f"{name}/README.md.j2",
        {
            **context.common(),
            **values,
            "options": options,
            "contract": contract,
            "warnings": warnings,
        },
    )
    return Output(files, tuple(jobs), tuple(warnings))
