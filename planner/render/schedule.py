"""A learning-rate schedule as the straight and curved pieces that every trainer can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from planner.render.errors import CannotExpressError

if TYPE_CHECKING:
    from planner.plan.model import Run


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of steps over which the learning rate goes from ``start`` to ``end``.

    Update number i of the piece (from 0) uses ``start`` + (``end`` - ``start``) * shape(i / steps),
    so ``end`` itself is first used by the piece that follows.
    """

    shape: Literal["linear", "cosine", "constant"]
    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        """Return the learning rate of the piece's update number ``step`` (from 0)."""
        done = step / self.steps
        if self.shape == "cosine":
            done = (1.0 - math.cos(math.pi * done)) / 2.0
        return self.start + (self.end - self.start) * done


def pieces(run: Run) -> tuple[Piece, ...]:
    """Return warm-up, hold and decay of a run, leaving out those without steps.

    Warm-up is linear from zero. The decay takes the plan's fraction of all steps, but at most what
    the warm-up leaves; between the two the peak is held.

    Raises:
        CannotExpressError: If the steps do not add up.
    """
    peak = run.optimizer.base_peak_lr
    schedule = run.schedule
    warmup = run.warmup_steps
    if not 0 <= warmup <= run.steps or run.steps < 1:
        raise CannotExpressError(
            f"got {warmup} warm-up steps of {run.steps}", field=f"{run.name}.warmup_steps"
        )
    rest = run.steps - warmup
    floor = 0.0 if schedule.kind == "linear-to-zero" else peak * schedule.final_lr_fraction
    decay = 0 if schedule.kind == "constant" else rest
    if schedule.kind == "wsd":
        decay = min(rest, round(run.steps * schedule.decay_fraction))
    shape: Literal["linear", "cosine"] = "cosine" if schedule.kind == "cosine" else "linear"
    found = (
        Piece("linear", 0.0, peak, warmup),
        Piece("constant", peak, peak, rest - decay),
        Piece(shape, peak, floor, decay),
    )
    return tuple(piece for piece in found if piece.steps)


def learning_rate(run: Run, step: int) -> float:
    """Return the base learning rate that update number ``step`` (from 0) of a run uses."""
    for piece in pieces(run):
        if step < piece.steps:
            return piece.at(step)
        step -= piece.steps
    raise CannotExpressError(f"run {run.name!r} has {run.steps} steps, got step number {step}")
