"""Forecasts that do without a normalized curve: what the others have to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.curves.curve import Curve
from planner.curves.forecast.method import Estimate, Pool, band, names
from planner.curves.forecast.prefix import UndecidableError, local_noise, usable
from planner.curves.shape import CURVATURE, size_weights
from planner.kernel import Ragged
from planner.kernel.fits import fit_power
from planner.units import count_of

_LEAST_POINTS = 5
# of what is logged: the start falls by another law
_FIRST = 0.25


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """``e + a t^-alpha`` through the last three quarters of what is logged, read off at the end."""

    name: str = "power-law"

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        times, logs = usable(prefix)
        chosen = times >= _FIRST * (prefix.at or 0.0)
        count = int(np.count_nonzero(chosen))
        if count < _LEAST_POINTS:
            raise UndecidableError(f"{count_of(count, 'point')} logged, too few for a power law")
        x, y = times[chosen], np.exp(logs[chosen])
        scale = float(y[-1])
        fit = fit_power(
            Ragged.from_list([y / scale]),
            x,
            parameters={"e": (0.0, 1.0)},
            covariance=False,
            threads=1,
        )
        e, a, alpha = (float(fit[name][0]) for name in ("e", "a", "alpha"))
        final = scale * (e + a)
        if not (np.isfinite(final) and final > 0 and alpha > 0):
            raise UndecidableError("no falling power law fits what is logged")
        return Estimate(float(np.log(final)), None, (), f"e + a t^-{alpha:.3f} of its own points")


@dataclass(frozen=True, slots=True)
class SizeLaw:
    """The band's log final losses, extrapolated in log N; the run's own curve is not used.

    Attributes:
        name: Of the method.
        curvature: How much of the curvature through three or more sizes is believed; 0: a line.
    """

    name: str = "size-law"
    curvature: float = CURVATURE

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        found = band(prefix, pool)
        count = len(found.sizes)
        if count < 2:
            raise UndecidableError("a law of the size needs two finished sizes")
        size = float(prefix.facts.params or 0)
        members = [found.member(curve) for curve in found.curves]
        sizes = [float(m.params or 0) for m in members]
        logs = np.log([m.final for m in members])
        weights = size_weights(sizes, size, curvature=self.curvature)
        error = None
        if count > 2:  # two sizes do not tell the curvature
            curved = size_weights(sizes, size, curvature=1.0) - size_weights(
                sizes, size, curvature=0.0
            )
            noise = np.mean([local_noise(*usable(c), 0.85, 1.0) ** 2 for c in found.curves])
            variance = (1.0 + float(weights @ weights)) * float(noise)
            variance += (max(self.curvature, 1.0 - self.curvature) * float(curved @ logs)) ** 2
            error = math.sqrt(variance) if math.isfinite(variance) else None
        return Estimate(
            float(weights @ logs),
            error,
            names(found.curves),
            f"final losses of {count} sizes extrapolated in log N",
        )


@dataclass(frozen=True, slots=True)
class Current:
    """The loss as it stands: the mean over the last 2 % of what is logged, at least one point."""

    name: str = "current"

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        times, logs = usable(prefix)
        if not times.size:
            raise UndecidableError("no point is logged")
        recent = logs[times >= 0.98 * times[-1]]
        return Estimate(float(np.mean(recent)), None, (), "the last logged loss")
