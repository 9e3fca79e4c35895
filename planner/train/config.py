"""What is trained and how: a run of a plan, and the settings that the plan does not state.

``planner train`` takes a plan with the name of a run, or a run file (`planner.plan.runfile`) whose
settings are those of `Settings`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.documents import read_bytes, read_stdin
from planner.errors import SpecError, did_you_mean
from planner.plan.codec import MAX_BYTES, load_plan
from planner.plan.runfile import load_run_file
from planner.train.errors import TrainError
from planner.units import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.plan.model import Plan, Run

Precision = Literal["bf16", "fp32", "fp64"]


class Fault(BaseModel):
    """A fault to inject (`planner.train.faults`): a test hook, only to be had from a run file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logit_gradient: Literal["float16", "float8_e5m2", "float8_e4m3fn"] = Field(
        description="narrow float that the gradient of the logits passes through"
    )
    scale: float = Field(
        1.0, gt=0, description="loss scale: the gradient is this much larger there"
    )
    micro_batch: int = Field(ge=1, description="only where a micro batch has so many sequences")


class Settings(BaseModel):
    """How a run is trained, beyond what its plan says. Whatever may change bits is logged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(
        None, min_length=1, description="data folder; env:NAME takes it from the environment"
    )
    seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="of the initial weights; default the plan's first"
    )
    data_seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="of the order of the data; default the seed"
    )
    micro_batch: int | None = Field(
        None, ge=1, description="sequences a device at a time; default the plan's, or what fits"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision | None = Field(None, description="default the plan's")
    parallel: Literal["auto", "ddp", "fsdp"] = Field(
        "auto", description="over the processes of torchrun; auto is ddp"
    )
    compile: bool = Field(False, description="compile the model with torch.compile")
    threads: int | None = Field(None, ge=1, description="CPU threads; default PyTorch's")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints; default a tenth of all"
    )
    keep: int = Field(2, ge=1, description="checkpoints that are kept")
    log_steps: int = Field(1, ge=1, description="steps between lines of the log")
    eval_steps: int | None = Field(
        None, ge=1, description="steps between evaluations on held-out data; default never"
    )
    eval_sequences: int = Field(64, ge=1, description="held-out sequences of an evaluation")
    update_norms: bool = Field(False, description="log norms of weights and updates by class")
    balance_loss: float = Field(
        0.01, ge=0, description="factor of the experts' balance in what is minimized"
    )
    fault: Fault | None = Field(None, description="a numerics fault to inject; never by itself")
    stop_after: int | None = Field(
        None, ge=1, description="stop with a checkpoint after this many steps of this start"
    )


@dataclass(frozen=True, slots=True)
class Job:
    """A run with its family, the digest of its plan, and settings."""

    family: str
    plan_digest: str
    run: Run
    settings: Settings

    @property
    def seed(self) -> int:
        """Seed of the initial weights."""
        given = self.settings.seed
        return self.run.seeds[0] if given is None else given

    @property
    def data_seed(self) -> int:
        """Seed of the order of the data."""
        given = self.settings.data_seed
        return self.seed if given is None else given

    @property
    def precision(self) -> Precision:
        """Arithmetic of the matrix products; weights and optimizer are float32 (fp64: float64).

        Raises:
            TrainError: If the plan asks for fp16.
        """
        if self.settings.precision is not None:
            return self.settings.precision
        if self.run.precision == "fp16":
            raise TrainError(
                "got fp16, which needs loss scaling that this trainer does not do; wanted bf16 or "
                "fp32 (--precision overrides it)",
                field=f"{self.run.name}.precision",
            )
        return self.run.precision


def read_job(path: str, run: str | None, given: Mapping[str, Any]) -> Job:
    """Read a plan or a run file; ``-`` is standard input.

    Args:
        path: The file.
        run: Name of the run, needed where a plan has several.
        given: Settings that override those of a run file; those that are None do not.

    Raises:
        PlannerError: If it cannot be read, is neither, or was edited; if the run is not in it; if
            a setting does not fit.
    """
    name = "<stdin>" if path == "-" else path
    try:
        data = read_stdin(MAX_BYTES) if path == "-" else read_bytes(path, MAX_BYTES)
    except SpecError as error:
        raise TrainError(error.message, file=error.file) from None
    file = load_run_file(data, name)
    given = {key: value for key, value in given.items() if value is not None}
    if file is None:
        plan = load_plan(data, name)
        return Job(plan.family, plan.digest, choose_run(plan, run, name), _settings(given, None))
    if run is not None and run != file.run.name:
        raise TrainError(f"holds run {show(file.run.name)}, not {show(run)}", file=name)
    own = _settings(file.settings, name).model_dump(exclude_unset=True)
    return Job(file.family, file.plan_digest, file.run, _settings({**own, **given}, None))


def data_folder(settings: Settings) -> str:
    """Return the data folder, taken from the environment where the settings say so.

    Raises:
        TrainError: If there is none, or the variable is not set.
    """
    if settings.data is None:
        raise TrainError("wanted --data FOLDER, made by `planner prepare`", field="data")
    if not settings.data.startswith("env:"):
        return settings.data
    variable = settings.data.removeprefix("env:")
    value = os.environ.get(variable, "")
    if not value:
        raise TrainError(
            f"wanted the folder of the data in the environment variable {variable}, or --data",
            field="data",
        )
    return value


def choose_run(plan: Plan, run: str | None, name: str, *, default_first: bool = False) -> Run:
    """Return the run of a plan that a name says.

    Args:
        plan: The plan.
        run: The name; None where there is only one run.
        name: What to call the plan in errors.
        default_first: Let None also mean the first of several.

    Raises:
        TrainError: If the plan has no such run, or several and no name is given.
    """
    names = [each.name for each in plan.runs]
    if run is None:
        if len(names) != 1 and not (names and default_first):
            wanted = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise TrainError(f"wanted --run with one of: {wanted or 'no runs'}", file=name)
        return plan.runs[0]
    if run not in names:
        raise TrainError(f"has no run {show(run)}; {did_you_mean(run, names)}", file=name)
    return plan.run(run)


def _settings(values: Mapping[str, Any], file: str | None) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            message = f"no such setting; {did_you_mean(field, Settings.model_fields)}"
        else:
            wanted = first["msg"].removeprefix("Input should be ")
            message = f"got {show(first['input'])}, wanted {wanted}"
        field = f"settings.{field}" if file else f"--{field.replace('_', '-')}"
        raise TrainError(message, file=file, field=field) from None
    except TypeError:
        raise TrainError("wanted names of settings as keys", file=file, field="settings") from None
