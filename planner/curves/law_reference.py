"""References from fitted laws: a run is compared with what a law says of its own schedule.

The surrogate is a function of schedule, timescale and tokens per parameter, the Multi-Power Law of
the learning rate of every step. Neither needs a run that has finished, but each is only as good as
its fit: the error that a law states, of curves about a fit without them, is part of the noise that
a run is allowed (`Reference.from_function`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.curves.bands import SCHEDULE_TOLERANCE
from planner.curves.errors import CurveError
from planner.curves.forecast.interval import student_quantile
from planner.curves.forecast.prefix import UndecidableError, schedule_rates
from planner.curves.law_choice import choose_laws, nearest_law
from planner.curves.member import GRID
from planner.curves.reference import TAU_TOLERANCE, TPP_TOLERANCE, Reference
from planner.curves.schedule import Schedule
from planner.errors import LawError
from planner.laws.law import CURVES_FROM
from planner.laws.schedule import schedule_loss
from planner.laws.surrogate import surrogate_curve

if TYPE_CHECKING:
    from planner.curves.curve import RunFacts
    from planner.laws.law import FittedSchedule, Law

Float64 = NDArray[np.float64]

# Of the interval at which the law's few settings are made up for, by Student's quantile.
_LEVEL = 0.99
# How far outside what a law was fitted on its error is taken to hold: what counts as one band.
_MARGINS = {
    "tpp": 1.0 + TPP_TOLERANCE,
    "tau": 1.0 + TAU_TOLERANCE,
    "peak_lr": 1.0 + TAU_TOLERANCE,
    "steps": 1.0 + TPP_TOLERANCE,
}
# A stretch in which the few settings happened to agree, as they do where they are aligned, errs by
# so much of what all stretches do.
_LEAST_SHARE = 0.5
_ENOUGH = 3  # settings of a schedule that tell its own error
_DIGITS = 3  # runs whose tau and TPP agree so far share a reference


class LawReferences:
    """The references that laws give, one for each schedule, timescale and TPP.

    Attributes:
        laws: Of one form; several laws of the schedule are those of several sizes.
        metric: The series that they are of; None if they do not say.
    """

    offset = 0.0

    def __init__(self, laws: Sequence[Law], metric: str | None = None) -> None:
        """Take laws that `planner.curves.law_choice.choose_laws` chose."""
        if not laws:
            raise CurveError("wanted a law, got none")
        self.laws = tuple(laws)
        self.metric = laws[0].metric or metric
        self._made: dict[tuple[object, ...], Reference] = {}

    @classmethod
    def choose(cls, laws: Mapping[str, Law], asked: str | None = None) -> LawReferences:
        """Choose among the laws of a file; see `planner.curves.law_choice.choose_laws`.

        Raises:
            CurveError: There is no such law, or more than one choice.
        """
        return cls(choose_laws(laws, asked))

    def of(
        self, facts: RunFacts, schedule: Schedule | None, horizon: float | None, metric: str
    ) -> Reference:
        """Return what a run should look like.

        Args:
            facts: What is known of the run.
            schedule: Its schedule.
            horizon: Steps of the whole run.
            metric: The series that is compared.

        Raises:
            UndecidableError: What the law needs is not known, or lies outside of what it was fitted
                on; or it states no error.
        """
        law = nearest_law(self.laws, facts.params)
        if law is None:
            raise UndecidableError("its N is not known, and the laws are those of several sizes")
        said = f"the law {law.name!r}"
        if schedule is None or horizon is None:
            raise UndecidableError(f"{said} needs its schedule, which the log does not tell")
        if not schedule.covers(1.0):
            raise UndecidableError(f"{said} needs its schedule, known for the logged part only")
        if law.curve_error is None:
            raise UndecidableError(
                f"{said} states no error (curve_errors): planner fit measures it where three "
                "settings or more can be left out"
            )
        self._check(law, facts, schedule, horizon)
        power = law.form == "multi-power"
        wanted: tuple[object, ...] = (
            (facts.lr, horizon, facts.warmup_steps)
            if power
            else (_rounded(facts.tau), _rounded(facts.tpp))
        )
        size = _size(law, facts.params)
        key = (law.name, schedule.fractions.tobytes(), schedule.factors.tobytes(), size, *wanted)
        if key not in self._made:
            self._made[key] = self._make(law, facts, schedule, horizon, size, metric)
        return self._made[key]

    def _check(self, law: Law, facts: RunFacts, schedule: Schedule, horizon: float) -> None:
        """Refuse what the law was not fitted on.

        Raises:
            UndecidableError: It was not.
        """
        given = (
            {"peak_lr": facts.lr, "steps": horizon}
            if law.form == "multi-power"
            else {"tau": facts.tau, "tpp": facts.tpp}
        )
        for name, value in given.items():
            shown = {"tpp": "TPP", "peak_lr": "peak learning rate"}.get(name, name)
            if not value:
                raise UndecidableError(
                    f"the law {law.name!r} needs its {shown}, which the log does not tell"
                )
            near = _within(law, name, value)
            if near and abs(math.log(value / near)) > math.log(_MARGINS[name]):
                low, high = law.fitted_range[name]
                raise UndecidableError(
                    f"its {shown}, {value:,.4g}, is not what the law {law.name!r} was fitted on, "
                    f"{low:,.4g} to {high:,.4g}"
                )
        apart = [_apart(schedule, each) for each in law.schedules]
        if len(apart) == 1 and apart[0] > 2.0 * SCHEDULE_TOLERANCE:
            raise UndecidableError(
                f"the law {law.name!r} was fitted on one schedule only, and its learning rate "
                f"differs from that by {apart[0]:.0%} of the peak"
            )

    def _make(
        self,
        law: Law,
        facts: RunFacts,
        schedule: Schedule,
        horizon: float,
        size: int | None,
        metric: str,
    ) -> Reference:
        def curve(fraction: Float64) -> Float64:
            if law.form == "multi-power":
                rates = schedule_rates(facts, schedule, round(horizon))
                steps = np.maximum(np.rint(fraction * horizon), 1.0)
                return schedule_loss(law, np.concatenate([[0.0], rates]), steps)
            return surrogate_curve(
                law,
                fraction,
                schedule.at(fraction),
                final_lr_factor=float(schedule.at(1.0)),
                tau=facts.tau,
                tpp=facts.tpp,
            )

        try:
            return Reference.from_function(
                curve,
                metric=metric,
                source=f"law {law.name}",
                schedule=schedule,
                tau=_within(law, "tau", facts.tau),
                tpp=_within(law, "tpp", facts.tpp),
                error=stated_errors(law, schedule),
                params=size,
            )
        except (LawError, CurveError) as error:
            raise UndecidableError(str(error).rstrip(".")) from None


def stated_errors(law: Law, schedule: Schedule) -> Float64:
    """Return the standard errors that a run of a schedule is allowed by a law, at `GRID`, relative.

    They are as large as three settings of its schedule that were left out of fits say; where there
    are fewer, as those or as all, whichever is larger; for a schedule that the law has not seen, as
    the largest of any schedule. The root mean square of few settings may be too small by chance:
    Student's quantile over the normal one makes up for it.

    Returns:
        Shape ``(grid,)``; not-a-number before `planner.laws.law.CURVES_FROM`, where laws are not
        measured.

    Raises:
        CurveError: The law states none.
    """
    error, count = law.curve_error, law.curve_settings
    if error is None or count is None:
        raise CurveError(f"the law {law.name!r} states no error", field="curve_errors")
    near = [s for s in law.schedules if _apart(schedule, s) <= 2.0 * SCHEDULE_TOLERANCE]
    enough = [s for s in near if s.settings >= _ENOUGH and s.error is not None]
    share = 1.0
    if enough:
        closest = min(enough, key=lambda s: _apart(schedule, s))
        share, count = (closest.error or 0.0) / max(error, 1e-12), closest.settings
    else:
        largest = max([error, *(s.error or 0.0 for s in near or law.schedules)])
        share = largest / max(error, 1e-12)
    normal = NormalDist().inv_cdf(0.5 + _LEVEL / 2.0)
    share *= student_quantile(_LEVEL, count) / normal
    each = np.maximum(law.curve_errors, _LEAST_SHARE * error)
    middles = CURVES_FROM + (1.0 - CURVES_FROM) * (np.arange(each.size) + 0.5) / each.size
    return np.where(GRID >= CURVES_FROM - 1e-9, share * np.interp(GRID, middles, each), np.nan)


def _apart(schedule: Schedule, fitted: FittedSchedule) -> float:
    """Return the greatest difference of a schedule from one that a law was fitted on."""
    factors = np.asarray(fitted.factors)
    done = np.linspace(0.0, 1.0, factors.size)
    own = schedule.at(schedule.warmup + (1.0 - schedule.warmup) * done)
    return float(np.max(np.abs(own - factors)))


def _within(law: Law, name: str, value: float | None) -> float | None:
    """Return the nearest value in the range that a law was fitted on; the value without a range."""
    if value is None or name not in law.fitted_range:
        return value
    low, high = law.fitted_range[name]
    return min(max(float(value), low), high)


def _size(law: Law, params: int | None) -> int | None:
    """Return the nearest N that a law was fitted on; None if that, or the run's, is not known."""
    near = _within(law, "params", params)
    return None if near is None or "params" not in law.fitted_range else round(near)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
