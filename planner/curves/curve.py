"""A run's curve: one metric over the fraction of training, with what is known of the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planner.curves.schedule import Schedule

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# A run counts as finished when it was logged to within one logging interval, or this, of its end.
_NEAR_THE_END = 0.01


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run besides its numbers; None where it is not.

    Attributes:
        run: Id in the archive.
        name: Name.
        params: N.
        tokens: D, training tokens of the whole run.
        batch_tokens: B, tokens a step.
        seq_len: S.
        total_steps: T.
        warmup_steps: Steps of the warm-up.
        lr: Peak learning rate.
        weight_decay: As logged.
        schedule: Kind of the learning-rate schedule, as `planner.curves.schedule` names it.
        tpp: Tokens per parameter.
        tau: AdamW timescale, fraction of training; of the matched planned run where there is one.
        seed: Of the initialization.
        parent: Id of the run that this one branched off.
        branch_step: The step at which it did.
        boundaries: Steps at which it was restarted.
        planned: Name of the planned run that it was matched to.
    """

    run: str
    name: str
    params: int | None = None
    tokens: int | None = None
    batch_tokens: int | None = None
    seq_len: int | None = None
    total_steps: int | None = None
    warmup_steps: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    tpp: float | None = None
    tau: float | None = None
    seed: int | None = None
    parent: str | None = None
    branch_step: int | None = None
    boundaries: tuple[int, ...] = ()
    planned: str | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """One metric of one run, from the run's very start (parents' steps before a branch included).

    Attributes:
        facts: What is known of the run.
        metric: Name of the series, such as ``train/loss``.
        steps: Rising, shape ``(points,)``.
        values: Nats a token as a rule; not-a-number where missing, shape ``(points,)``.
        horizon: Steps of the whole run; None if the log does not tell.
        schedule: Shape of the learning rate over the fraction of training, if known.
        every: Steps from one logged point to the next, the median.
        lr: Steps at which the learning rate was logged, and the rates; empty if it was not.
    """

    facts: RunFacts
    metric: str
    steps: Int64
    values: Float64
    horizon: int | None
    schedule: Schedule | None
    every: float
    lr: tuple[Int64, Float64]

    @property
    def fraction(self) -> Float64:
        """Fractions of training, shape ``(points,)``; of what was logged if T is not known."""
        if not self.steps.size:
            return np.zeros(0)
        return np.asarray(self.steps / (self.horizon or max(int(self.steps[-1]), 1)))

    @property
    def at(self) -> float | None:
        """The fraction of training that is logged; None if T is not known."""
        if self.horizon is None:
            return None
        finite = np.flatnonzero(np.isfinite(self.values))
        return float(self.steps[finite[-1]] / self.horizon) if finite.size else 0.0

    @property
    def finished(self) -> bool:
        """Whether it was logged to its end, as far as T is known."""
        if self.horizon is None or not self.steps.size:
            return False
        slack = max(_NEAR_THE_END * self.horizon, 1.5 * self.every)
        return (self.at or 0.0) * self.horizon >= self.horizon - slack

    def until(self, fraction: float) -> Curve:
        """Return the curve as it stood at a fraction of training: later points are gone.

        The schedule stays: it was known before the run.

        Raises:
            ValueError: T is not known.
        """
        if self.horizon is None:
            raise ValueError(f"{self.facts.name}: the number of steps of the whole run is unknown.")
        count = int(np.searchsorted(self.steps, fraction * self.horizon + 1e-9, side="right"))
        facts = replace(
            self.facts,
            boundaries=tuple(s for s in self.facts.boundaries if s <= fraction * self.horizon),
        )
        known = int(np.searchsorted(self.lr[0], fraction * self.horizon + 1e-9, side="right"))
        return replace(
            self,
            facts=facts,
            steps=self.steps[:count],
            values=self.values[:count],
            lr=(self.lr[0][:known], self.lr[1][:known]),
        )
