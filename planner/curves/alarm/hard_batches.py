"""Batches that are hard for every run that sees them.

A jump of the loss that recurs at the same step in other runs on the same data order is a property
of the data, not an instability of the optimizer. Whether two runs share their data order is not
logged; it shows: their jumps fall on the same steps far more often than chance would have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.curves.alarm.spikes import Spike, find_spikes

if TYPE_CHECKING:
    from planner.curves.curve import Curve

# Probability of so many common jumps, at which two runs are taken to share their data order.
_CHANCE = 1e-6


@dataclass(frozen=True, slots=True)
class HardBatch:
    """A step at which several runs on one data order jump.

    Attributes:
        step: The step.
        runs: Names of the runs that jump, sorted.
        excess: Mean height of the jump, log loss.
        quiet: Names of runs on the same data order that were logged there and do not jump.
    """

    step: int
    runs: tuple[str, ...]
    excess: float
    quiet: tuple[str, ...] = ()


def data_orders(curves: Sequence[Curve]) -> list[tuple[str, ...]]:
    """Return groups of runs whose jumps show that they share a data order; runs alone left out.

    Args:
        curves: Of one metric, with different names.
    """
    return _groups(curves, _spikes(curves))


def hard_batches(curves: Sequence[Curve]) -> list[HardBatch]:
    """Return the steps at which two or more runs on one data order jump, in order.

    Args:
        curves: Of one metric, with different names.
    """
    spikes = _spikes(curves)
    logged = {curve.facts.name: set(curve.steps.tolist()) for curve in curves}
    found = []
    for group in _groups(curves, spikes):
        at: dict[int, dict[str, float]] = {}
        for name in group:
            for spike in spikes[name]:
                at.setdefault(spike.step, {})[name] = spike.excess
        for step, jumps in at.items():
            if len(jumps) < 2:
                continue
            quiet = tuple(n for n in group if n not in jumps and step in logged[n])
            mean = float(np.mean(list(jumps.values())))
            found.append(HardBatch(step, tuple(sorted(jumps)), mean, quiet))
    return sorted(found, key=lambda batch: (batch.step, batch.runs))


def _spikes(curves: Sequence[Curve]) -> dict[str, list[Spike]]:
    return {curve.facts.name: find_spikes(curve.steps, curve.values) for curve in curves}


def _groups(curves: Sequence[Curve], spikes: dict[str, list[Spike]]) -> list[tuple[str, ...]]:
    names = [curve.facts.name for curve in curves]
    steps = {curve.facts.name: set(curve.steps.tolist()) for curve in curves}
    jumps = {name: {spike.step for spike in found} for name, found in spikes.items()}
    group = {name: {name} for name in names}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            common = len(steps[a] & steps[b])
            if not common:
                continue
            ours, theirs = len(jumps[a] & steps[b]), len(jumps[b] & steps[a])
            if _tail(len(jumps[a] & jumps[b]), ours * theirs / common) < _CHANCE:
                united = group[a] | group[b]
                for name in united:
                    group[name] = united
    return sorted({tuple(sorted(members)) for members in group.values() if len(members) > 1})


def _tail(count: int, mean: float) -> float:
    """Return the probability that a Poisson variable is ``count`` or more."""
    if count == 0:
        return 1.0
    if mean == 0.0:
        return 0.0
    below = sum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(count))
    return max(1.0 - below, 0.0)
