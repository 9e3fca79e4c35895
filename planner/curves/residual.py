"""How far runs are from their reference, when, and whether that is more than noise.

The residual of a run is its log loss less the reference's log curve less the log of its divisor. It
is smoothed over a twentieth of training, trailing, so that what is said of a fraction of training
was knowable then. The divisor comes from alignment (FACTS A3): over 25-50 % of training once half
is logged, before that over the later half of what is logged; by Huber's loss, which the paper
leaves open.

A residual counts as a deviation when it is beyond what noise and size explain together::

    |residual| > sqrt(z^2 (own noise^2 + divisor^2 + reference^2) + z_s^2 stray^2) + 2 |drift|

- own noise: of a mean over the window, from the run's residuals themselves, correlated or not
  (`planner.curves.noise`); where runs were repeated, at least how far those stray from each other
  (`Reference.scatter`), which counts the divisor's error, too;
- divisor and reference: the standard errors of both;
- drift: what the shape may change by with a size, TPP and tau that are not quite the reference's
  (`Reference.drift`), relative to the stretch that the divisor was aligned on;
- z: such that a healthy run is called with probability alpha over its whole length, both signs and
  all windows counted, and that the noise itself is estimated from few points;
- stray: the error of a reference that is a law (`Reference.stray`), which is not of noise: it goes
  the same way for long, so that z_s counts few chances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from planner.curves.bins import Binned
from planner.curves.noise import long_run_noise, row_medians
from planner.curves.reference import Reference
from planner.kernel.alignment import Method, align
from planner.kernel.status import Status

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

# Residuals count from here on, so that the first whole window ends at 0.2, where the paper's
# figures of residuals and of the surrogate's error begin: earlier, warm-ups of different length
# show (FACTS A6, A8).
JUDGED_FROM = 0.15
ALIGN = (0.25, 0.5)  # FACTS A3
WINDOW = 0.05
LEAST_POINTS = 24
# Independent stretches that the error of a law has: it changes its sign a few times in training.
_STRAY_CHANCES = 4.0
_NOISE_SCALES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, eq=False, slots=True)
class Residuals:
    """R runs against their reference; K is the largest number of stretches of a run.

    Attributes:
        time: Fractions of training, rising, not-a-number past a run's end, shape ``(R, K)``.
        residual: Log loss less reference and log divisor, shape ``(R, K)``.
        smooth: Trailing mean over the window; not-a-number before the first whole one.
        noise: Standard deviation of that by chance, shape ``(R, K)``.
        allowed: What it may reach in a healthy run, shape ``(R, K)``.
        divisor: Nats a token, shape ``(R,)``; not-a-number where there is none.
        divisor_error: Its relative standard error.
        start: The fraction from which on each run is judged, shape ``(R,)``.
        points: Stretches judged, shape ``(R,)``.
        long_run: Noise of one stretch that means over many would have, shape ``(R,)``.
        beyond: Where the deviation is more than allowed, shape ``(R, K)``.
        doubt: Whether most of what is allowed is for the reference's own error, shape ``(R,)``.
    """

    time: Float64
    residual: Float64
    smooth: Float64
    noise: Float64
    allowed: Float64
    divisor: Float64
    divisor_error: Float64
    start: Float64
    points: Int64
    long_run: Float64
    beyond: Bool
    doubt: Bool


def residuals(
    binned: Binned,
    rows: Int64,
    references: Sequence[Reference],
    *,
    alpha: float,
    until: Float64 | None = None,
) -> Residuals:
    """Compare runs with their references.

    Args:
        binned: The runs.
        rows: Which of them.
        references: The reference of each.
        alpha: Probability of calling a healthy run, over its whole length.
        until: Fraction of training up to which each run's divisor and noise are taken from it,
            shape ``(R,)``: what comes later is known to be at fault. By default all that is logged.
    """
    mean, time, known = binned.rows(rows)
    curve, wander, drift, stray, repeats = (np.full_like(mean, np.nan) for _ in range(5))
    starts = np.full(rows.size, JUDGED_FROM)
    warmups: dict[int, float] = {}  # of few schedules
    alike: dict[tuple[int, int | None, float | None, float | None], list[int]] = {}
    for i, (row, reference) in enumerate(zip(rows.tolist(), references, strict=True)):
        facts = binned.facts[row]
        alike.setdefault((id(reference), facts.params, facts.tpp, facts.tau), []).append(i)
        starts[i] = max(JUDGED_FROM, reference.start)
        for schedule in (binned.schedules[row], reference.schedule):
            if schedule is not None:
                if id(schedule) not in warmups:
                    warmups[id(schedule)] = 2.0 * schedule.warmup
                starts[i] = max(starts[i], warmups[id(schedule)])
    for (_, params, tpp, tau), places in alike.items():
        reference = references[places[0]]
        at = time[places]
        curve[places] = reference.at(at, params)[0]
        stray[places] = reference.stray(at)
        own = reference.source == "runs"
        wander[places] = reference.wander(at, params) if own else 0.0
        repeats[places] = reference.scatter(at, params) if own else 0.0
        drift[places] = reference.drift(at, params, tpp=tpp, tau=tau, curve=curve[places])
    usable = known & np.isfinite(curve) & (time >= starts[:, None] - 1e-9)
    packed, points = _packed(usable, mean - curve, time, wander, drift, stray, repeats)
    raw, time, wander, drift, stray, repeats = packed
    logged = np.minimum(binned.logged[rows], 1.0)
    whole = logged
    trusted = raw
    if until is not None:
        logged = np.minimum(logged, until)
        trusted = np.where(time <= until[:, None], raw, np.nan)
    late = logged >= ALIGN[1] - 1e-9
    low = np.where(late, np.maximum(ALIGN[0], starts), np.maximum(starts, logged / 2))
    high = np.where(late, ALIGN[1], logged)
    inside = (time >= low[:, None] - 1e-9) & (time <= high[:, None] + 1e-9)
    long_run = long_run_noise(trusted, _NOISE_SCALES) if raw.size else np.full(rows.size, np.nan)
    level, error = _aligned(raw, inside, long_run)
    residual = raw - level[:, None]
    aligned_wander = _mean(wander, inside) / np.sqrt(np.maximum((high - low) / WINDOW, 1.0))
    aligned_drift = _mean(drift, inside)
    span = np.maximum(whole - starts, WINDOW)
    width = np.maximum(np.round(points * np.minimum(WINDOW / span, 1.0)), 1).astype(np.int64)
    smooth = _trailing(residual, width)
    own_noise = np.maximum((long_run**2 / width + error**2)[:, None], np.nan_to_num(repeats) ** 2)
    noise = np.sqrt(own_noise + (aligned_wander**2)[:, None] + np.nan_to_num(wander) ** 2)
    noise[np.isnan(time)] = np.nan
    z = quantile(alpha, points)[:, None]
    by_noise = z * noise
    # the law's error is stated for runs that are aligned over all of `ALIGN`
    stray = np.hypot(stray, np.where(late, 0.0, _mean(stray, inside))[:, None])
    by_law = NormalDist().inv_cdf(1.0 - alpha / (2.0 * _STRAY_CHANCES)) * stray
    allowed = np.hypot(by_noise, by_law) + 2.0 * np.abs(drift - aligned_drift[:, None])
    doubt = _mean(by_law, ~np.isnan(time)) > _mean(by_noise, ~np.isnan(time))
    with np.errstate(invalid="ignore"):
        beyond = np.abs(smooth) > allowed
    return Residuals(
        time,
        residual,
        smooth,
        np.hypot(noise, stray),
        allowed,
        np.exp(level) + np.array([r.offset for r in references]),
        np.sqrt(error**2 + aligned_wander**2 + _mean(stray, inside) ** 2),
        starts,
        points,
        long_run,
        beyond,
        doubt,
    )


def quantile(alpha: float, points: Int64) -> Float64:
    """Return the z that a healthy run passes anywhere, either way, with probability alpha.

    Two windows for each that fits into the judged training: overlapping ones add chances. Student's
    t for the noise's own error, by the first term of its expansion about the normal quantile
    (Fisher 1926); second differences of n points have about n / 3 degrees of freedom.
    """
    chances = 2.0 * (1.0 - JUDGED_FROM) / WINDOW
    z = NormalDist().inv_cdf(1.0 - alpha / (2.0 * chances))
    return np.asarray(z + (z**3 + z) / (4.0 * np.maximum(points / 3.0, 1.0)))


def _packed(usable: Bool, *matrices: Float64) -> tuple[list[Float64], Int64]:
    """Move the usable stretches of each row to the left; say how many there are of each."""
    points = np.count_nonzero(usable, axis=1)
    most = int(points.max()) if points.size else 0
    order = np.argsort(~usable, axis=1, kind="stable")[:, :most]
    beyond = np.arange(most) >= points[:, None]
    packed = [
        np.where(beyond, np.nan, np.take_along_axis(matrix, order, axis=1)) for matrix in matrices
    ]
    return packed, points


def _aligned(raw: Float64, inside: Bool, noise: Float64) -> tuple[Float64, Float64]:
    """Return the log of each run's divisor and its standard error, by Huber's loss.

    The kernel aligns the ratio of loss to reference with 1: relative errors count alike.
    """
    count = raw.shape[0]
    level, error = np.full(count, np.nan), np.full(count, np.nan)
    used = inside.any(axis=1) & (np.count_nonzero(inside, axis=1) >= 3)
    if not used.any():
        return level, error
    guess = np.zeros(count)
    masked = np.where(inside, raw, np.nan)
    guess[used] = row_medians(masked[used])
    ratios = np.exp(masked[used] - guess[used, None])
    delta = np.where(np.isfinite(noise[used]), np.maximum(1.345 * noise[used], 1e-6), 0.01)
    found = align(ratios, np.ones((1, raw.shape[1])), method=Method.HUBER, delta=delta)
    good = found.status[:, 0] == Status.OK
    level[used] = guess[used] + np.log(np.where(good, found.divisor[:, 0], 1.0))
    # From the run's own noise. The kernel's own error would take a residual that runs away within
    # the window, which is what is looked for, for noise.
    error[used] = noise[used] / np.sqrt(np.count_nonzero(inside[used], axis=1))
    return level, error


def _mean(matrix: Float64, inside: Bool) -> Float64:
    count = np.count_nonzero(inside, axis=1)
    total = np.where(inside, matrix, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.zeros(count.size), where=count > 0))


def _trailing(matrix: Float64, width: Int64) -> Float64:
    """Return means over each row's last ``width`` columns, not-a-number before the first."""
    count, columns = matrix.shape
    sums = np.zeros((count, columns + 1))
    np.cumsum(np.nan_to_num(matrix), axis=1, out=sums[:, 1:])
    at = np.arange(1, columns + 1)[None, :] - width[:, None]
    means = (sums[:, 1:] - np.take_along_axis(sums, np.maximum(at, 0), axis=1)) / width[:, None]
    means[(at < 0) | np.isnan(matrix)] = np.nan
    return np.asarray(means)
