"""The divisor that aligns a partial curve with a reference: an estimate of its final loss.

Where a run will follow a reference curve, ``loss = divisor * reference`` on the stretch that is
known, and the divisor predicts the final loss (Scaling with Collapse, section 4, "early-align",
which leaves the objective open). Which method: HUBER for logs as they are; LEAST_SQUARES for
smoothed curves, and where speed counts; LEAST_ABSOLUTE where a good part of the points is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner import _core
from planner.kernel.ragged import Float64


class Method(IntEnum):
    """What is minimized over the divisor; r is the curve less divisor times candidate."""

    LEAST_SQUARES = 0
    """Sum of r^2 / 2; in closed form."""
    HUBER = 1
    """Sum of r^2 / 2 up to delta and of delta (|r| - delta / 2) beyond."""
    LEAST_ABSOLUTE = 2
    """Sum of |r|; exactly, by a weighted median."""


@dataclass(frozen=True, slots=True)
class Alignments:
    """Every curve against every candidate; arrays of shape ``(curves, candidates)``."""

    divisor: Float64
    """Units of the curves over those of the candidates; NaN where there is none."""
    objective: Float64
    """The minimum that was reached."""
    error: Float64 | None
    """Standard error of the divisor; None unless asked for."""
    n_finite: NDArray[np.int64]
    """Usable points of each curve, shape ``(curves,)``."""
    status: NDArray[np.int32]
    """:class:`planner.kernel.Status`: OK, NON_FINITE, TOO_FEW_POINTS (below 3), STALLED or
    MAX_ITERATIONS."""
    iterations: NDArray[np.int32]
    """Passes of HUBER over the points; 0 for the other methods, which take no steps."""


def align(
    curves: ArrayLike,
    candidates: ArrayLike,
    *,
    method: Method = Method.HUBER,
    delta: ArrayLike = 0.01,
    errors: bool = False,
    threads: int | None = None,
) -> Alignments:
    """Fit ``curve = divisor * candidate`` for every pair.

    The standard error is sqrt(long-run variance of the scores) / curvature; it respects correlated
    noise: the scores are prewhitened by an AR(1) (Andrews and Monahan 1992) and what is left gets
    Bartlett weights over 1.4 n^(1/3) lags (Newey and West 1987). It takes the points in their
    order, as if evenly spaced.

    Args:
        curves: Shape ``(curves, grid)``, on the grid of the candidates. A point that is NaN,
            infinite or of magnitude 1e300 and above is missing: so a stretch of training is chosen.
        candidates: Shape ``(candidates, grid)``, finite.
        method: See :class:`Method`.
        delta: For HUBER: above 0, one number or one per curve, units of the curves.
        errors: Whether to compute standard errors.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: a shape does not fit, a candidate is not finite, delta is not positive, or
            ``threads`` is below 1.
    """
    rows = np.ascontiguousarray(curves, dtype=np.float64)
    others = np.ascontiguousarray(candidates, dtype=np.float64)
    if rows.ndim != 2 or others.ndim != 2 or rows.shape[1] != others.shape[1] or not rows.shape[1]:
        raise ValueError(
            "curves and candidates must be matrices on one grid, "
            f"got shapes {rows.shape} and {others.shape}."
        )
    if others.size and not (others.max() < 1e300 and others.min() > -1e300):
        raise ValueError("candidates must be finite.")
    deltas = np.asarray(delta, dtype=np.float64)
    if deltas.ndim > 1 or (deltas.ndim == 1 and deltas.size != rows.shape[0]):
        raise ValueError(f"delta must be one number or one per curve, got shape {deltas.shape}.")
    if not np.all((deltas > 0) & np.isfinite(deltas)):
        raise ValueError("delta must be positive and finite.")
    return Alignments(
        *_core.align(
            rows.reshape(-1),
            others.reshape(-1),
            rows.shape[1],
            Method(method),
            np.ascontiguousarray(np.broadcast_to(deltas, (rows.shape[0],))),
            errors=errors,
            threads=threads,
        )
    )
