"""What every trainer that reads a folder of token files is told, whatever else it is told."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from planner.render.target import VARIABLE


class TrainingOptions(BaseModel):
    """Data, precision and micro batch; the options of a trainer begin with these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: str = Field(
        "env:TRAIN_DATA_DIR",
        min_length=1,
        description="folder made by planner prepare; env:NAME takes it from the environment",
    )
    precision: Literal["bf16", "fp32"] | None = Field(None, description="default the plan's")
    micro_batch: int | None = Field(
        None, ge=1, description="sequences of one process at a time; default the plan's"
    )

    @field_validator("data_dir")
    @classmethod
    def _folder(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a path cannot hold a NUL character")
        if value.startswith("env:") and not VARIABLE.match(value.removeprefix("env:")):
            raise ValueError("wanted env:NAME with a name of letters, digits and underscores")
        return value
