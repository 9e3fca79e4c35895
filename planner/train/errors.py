"""What can go wrong in training; all of it is `planner.errors.PlannerError`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from planner.errors import PlannerError

if TYPE_CHECKING:
    from collections.abc import Iterator


class TrainError(PlannerError):
    """A run that cannot be trained as asked: what was got, what was wanted."""


class DataError(PlannerError):
    """Training data that cannot be made or read, or that does not fit the run."""


class CheckpointError(PlannerError):
    """A checkpoint that cannot be read, or that belongs to another run."""


@contextmanager
def memory_errors(what: str, advice: str) -> Iterator[None]:
    """Say what does not fit in memory, and what to do, in place of PyTorch's own words.

    Raises:
        TrainError: If PyTorch gets no memory.
    """
    try:
        yield
    except RuntimeError as error:
        words = str(error)
        if type(error).__name__ != "OutOfMemoryError" and "tried to allocate" not in words:
            raise
        raise TrainError(f"{what} does not fit in memory; {advice}") from None
