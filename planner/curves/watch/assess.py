"""What can be said of a run so far: its alarms, its spikes, and where it will end."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from planner.curves.alarm.divergence import find_divergence
from planner.curves.alarm.drift import DriftReport, find_drift
from planner.curves.alarm.spikes import Spike, find_spikes
from planner.curves.forecast import Forecast, Pool, forecast_run
from planner.curves.forecast.collapse import Collapse
from planner.curves.forecast.prefix import UndecidableError
from planner.curves.law_reference import LawReferences

if TYPE_CHECKING:
    from planner.curves.curve import Curve
    from planner.curves.reference import Reference

SCHEMA = "planner.watch/1"
State = Literal["alarm", "quiet", "calibrating", "undecidable"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One reason to look at a run.

    Attributes:
        kind: ``drift``, or a kind of `planner.curves.alarm.Divergence`.
        step: At which it was raised.
        since: Step since which it has been so.
        evidence: One sentence.
    """

    kind: str
    step: int
    since: int
    evidence: str


@dataclass(frozen=True, eq=False, slots=True)
class Assessment:
    """A run so far.

    Attributes:
        curve: What was logged.
        reference: Name of the reference; None without one.
        alpha: Probability of a drift alarm over a whole healthy run.
        drift: The drift alarm; None without a reference.
        alarms: By step.
        spikes: Single jumps of the loss; no alarm.
        forecast: Of the final loss, if the run follows the reference; None without one.
        why: Why there is no reference, where laws were to give one.
    """

    curve: Curve
    reference: str | None
    alpha: float
    drift: DriftReport | None
    alarms: tuple[Alarm, ...]
    spikes: tuple[Spike, ...]
    forecast: Forecast | None
    why: str = ""

    @property
    def state(self) -> State:
        """``alarm``; else what the drift alarm says; ``undecidable`` without a reference."""
        if self.alarms:
            return "alarm"
        return "undecidable" if self.drift is None else self.drift.state

    @property
    def reason(self) -> str:
        """Why nothing is said of drift; empty where it is."""
        if self.drift is None:
            looked = "only divergence and spikes are looked for"
            return f"{self.why}: {looked}" if self.why else f"no reference: {looked}"
        return self.drift.reason

    @property
    def last(self) -> int | None:
        """Index of the last usable point; None if there is none."""
        usable = np.flatnonzero(np.isfinite(self.curve.values))
        return int(usable[-1]) if usable.size else None

    def document(self) -> dict[str, Any]:
        """Return the JSON document of ``planner watch --once --json``."""
        curve, drift, i = self.curve, self.drift, self.last
        watched = drift is not None and drift.residual.size > 0
        return {
            "schema": SCHEMA,
            "run": curve.facts.run,
            "name": curve.facts.name,
            "metric": curve.metric,
            "reference": self.reference,
            "alpha": self.alpha,
            "state": self.state,
            "reason": self.reason or None,
            "step": None if not curve.steps.size else int(curve.steps[-1]),
            "total_steps": curve.horizon,
            "at": curve.at,
            "loss": None if i is None else float(curve.values[i]),
            "residual": float(smoothed(drift.residual)[-1]) if drift and watched else None,
            "score": _finite(drift.score[-1]) if drift and watched else None,
            "threshold": _finite(drift.threshold) if drift else None,
            "since": drift.since if drift else None,
            "shared": drift.shared if drift and watched else None,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "spikes": [asdict(spike) for spike in self.spikes],
            "predicted": _predicted(self.forecast),
        }


def assess(
    curve: Curve,
    reference: Reference | LawReferences | None = None,
    *,
    alpha: float = 0.01,
    tolerance: float | None = None,
) -> Assessment:
    """Say what can be said of a run so far.

    Args:
        curve: What was logged.
        reference: What it should look like, or laws that say it; None: only what needs none is
            looked for.
        alpha: Probability of a drift alarm over a whole healthy run.
        tolerance: As for `planner.curves.alarm.find_drift`.

    Raises:
        CurveError: As `planner.curves.alarm.find_drift`.
    """
    alarms = [
        Alarm(found.kind, found.step, found.since, found.evidence)
        for found in find_divergence(curve.steps, curve.values)
    ]
    drift = forecast = None
    why = ""
    if isinstance(reference, LawReferences):
        try:
            reference = reference.of(curve.facts, curve.schedule, curve.horizon, curve.metric)
        except UndecidableError as error:
            reference, why = None, str(error)
    if reference is not None:
        drift = find_drift(curve, reference, alpha=alpha, tolerance=tolerance)
        follows = Collapse(reference=reference, trusted=True)
        forecast = forecast_run(
            curve, Pool(()), method=follows.name, methods={follows.name: follows}
        )
        if drift.step is not None and drift.since is not None and drift.rise is not None:
            since = round(drift.since * (curve.horizon or 1))
            alarms.append(
                Alarm(
                    "drift",
                    drift.step,
                    since,
                    f"the loss has left the reference since step {since:,} "
                    f"({drift.since:.1%} of training) and stood {drift.rise:.2%} above it at step "
                    f"{drift.step:,}",
                )
            )
    alarms.sort(key=lambda alarm: (alarm.step, alarm.kind))
    return Assessment(
        curve,
        None if reference is None else reference.name,
        alpha,
        drift,
        tuple(alarms),
        tuple(find_spikes(curve.steps, curve.values)),
        forecast,
        why,
    )


def smoothed(values: NDArray[np.float64], share: float = 0.02) -> NDArray[np.float64]:
    """Return trailing means over a share of the points, for the eye."""
    width = max(int(share * values.size), 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    high = np.arange(1, values.size + 1)
    low = np.maximum(high - width, 0)
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _predicted(forecast: Forecast | None) -> dict[str, Any] | None:
    if forecast is None:
        return None
    names = ("final", "low", "high", "level", "why")
    return {name: getattr(forecast, name) for name in names}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
