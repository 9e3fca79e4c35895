"""What a user may set about the script's files beyond what the plan says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planner.render.cluster import ClusterOptions
from planner.render.script import ScriptTrainerOptions


class CstorchOptions(ScriptTrainerOptions, ClusterOptions):
    """Options of the trainer ``cstorch``."""

    backend: Literal["CSX", "CPU"] = Field(
        "CSX", description="where it trains; CPU is for validation, without a cluster"
    )
    keep: int = Field(2, ge=1, description="checkpoints that are kept")
    data_workers: int = Field(1, ge=0, description="data-loading processes")
