"""What a user may set about ModelZoo files beyond what the plan says."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from planner.render.cluster import ClusterOptions

_ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)\Z")


class ModelZooOptions(ClusterOptions):
    """Options of the trainer ``modelzoo``."""

    data_dir: str = Field(
        "env:TRAIN_DATA_DIR",
        min_length=1,
        description="folder of HDF5 training data; env:NAME takes it from the environment at start",
    )
    eval_data_dir: str | None = Field(
        None, min_length=1, description="folder of HDF5 evaluation data; likewise env:NAME"
    )
    eval_frequency: int | None = Field(
        None, ge=1, description="training steps between evaluations; default a tenth of all"
    )
    eval_steps: int | None = Field(None, ge=1, description="evaluation steps; default all data")
    micro_batch: Literal["auto"] | int = Field(
        "auto", description="sequences of one system at a time: auto, or a number"
    )
    checkpoint_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints; default a tenth of all"
    )
    log_steps: int = Field(10, ge=1, description="steps between log lines")
    data_workers: int = Field(1, ge=0, description="data-loading processes")
    wandb: bool = Field(False, description="also log to Weights & Biases; the key stays outside")
    wandb_entity: str | None = Field(None, description="team or user on Weights & Biases")

    @field_validator("data_dir", "eval_data_dir")
    @classmethod
    def _environment_name(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("env:") and not _ENVIRONMENT.match(value):
            raise ValueError("wanted env:NAME with a name of letters, digits and underscores")
        if value is not None and "\0" in value:
            raise ValueError("a path cannot hold a NUL character")
        return value

    @field_validator("micro_batch")
    @classmethod
    def _positive(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("wanted auto or a positive number")
        return value


def from_environment(value: str | None) -> str | None:
    """Return the variable that an ``env:NAME`` option names, else None."""
    match = _ENVIRONMENT.match(value or "")
    return match.group(1) if match else None


def path_text(value: str) -> str:
    """Return what the file says: the path, or ``${NAME}`` for the launcher to fill in."""
    name = from_environment(value)
    return value if name is None else "${" + name + "}"
