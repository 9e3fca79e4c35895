"""The reference: the normalized curve that a family's healthy runs follow.

Made of finished runs, a reference holds the log of each run's normalized curve. At one size it is
their mean; with two or more sizes it is a straight line in log N at each fraction of training,
because the shape changes slowly with size: plain averaging of smaller sizes is biased by 0.4-0.5 %
at the largest OLMo ladder size. It says how sure it is: `at` returns
the noise of its runs, carried along, and `drift` what the change with size that it cannot know may
add.

A curve from elsewhere (the parametric surrogate of FACTS A6, a schedule-aware law) is taken as a
function of the fraction of training: `Reference.from_function`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike

from planner.curves.curve import Curve
from planner.curves.errors import CurveError
from planner.curves.member import GRID, WINDOW, Float64, Member, make_member, schedule_kinks
from planner.curves.normalize import log_excess
from planner.curves.repeats import group_repeats, scatter
from planner.curves.schedule import Schedule
from planner.curves.shape import size_weights

_LOG_GRID = np.log(GRID)
# Root mean square of the change of the log shape for one e-fold of N, as a share of the log shape
# itself: measured on the OLMo ladder, 11 evaluation sets x 4 multiples, 190M to 1.3B, fractions 0.1
# to 0.7 of training (tests/curves/test_real_runs.py measures it again).
# A line through three sizes misses 0.11 for one e-fold beyond the largest, a line and parabola
# averaged 0.07, without noise.
SIZE_DRIFT = 0.07
# Likewise for one e-fold of TPP, tau going with it (the ladder's multiples), and of tau alone (the
# learning rates of the 124M sweep of wsd_cosine_llama); no more than a band's tolerance counts.
TPP_DRIFT, TAU_DRIFT = 0.37, 0.15
# What of it is allowed for, as two standard deviations, where two or more sizes tell the direction:
# a choice between false alarms on the ladder and seeing drifts (tests/curves/test_real_runs.py
# counts the former; of 11 evaluation sets, ice has few documents and some runs are called).
_KNOWN_DRIFT = 0.5
# Runs of one band agree to this in TPP and tau: rounding of batches and steps moves both (the
# ladder's tau spreads by 19 % within a multiple, and those curves collapse).
TPP_TOLERANCE, TAU_TOLERANCE = 0.15, 0.2
# Fewer repeats of a size tell less of its scatter than those of all sizes together.
_REPEATS = 3


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference curve; see this module.

    Attributes:
        metric: The series it is of.
        members: What it is made of; at least one.
        source: ``runs``, or what a function is, such as ``surrogate``.
        schedule: The schedule that it holds for; None if not known.
        tau: The AdamW timescale that it holds for; None if not known.
        tpp: Tokens per parameter likewise.
        offset: Subtracted from losses before dividing, nats a token.
    """

    metric: str
    members: tuple[Member, ...]
    source: str = "runs"
    schedule: Schedule | None = None
    tau: float | None = None
    tpp: float | None = None
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not self.members:
            raise CurveError("a reference needs at least one run")

    @classmethod
    def build(
        cls, curves: Sequence[Curve], *, offset: float = 0.0, smooth: bool | None = None
    ) -> Reference:
        """Make a reference of finished runs of one band.

        Args:
            curves: Finished curves of one metric.
            offset: Subtracted from losses before dividing, nats a token.
            smooth: Whether to smooth the members (a straight line in log t over a tenth of t, at
                most 5 % of training); None: only where the points' noise is above 0.2 %.

        Raises:
            CurveError: There is no curve, one is not finished or has no usable loss, or they are of
                different metrics.
        """
        if not curves:
            raise CurveError("a reference needs at least one finished run")
        metrics = sorted({curve.metric for curve in curves})
        if len(metrics) > 1:
            raise CurveError(f"a reference is of one metric, got {metrics[0]} and {metrics[1]}")
        members = tuple(_member(curve, offset, smooth) for curve in curves)
        from planner.curves.points import with_points

        facts = [curve.facts for curve in curves]
        made = cls(
            metrics[0],
            members,
            schedule=next((c.schedule for c in curves if c.schedule is not None), None),
            tau=_middle([f.tau for f in facts]),
            tpp=_middle([f.tpp for f in facts]),
            offset=offset,
        )
        return with_points(made, curves)

    @classmethod
    def from_function(
        cls,
        function: Callable[[Float64], ArrayLike],
        *,
        metric: str,
        source: str,
        schedule: Schedule | None,
        tau: float | None,
        tpp: float | None,
        error: float | Float64 = 0.0,
        params: int | None = None,
    ) -> Reference:
        """Take a curve from a function, such as the surrogate at a schedule, tau and TPP.

        Args:
            function: Fractions of training to the (normalized or not) curve there, above 0.
            metric: The series it stands for.
            source: What it is, in a word or two.
            schedule: The schedule that it holds for.
            tau: The AdamW timescale that it holds for.
            tpp: The tokens per parameter that it holds for.
            error: Standard error of the normalized curve, as a share of it; one number, or one for
                each fraction of `planner.curves.member.GRID`, not-a-number where the curve is not
                to be used, which is from the start only.
            params: The N that it holds for, if of one.

        Raises:
            CurveError: The function is not positive and finite over training.
        """
        values = np.asarray(function(GRID), np.float64)
        if values.shape != GRID.shape or not np.all((values > 0) & np.isfinite(values)):
            raise CurveError(f"the {source} is not positive and finite over the whole of training")
        shape = np.log(values / values[-1])
        errors = np.broadcast_to(np.asarray(error, np.float64), GRID.shape).copy()
        shape = np.where(np.isfinite(errors), shape, np.nan)
        member = Member(source, source, params, 1.0, shape, errors, 0.0)
        return cls(metric, (member,), source, schedule, tau, tpp)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The different N of the members, rising; empty where none is known."""
        return tuple(sorted({m.params for m in self.members if m.params is not None}))

    @cached_property
    def start(self) -> float:
        """The fraction of training from which on it is known."""
        first = [int(np.argmax(np.isfinite(m.shape))) for m in self.members]
        return float(GRID[max(first)])

    def stray(self, fraction: ArrayLike) -> Float64:
        """Return the standard error of a curve that is no run's; 0 for one made of runs.

        Args:
            fraction: Fractions of training, any shape.

        Returns:
            Relative, of the shape of ``fraction``; not-a-number before `start`.
        """
        if self.source == "runs":
            return np.zeros(np.shape(fraction))
        return self.wander(fraction)

    @property
    def name(self) -> str:
        """What it is made of, in a line."""
        if self.source != "runs":
            return self.source
        names = [member.name for member in self.members]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all, as JSON of the schema ``planner.reference/1``.

        Raises:
            OutputError: It cannot be written.
        """
        from planner.curves.reference_file import save_reference

        save_reference(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Reference:
        """Read a reference that was saved; ``-`` is standard input.

        Raises:
            CurveError: It cannot be read, is no reference, or holds what no reference holds.
        """
        from planner.curves.reference_file import load_reference

        return load_reference(path)

    def without(self, run: str) -> Reference | None:
        """Return the reference without a run; None if nothing is left."""
        members = tuple(m for m in self.members if m.run != run)
        if len(members) == len(self.members):
            return self
        if not members:
            return None
        if run not in self._others:
            self._others[run] = Reference(
                self.metric, members, self.source, self.schedule, self.tau, self.tpp, self.offset
            )
        return self._others[run]

    def weights(self, params: float | None = None) -> Float64:
        """Return each member's weight in the curve of a size, shape ``(members,)``; sum 1.

        Args:
            params: N of the size; None for the mean of the members.
        """
        sizes = tuple(m.params for m in self.members if m.params is not None)
        count = len(self.members)
        if params is None or len(sizes) < count:
            return np.full(count, 1.0 / count)
        return _size_weights(sizes, float(params))

    def at(self, fraction: ArrayLike, params: float | None = None) -> tuple[Float64, Float64]:
        """Return the log of the normalized curve and its noise.

        Args:
            fraction: Fractions of training, any shape.
            params: N of the run that it is for: extrapolated along log N where the members have two
                or more sizes. None: the mean of the members.

        Returns:
            Log curve (0 at the end) and standard deviation of its noise (relative; 0 at the end),
            each of the shape of ``fraction``; not-a-number before `start`.
        """
        weights = self.weights(params)
        level = weights**2 @ np.array([m.final_error**2 for m in self.members])
        # near the end curve and divisor are of the same points, and their errors cancel
        apart = np.minimum(1.0, (1.0 - GRID) / (2 * WINDOW))
        noise = np.sqrt(weights**2 @ self._errors**2 + level) * apart
        return self._read(weights @ self._shapes, fraction), self._read(noise, fraction)

    def wander(
        self, fraction: ArrayLike, params: float | None = None, *, left: float = 1.0
    ) -> Float64:
        """Return the noise of the shape alone, the divisors' left out.

        It is what counts for a run whose own divisor is free: an error of a member's divisor moves
        the whole reference up or down.

        Args:
            fraction: Fractions of training, any shape.
            params: As in `at`.
            left: Share of the error by the members' own points that is left, where a run is held
                against those points themselves.

        Returns:
            Standard deviation, relative, of the shape of ``fraction``.
        """
        errors = np.maximum(left * self._own_errors, self._scatter)
        return self._read(np.sqrt(self.weights(params) ** 2 @ errors**2), fraction)

    def scatter(self, fraction: ArrayLike, params: float | None = None) -> Float64:
        """Return how far a run strays from its repeats, once aligned with them.

        A run's own points do not tell that: what sends a run astray early stays with it for long.
        Of the nearest size that has three repeats or more, else of all repeats there are.

        Args:
            fraction: Fractions of training, any shape.
            params: N of the run; None: of all repeats.

        Returns:
            Standard deviation, relative, of the shape of ``fraction``; 0 where less is repeated.
        """
        groups = [rows for rows in self._repeats if len(rows) >= _REPEATS]
        key: tuple[int, ...] = ()
        if params is not None and groups:
            sizes = [self.members[rows[0]].params or params for rows in groups]
            apart = [abs(math.log(params / size)) for size in sizes]
            key = tuple(groups[apart.index(min(apart))])
        if key not in self._strays:
            chosen = [list(key)] if key else self._repeats
            if sum(len(rows) - 1 for rows in chosen) < _REPEATS - 1:
                chosen = []
            self._strays[key] = scatter(self._shapes, chosen, (GRID >= 0.25) & (GRID <= 0.5))
        return self._read(self._strays[key], fraction)

    def _read(self, row: Float64, fraction: ArrayLike) -> Float64:
        t = np.asarray(fraction, np.float64)
        known = (t >= self.start - 1e-12) & (t <= 1.0 + 1e-9)
        return np.where(known, np.interp(np.log(np.maximum(t, 1e-9)), _LOG_GRID, row), np.nan)

    def drift(
        self,
        fraction: ArrayLike,
        params: float | None = None,
        *,
        tpp: float | None = None,
        tau: float | None = None,
        curve: Float64 | None = None,
    ) -> Float64:
        """Return how far the shape of a run may lie off for what is not known of its drift.

        `SIZE_DRIFT` for each e-fold of N to the nearest member's size: the whole change with size
        if the members are of one, what extrapolation misses if they are of more. To that comes
        what differs in TPP and tau within a band's tolerance.

        Args:
            fraction: Fractions of training, any shape.
            params: N of the run; None or unknown sizes: one e-fold is taken.
            tpp: Its tokens per parameter, if known.
            tau: Its AdamW timescale, if known.
            curve: The log curve there, if `at` told it already.

        Returns:
            Standard deviation, relative, of the shape of ``fraction``.
        """
        if curve is None:
            curve, _ = self.at(fraction, params)
        sizes = self.sizes
        if params is None or not sizes:
            folds = 1.0
        else:
            folds = min(abs(math.log(params / size)) for size in sizes)
            if len(sizes) > 1:
                folds *= _KNOWN_DRIFT
        share = SIZE_DRIFT * folds
        for own, theirs, rate, most in (
            (tpp, self._mean_tpp, TPP_DRIFT, TPP_TOLERANCE),
            (tau, self._mean_tau, TAU_DRIFT, TAU_TOLERANCE),
        ):
            if own and theirs:
                share += rate * min(abs(math.log(own / theirs)), math.log1p(most))
        return np.abs(curve) * share

    @cached_property
    def _others(self) -> dict[str, Reference]:
        return {}

    @cached_property
    def _mean_tpp(self) -> float | None:
        return _middle([m.tpp for m in self.members]) or self.tpp

    @cached_property
    def _mean_tau(self) -> float | None:
        return _middle([m.tau for m in self.members]) or self.tau

    @cached_property
    def _shapes(self) -> Float64:
        return np.array([np.where(np.isfinite(m.shape), m.shape, 0.0) for m in self.members])

    @cached_property
    def _errors(self) -> Float64:
        """Noise of each member: by its own points, and by how repeats of a size scatter."""
        return np.maximum(self._own_errors, self._scatter)

    @cached_property
    def _own_errors(self) -> Float64:
        return np.array([np.where(np.isfinite(m.error), m.error, 0.0) for m in self.members])

    @cached_property
    def _scatter(self) -> Float64:
        """The standard deviation among repeats of one run, shape of `GRID`, smoothed; 0 if none.

        Each member's level over the later half of training is taken out first: its divisor's error
        is stated apart.
        """
        return scatter(self._shapes, self._repeats, GRID >= 0.5)

    @cached_property
    def _strays(self) -> dict[tuple[int, ...], Float64]:
        return {}

    @cached_property
    def _repeats(self) -> list[list[int]]:
        return group_repeats(self.members)


@lru_cache(maxsize=4096)  # bands have the same sizes, and each run is judged by all others
def _size_weights(sizes: tuple[int, ...], params: float) -> Float64:
    # A line: the parabola that forecasts half believe misses less of the ladder's evaluations,
    # but carries so much of a train loss's noise that two drifts in three of the families of
    # benchmarks/made_archive.py went unseen.
    weights = size_weights(sizes, params, curvature=0.0)
    weights.flags.writeable = False
    return weights


def _member(curve: Curve, offset: float, smooth: bool | None) -> Member:
    if not curve.finished:
        name = curve.facts.name
        raise CurveError(f"{name}: a reference is made of finished runs, and this one is not")
    logs = log_excess(curve.values, offset)
    kinks = schedule_kinks(curve.schedule)
    return make_member(curve.facts, curve.fraction, logs, offset=offset, smooth=smooth, kinks=kinks)


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if len(known) == len(values) else None
