"""Normalized curves: loss over the final loss, against the fraction of training.

What Scaling with Collapse (arXiv 2509.25087) leaves open is decided here:

- **Which last value.** The divisor of a finished run is its smoothed final loss: a straight line
  through the last stretch of log loss, read off at the end. A trailing mean would lag behind a
  falling curve. The stretch is the shortest whose standard error is below 0.05 %, and at most 5 %
  of training: an evaluation loss is taken nearly as it is, a noisy batch loss is not.
- **Smoothing.** Centred for finished runs; trailing for runs in progress, so that what is drawn at
  a step never changes later. By steps (100 in section 2), by sequences (12,288 in appendix D.1), or
  by a fraction of training.
- **Offset.** 0, as there, or a fitted irreducible loss, as Qiu et al. (arXiv 2507.02119) use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import Curve
from planner.curves.errors import CurveError
from planner.curves.noise import point_noise
from planner.kernel import Ragged
from planner.kernel.fits import fit_power
from planner.kernel.smoothing import Smoother, smooth

Float64 = NDArray[np.float64]

PAPER_STEPS = 100.0  # section 2
PAPER_SEQUENCES = 12_288.0  # appendix D.1
_FINAL_ERROR = 0.0005
_FINAL_STRETCH = 0.05


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How wide a moving average is.

    Attributes:
        unit: ``steps``, ``sequences``, ``fraction`` of training, or ``none``.
        width: In that unit.
    """

    unit: Literal["steps", "sequences", "fraction", "none"] = "none"
    width: float = 0.0

    def __post_init__(self) -> None:
        if self.unit != "none" and not (np.isfinite(self.width) and self.width > 0):
            raise CurveError(f"got a window of {self.width:g} {self.unit}, wanted more than 0")

    def steps(self, curve: Curve) -> float:
        """Return the width in steps of a run.

        Raises:
            CurveError: The run's batch or horizon, which the unit needs, is unknown.
        """
        if self.unit == "sequences":
            facts = curve.facts
            if not facts.batch_tokens or not facts.seq_len:
                raise CurveError(
                    f"{facts.name}: smoothing by sequences needs its batch and sequence length"
                )
            return self.width * facts.seq_len / facts.batch_tokens
        if self.unit == "fraction":
            if curve.horizon is None:
                raise CurveError(
                    f"{curve.facts.name}: smoothing by a fraction of training needs its steps"
                )
            return self.width * curve.horizon
        return self.width if self.unit == "steps" else curve.every


NO_SMOOTHING = Smoothing()
BY_STEPS = Smoothing("steps", PAPER_STEPS)
BY_SEQUENCES = Smoothing("sequences", PAPER_SEQUENCES)


@dataclass(frozen=True, eq=False, slots=True)
class Normalized:
    """A normalized curve.

    Attributes:
        fraction: Fractions of training, shape ``(points,)``.
        values: ``(loss - offset) / (divisor - offset)``, shape ``(points,)``.
        divisor: Nats a token.
        how: ``final loss`` for a finished run, ``given``, or ``last logged loss`` where the run is
            not finished and no divisor was given: such a curve does not compare with others.
    """

    fraction: Float64
    values: Float64
    divisor: float
    how: Literal["final loss", "given", "last logged loss"]


