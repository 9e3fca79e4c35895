"""Alarms: drift from a reference with a stated error, divergence without one, spikes.

- :func:`find_drift`: does a run leave its reference, at a probability of a false alarm over a whole
  healthy run that the caller states; docs/alarms.md says how.
- :func:`find_divergence`: what needs no reference: not finite, diverged, rising, stalled.
- :func:`find_spikes`, :func:`hard_batches`: single jumps of the loss; those at the same step of
  several runs are hard batches, not instabilities.
"""

from __future__ import annotations

from planner.curves.alarm.divergence import Divergence, find_divergence
from planner.curves.alarm.drift import DriftReport, find_drift
from planner.curves.alarm.hard_batches import HardBatch, data_orders, hard_batches
from planner.curves.alarm.spikes import Spike, find_spikes
from planner.curves.alarm.threshold import threshold

__all__ = [
    "Divergence",
    "DriftReport",
    "HardBatch",
    "Spike",
    "data_orders",
    "find_divergence",
    "find_drift",
    "find_spikes",
    "hard_batches",
    "threshold",
]
