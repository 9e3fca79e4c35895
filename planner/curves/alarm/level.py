"""Where a run in progress will end if it follows its reference: the divisor and its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.curves.alarm.drift import START, calibration_points
from planner.curves.alarm.tame import tame
from planner.curves.noise import long_run_noise
from planner.curves.normalize import log_excess

if TYPE_CHECKING:
    from planner.curves.curve import Curve
    from planner.curves.reference import Reference

_LATER = 0.5
_LEAST = 50  # points at which a level can be told
_NORMAL = {0.9: 1.6448536269514722}


@dataclass(frozen=True, slots=True)
class Level:
    """A predicted final loss, nats a token.

    Attributes:
        final: The divisor that aligns the run with its reference.
        low: Lower end of the interval.
        high: Upper end.
        level: Nominal coverage.
    """

    final: float
    low: float
    high: float
    level: float


def estimate_level(
    curve: Curve, reference: Reference, *, start: float = START, level: float = 0.9
) -> Level | None:
    """Align a run with its reference.

    Generalized least squares of log loss less log reference on a constant, the divisor, and on the
    reference's own shape with the prior that its unknown change with size has; the noise of the
    mean is its long-run noise, and the reference's own error is added.

    Args:
        curve: The run so far.
        reference: Of the same metric.
        start: Fraction of training before which points do not count.
        level: Nominal coverage; 0.9.

    Returns:
        None where fewer than 50 points are known, or than calibrate a shorter run.
    """
    if curve.horizon is None:
        return None
    fraction = curve.fraction
    logs = log_excess(curve.values, reference.offset)
    shape, _ = reference.at(fraction, curve.facts.params)
    # the later half of what is logged: shapes differ least there, and it is nearest to the end
    begin = max(start, _LATER * (curve.at or 0.0))
    usable = np.isfinite(logs) & np.isfinite(shape) & (fraction >= begin)
    total = round((1.0 - start) * curve.horizon / max(curve.every, 1.0))
    count = min(calibration_points(max(total, 1)), _LEAST)
    if np.count_nonzero(usable) < count:
        return None
    t, f = fraction[usable], shape[usable]
    residual = logs[usable] - f
    values, _ = tame(residual, count)
    long_run = float(long_run_noise((values - values.mean())[None, :])[0])
    noise = long_run if np.isfinite(long_run) else float(np.std(values))
    weight = 1.0 / max(noise, 1e-12) ** 2
    drift = reference.drift(t, curve.facts.params)
    scale = float(np.median(drift / np.maximum(np.abs(f), 1e-12)))
    matrix = weight * np.array([[f.size, f.sum()], [f.sum(), f @ f]])
    matrix[1, 1] += 1.0 / max(scale, 1e-6) ** 2
    covariance = np.linalg.inv(matrix)
    centre = float((covariance @ (weight * np.array([values.sum(), f @ values])))[0])
    wander = float(np.nanmedian(reference.wander(t, curve.facts.params)))
    final_errors = reference.weights(curve.facts.params) ** 2 @ np.array(
        [member.final_error**2 for member in reference.members]
    )
    error = float(np.sqrt(covariance[0, 0] + wander**2 + final_errors))
    half = _NORMAL[level] * error
    low, final, high = np.exp([centre - half, centre, centre + half]) + reference.offset
    return Level(float(final), float(low), float(high), level)
