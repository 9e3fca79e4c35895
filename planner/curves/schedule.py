"""The shape of a learning-rate schedule: its share of the peak over the fraction of training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

# knots of a curved decay: the line between two is within 1e-5 of the cosine
_KNOTS = 257
_GRID = np.linspace(0.0, 1.0, 401)
_SHAPE = np.linspace(0.0, 1.0, 17)


@dataclass(frozen=True, eq=False, slots=True)
class Schedule:
    """A schedule, straight between its knots.

    Attributes:
        fractions: Fractions of training, shape ``(knots,)``, rising from 0 or more to at most 1.
        factors: Share of the peak learning rate there; the greatest is 1, or less where a log
            holds not the peak.
        source: ``logged``, ``planned`` or ``declared``.
    """

    fractions: Float64
    factors: Float64
    source: str

    def at(self, fraction: ArrayLike) -> Float64:
        """Return the share of the peak at fractions of training; constant beyond the knots."""
        return np.interp(np.asarray(fraction, np.float64), self.fractions, self.factors)

    @property
    def warmup(self) -> float:
        """The fraction of training at which the rate first comes within 0.1 % of its greatest.

        Of the knots' own greatest: a log of every hundredth step need not hold the peak.
        """
        return float(self.fractions[int(np.argmax(self.factors >= 0.999 * self.factors.max()))])

    def covers(self, fraction: float) -> bool:
        """Return whether it is known up to a fraction of training, to one part in fifty."""
        return bool(self.fractions[-1] >= fraction - 0.02)

    def distance(self, other: Schedule, *, until: float = 1.0) -> float:
        """Return the greatest difference of two schedules where both are past their warm-up.

        Warm-ups are left out: they differ by a fixed number of tokens within a family.

        Args:
            other: The other one.
            until: Fraction of training up to which they are compared.
        """
        start = max(self.warmup, other.warmup)
        grid = _GRID[(start <= _GRID) & (until >= _GRID)]
        if not grid.size:
            return 0.0
        return float(np.max(np.abs(self.at(grid) - other.at(grid))))


def since_warmup(schedule: Schedule) -> Float64:
    """Return the share of the peak, evenly over what follows the warm-up, shape ``(17,)``."""
    warmup = schedule.warmup
    return schedule.at(warmup + (1.0 - warmup) * _SHAPE)


@lru_cache(maxsize=1024)  # one object for all runs of a schedule
def declared_schedule(
    kind: str,
    *,
    warmup_fraction: float = 0.0,
    final_lr_fraction: float = 0.0,
    decay_fraction: float = 1.0,
    source: str = "declared",
) -> Schedule | None:
    """Return the schedule of a kind that plans and logs name; None of any other kind.

    Args:
        kind: ``constant``, ``cosine``, ``linear``, ``linear-to-zero`` or ``wsd`` (warm-up, hold,
            and a linear decay at the end).
        warmup_fraction: Of training; linear from zero.
        final_lr_fraction: What of the peak is left at the end.
        decay_fraction: Of training; for ``wsd``.
        source: As in `Schedule`.
    """
    warmup = min(max(warmup_fraction, 0.0), 1.0)
    start = 1.0 - min(decay_fraction, 1.0 - warmup) if kind == "wsd" else warmup
    head = [(0.0, 0.0)] if warmup > 0 else []
    if kind == "constant":
        knots = [*head, (warmup, 1.0), (1.0, 1.0)]
    elif kind in ("linear", "linear-to-zero", "wsd"):
        final = 0.0 if kind == "linear-to-zero" else final_lr_fraction
        knots = [*head, (warmup, 1.0), *([(start, 1.0)] if start > warmup else []), (1.0, final)]
    elif kind == "cosine":
        done = np.linspace(0.0, 1.0, _KNOTS)
        share = (1.0 + np.cos(math.pi * done)) / 2.0
        factors = final_lr_fraction + (1.0 - final_lr_fraction) * share
        times = warmup + (1.0 - warmup) * done
        knots = [*head, *zip(times.tolist(), factors.tolist(), strict=True)]
    else:
        return None
    fractions, factors = (np.ascontiguousarray(c) for c in np.array(knots, np.float64).T)
    fractions.flags.writeable = factors.flags.writeable = False  # it is shared
    return Schedule(fractions, factors, source)


def logged_schedule(
    fraction: Float64, lr: Float64, *, peak: float | None = None
) -> Schedule | None:
    """Return the schedule that a log shows; None where it holds no positive rate.

    Args:
        fraction: Fractions of training at which the rate was logged, rising.
        lr: The logged rates, not-a-number where missing.
        peak: The peak rate, for a log that may end within the warm-up; the greatest rate if None.
    """
    usable = np.isfinite(lr) & np.isfinite(fraction) & (fraction <= 1.0 + 1e-9)
    if not usable.any() or lr[usable].max() <= 0:
        return None
    times, rates = np.minimum(fraction[usable], 1.0), lr[usable]
    return Schedule(times, rates / max(rates.max(), peak or 0.0), "logged")
