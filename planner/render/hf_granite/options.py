"""What a user may set about Granite's files beyond what the plan says."""

from __future__ import annotations

from pydantic import Field

from planner.render.script import ScriptTrainerOptions


class GraniteOptions(ScriptTrainerOptions):
    """Options of the trainer ``hf-granite``."""

    keep: int = Field(2, ge=1, description="checkpoints that are kept")
    data_workers: int = Field(1, ge=0, description="data-loading processes")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice to save memory"
    )
