"""How noisy a curve is: per point, and over stretches, whatever its correlation in time.

The loss of a batch is noisy and its noise may be correlated from step to step. What matters for a
verdict is how far the mean over a stretch of training strays by chance. It is estimated from the
curve itself by the Hadamard variance: a sixth of the variance of the second difference of three
neighbouring stretches' means (Baugh 1971), which no straight trend touches, at stretches of 1, 2,
4 ... points. White noise has ``variance(n) = variance(1) / n``; for correlated noise
``n variance(n)`` rises to its long-run value.
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
_SHARE = 16


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


def row_medians(matrix: Float64) -> Float64:
    """Return the median of what is known of each row; not-a-number where nothing is.

    Args:
        matrix: Not-a-number is missing, shape ``(rows, columns)``.

    Returns:
        Shape ``(rows,)``, the same as ``numpy.nanmedian``, much faster for many short rows.
    """
    if not matrix.shape[1]:
        return np.full(matrix.shape[0], np.nan)
    ordered = np.sort(matrix, axis=1)  # what is missing goes last
    count = np.count_nonzero(~np.isnan(ordered), axis=1)
    rows = np.arange(matrix.shape[0])
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, matrix.shape[1] - 1)
    return np.asarray(np.where(count > 0, (ordered[rows, low] + ordered[rows, high]) / 2.0, np.nan))


def stretch_noise(matrix: Float64, scales: tuple[int, ...] = _SCALES) -> Float64:
    """Return the noise of means over ``n`` columns, one row per curve.

    Robust: the median of the absolute second differences of neighbouring means, so that a spike or
    a bend does not count as noise. Stretches with missing columns are left out.

    Args:
        matrix: Residuals in even stretches, shape ``(curves, columns)``; not-a-number is missing.
        scales: The ``n``, rising.

    Returns:
        Standard deviations, shape ``(curves, scales)``; not-a-number where fewer than 12 triples of
        stretches are known.
    """
    curves, columns = matrix.shape
    missing = np.isnan(matrix)
    sums = np.zeros((curves, columns + 1))
    np.cumsum(np.where(missing, 0.0, matrix), axis=1, out=sums[:, 1:])
    counts = np.zeros((curves, columns + 1), np.int32)
    np.cumsum(missing, axis=1, out=counts[:, 1:])
    found = np.full((curves, len(scales)), np.nan)
    for i, n in enumerate(scales):
        if columns < 3 * n + _LEAST:
            break
        # overlapping stretches: more triples, the same expectation
        total = [sums[:, (k + 1) * n : columns + 1 - (2 - k) * n] for k in range(3)]
        before = [sums[:, k * n : columns + 1 - (3 - k) * n] for k in range(3)]
        first, second, third = (t - b for t, b in zip(total, before, strict=True))
        triples = np.abs(first - 2.0 * second + third) / n
        broken = counts[:, 3 * n :] > counts[:, : -3 * n]
        if broken.any():
            triples[broken] = np.nan
            enough = np.count_nonzero(~broken, axis=1) >= _LEAST
            found[enough, i] = row_medians(triples[enough])
        else:
            found[:, i] = np.median(triples, axis=1)
        found[:, i] /= _MAD * np.sqrt(6.0)
    return found


def long_run_noise(matrix: Float64, scales: tuple[int, ...] = _SCALES) -> Float64:
    """Return sqrt(n) times the noise of a mean over n columns, for large n; one per curve.

    The coarsest scale of `stretch_noise` that stands two standard errors above the finer ones, so
    that white noise is not taken for more than it is.

    Args:
        matrix: As for `stretch_noise`.
        scales: As for `stretch_noise`.

    Returns:
        Shape ``(curves,)``; not-a-number where no scale is known.
    """
    noise = stretch_noise(matrix, scales) * np.sqrt(np.asarray(scales))
    first = noise[:, 0]
    known = np.count_nonzero(np.isfinite(matrix), axis=1)
    best = first.copy()
    for i, n in enumerate(scales[1:], start=1):
        # stretches that make up much of the curve would take its bend for noise
        noise[n * _SHARE > known, i] = np.nan
        # a median of m independent absolute values errs by about 1.17 / sqrt(m) of itself
        pairs = np.maximum(known / (2.0 * n), 1.0)
        lower = noise[:, i] / (1.0 + 2.0 * 1.17 / np.sqrt(pairs))
        best = np.where(lower > best, noise[:, i], best)
    return np.asarray(best)
