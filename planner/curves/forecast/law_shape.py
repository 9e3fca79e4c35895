"""Forecasts by the shape that a fitted law gives: the surrogate, or the Multi-Power Law.

The law's curve for the run's own schedule takes the place of the band's normalized curve: it is
laid on the run's last fifth and read off at the end, so that the law's level does not count. How
far it errs is measured on the finished runs of the archive, the nearest sizes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import Curve
from planner.curves.forecast.method import Estimate, Method, Pool
from planner.curves.forecast.prefix import UndecidableError, last_fifth, learning_rates
from planner.curves.law_choice import FORMS, MULTI_POWER, nearest_law
from planner.errors import LawError
from planner.laws.law import Law
from planner.laws.schedule import schedule_loss
from planner.laws.surrogate import surrogate_curve
from planner.units import count_of

Float64 = NDArray[np.float64]

_LEAST_POINTS = 3
_MOST_TESTS = 12
# fewer runs do not tell how far the law errs
_LEAST_TESTS = 3


@dataclass(frozen=True, slots=True)
class LawShape:
    """A law's shape laid on a run's last fifth.

    Attributes:
        name: ``surrogate`` or ``multi-power-law``.
        laws: Of the form ``collapse-surrogate`` or ``multi-power``; where there are several, of
            several sizes, each run has the nearest.
    """

    name: str
    laws: tuple[Law, ...]

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        log_final = self._laid_on(prefix)
        errors = self._errors(prefix, pool)
        error = float(np.sqrt(np.mean(np.square(errors)))) if len(errors) >= _LEAST_TESTS else None
        return Estimate(
            log_final,
            error,
            (),
            f"the law {self._of(prefix).name!r} laid on the run's last fifth; it errs so on "
            f"{count_of(len(errors), 'finished run')}",
        )

    def _of(self, curve: Curve) -> Law:
        """Return the law for a run's size; one of its metric, if there is one.

        Raises:
            UndecidableError: N is not known.
        """
        same = [law for law in self.laws if law.metric in (None, curve.metric)]
        law = nearest_law(same or self.laws, curve.facts.params)
        if law is None:
            raise UndecidableError("its N is not known, and the laws are those of several sizes")
        return law

    def _laid_on(self, prefix: Curve) -> float:
        times, logs = last_fifth(prefix, least=_LEAST_POINTS)
        try:
            shape = self._log_loss(prefix, np.append(times, 1.0))
        except LawError as error:
            raise UndecidableError(str(error).rstrip(".")) from None
        if not np.isfinite(shape).all():
            raise UndecidableError(f"the law {self._of(prefix).name!r} gives no loss there")
        return float(np.mean(logs - shape[:-1]) + shape[-1])

    def _log_loss(self, curve: Curve, times: Float64) -> Float64:
        """Return the log of the law's curve at fractions of training.

        Raises:
            LawError: The law cannot be used so.
            UndecidableError: What it needs of the run is not known.
        """
        law = self._of(curve)
        rates = learning_rates(curve)  # known to the end, or it says why not
        if self.name == MULTI_POWER:
            steps = np.rint(times * rates.size)
            with_start = np.concatenate([[0.0], rates])
            return np.log(schedule_loss(law, with_start, steps))
        assert curve.schedule is not None
        of = curve.facts
        return np.log(
            surrogate_curve(
                law,
                times,
                curve.schedule.at(times),
                final_lr_factor=float(curve.schedule.at(1.0)),
                tau=of.tau,
                tpp=of.tpp,
            )
        )

    def _errors(self, prefix: Curve, pool: Pool) -> list[float]:
        size = float(prefix.facts.params or 1)
        finished = sorted(
            (c for c in pool.curves if c.facts.run != prefix.facts.run),
            key=lambda c: (abs(np.log((c.facts.params or size) / size)), c.facts.name),
        )
        errors = []
        for curve in finished:
            try:
                forecast = self._laid_on(curve.until(prefix.at or 0.0))
            except UndecidableError:
                continue
            errors.append(forecast - float(np.log(pool.member(curve).final)))
            if len(errors) == _MOST_TESTS:
                break
        return errors


def law_methods(laws: Mapping[str, Law]) -> dict[str, Method]:
    """Return a method for each form of law that has a shape."""
    found: dict[str, tuple[Law, ...]] = {}
    for law in laws.values():
        name = FORMS.get(law.form)
        if name is not None:
            found[name] = (*found.get(name, ()), law)
    return {name: LawShape(name, of_form) for name, of_form in found.items()}
