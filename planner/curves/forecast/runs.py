"""Forecasts of the runs of an archive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from planner.curves.curve import Curve
from planner.curves.errors import CurveError
from planner.curves.forecast.choose import back_tests, choose
from planner.curves.forecast.collapse import Collapse
from planner.curves.forecast.combined import Combined
from planner.curves.forecast.healthy import LeftOut, without_sick
from planner.curves.forecast.interval import LARGEST_LOG, interval
from planner.curves.forecast.law_shape import law_methods
from planner.curves.forecast.method import Method, Pool
from planner.curves.forecast.prefix import UndecidableError, usable
from planner.curves.forecast.schedule_law import ScheduleLaw
from planner.curves.forecast.simple import Current, PowerLaw, SizeLaw
from planner.curves.law_choice import MULTI_POWER, SURROGATE
from planner.curves.load import load_curves
from planner.curves.normalize import final_loss
from planner.curves.reference import Reference
from planner.errors import did_you_mean

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.laws import Law
    from planner.plan import Plan

AUTO = "auto"
LEAST_FRACTION = 0.05
"""Below this fraction of training nothing is said: 2 % of a log tells no final loss."""

_ALL: tuple[Method, ...] = (
    Combined(),
    Collapse(),
    Collapse("mean", extrapolate=False),
    SizeLaw(),
    ScheduleLaw(),
    PowerLaw(),
    Current(),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""What needs no law; laws add ``surrogate`` and ``multi-power-law``."""
