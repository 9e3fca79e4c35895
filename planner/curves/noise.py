"""How noisy a curve is: per point, and over stretches, whatever its correlation in time.

The loss of a batch is noisy and its noise may be correlated from step to step. What matters for a
verdict is how far the mean over a stretch of training strays by chance. It is estimated from the
curve itself by the Haar (Allan) variance: half the variance of the difference of two neighbouring
stretches' means (Allan 1966), which a slow trend hardly touches, at stretches of 1, 2, 4 ...
points. White noise has ``variance(n) = variance(1) / n``; for correlated noise ``n variance(n)``
rises to its long-run value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# a normal variable's median absolute value over its standard deviation
_MAD = 0.6744897501960817
# differences below which a scale is too uncertain to be used
_LEAST = 12
_SCALES = (1, 2, 4, 8, 16, 32)


def point_noise(values: Float64) -> float:
    """Return the standard deviation of a curve's points about its trend, robust against spikes.

    From second differences (Gasser, Sroka and Jennen-Steinmetz 1986), which a straight trend does
    not touch; evenly spaced points are assumed.

    Args:
        values: Any units, shape ``(points,)``; those that are not finite are left out.

    Returns:
        Units of the values; not-a-number below 5 points.
    """
    usable = values[np.isfinite(values)]
    if usable.size < 5:
        return float("nan")
    second = usable[2:] - 2.0 * usable[1:-1] + usable[:-2]
    return float(np.median(np.abs(second)) / _MAD / np.sqrt(6.0))


def haar_noise(matrix: Float64, scales: tuple[int, ...] = _SCALES) -> Float64:
    """Return the noise of means over ``n`` columns, one row per curve.

    Robust: the median of the absolute differences of neighbouring means, so that a spike or a bend
    does not count as noise. Means over stretches with missing columns are left out.

    Args:
        matrix: Residuals in even stretches, shape ``(curves, columns)``; not-a-number is missing.
        scales: The ``n``, rising.

    Returns:
        Standard deviations, shape ``(curves, scales)``; not-a-number where fewer than 12 pairs of
        stretches are known.
    """
    curves, columns = matrix.shape
    sums = np.zeros((curves, columns + 1))
    np.cumsum(matrix, axis=1, out=sums[:, 1:])
    found = np.full((curves, len(scales)), np.nan)
    missing = np.isnan(matrix)
    if missing.any():
        counts = np.zeros((curves, columns + 1), np.int32)
        np.cumsum(missing, axis=1, out=counts[:, 1:])
        sums[:, 1:] = np.cumsum(np.where(missing, 0.0, matrix), axis=1)
    for i, n in enumerate(scales):
        if columns < 2 * n + _LEAST:
            break
        # overlapping stretches: more pairs, the same expectation
        later = sums[:, 2 * n :] - sums[:, n:-n]
        earlier = sums[:, n:-n] - sums[:, : -2 * n]
        pairs = np.abs(later - earlier) / n
        if missing.any():
            pairs[counts[:, 2 * n :] - counts[:, : -2 * n] > 0] = np.nan
            enough = np.count_nonzero(np.isfinite(pairs), axis=1) >= _LEAST + n
            pairs = pairs[enough]
            found[enough, i] = np.nanmedian(pairs, axis=1) if pairs.size else np.nan
        else:
            found[:, i] = np.median(pairs, axis=1)
        found[:, i] /= _MAD * np.sqrt(2.0)
    return found


def long_run_noise(matrix: Float64, scales: tuple[int, ...] = _SCALES) -> Float64:
    """Return sqrt(n) times the noise of a mean over n columns, for large n; one per curve.

    The coarsest scale of `haar_noise` that stands two standard errors above the finer ones, so that
    white noise is not taken for more than it is.

    Args:
        matrix: As for `haar_noise`.
        scales: As for `haar_noise`.

    Returns:
        Shape ``(curves,)``; not-a-number where no scale is known.
    """
    noise = haar_noise(matrix, scales) * np.sqrt(np.asarray(scales))
    first = noise[:, 0]
    known = np.count_nonzero(np.isfinite(matrix), axis=1)
    best = first.copy()
    for i, n in enumerate(scales[1:], start=1):
        # a median of m independent absolute values errs by about 1.17 / sqrt(m) of itself
        pairs = np.maximum(known / (2.0 * n), 1.0)
        lower = noise[:, i] / (1.0 + 2.0 * 1.17 / np.sqrt(pairs))
        best = np.where(lower > best, noise[:, i], best)
    return np.asarray(best)
