"""Collapse and the law of the size together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.curves.curve import Curve
from planner.curves.forecast.collapse import Collapse
from planner.curves.forecast.method import Estimate, Pool
from planner.curves.forecast.prefix import UndecidableError
from planner.curves.forecast.simple import SizeLaw


@dataclass(frozen=True, slots=True)
class Combined:
    """The mean of collapse and of the law of the size, weighted by their inverse variances.

    Early in training the smaller sizes' final losses tell more than the run's own curve, later they
    tell little. Both rest on the same runs: the error is the smaller of the two, not what two
    independent measurements would have. Where two sizes cannot tell the error of the law of the
    size, it is collapse alone.
    """

    name: str = "combined"

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        collapse = Collapse()
        one = collapse.estimate(prefix, pool)
        try:
            two = SizeLaw().estimate(prefix, pool)
        except UndecidableError:
            return replace(one, by=collapse.name)
        if not one.error or not two.error:
            return replace(one, by=collapse.name)
        share = two.error**2 / (one.error**2 + two.error**2)
        return Estimate(
            share * one.log_final + (1.0 - share) * two.log_final,
            min(one.error, two.error),
            one.references,
            f"{one.why}, for {share:.0%}; {two.why} for the rest",
        )
