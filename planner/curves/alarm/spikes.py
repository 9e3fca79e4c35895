"""Jumps of the loss that last a step or two and are back: no instability by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_DEVIATIONS = 5.0
_LONGEST = 2  # points that a spike lasts at most
_HALF = 25  # points to each side that a spike is compared with
_LEAST_POINTS = 50
_FIRST = 0.02  # of the points, where the loss still falls steeply
_AROUND = 200  # points to each side that the noise is taken from
_STRIDE = 50


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


def find_spikes(steps: Int64, values: Float64, *, deviations: float = _DEVIATIONS) -> list[Spike]:
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
    # the noise around a point: the median of what the points around it stand off, which changes
    # slowly
    places = np.arange(0, logs.size, _STRIDE)
    around = [
        float(np.median(np.abs(off[max(0, i - _AROUND) : i + _AROUND]))) / 0.6745
        for i in places.tolist()
    ]
    sigma = np.maximum(np.interp(np.arange(logs.size), places, around), 1e-12)
    high = off > deviations * sigma
    high[: max(int(_FIRST * logs.size), _HALF)] = False
    found = []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(np.int8), [0]])))
    for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if b - a <= _LONGEST and b < logs.size:  # the last point may be the first of a rise
            i = a + int(np.argmax(off[a:b]))
            found.append(Spike(int(at[i]), float(off[i]), float(off[i] / sigma[i])))
    return found
