"""What a fit tells: the law, how sure its constants are, where it fails, what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.laws.law import Law


@dataclass(frozen=True, slots=True)
class Residual:
    """One fitted point, for plots.

    Attributes:
        run: Id of the run in the archive; of a sweep: its name.
        name: Name of the run or sweep.
        inputs: What the law is a function of, by name; fraction or step for points of a curve.
        observed: The measured value, in the law's unit.
        predicted: What the law says.
    """

    run: str
    name: str
    inputs: dict[str, float]
    observed: float
    predicted: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The error of a fit on runs that it did not see.

    Attributes:
        what: Which ones, in words.
        runs: How many.
        error: Mean absolute error, in ``unit``.
        unit: ``relative`` (of the observed value) or ``nats``.
        oracle: The same error of the best that the law's form can do on each of them, if computed.
    """

    what: str
    runs: int
    error: float
    unit: str
    oracle: float | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted law.

    Attributes:
        law: The law, with intervals and what the runs do not determine.
        kind: What was asked for: loss, tau, batch, surrogate, schedule.
        metric: Series of the archive that was fitted.
        runs: How many runs count.
        error: Mean absolute residual, in ``unit``.
        unit: ``relative`` or ``nats``.
        left_out: Errors on what was left out of the fit.
        residuals: Every fitted point.
        notes: What was done and left aside, one sentence each.
        warnings: What needs attention, one sentence each.
    """

    law: Law
    kind: str
    metric: str
    runs: int
    error: float
    unit: str
    left_out: tuple[LeftOut, ...] = ()
    residuals: tuple[Residual, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing needs attention."""
        return not self.warnings


def rounded(law: Law) -> Law:
    """Return a law in as many digits as mean something: more would differ between processors."""
    return replace(
        law,
        constants={key: _digits(value, 9) for key, value in law.constants.items()},
        fitted_range={
            key: (_digits(a, 9), _digits(b, 9)) for key, (a, b) in law.fitted_range.items()
        },
        scatter=None if law.scatter is None else _digits(law.scatter, 6),
        curve_errors=tuple(_digits(value, 4) for value in law.curve_errors),
        schedules=tuple(
            each if each.error is None else replace(each, error=_digits(each.error, 4))
            for each in law.schedules
        ),
        intervals={key: (_digits(a, 6), _digits(b, 6)) for key, (a, b) in law.intervals.items()},
        covariance=law.covariance
        and tuple(tuple(_digits(value, 10) for value in row) for row in law.covariance),
    )


def _digits(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
