"""Forecasts by collapse: the run's last stretch is laid on the band's normalized curve.

``log L(T) = mean over the last fifth of what is logged of (log L(t) - log shape(t))``: early-align
of Scaling with Collapse (arXiv 2509.25087, section 4) with the mean of logarithms as its objective,
and the shape extrapolated in log N.

The error has four parts, added in squares, none of them scaled:

- noise of the stretch's points and of the final losses;
- wander: how far two sizes' curves stray from their smooth difference over stretches like this one,
  at half to twice this fraction of training;
- what the extrapolation in size adds to the shape: half the curvature, or the whole change from the
  largest size where two sizes cannot tell the curvature, or the usual change with size
  (`planner.curves.reference.SIZE_DRIFT`) where one size cannot tell any;
- how far the forecast moved since 60 % of what is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import Curve
from planner.curves.forecast.method import Estimate, Pool, band, names
from planner.curves.forecast.prefix import WINDOW, UndecidableError, last_fifth, usable
from planner.curves.reference import GRID, SIZE_DRIFT, Member
from planner.curves.shape import CURVATURE, size_weights

Float64 = NDArray[np.float64]


_EARLIER = 0.6
_LEAST_POINTS = 3
_LOG_GRID = np.log(GRID)
# even in log t, from where the warm-up is over as a rule
_EVEN = np.arange(np.log(0.07), 0.0, 0.02)
_TREND_TERMS = 4


@dataclass(frozen=True, slots=True)
class Collapse:
    """Alignment with the band's shape at this size.

    Attributes:
        name: Of the method.
        extrapolate: Whether the shape goes on with size; False takes the mean of the runs.
    """

    name: str = "collapse"
    extrapolate: bool = True

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        found = band(prefix, pool)
        members = [found.member(curve) for curve in found.curves]
        window, logs = last_fifth(prefix, least=_LEAST_POINTS)
        weigh = self._weigher(prefix, found.curves, members, window)
        weights = weigh(CURVATURE)
        shapes = _shapes(members, window)
        log_final = float(np.mean(logs - weights @ shapes))
        count = len(found.sizes)
        how = ", extrapolated in log N," if self.extrapolate and count > 1 else ""
        return Estimate(
            log_final,
            self._error(prefix, found, members, weigh, shapes.mean(axis=1), log_final),
            names(found.curves),
            f"aligned over {window[0]:.1%} to {window[-1]:.1%} of training with the normalized "
            f"curve of {count} size{'s' if count > 1 else ''}{how}".rstrip(","),
        )

    def _weigher(
        self,
        prefix: Curve,
        curves: tuple[Curve, ...],
        members: list[Member],
        window: Float64,
    ) -> Callable[[float], Float64]:
        """Return the members' weights as a function of the curvature that is believed."""
        if not self.extrapolate:
            return lambda curvature: np.full(len(members), 1.0 / len(members))
        # the more points a run logged of the stretch, the more is known of it there
        points = [
            np.count_nonzero(abs(c.fraction - window.mean()) <= np.ptp(window) / 2 + 1e-12)
            for c in curves
        ]
        sizes = [float(m.params or 0) for m in members]
        return lambda curvature: size_weights(
            sizes,
            float(prefix.facts.params or 0),
            curvature=curvature,
            precision=np.maximum(points, 1),
        )

    def _error(
        self,
        prefix: Curve,
        found: Pool,
        members: list[Member],
        weigh: Callable[[float], Float64],
        shape: Float64,
        log_final: float,
    ) -> float | None:
        if not self.extrapolate:
            return None
        weights = weigh(CURVATURE)
        at = prefix.at or 0.0
        white = (
            _local_noise(*usable(prefix), 0.5 * at, at) ** 2
            / last_fifth(prefix, least=_LEAST_POINTS)[0].size
        )
        final = float(np.mean([_local_noise(*usable(c), 0.85, 1.0) ** 2 for c in found.curves]))
        wander = _wander(members, at) if len(found.sizes) > 1 else 0.0
        variance = (1.0 + float(weights @ weights)) * (white + final + wander**2)
        if len(found.sizes) > 2:
            curved = float((weigh(1.0) - weigh(0.0)) @ shape)
            variance += (max(CURVATURE, 1.0 - CURVATURE) * curved) ** 2
        elif len(found.sizes) == 1:
            folds = np.log((prefix.facts.params or 1) / found.sizes[0])
            variance += (SIZE_DRIFT * float(folds) * float(shape.mean())) ** 2
        else:
            largest = [m.params == found.sizes[-1] for m in members]
            variance += float(weights @ shape - shape[largest].mean()) ** 2
        try:
            early, logs = last_fifth(prefix.until(_EARLIER * at), least=1)
            moved = float(np.mean(logs - weights @ _shapes(members, early))) - log_final
        except UndecidableError:
            moved = 0.0
        variance += moved**2
        return float(np.sqrt(variance)) if np.isfinite(variance) else None


def _shapes(members: list[Member], fractions: Float64) -> Float64:
    """Return log normalized curves at fractions of training, shape (members, fractions).

    Raises:
        UndecidableError: If a member is not known there.
    """
    found = np.array([np.interp(np.log(fractions), _LOG_GRID, m.shape) for m in members])
    if not np.isfinite(found).all():
        raise UndecidableError(f"a reference is not known at {fractions[0]:.1%} of training")
    return found


def _wander(members: list[Member], at: float) -> float:
    """Return how far one curve strays from the smooth course of a stretch like the last fifth."""
    by_size: dict[int, list[Float64]] = {}
    for member in members:
        row = np.interp(_EVEN, _LOG_GRID, np.where(np.isfinite(member.shape), member.shape, 0.0))
        by_size.setdefault(member.params or 0, []).append(row)
    curves = [np.mean(by_size[size], axis=0) for size in sorted(by_size)]
    design = np.vander(_EVEN, _TREND_TERMS)
    width = round(-np.log(WINDOW) / 0.02)
    ends = np.exp(_EVEN[width - 1 :])
    near = (ends >= 0.5 * at) & (ends <= min(1.0, 2.0 * at))
    found = []
    for smaller, larger in pairwise(curves):
        difference = larger - smaller
        rest = difference - design @ np.linalg.lstsq(design, difference, rcond=None)[0]
        means = np.convolve(rest, np.full(width, 1.0 / width), "valid")
        found.append(float(np.mean(means[near] ** 2)) / 2.0)
    return float(np.sqrt(np.mean(found)))


def _local_noise(times: Float64, logs: Float64, low: float, high: float, least: int = 8) -> float:
    """Return the standard deviation of points about the line through their two neighbours."""
    if times.size < 5:
        return float("nan")
    share = (times[2:] - times[1:-1]) / (times[2:] - times[:-2])
    rest = logs[1:-1] - (share * logs[:-2] + (1.0 - share) * logs[2:])
    variance = rest**2 / (1.0 + share**2 + (1.0 - share) ** 2)
    chosen = np.flatnonzero((times[1:-1] >= low) & (times[1:-1] <= high))
    if chosen.size < least:
        chosen = np.argsort(np.abs(times[1:-1] - (low + high) / 2.0), kind="stable")[:least]
    return float(np.sqrt(np.mean(variance[chosen])))
