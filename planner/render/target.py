"""Targets: a trainer that runs the model, and a launcher that starts the trainer.

To add a trainer, write a module with a class that has the members of `Trainer`, put its templates
into ``templates/NAME/``, and name it in ``_TRAINERS``. A launcher likewise. Modules are imported
only when their target is asked for. A trainer whose jobs say what torchrun starts
(`Job.torchrun`) can be started by all of `TORCHRUN_LAUNCHERS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from planner.errors import did_you_mean
from planner.render.errors import OptionError, TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from planner.plan.model import Plan, Run
    from planner.render.check import Check
    from planner.render.contract import Contract
    from planner.render.engine import Engine

# Name -> "module:class". The first launcher named by a trainer is its default.
_TRAINERS = {
    "cstorch": "planner.render.cstorch.trainer:Cstorch",
    "hf-granite": "planner.render.hf_granite.trainer:Granite",
    "megatron": "planner.render.megatron.trainer:Megatron",
    "modelzoo": "planner.render.modelzoo.trainer:ModelZoo",
    "olmo-core": "planner.render.olmo_core.trainer:OlmoCore",
    "torch": "planner.render.reference:Reference",
    "torchtitan": "planner.render.torchtitan.trainer:TorchTitan",
}
_LAUNCHERS = {
    "cs3": "planner.render.cs3:Cs3",
    "local": "planner.render.local:Local",
    "slurm": "planner.render.slurm:Slurm",
    "kubernetes": "planner.render.kubernetes:Kubernetes",
    "skypilot": "planner.render.skypilot:SkyPilot",
}
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
"""Names that an environment variable may have."""
TORCHRUN_LAUNCHERS = ("slurm", "kubernetes", "skypilot", "local")
"""Launchers of what runs under torchrun, the default first."""


class Slot(Enum):
    """Words of a job's command that only the launcher knows."""

    CONFIG = "config"
    OUTPUT = "output"
    BUNDLE = "bundle"


Word: TypeAlias = "str | Slot | tuple[str | Slot, ...]"
"""A word of a command; a tuple is put together, such as ``(Slot.BUNDLE, "/train.py")``."""


@dataclass(frozen=True, slots=True)
class Job:
    """One process group to start: one run with one seed.

    Attributes:
        run: The run's name, as the plan has it.
        folder: The run's folder in the bundle.
        seed: Seed.
        steps: Optimizer steps that the finished job has done.
        config: Path in the bundle of the file that configures the trainer.
        output: Where the job writes, relative to the launcher's root of all runs.
        finished: A file below the output that exists once the job has done all its steps.
        commands: Mode ("fit", "validate", "compile") to command words; `Slot` words are filled in.
            Like `torchrun`, they are the same for all seeds of a run but for those.
        program: Name of the command that the first word of all commands stands for.
        from_environment: Environment variables whose value replaces ``${NAME}`` in the config.
        cost: What to order jobs by, smallest first.
        torchrun: What torchrun starts in every process: a script, or ``-m`` and a module, and its
            arguments; empty if the job is not started by torchrun.
        reads: Environment variables that the program reads and cannot do without.
        variables: Environment variables that are set for it.
        files: Files of the bundle that it reads, besides those in the run's folder.
        processes: Processes that the plan's batch is split for; None if the plan does not say.
        model_parallel: Processes that share one replica; all others share the batch.
    """

    run: str
    folder: str
    seed: int
    steps: int
    config: str
    output: str
    finished: str
    commands: Mapping[str, Sequence[Word]]
    program: str
    from_environment: tuple[str, ...] = ()
    cost: tuple[float, ...] = ()
    torchrun: tuple[Word, ...] = ()
    reads: tuple[str, ...] = ()
    variables: Mapping[str, Word] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    processes: int | None = None
    model_parallel: int = 1

    def __post_init__(self) -> None:
        for name in (*self.reads, *self.variables):
            if not VARIABLE.match(name):
                raise ValueError(f"{name!r} cannot be the name of an environment variable")


