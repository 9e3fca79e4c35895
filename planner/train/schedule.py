"""The plan's learning-rate schedule, update by update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.render.schedule import learning_rate

if TYPE_CHECKING:
    from planner.plan.model import Run


def rate_factor(run: Run, update: int) -> float:
    """Return the share of its peak learning rate that update number ``update`` (from 0) uses.

    The same pieces that every render target is told: with a warm-up, update 0 uses 0.
    """
    return learning_rate(run, update) / run.optimizer.base_peak_lr