def normalize(
    curve: Curve,
    *,
    smoothing: Smoothing = NO_SMOOTHING,
    offset: float = 0.0,
    by: Literal["steps", "tokens"] = "steps",
    divisor: float | None = None,
) -> Normalized:
    """Return a curve over its final loss.

    Args:
        curve: The curve.
        smoothing: Centred if the run is finished, trailing if not.
        offset: Subtracted from loss and divisor; nats a token.
        by: What training is counted in. Tokens differ from steps where the batch grew.
        divisor: For a run in progress, as `planner.curves.score` aligns it; nats a token.

    Raises:
        CurveError: The curve has no usable point, its horizon is unknown, tokens were not logged,
            or the divisor is not above the offset.
    """
    if curve.horizon is None:
        raise CurveError(f"{curve.facts.name}: the number of steps of the whole run is unknown")
    if not np.isfinite(curve.values).any():
        raise CurveError(f"{curve.facts.name}: {curve.metric} has no usable point")
    how: Literal["final loss", "given", "last logged loss"] = "given"
    if divisor is None:
        divisor = final_loss(curve)
        how = "final loss" if curve.finished else "last logged loss"
    if not divisor > offset:
        raise CurveError(
            f"{curve.facts.name}: the divisor {divisor:g} is not above the offset {offset:g}"
        )
    values = curve.values
    if smoothing.unit != "none":
        smoother = Smoother.by_steps(
            smoothing.steps(curve), steps_per_point=curve.every, centred=curve.finished
        )
        values = smooth(Ragged.from_list([values]), smoother).curves.values
    fraction = curve.fractions(by)
    return Normalized(fraction, (values - offset) / (divisor - offset), divisor, how)


def final_loss(curve: Curve) -> float:
    """Return the smoothed loss at the last logged point; see this module.

    Returns:
        Nats a token; not-a-number if no point is usable.
    """
    level, _ = final_level(curve.fraction, log_excess(curve.values))
    return float(np.exp(level))


def log_excess(values: Float64, offset: float = 0.0) -> Float64:
    """Return log(loss - offset), not-a-number where that is not positive or not finite."""
    excess = values - offset
    return np.log(excess, out=np.full(len(excess), np.nan), where=(excess > 0) & (excess < 1e300))


def final_level(fraction: Float64, logs: Float64) -> tuple[float, float]:
    """Return the smoothed last value of a log curve and its standard error.

    Args:
        fraction: Fractions of training, shape ``(points,)``.
        logs: Log loss, not-a-number where missing, shape ``(points,)``.
    """
    usable = np.isfinite(logs)
    t, y = fraction[usable], logs[usable]
    if not t.size:
        return float("nan"), float("nan")
    sigma = point_noise(y[-200:])
    inside = int(np.count_nonzero(t >= t[-1] - _FINAL_STRETCH))
    if not np.isfinite(sigma) or inside < 3:
        return float(y[-1]), 0.0 if not np.isfinite(sigma) else sigma
    if sigma <= _FINAL_ERROR:
        return float(y[-1]), sigma
    # the end of a line through n points errs by 2 sigma / sqrt(n)
    n = int(np.clip(np.ceil((2.0 * sigma / _FINAL_ERROR) ** 2), 3, inside))
    x = t[-n:] - t[-1]
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y[-n:]) / spread
    error = sigma * np.sqrt(1.0 / n + x.mean() ** 2 / spread)
    if error > sigma:  # the line through few points errs more than the last one
        return float(y[-1]), sigma
    return float(y[-n:].mean() - slope * x.mean()), float(error)


def irreducible_loss(curves: Sequence[Curve]) -> float:
    """Return the offset E of ``final loss = E + a N^-alpha`` over the sizes of a family.

    Qiu et al. fit it so, with compute for N, over runs trained in balance (FACTS 6).

    Raises:
        CurveError: Fewer than four finished sizes, or the fit leaves E free: it sits on a bound.
    """
    by_size: dict[int, list[float]] = {}
    for curve in curves:
        if curve.finished and curve.facts.params:
            by_size.setdefault(curve.facts.params, []).append(final_loss(curve))
    if len(by_size) < 4:
        raise CurveError(
            f"the irreducible loss needs four finished sizes of known parameters, "
            f"got {len(by_size)}"
        )
    sizes = np.array(sorted(by_size), np.float64)
    finals = np.array([np.mean(by_size[int(n)]) for n in sizes])
    fit = fit_power(Ragged.from_list([finals]), sizes / sizes[0])
    offset, error = float(fit["e"][0]), float(fit.standard_error[0, 0])
    if not (0.0 < offset < finals.min()) or not error < offset:
        raise CurveError("the sizes do not tell the irreducible loss: use the offset 0")
    return offset
