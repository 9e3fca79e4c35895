"""Scoring runs against their reference: noise, spikes, alarms, onset and drift, in one pass.

The residual is the (smoothed, normalized) curve less its reference at the same step. The first
``max(50, n // 10)`` points of a run calibrate it: their mean is the level, their standard deviation
the noise, and ``u = (residual - level) / noise`` is what all rules look at: a spike is judged as it
is, and counts as no more than ``clip`` in everything else.

- spikes: ``u`` farther than ``window_z`` standard deviations from the mean of the usable ones among
  the 64 points before it (20 at least; a standard deviation counts as 0.001 or more).
- CUSUM (Page 1954): ``up = max(0, up + u - k)``, alarm above ``h``; ``down`` likewise for ``-u``.
- onset: where the excursion of the CUSUM that alarms first left zero (a change-point estimate), a
  usable point always.
- Page-Hinkley (Hinkley 1971): ``m += u - mean(u so far) - delta``; alarm when ``m`` is more than
  ``lambda`` above its lowest value.
- drift: the least-squares slope of ``u`` over the steps after the calibration.

CUSUM, Page-Hinkley and drift start after the calibration. Step numbers are indices into the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner import _core
from planner.kernel.ragged import Float64, Int64, Ragged


@dataclass(frozen=True, slots=True)
class Rules:
    """When a run is said to deviate; in units of its own noise unless said otherwise."""

    window_z: float = 4.5
    """Distance of a spike, in standard deviations of its window."""
    cusum_slack: float = 0.5
    """k: half the shift that is to be found."""
    cusum_limit: float = 8.0
    """h."""
    ph_slack: float = 0.05
    """delta of Page-Hinkley."""
    ph_limit: float = 20.0
    """lambda of Page-Hinkley."""
    clip: float = 1000.0
    """How far a residual counts at most; 4, say, keeps one spike from setting off a CUSUM."""
    least_noise: float = 1e-12
    """The noise is taken to be no smaller; units of the values."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}.")


@dataclass(frozen=True, slots=True)
class Scores:
    """What each run was found to do; arrays of shape ``(runs,)``, steps are -1 for never.

    Numbers are NaN, and steps -1, where the status is not OK.
    """

    level: Float64
    """Mean residual over the calibration, units of the values."""
    noise: Float64
    """Standard deviation over the calibration, units of the values."""
    slope: Float64
    """Drift after the calibration, units of the values per point."""
    lowest: Float64
    """Smallest residual after the calibration, units of the values."""
    highest: Float64
    """Largest residual after the calibration, units of the values."""
    n_finite: Int64
    """Usable points, of run and reference together."""
    spikes: Int64
    """How many."""
    first_spike: Int64
    """Step."""
    cusum_up: Int64
    """Step of the first alarm for a rise."""
    cusum_down: Int64
    """Step of the first alarm for a fall."""
    page_hinkley: Int64
    """Step of the first alarm for a rise."""
    deviates: Int64
    """Step at which the deviation that first set off a CUSUM began."""
    status: NDArray[np.int32]
    """:class:`planner.kernel.Status`: OK, EMPTY, NON_FINITE, or TOO_FEW_POINTS (fewer than 20
    usable ones in the calibration)."""
    residual: Float64 | None = None
    """Shape ``(points,)``, NaN where a point is missing; None unless asked for."""
    z: Float64 | None = None
    """Rolling z, shape ``(points,)``, NaN where it is not defined; None unless asked for."""


def score(
    runs: Ragged,
    reference: Ragged,
    rules: Rules | None = None,
    *,
    residual: bool = False,
    z: bool = False,
    threads: int | None = None,
) -> Scores:
    """Score runs against their references.

    A point counts as missing where the run or the reference is NaN, infinite or of magnitude 1e300
    and above. The bits do not depend on the CPU, the number of threads, or the other runs.

    Args:
        runs: Any units.
        reference: What each run should look like, with the offsets of the runs and their units.
        rules: None: the defaults.
        residual: Whether to return the residual of each point.
        z: Whether to return the rolling z of each point.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: the offsets differ, or ``threads`` is below 1.
    """
    rules = rules or Rules()
    if reference.values.size != runs.values.size or not (
        reference.offsets is runs.offsets or np.array_equal(reference.offsets, runs.offsets)
    ):
        raise ValueError("reference must have the offsets of the runs.")
    return Scores(
        *_core.score_residuals(
            runs.values,
            runs.offsets,
            reference.values,
            window_z=rules.window_z,
            cusum_slack=rules.cusum_slack,
            cusum_limit=rules.cusum_limit,
            ph_slack=rules.ph_slack,
            ph_limit=rules.ph_limit,
            clip=rules.clip,
            least_noise=rules.least_noise,
            residual=residual,
            z=z,
            threads=threads,
        )
    )