# in the order of preference; the others are there to compare with, or by name
_AUTOMATIC = (
    *("combined", "collapse", SURROGATE, "schedule-law", MULTI_POWER),
    *("mean", "size-law", "power-law"),
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of one run's final loss; nothing where it is undecidable.

    Attributes:
        run: Id in the archive.
        name: Name.
        metric: The series.
        at: The fraction of training that was used; None if the horizon is not known.
        final: Forecast, in units of the metric; None: undecidable.
        low: Lower end of the interval; None if its width cannot be told.
        high: Upper end.
        level: Probability that the interval is meant to hold.
        method: What made the forecast; ``undecidable`` if nothing could.
        why: How, and why this method; or why not.
        references: Names of the runs that it rests on.
        actual: The final loss, for a run that is finished.
        back_tests: Mean absolute relative error by method, where it could be tested.
    """

    run: str
    name: str
    metric: str
    at: float | None
    final: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    why: str
    references: tuple[str, ...] = ()
    actual: float | None = None
    back_tests: dict[str, float] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether a forecast was made."""
        return self.final is not None


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What `forecast_archive` found.

    Attributes:
        runs: The forecasts, by name.
        left_out: Finished runs that none of them rests on, by name.
    """

    runs: tuple[Forecast, ...]
    left_out: tuple[LeftOut, ...] = ()


def forecast_archive(
    archive: Archive,
    runs: Sequence[str] = (),
    *,
    at: float | None = None,
    metric: str | None = None,
    level: float = 0.9,
    method: str = AUTO,
    references: Sequence[str] | Reference = (),
    laws: Mapping[str, Law] | None = None,
    plans: Sequence[Plan] = (),
) -> Forecasts:
    """Forecast final losses.

    Finished runs that diverged or deviate from their band are not used to forecast others
    (`planner.curves.forecast.healthy`), unless ``references`` names them.

    Args:
        archive: The archive.
        runs: Ids, beginnings of ids, or names; all runs that are not finished if empty, and with
            ``at`` all runs.
        at: Pretend that only this fraction of each run was logged. A run logged less far is
            forecast from what it has.
        metric: Series; see `planner.curves.choose_metric`.
        level: Probability that the intervals are to hold, between 0 and 1.
        method: A name of `METHODS`, or ``auto``: chosen by back-tests.
        references: Ids or names of the runs that may be used, all finished ones if empty; or a
            reference for ``collapse`` to align with.
        laws: Laws by name; those of a curve's shape add methods.
        plans: Plans to match the runs to, besides those that the archive keeps.

    Raises:
        ArchiveError: If the archive is damaged.
        CurveError: If a run, the metric, the method or a number is not what it can be.
    """
    if at is not None and not 0 < at <= 1:
        raise CurveError(
            f"got {at:g}, wanted a fraction of training above 0, at most 1", field="--at"
        )
    if not 0 < level < 1:
        raise CurveError(f"got {level:g}, wanted a probability between 0 and 1", field="--level")
    methods = METHODS | law_methods(laws or {})
    if isinstance(references, Reference):
        methods |= dict.fromkeys(("combined", "collapse"), Collapse(reference=references))
    check_method(method, methods)
    curves = named_curves(archive, metric=metric, plans=plans)
    chosen = _named(curves, runs, "RUN") if runs else curves
    healthy, left_out = without_sick(curves)
    pool = Pool.of(healthy)
    if references and not isinstance(references, Reference):
        left_out = ()
        asked = _named(curves, references, "--reference")
        pool = Pool.of(asked)
        for curve in asked:
            if curve not in pool.curves:
                raise CurveError(f"{curve.facts.name} is not finished", field="--reference")
    if not runs and at is None:
        chosen = [curve for curve in chosen if not curve.finished]
    if len(chosen) == 1:  # no forecast rests on its own run
        left_out = tuple(each for each in left_out if each.run != chosen[0].facts.run)
    found = [
        forecast_run(curve, pool, at=at, level=level, method=method, methods=methods)
        for curve in chosen
    ]
    return Forecasts(tuple(found), left_out)


def named_curves(
    archive: Archive, *, metric: str | None = None, plans: Sequence[Plan] = ()
) -> list[Curve]:
    """Return all curves of a metric, in order of their names.

    Raises:
        ArchiveError: If the archive is damaged.
        CurveError: If the metric cannot be chosen.
    """
    curves = [c for batch in load_curves(archive, metric=metric, plans=plans) for c in batch]
    return sorted(curves, key=lambda c: (c.facts.name, c.facts.run))


def check_method(method: str, methods: Mapping[str, Method] = METHODS) -> None:
    """Refuse a method that does not exist.

    Raises:
        CurveError: It is none of them, nor ``auto``, or it needs a law that is not there.
    """
    if method in (SURROGATE, MULTI_POWER) and method not in methods:
        raise CurveError(f"{method} needs a law of its form: see --laws", field="--method")
    if method != AUTO and method not in methods:
        known = [AUTO, *methods]
        raise CurveError(
            f"got {method!r}; {did_you_mean(method, known)}",
            field="--method",
        )


def forecast_run(
    curve: Curve,
    pool: Pool,
    *,
    at: float | None = None,
    level: float = 0.9,
    method: str = AUTO,
    methods: Mapping[str, Method] = METHODS,
) -> Forecast:
    """Forecast one run; see `forecast_archive`.

    Args:
        curve: The run. What it logged after ``at`` is used for ``actual`` only.
        pool: Finished runs; the run itself is never used.
        at: Fraction of training.
        level: Probability of the interval.
        method: A name of ``methods`` or ``auto``.
        methods: By name.
    """
    facts = curve.facts
    actual = final_loss(curve) if curve.finished else None

    def undecidable(why: str, reached: float | None, tests: dict[str, float]) -> Forecast:
        return Forecast(
            facts.run,
            facts.name,
            curve.metric,
            reached,
            None,
            None,
            None,
            level,
            "undecidable",
            why,
            actual=actual,
            back_tests=tests,
        )

    if curve.horizon is None:
        return undecidable("the number of steps of the whole run is not known", None, {})
    prefix = curve if at is None else curve.until(at)
    others = pool.only(lambda c: c.facts.run != facts.run)
    times, _ = usable(prefix)
    reached = float(times[-1]) if times.size else 0.0
    if prefix.values.size and not np.isfinite(prefix.values[-1]):
        return undecidable(f"the loss is not a number since {reached:.1%} of training", reached, {})
    if reached < LEAST_FRACTION:
        why = f"{reached:.1%} of training is logged, and {LEAST_FRACTION:.0%} is needed"
        return undecidable(why, reached, {})
    if method == AUTO:
        choice = choose(prefix, others, [methods[name] for name in _AUTOMATIC if name in methods])
        tests, because, order = choice.tests, choice.why, choice.order
        if not any(test.errors for test in tests.values()):
            # nothing has shown that it works here, but for laws that the user vouches for
            vouched = (SURROGATE, MULTI_POWER)
            order = tuple(methods[n] for n in ("combined", *vouched) if n in methods)
    else:
        order = (methods[method],)
        tests, because = back_tests(prefix, others, order), "asked for"
    means = {name: test.mean for name, test in tests.items() if test.mean is not None}
    first: str | None = None
    for one in order:
        try:
            estimate = one.estimate(prefix, others)
        except UndecidableError as error:
            first = first or str(error)
            continue
        if not abs(estimate.log_final) < LARGEST_LOG:
            first = first or f"{one.name} gives no finite loss"
            continue
        low, high = interval(estimate, tests.get(one.name), level)
        return Forecast(
            facts.run,
            facts.name,
            curve.metric,
            reached,
            math.exp(estimate.log_final),
            low,
            high,
            level,
            estimate.by or one.name,
            f"{estimate.why}; {because}",
            estimate.references,
            actual,
            means,
        )
    return undecidable(first or "no method", reached, means)


_SHORTEST_ID = 4  # characters: fewer begin the ids of many runs


def _named(curves: Sequence[Curve], wanted: Sequence[str], where: str) -> list[Curve]:
    found: dict[str, Curve] = {}
    for name in wanted:
        hits = [c for c in curves if name in (c.facts.name, c.facts.run)]
        if not hits and len(name) >= _SHORTEST_ID:
            hits = [c for c in curves if c.facts.run.startswith(name)]
        if not hits:
            known = [c.facts.name for c in curves]
            raise CurveError(
                f"no run that logged the metric is called {name!r}; {did_you_mean(name, known)}",
                field=where,
            )
        found.update({c.facts.run: c for c in hits})
    return list(found.values())
