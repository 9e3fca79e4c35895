"""Batch size: what a batch costs in tokens and saves in steps.

McCandlish et al. (arXiv 1812.06162): (S/S_min - 1)(D/D_min - 1) = 1 with B_crit = D_min/S_min, so
D = D_min (1 + B/B_crit) and S = S_min (1 + B_crit/B). Power Lines (arXiv 2505.13738) gives B_crit
as a power law in D_min.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.laws.law import Law


@dataclass(frozen=True, slots=True)
class BatchTradeOff:
    """Where a run with batch B and data D stands on the hyperbola of time against data.

    Attributes:
        critical_batch: B_crit in tokens, at this run's D_min.
        minimum_tokens: D_min, the tokens that reach the same loss at a vanishing batch.
        minimum_steps: S_min, the steps that reach it at an unbounded batch.
    """

    critical_batch: float
    minimum_tokens: float
    minimum_steps: float


def batch_trade_off(batch_tokens: float, tokens: float, critical: Law) -> BatchTradeOff:
    """Solve D = D_min (1 + B / B_crit(D_min)) for D_min.

    Args:
        batch_tokens: B, tokens a step.
        tokens: D, tokens of the run.
        critical: Law giving B_crit in tokens at D_min tokens, with exponent below 1.

    Returns:
        The trade-off; the fixed point is met to 1e-14 of D_min.
    """
    # D_min + B D_min / B_crit(D_min) increases in D_min, so bisection cannot miss.
    low, high = 0.0, tokens
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if middle * (1 + batch_tokens / critical.at(middle)) > tokens:
            high = middle
        else:
            low = middle
    minimum = (low + high) / 2
    critical_batch = critical.at(minimum)
    return BatchTradeOff(critical_batch, minimum, minimum / critical_batch)
