"""How the shape of a band's curves goes on with model size.

Normalized curves of one band are one curve only nearly: their shape drifts slowly with size. The
mean of smaller sizes is therefore biased, a line in log N through them is less so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

# Three or more sizes show a curvature, of which half is believed: the mean of the line and the
# parabola through them. Chosen on the 0.5xC runs of the OLMo ladder (docs/forecast.md).
CURVATURE = 0.5


def size_weights(
    sizes: ArrayLike,
    size: float,
    *,
    curvature: float = CURVATURE,
    precision: ArrayLike | None = None,
) -> Float64:
    """Return how much each run counts at another size, for what changes smoothly with log N.

    Args:
        sizes: Parameter counts of the runs, shape ``(runs,)``; several may be of one size.
        size: Parameter count where it is wanted.
        curvature: How much of the curvature through three or more sizes is believed: 0 a line,
            1 a parabola.
        precision: How much is known of each run, such as its points; shape ``(runs,)``. Equal if
            None.

    Returns:
        Weights that sum to 1, shape ``(runs,)``: the mean for one size, a line for two.

    Raises:
        ValueError: If there is no run, or a size or a precision is not positive.
    """
    of = np.asarray(sizes, np.float64)
    if of.ndim != 1 or not of.size or not np.all(of > 0) or not size > 0:
        raise ValueError(f"sizes must be positive numbers, got {of.tolist()} and {size}.")
    known = np.ones(of.size) if precision is None else np.asarray(precision, np.float64)
    if known.shape != of.shape or not np.all(known > 0):
        raise ValueError(f"precision must be positive, one per run, got {known.tolist()}.")
    z = np.log(of / size)
    root = np.sqrt(known / known.max())
    different = np.unique(of).size
    line = _value_at_zero(z, root, min(2, different))
    if different < 3 or curvature == 0:
        return line
    return np.asarray((1.0 - curvature) * line + curvature * _value_at_zero(z, root, 3))


def _value_at_zero(z: Float64, root: Float64, terms: int) -> Float64:
    """Weights of the value at z = 0 of the polynomial fitted by weighted least squares."""
    return np.asarray(np.linalg.pinv(np.vander(z, terms) * root[:, None])[-1] * root, np.float64)
