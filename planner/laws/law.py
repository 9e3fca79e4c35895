"""A law: a fitted relation with its constants, source, fitted range and uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from planner.errors import LawError

FORMULAS = {
    "power": "coefficient * {input}^exponent",
    "chinchilla": "E + A / params^alpha + B / tokens^beta",
    "iso-loss": "compute ratio = k * (2 - k^-exponent)^(-1/exponent), k the parameter ratio",
    "collapse-surrogate": (
        "(((1 + eps1) / (t + eps1))^m + b * (lr + eps2)^q) over its value at t = 1, "
        "b = b_coefficient * tau^b_exponent, q = q_coefficient * tpp^q_exponent, "
        "lr in units of its peak"
    ),
    "multi-power": (
        "L0 + A * S^-alpha - B * sum((lr[k-1] - lr[k]) * (1 - (C * lr[k]^-gamma * S[k] + 1)^-beta))"
        ", S the sum of all learning rates so far, S[k] that from step k on"
    ),
}
CONSTANTS = {
    "power": ("coefficient", "exponent"),
    "chinchilla": ("E", "A", "B", "alpha", "beta"),
    "iso-loss": ("exponent", "optimal_tpp"),
    "collapse-surrogate": (
        *("b_coefficient", "b_exponent", "q_coefficient", "q_exponent"),
        *("eps1", "eps2", "m"),
    ),
    "multi-power": ("L0", "A", "alpha", "B", "C", "beta", "gamma"),
}
# what a law can give: the form it has, and what it is a function of
QUANTITIES = {
    "tau": ("power", "tpp"),
    "batch": ("power", "tokens"),
    "critical_batch": ("power", "tokens"),
    "loss": ("chinchilla", "params_and_tokens"),
    "compression": ("iso-loss", "params_ratio"),
    "curve": ("collapse-surrogate", "tau_and_tpp"),
    "schedule": ("multi-power", "lr_schedule"),
}
# the fraction of training from which on laws of curves are measured (arXiv 2509.25087, section 5)
CURVES_FROM = 0.2
CURVE_FORMS = ("collapse-surrogate", "multi-power")
CONFIDENCES = ("verified", "secondary", "derived", "recalled", "declared", "fitted")


@dataclass(frozen=True, slots=True)
class FittedSchedule:
    """A schedule that a law of curves was fitted on.

    Attributes:
        factors: The rate in units of its peak at even fractions of training from the warm-up on.
        error: As `Law.curve_error`, of the settings of this schedule; None if none was left out.
        settings: How many those are.
    """

    factors: tuple[float, ...]
    error: float | None = None
    settings: int = 0


@dataclass(frozen=True, slots=True)
class Law:
    """One law.

    Attributes:
        name: What specs call it.
        quantity: What it gives: tau (fraction of training), batch or critical_batch (tokens),
            loss (nats a token), compression (ratio), curve (loss over final loss), schedule (nats
            a token at each step of a learning-rate schedule).
        form: Key of `FORMULAS`; `QUANTITIES` says which one a quantity has.
        input: What it is a function of; see `QUANTITIES`.
        constants: Values of the form's constants.
        source: Where the constants come from.
        confidence: One of `CONFIDENCES`.
        fitted_range: Input name to the lowest and highest value it was fitted on.
        covariance: For ``chinchilla``: covariance of (log E, log A, log B, alpha, beta), 5 x 5.
        scatter: Standard deviation of the fitted points about the law, in the logarithm.
        intervals: Constant to the lowest and highest value that the runs allow.
        level: Probability that an interval states.
        unidentified: Constants that the runs do not determine: any value in the interval fits
            them about equally well.
        curve_errors: Of laws of curves: root mean squares, in the logarithm, of a curve about the
            law fitted without it and its repeats, its level between 25 and 50 % of training taken
            out; in even stretches of training from `CURVES_FROM` on.
        curve_settings: How many settings that was measured on.
        schedules: Different schedules that it was fitted on.
        metric: The series that the curves were of.
    """

    name: str
    quantity: str
    form: str
    input: str
    constants: dict[str, float]
    source: str
    confidence: str
    fitted_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    covariance: tuple[tuple[float, ...], ...] | None = None
    scatter: float | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    level: float | None = None
    unidentified: tuple[str, ...] = ()
    curve_errors: tuple[float, ...] = ()
    curve_settings: int | None = None
    schedules: tuple[FittedSchedule, ...] = ()
    metric: str | None = None

    @property
    def curve_error(self) -> float | None:
        """The root mean square of `curve_errors`; None without."""
        if not self.curve_errors:
            return None
        return math.sqrt(sum(error**2 for error in self.curve_errors) / len(self.curve_errors))

    @property
    def formula(self) -> str:
        """The form, with the input's name in it."""
        text = FORMULAS[self.form].format(input=self.input)
        return f"sequence_length * {text}" if "sequence_length" in self.constants else text

    def at(self, value: float) -> float:
        """Evaluate a power law at ``value`` of its input.

        A law stated in sequences gives tokens: the result is multiplied by its sequence length.

        Raises:
            LawError: If the law is not a power law, ``value`` is not positive and finite, or the
                result is beyond what a float holds.
        """
        if self.form != "power":
            raise LawError(f"law {self.name!r} is of form {self.form}, wanted a power law")
        if not (value > 0 and math.isfinite(value)):
            raise LawError(f"law {self.name!r} got {self.input} {value}, wanted a positive number")
        try:
            result = self.constants["coefficient"] * value ** self.constants["exponent"]
            result *= self.constants.get("sequence_length", 1.0)
        except OverflowError:
            result = math.inf
        if not math.isfinite(result):
            raise LawError(f"law {self.name!r} is too large to state at {self.input} {value:.4g}")
        return float(result)

    def outside(self, **inputs: float) -> str | None:
        """Return a sentence if an input lies outside the fitted range, else None."""
        for name, value in inputs.items():
            if name not in self.fitted_range:
                continue
            low, high = self.fitted_range[name]
            # one part in a thousand, so that "20 TPP" met to rounding is not an extrapolation
            if value < low * 0.999 or value > high * 1.001:
                return (
                    f"law {self.name!r} is used at {name} {value:.4g}, "
                    f"outside the {low:.4g} to {high:.4g} it was fitted on"
                )
        return None
