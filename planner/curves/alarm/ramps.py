"""Drift statistics: how much a residual rises over the last ``w`` points, for every w at once.

For each logged point ``t`` and each window ``w`` of a dyadic bank the statistic is the generalized
least squares estimate of the slope of a ramp that is 0 up to ``t - w`` and rises from there, over
its standard error (Willsky and Jones 1976), the level of the curve being unknown: a run in progress
has no divisor yet, so a change of shape is looked for and the level is projected out. What is known
to differ smoothly among healthy runs enters as a shape with a normal prior, and is projected out as
far as the data tell it.

Noise is not assumed to be white. Each window's statistic is divided by the root mean square that
the same window's statistic had before the window began, but by no less than an AR(1) as correlated
as what was seen would have; a scale seen too few times inherits the ratio of the next smaller
scales, extrapolated where it grows. The statistics of all windows compare after the multiscale
penalty sqrt(2 log(n / w)) (Duembgen and Spokoiny 2001), which lets long windows, for which there
are few chances to err, alarm at less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SMALLEST_WINDOW = 4
# how many independent looks the inherited variance ratio counts for
_PRIOR_LOOKS = 6.0
# A variance ratio is not taken to be less: white noise has 1 at each scale, noise of data drawn
# without replacement less.
_LEAST_RATIO = 1.0
# growth of the variance ratio from one scale to the next that is believed at most
_GROWTH = 1.5
_LARGEST_SQUARE = 25.0
_LARGEST_PHI = 0.95
_NEAR = 64  # points whose mean correlation is measured from


@dataclass(frozen=True, eq=False, slots=True)
class RampScores:
    """Arrays of shape ``(..., points)``.

    Attributes:
        score: The largest penalized statistic; minus infinity before the calibration's end.
        window: The window that it is of, points; 0 where there is none.
        rise: The estimated rise over that window, units of the values.
    """

    score: Float64
    window: Int64
    rise: Float64


def bank(total: int) -> list[int]:
    """Return the windows for a run of so many points, rising by doubling."""
    windows = []
    w = SMALLEST_WINDOW
    while w < total:
        windows.append(w)
        w *= 2
    return windows


def ramp_scores(
    values: Float64,
    noise: Float64,
    total: int,
    calibration: int,
    *,
    shape: Float64 | None = None,
    shape_sd: float = 0.0,
    tolerance: float = 0.0,
    wander: float = 0.0,
    wander_points: float = 1.0,
    prior_looks: float = _PRIOR_LOOKS,
    least_ratio: float = _LEAST_RATIO,
    growth: float = _GROWTH,
) -> RampScores:
    """Return the statistic at each point, of that point and the ones before it alone.

    Args:
        values: Residuals, tamed, shape ``(..., points)``.
        noise: Standard deviation of one point, of the same shape.
        total: Points of the whole run.
        calibration: Points at the start at which no score is given.
        shape: What healthy residuals may hold any multiple of, shape ``(points,)``.
        shape_sd: Standard deviation of that multiple.
        tolerance: How far a healthy residual may stray at most besides; units of the values.
        wander: Standard deviation of the reference's own error; units of the values.
        wander_points: Points over which that error is of one sign.
        prior_looks: Independent looks that an inherited variance ratio counts for.
        least_ratio: The variance ratio is not taken to be less.
        growth: Of the variance ratio from scale to scale, at most, where it is inherited.
    """
    n = values.shape[-1]
    count = min(calibration, n)
    u = values - values[..., :count].mean(-1, keepdims=True)
    v = 1.0 / noise**2
    j = np.arange(1, n + 1.0) / total
    v0, v1, v2 = _sums(v), _sums(v * j), _sums(v * j * j)
    u0, u1 = _sums(v * u), _sums(v * j * u)
    if shape is not None and shape_sd > 0:
        f = np.broadcast_to(shape - shape[..., :1], u.shape)
        f0, f1, ff, fu = _sums(v * f), _sums(v * j * f), _sums(v * f * f), _sums(v * f * u)
    best = np.full(u.shape, -np.inf)
    window = np.zeros(u.shape, np.int64)
    rise = np.zeros(u.shape)
    ratio = first_ratio = _first_ratio(u, v, count)
    before = ratio
    for w in bank(total):
        # t runs over [first, n], k = t - w
        first = w + max(count // 2, 2)
        if first > n:
            break
        t, k = slice(first, n + 1), slice(first - w, n + 1 - w)
        at = np.arange(first - w, n + 1 - w) / total
        d0, d1, d2 = v0[..., t] - v0[..., k], v1[..., t] - v1[..., k], v2[..., t] - v2[..., k]
        e0, e1 = u0[..., t] - u0[..., k], u1[..., t] - u1[..., k]
        g1 = d1 - at * d0
        gg = d2 - at * (2.0 * d1 - at * d0)
        gu = e1 - at * e0
        share = g1 / v0[..., t]
        gg = gg - g1 * share
        gu = gu - u0[..., t] * share
        if shape is not None and shape_sd > 0:
            gf = (f1[..., t] - f1[..., k]) - at * (f0[..., t] - f0[..., k]) - f0[..., t] * share
            fs = f0[..., t] / v0[..., t]
            a = ff[..., t] - f0[..., t] * fs + 1.0 / shape_sd**2
            hu = fu[..., t] - u0[..., t] * fs
            gu = gu - gf / a * hu
            gg = gg - gf * gf / a
        z = gu / np.sqrt(gg)
        if tolerance > 0:
            # the largest contrast that a bounded mismatch gives: half its range times sum |g|
            worst = tolerance * np.sqrt(v0[..., t])
            z = np.sign(z) * np.maximum(np.abs(z) - worst, 0.0)
        seen = np.arange(first, n + 1) - first - w + 1
        looks = np.maximum(seen, 0)
        inherited = ratio[..., first - 1 :] * np.clip(
            ratio[..., first - 1 :] / before[..., first - 1 :], 1.0, growth
        )
        squares = _sums(np.minimum(z * z, _LARGEST_SQUARE * inherited))
        now = (prior_looks * inherited + squares[..., looks] / w) / (prior_looks + looks / w)
        before = ratio
        ratio = ratio.copy()
        ratio[..., first - 1 :] = now
        # what a mean over w points errs by the reference's own error, which has no own noise
        floor = (
            np.maximum(first_ratio[..., first - 1 :], least_ratio)
            + (wander**2 * min(w, wander_points)) * v[..., first - 1 :]
        )
        scaled = z / np.sqrt(np.maximum(now, floor)) - np.sqrt(2.0 * np.log(total / w))
        better = scaled > best[..., first - 1 :]
        best[..., first - 1 :] = np.where(better, scaled, best[..., first - 1 :])
        window[..., first - 1 :] = np.where(better, w, window[..., first - 1 :])
        rise[..., first - 1 :] = np.where(better, gu / gg * (w / total), rise[..., first - 1 :])
    best[..., : max(count - 1, 0)] = -np.inf
    return RampScores(best, window, rise)


def _first_ratio(u: Float64, v: Float64, count: int) -> Float64:
    """Return the long-run variance over that of ``noise`` if what was seen is an AR(1); 1 or more.

    Before a window was seen often enough this is what is known of its noise.
    """
    n = u.shape[-1]
    number = np.maximum(np.arange(n), count - 1)
    # off the points before, few enough that a drift is no correlation
    low = np.maximum(number + 1 - _NEAR, 0)
    sums = _sums(u)
    off = u - (sums[..., number + 1] - sums[..., low]) / (number + 1 - low)
    pairs = _sums(off[..., 1:] * off[..., :-1])[..., number]
    squares = _sums(off * off)
    phi = pairs / np.maximum(squares[..., number], 1e-300)
    # its estimate is too small by (1 + 3 phi) / n (Kendall 1954)
    phi = np.clip(phi + (1.0 + 3.0 * phi) / (number + 1), 0.0, _LARGEST_PHI)
    spread = squares[..., number + 1] / (number + 1) * v
    return np.asarray(np.maximum(spread * (1.0 + phi) / (1.0 - phi), 1.0))


def _sums(values: Float64) -> Float64:
    """Return running sums along the last axis, with a zero before them."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums
