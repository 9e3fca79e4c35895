"""The noise that a run shares with the runs of its reference: that of the batches they all see.

A control variate: the points of the reference's runs stray from its smooth curve by what their
batches are harder than others. Where the run under watch strays alike during its calibration, that
multiple of it is subtracted from then on; where it does not, the runs see other data, and nothing
is. The multiple is fixed by the calibration, before any alarm can be raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planner.curves.reference import Reference

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Correlation of neighbours' differences from which on two runs count as seeing the same batches:
# above it, a run's noise less that of another is smaller than its own.
LEAST_CORRELATION = 0.5


@dataclass(frozen=True, eq=False, slots=True)
class SharedNoise:
    """What to subtract from a run's residual.

    Attributes:
        known: Where the reference's runs logged a point too, shape ``(points,)``.
        values: What is shared there, 0 elsewhere, shape ``(points,)``.
        share: The multiple of the reference's own noise that it is.
    """

    known: NDArray[np.bool_]
    values: Float64
    share: float


def shared_noise(
    steps: Int64,
    residual: Float64,
    calibration: int,
    reference: Reference,
    *,
    horizon: int,
    every: float,
    params: float | None = None,
) -> SharedNoise | None:
    """Return the noise that a run shares with its reference; None where it shares none.

    Args:
        steps: Steps of the run's points, shape ``(points,)``.
        residual: Its log loss less the reference's smooth curve there.
        calibration: Points at the start that tell whether it does.
        reference: All of its runs must have points (`planner.curves.points`) to the run's end.
        horizon: Steps of the whole run.
        every: Steps from one point to the next.
        params: N of the run.
    """
    members = reference.members
    if any(m.steps is None or m.steps[-1] < horizon - 1.5 * every for m in members):
        return None
    known = np.ones(steps.size, bool)
    common = np.zeros(steps.size)
    # weighted as the smooth curve is, so that what the smoothing erred cancels
    for member, weight in zip(members, reference.weights(params), strict=True):
        assert member.steps is not None
        assert member.noise is not None
        place = np.minimum(np.searchsorted(member.steps, steps), member.steps.size - 1)
        known &= member.steps[place] == steps
        common += weight * member.noise[place]
    first = known[:calibration]
    if np.count_nonzero(first) < max(0.9 * calibration, 3):
        return None
    own = np.diff(residual[:calibration][first])
    theirs = np.diff(common[:calibration][first])
    product, square = float(own @ theirs), float(theirs @ theirs)
    if product < LEAST_CORRELATION * np.sqrt(square * float(own @ own)) or square <= 0:
        return None
    share = product / square
    return SharedNoise(known, np.where(known, share * common, 0.0), share)