@dataclass(frozen=True, slots=True)
class Context:
    """What trainers and launchers render from."""

    plan: Plan
    target: str
    engine: Engine
    folders: Mapping[str, str]
    version: str

    def common(self) -> dict[str, Any]:
        """Return the values that every template may use."""
        return {"plan": self.plan, "target": self.target, "planner_version": self.version}

    def job(
        self,
        run: Run,
        seed: int,
        *,
        config: str,
        finished: str,
        commands: Mapping[str, Sequence[Word]],
        program: str,
        **more: Any,
    ) -> Job:
        """Return the job of a run and seed, with small and short runs first; see `Job`."""
        folder = self.folders[run.name]
        return Job(
            run=run.name,
            folder=folder,
            seed=seed,
            steps=run.steps,
            config=config,
            output=f"{folder}/seed{seed}",
            finished=finished,
            commands=commands,
            program=program,
            cost=(float(run.params.total), float(run.tokens), float(seed)),
            **more,
        )


@dataclass(frozen=True, slots=True)
class Output:
    """Files by path in the bundle, the jobs they make up, and what the user should know."""

    files: dict[str, str]
    jobs: tuple[Job, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """Turns runs into the files that a trainer reads."""

    name: str
    launchers: tuple[str, ...]
    options: type[BaseModel]
    contract: Contract

    def render(self, context: Context, options: Any) -> Output:
        """Return the trainer's files and its jobs.

        Raises:
            CannotExpressError: If the trainer cannot run what the plan says.
            TemplateError: If a template fails.
        """
        ...

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what each validator that can run here says about the files of a bundle."""
        ...


class Launcher(Protocol):
    """Turns jobs into the files that start them."""

    name: str
    summary: str
    options: type[BaseModel]

    def render(self, context: Context, output: Output, options: Any) -> dict[str, str]:
        """Return the launcher's files by path; its ``README.md`` is added to the trainer's.

        Raises:
            CannotExpressError: If it cannot start the jobs as the options have it.
            TemplateError: If a template fails.
        """
        ...

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what each validator that can run here says about the files of a bundle."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A trainer with a launcher."""

    trainer: Trainer
    launcher: Launcher

    @property
    def name(self) -> str:
        """The full name, ``TRAINER+LAUNCHER``."""
        return f"{self.trainer.name}+{self.launcher.name}"


def find_target(name: str) -> Target:
    """Return the target called ``TRAINER`` or ``TRAINER+LAUNCHER``.

    Raises:
        TargetError: If either is unknown, or the launcher cannot start the trainer.
    """
    trainer_name, _, launcher_name = name.partition("+")
    if trainer_name not in _TRAINERS:
        raise TargetError(
            f"unknown trainer {trainer_name!r}; {did_you_mean(trainer_name, _TRAINERS)}",
            field="target",
        )
    trainer: Trainer = _load(_TRAINERS[trainer_name])
    launcher_name = launcher_name or trainer.launchers[0]
    if launcher_name not in _LAUNCHERS:
        raise TargetError(
            f"unknown launcher {launcher_name!r}; {did_you_mean(launcher_name, _LAUNCHERS)}",
            field="target",
        )
    if launcher_name not in trainer.launchers:
        raise TargetError(
            f"launcher {launcher_name!r} cannot start {trainer_name!r}; "
            f"it starts with: {', '.join(trainer.launchers)}",
            field="target",
        )
    return Target(trainer, _load(_LAUNCHERS[launcher_name]))


def target_names() -> tuple[str, ...]:
    """Return the full names of all targets, each trainer's default launcher first."""
    trainers: list[Trainer] = [_load(where) for where in _TRAINERS.values()]
    return tuple(f"{t.name}+{launcher}" for t in trainers for launcher in t.launchers)


def read_options(target: Target, given: Mapping[str, Any]) -> tuple[BaseModel, BaseModel]:
    """Return the trainer's and the launcher's options, checked.

    Args:
        target: What is rendered for.
        given: Option names to values; text is read as the option's type.

    Raises:
        OptionError: If neither has an option of that name, or a value does not fit.
    """
    parts = (target.trainer, target.launcher)
    known = [name for part in parts for name in part.options.model_fields]
    for name in given:
        if name not in known:
            raise OptionError(
                f"{target.name} has no such option; {did_you_mean(name, known)}", field=name
            )
    return _read(parts[0].options, given), _read(parts[1].options, given)


def _read(model: type[BaseModel], given: Mapping[str, Any]) -> BaseModel:
    from pydantic import ValidationError

    try:
        return model(**{key: value for key, value in given.items() if key in model.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        message = f"got {first['input']!r:.60}: {first['msg'].removeprefix('Value error, ')}"
        if first["type"] == "missing":
            meaning = model.model_fields[name].description
            message = f"wanted --set {name}=...: {meaning}"
        raise OptionError(message, field=name) from None


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)()
