"""What every way of forecasting takes and returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planner.curves.bands import SCHEDULE_TOLERANCE
from planner.curves.curve import Curve
from planner.curves.forecast.prefix import UndecidableError, usable
from planner.curves.member import GRID, Member
from planner.curves.reference import TAU_TOLERANCE, TPP_TOLERANCE, Reference
from planner.curves.schedule import Schedule

Float64 = NDArray[np.float64]

# A cooldown may begin at any time: these names do not tell what lies ahead.
_OPEN_ENDED = ("wsd", "wsd_linear", "trapezoidal", "stable", "constant_with_warmup")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A forecast of a final loss.

    Attributes:
        log_final: Logarithm of the final loss.
        error: Standard error of it; None if the method cannot tell by itself.
        references: Names of the runs that it rests on.
        why: What was done, in a few words.
        apart: The part of the error that is a run's own, which moves it against other runs of its
            size; None if the method cannot tell it apart.
        by: Name of the method that it is in the end; None if it is what was asked.
    """

    log_final: float
    error: float | None
    references: tuple[str, ...]
    why: str
    apart: float | None = None
    by: str | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """Finished runs of one metric that a forecast may rest on.

    Attributes:
        curves: The runs.
        cache: Members of references by run, shared by all parts of one pool.
        notes: What methods computed once for a run, by method and run; shared likewise.
    """

    curves: tuple[Curve, ...]
    cache: dict[str, Member] = field(default_factory=dict)
    notes: dict[tuple[str, str], object] = field(default_factory=dict)

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Pool:
        """Return the pool of those curves that are finished and have a usable loss."""
        return cls(tuple(c for c in curves if c.finished and usable(c)[0].size >= 5))

    def only(self, keep: Callable[[Curve], bool]) -> Pool:
        """Return the part of the pool that fulfils a condition."""
        return Pool(tuple(c for c in self.curves if keep(c)), self.cache, self.notes)

    def without_size(self, size: int | None) -> Pool:
        """Return the part of the pool that is of other sizes."""
        return self.only(lambda c: c.facts.params != size)

    def smaller_than(self, size: int) -> Pool:
        """Return the part of the pool that is of smaller sizes."""
        return self.only(lambda c: 0 < (c.facts.params or 0) < size)

    def member(self, curve: Curve) -> Member:
        """Return a run's normalized curve, computed once."""
        run = curve.facts.run
        if run not in self.cache:
            # smoothing a log that is coarser than the grid would bend it
            smooth = None if usable(curve)[0].size > GRID.size else False
            self.cache[run] = Reference.build([curve], smooth=smooth).members[0]
        return self.cache[run]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The different parameter counts, rising."""
        return tuple(sorted({c.facts.params for c in self.curves if c.facts.params}))


class Method(Protocol):
    """A way of forecasting."""

    @property
    def name(self) -> str:
        """As ``--method`` calls it."""

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """Forecast the final loss of a run from what it logged.

        Args:
            prefix: The run, as far as it was logged; its horizon is known.
            pool: Finished runs that may be used.

        Raises:
            UndecidableError: It cannot be done.
        """


def band(curve: Curve, pool: Pool) -> Pool:
    """Return the runs of a pool whose normalized curve should be that of a run.

    Same tokens per parameter, same schedule, same timescale where both are known; not the run
    itself.

    Raises:
        UndecidableError: If there is none, or what must be the same is not known of the run.
    """
    of = curve.facts
    for name, value in (("N", of.params), ("TPP", of.tpp), ("the schedule", curve.schedule)):
        if value is None:
            raise UndecidableError(f"{name} of the run is not known")
    same = pool.only(lambda other: same_band(curve, other))
    if not same.curves:
        raise UndecidableError(
            "there is no finished run of the same schedule, tokens per parameter and timescale"
        )
    return same


def same_band(curve: Curve, other: Curve) -> bool:
    """Return whether two different runs should have one normalized curve."""
    a, b = curve.facts, other.facts
    if a.run == b.run or a.params is None or b.params is None:
        return False
    if not _same_shape(curve, b.tpp, b.tau, other.schedule):
        return False
    # of a run under way, whose schedule nobody declared, only the first part is known
    return _known_ahead(curve) or (_named(curve) and a.schedule == b.schedule)


def fits_reference(curve: Curve, reference: Reference, *, trusted: bool = False) -> bool:
    """Return whether a run should follow a reference.

    Args:
        curve: The run.
        reference: The reference.
        trusted: Somebody says so: what is not known of either counts as equal.
    """
    if not _same_shape(curve, reference.tpp, reference.tau, reference.schedule, trusted=trusted):
        return False
    return trusted or _known_ahead(curve) or _named(curve)


def _same_shape(
    curve: Curve,
    tpp: float | None,
    tau: float | None,
    schedule: Schedule | None,
    *,
    trusted: bool = False,
) -> bool:
    of = curve.facts
    unknown = of.tpp is None or tpp is None
    if not (trusted and unknown) and not _near(of.tpp, tpp, 1.0 + TPP_TOLERANCE):
        return False
    if of.tau is not None and tau is not None and not _near(of.tau, tau, 1.0 + TAU_TOLERANCE):
        return False
    if curve.schedule is None or schedule is None:
        return trusted
    until = float(min(curve.schedule.fractions[-1], schedule.fractions[-1]))
    return curve.schedule.distance(schedule, until=until) <= SCHEDULE_TOLERANCE


def _known_ahead(curve: Curve) -> bool:
    return curve.schedule is not None and curve.schedule.covers(1.0)


def _named(curve: Curve) -> bool:
    """Whether the name of the schedule tells when it begins to decay."""
    return curve.facts.schedule is not None and curve.facts.schedule not in _OPEN_ENDED


def _near(a: float | None, b: float | None, factor: float) -> bool:
    if a is None or b is None or not (a > 0 and b > 0):
        return False
    return abs(math.log(a / b)) <= math.log(factor)


def names(curves: Sequence[Curve]) -> tuple[str, ...]:
    """Return the names of runs."""
    return tuple(curve.facts.name for curve in curves)
