"""The drift alarm: a run leaves its reference, at a stated probability of crying wolf.

See docs/alarms.md. The residual is log loss less the log of the reference; its level is unknown
while the run is unfinished, so a change of shape is looked for, after each logged point
(`planner.curves.alarm.ramps`). ``alpha`` is the probability that a healthy run raises an alarm at
any point of its whole length (`planner.curves.alarm.threshold`).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from planner.curves.alarm.ramps import ramp_scores
from planner.curves.alarm.shared import shared_noise
from planner.curves.alarm.tame import tame
from planner.curves.alarm.threshold import ALPHAS, threshold
from planner.curves.errors import CurveError
from planner.curves.normalize import log_excess

if TYPE_CHECKING:
    from planner.curves.curve import Curve
    from planner.curves.reference import Reference

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Before this fraction of training, and before twice the warm-up, runs of one family differ: "small
# early gaps from different warm-up fractions" (FACTS A8).
START = 0.05
_WARMUPS = 2.0
# How far shapes of sizes a factor 4 apart differ besides what a multiple of the shape itself
# explains: with it, 25M and 100M runs of one schedule (multipowerlaw) raise no alarm against each
# other (benchmarks/accuracy/detection.py counts them).
SHAPE_TOLERANCE = 0.002
_SAME_SIZE = 0.1
# The calibration: a tenth of the points, but enough to know their noise and no more than needed.
_CALIBRATION = (0.1, 16, 1000)
# Fraction of training over which a reference's own error is of one sign: the width of the
# smoothing, or the distance of its points where it was not smoothed (`planner.curves.reference`).
_SMOOTHED_WIDTH, _RAW_WIDTH = 0.05, 0.0025

State = Literal["undecidable", "calibrating", "quiet", "alarm"]


@dataclass(frozen=True, eq=False, slots=True)
class DriftReport:
    """What the drift alarm says of a run so far; arrays hold one entry per watched point.

    Attributes:
        state: ``undecidable`` (`reason` says why), ``calibrating``, ``quiet`` or ``alarm``.
        reason: Why nothing can be said; empty otherwise.
        alpha: Probability of an alarm over a whole healthy run.
        threshold: Of the score; not-a-number where undecidable.
        steps: Watched steps, shape ``(points,)``.
        residual: Log loss less log reference less the level of the calibration, and less what noise
            it shares with the reference's runs.
        score: Penalized statistic, in standard deviations; minus infinity while calibrating.
        step: At which the alarm was raised; None.
        at: That as a fraction of training; None.
        since: Fraction of training at which the drift began, by the alarming statistic; None.
        rise: How far the residual had risen at the alarm (relative); None.
        shared: Share of the reference's own noise that was subtracted; 0 where none was.
    """

    state: State
    reason: str
    alpha: float
    threshold: float
    steps: Int64
    residual: Float64
    score: Float64
    step: int | None = None
    at: float | None = None
    since: float | None = None
    rise: float | None = None
    shared: float = 0.0


def calibration_points(total: int) -> int:
    """Return how many points calibrate a run of so many watched points."""
    share, least, most = _CALIBRATION
    return int(min(max(share * total, least), most))


def find_drift(
    curve: Curve,
    reference: Reference,
    *,
    alpha: float = 0.01,
    start: float = START,
    params: float | None = None,
    tolerance: float | None = None,
) -> DriftReport:
    """Watch a run against a reference, as it would have been watched while it was logged.

    Args:
        curve: The run so far. Each point is judged by itself and those before it.
        reference: What it should look like.
        alpha: Probability of an alarm over the whole of a healthy run.
        start: Fraction of training from which on it is watched.
        params: N; None: that of the curve.
        tolerance: How far (relative) a healthy residual may stray besides noise, the reference's
            own error, and what is unknown of the change of shape with size. None: nothing more for
            a size that the reference holds, `SHAPE_TOLERANCE` for another or an unknown one; for a
            law, what its error reaches with probability ``alpha``.

    Raises:
        CurveError: ``alpha`` or ``start`` is out of range, or the metrics differ.
    """
    if not ALPHAS[0] <= alpha <= ALPHAS[1]:
        raise CurveError(
            f"got {alpha:g}, wanted {ALPHAS[0]:g} to {ALPHAS[1]:g}: false alarms per healthy run",
            field="--alpha",
        )
    if not 0.0 <= start < 1.0:
        raise CurveError(f"got {start:g}, wanted a fraction of training, 0 to 1", field="--start")
    if reference.metric != curve.metric:
        raise CurveError(f"the reference is of {reference.metric}, the run logged {curve.metric}")
    size = curve.facts.params if params is None else params
    begin = max(start, reference.start, _WARMUPS * _warmup(curve, reference))
    why = _undecidable(curve, reference, begin)
    if why:
        return _nothing(why, alpha)
    horizon = curve.horizon or 1
    logs = log_excess(curve.values, reference.offset)
    fraction = curve.fraction
    usable = np.isfinite(logs) & (fraction >= begin)
    shape, _ = reference.at(fraction, size)
    usable &= np.isfinite(shape)
    steps, t = curve.steps[usable], fraction[usable]
    residual = logs[usable] - shape[usable]
    # points of a healthy run, whole; those logged so far lie as densely as those to come
    total = max(round((1.0 - begin) * horizon / max(curve.every, 1.0)), t.size)
    count = calibration_points(total)
    if total < 2 * count:
        why = f"{total} points of a whole run are too few to tell drift from noise"
        return _nothing(why, alpha)
    if t.size < count:
        level = np.nanmean(residual) if t.size else 0.0
        blank = np.full(t.size, -np.inf)
        limit = threshold(alpha, total)
        return DriftReport("calibrating", "", alpha, limit, steps, residual - level, blank)
    limit = threshold(alpha, total)
    own = shape[usable]
    share = 0.0
    shared = shared_noise(
        steps, residual, count, reference, horizon=horizon, every=curve.every, params=size
    )
    if shared is not None:
        share = shared.share
        residual = (residual - shared.values)[shared.known]
        steps, t, own = steps[shared.known], t[shared.known], own[shared.known]
        count = int(np.count_nonzero(shared.known[:count]))
    values, noise = tame(residual, count)
    # over the whole of training, so that no point is judged by how much was logged after it
    whole = np.linspace(begin, 1.0, 200, endpoint=False)
    drift = reference.drift(whole, size)
    scale = float(np.median(drift / np.maximum(np.abs(reference.at(whole, size)[0]), 1e-12)))
    wander = reference.wander(whole, size, left=abs(1.0 - share))
    scores = ramp_scores(
        values,
        noise,
        total,
        count,
        shape=own,
        shape_sd=scale,
        tolerance=_tolerance(reference, size, alpha) if tolerance is None else tolerance,
        wander=float(np.nanmedian(wander)),
        wander_points=max(_error_width(reference) * horizon / max(curve.every, 1.0), 1.0),
    )
    centred = residual - residual[:count].mean()
    hits = np.flatnonzero(scores.score > limit)
    if not hits.size:
        return DriftReport("quiet", "", alpha, limit, steps, centred, scores.score, shared=share)
    i = int(hits[0])
    return DriftReport(
        "alarm",
        "",
        alpha,
        limit,
        steps,
        centred,
        scores.score,
        step=int(steps[i]),
        at=float(t[i]),
        since=float(t[max(i - int(scores.window[i]), 0)]),
        rise=float(scores.rise[i]),
        shared=share,
    )


def _tolerance(reference: Reference, size: float | None, alpha: float) -> float:
    if reference.source != "runs":
        # a law's error goes one way for long, as a drift does
        largest = float(np.nanmax(reference.stray(np.linspace(reference.start, 1.0, 64))))
        return max(NormalDist().inv_cdf(1.0 - alpha / 2.0) * largest, SHAPE_TOLERANCE)
    if size is not None and any(abs(n / size - 1.0) <= _SAME_SIZE for n in reference.sizes):
        return 0.0
    return SHAPE_TOLERANCE


def _error_width(reference: Reference) -> float:
    if reference.source != "runs":
        return _SMOOTHED_WIDTH
    # the error of a smoothed member differs along it
    smoothed = any(float(np.ptp(member.error)) > 0.0 for member in reference.members)
    return _SMOOTHED_WIDTH if smoothed else _RAW_WIDTH


def _warmup(curve: Curve, reference: Reference) -> float:
    known = [s.warmup for s in (curve.schedule, reference.schedule) if s is not None]
    # a schedule that is logged up to here may still be rising
    return min(max(known, default=0.0), 0.25)


def _undecidable(curve: Curve, reference: Reference, begin: float) -> str:
    if curve.horizon is None:
        return "the number of steps of the whole run is unknown"
    if (
        curve.schedule is not None
        and reference.schedule is not None
        and curve.schedule.distance(reference.schedule, until=curve.at or 0.0) > _SAME_SCHEDULE
    ):
        return "the learning-rate schedule is not that of the reference"
    if (curve.at or 0.0) < begin:
        return f"less than {begin:.0%} of training is logged"
    return ""


# Largest difference of two schedules, shares of the peak rate, that count as one.
_SAME_SCHEDULE = 0.05


def _nothing(reason: str, alpha: float) -> DriftReport:
    none = np.zeros(0)
    return DriftReport(
        "undecidable", reason, alpha, float("nan"), np.zeros(0, np.int64), none, none
    )
