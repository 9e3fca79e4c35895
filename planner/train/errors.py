"""What can go wrong in training; all of it is `planner.errors.PlannerError`."""

from __future__ import annotations

from planner.errors import PlannerError


class TrainError(PlannerError):
    """A run that cannot be trained as asked: what was got, what was wanted."""


class DataError(PlannerError):
    """Training data that cannot be made or read, or that does not fit the run."""


class CheckpointError(PlannerError):
    """A checkpoint that cannot be read, or that belongs to another run."""
