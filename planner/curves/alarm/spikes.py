"""Single steps whose loss stands far off, and which of them are hard batches.

A loss that jumps for one or two steps and is back is no instability by itself. Where several runs
on the same data order jump at the same step, the batch is hard; where one alone does, the run had a
spike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planner.curves.curve import Curve

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_DEVIATIONS = 5.0
_LONGEST = 2  # points that a spike lasts at most
_HALF = 25  # points to each side that a spike is compared with
_LEAST_POINTS = 50
_FIRST = 0.02  # of the points, where the loss still falls steeply
# Expected number of steps, over all runs, at which as many jump together by chance.
_CHANCE = 0.01


@dataclass(frozen=True, slots=True)
class Spike:
    """A jump of the loss that was back at once.

    Attributes:
        step: The step.
        excess: How far log loss stood above the points around it.
        deviations: That over their noise.
    """

    step: int
    excess: float
    deviations: float


@dataclass(frozen=True, slots=True)
class HardBatch:
    """A step at which several runs jump together.

    Attributes:
        step: The step.
        runs: Names of the runs that do, sorted.
        excess: Mean jump of log loss.
        chance: Expected number of such steps if the runs' spikes had nothing in common.
    """

    step: int
    runs: tuple[str, ...]
    excess: float
    chance: float


def find_spikes(
    steps: Int64, values: Float64, *, deviations: float = _DEVIATIONS
) -> list[Spike]:
    """Return the upward jumps of a loss that last one or two points.

    Args:
        steps: Rising, shape ``(points,)``.
        values: Loss; what is not finite is left out.
        deviations: Robust standard deviations of the points around that count as a jump.
    """
    usable = np.isfinite(values) & (values > 0)
    at, logs = steps[usable], np.log(values[usable])
    if logs.size < _LEAST_POINTS:
        return []
    width = 2 * _HALF + 1
    padded = np.pad(logs, _HALF, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    middle = np.median(windows, axis=1)
    off = logs - middle
    # the noise around a point: the median of what the points around it stand off
    wide = np.lib.stride_tricks.sliding_window_view(np.pad(np.abs(off), 100, mode="reflect"), 201)
    sigma = np.maximum(np.median(wide, axis=1) / 0.6745, 1e-12)
    high = off > deviations * sigma
    high[: max(int(_FIRST * logs.size), _HALF)] = False
    found = []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(np.int8), [0]])))
    for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if b - a <= _LONGEST and b < logs.size:  # the last point may be the first of a rise
            i = a + int(np.argmax(off[a:b]))
            found.append(Spike(int(at[i]), float(off[i]), float(off[i] / sigma[i])))
    return found


def hard_batches(curves: Sequence[Curve]) -> list[HardBatch]:
    """Return the steps at which several runs jump together more often than chance allows.

    Runs need not all share a data order: those that jump at a step are named with it.

    Args:
        curves: Of one metric, logged at the same steps where they are compared.
    """
    spikes = {curve.facts.name: find_spikes(curve.steps, curve.values) for curve in curves}
    together: dict[int, list[tuple[str, float]]] = {}
    for name, found in spikes.items():
        for spike in found:
            together.setdefault(spike.step, []).append((name, spike.excess))
    rate = {
        curve.facts.name: len(spikes[curve.facts.name]) / max(curve.steps.size, 1)
        for curve in curves
    }
    longest = max((curve.steps.size for curve in curves), default=0)
    batches = []
    for step, members in sorted(together.items()):
        if len(members) < 2:
            continue
        # steps times the groups of as many runs times the chance that one group jumps together
        groups = math.comb(len(curves), len(members))
        worst = math.prod(sorted(rate.values())[-len(members) :])
        chance = longest * groups * worst
        if chance <= _CHANCE or _again(step, members, together):
            excess = float(np.mean([excess for _, excess in members]))
            batches.append(HardBatch(step, tuple(sorted(n for n, _ in members)), excess, chance))
    return batches


def _again(
    step: int, members: list[tuple[str, float]], together: dict[int, list[tuple[str, float]]]
) -> bool:
    """Return whether the same runs jump together at two or more other steps as well."""
    names = {name for name, _ in members}
    others = [s for s, m in together.items() if s != step and names <= {name for name, _ in m}]
    return len(others) >= 2
