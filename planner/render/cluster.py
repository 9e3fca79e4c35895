"""What every trainer of a Cerebras cluster is told, and says, of the cluster's jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from planner.render.errors import CannotExpressError
from planner.render.names import split_words
from planner.render.paths import short, slug

if TYPE_CHECKING:
    from planner.plan.model import Run
    from planner.render.target import Context


class ClusterOptions(BaseModel):
    """Systems, precision level and jobs; the options of a Cerebras trainer include these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_csx: int = Field(1, ge=1, description="CS-X systems; has to divide the global batch")
    precision_opt_level: Literal[0, 1, 2] = Field(1, description="CSX precision optimization level")
    job_priority: Literal["p1", "p2", "p3"] = Field("p2", description="priority on the cluster")
    job_time_sec: int | None = Field(
        None, ge=1, description="time limit of a job, without queueing"
    )
    mount_dirs: str = Field(
        "", description="folders that the cluster's workers mount, as words of a shell"
    )

    @field_validator("mount_dirs")
    @classmethod
    def _folders(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a path cannot hold a NUL character")
        split_words(value)
        return value


def check_systems(run: Run, num_csx: int, micro_batch: int | None) -> None:
    """Check that a run's batch is divided by its systems, and their share by a micro batch.

    Raises:
        CannotExpressError: If it is not.
    """
    sequences = run.batch.sequences
    if sequences % num_csx:
        raise CannotExpressError(
            f"run {run.name} has a global batch of {sequences} sequences, which {num_csx} "
            "systems do not divide",
            field="num_csx",
        )
    share = sequences // num_csx
    if micro_batch is not None and share % micro_batch:
        raise CannotExpressError(
            f"run {run.name} has {share} sequences a system, which a micro batch of "
            f"{micro_batch} does not divide",
            field="micro_batch",
        )


def job_labels(context: Context, run: Run) -> list[str]:
    """Return the cluster's job labels; their values may hold letters, digits and ``._-`` only."""
    values: dict[str, Any] = {
        "family": slug(context.plan.family),
        "run": context.folders[run.name],
        "plan": short(context.plan.digest),
        "run-digest": short(run.digest),
    }
    return [f"{key}={value}" for key, value in values.items()]
