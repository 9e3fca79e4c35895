"""The best setting of a sweep: a parabola through final losses in the setting's logarithm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

# points on either side of the best one that the parabola goes through
_REACH = 2
_SAME = 1e-3  # settings that differ by less are repeats


@dataclass(frozen=True, slots=True)
class Sweep:
    """Final losses of runs that differ in one setting.

    Attributes:
        name: For messages and plots.
        setting: Values of the setting, positive, shape ``(runs,)``.
        loss: Final losses, nats a token, shape ``(runs,)``.
        at: What the optimum is a function of (TPP, or tokens).
        params: N.
        runs: Ids of the runs.
    """

    name: str
    setting: Float64
    loss: Float64
    at: float
    params: float
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Optimum:
    """Where a sweep is best.

    Attributes:
        sweep: The sweep.
        best: The setting with the lowest loss of the parabola.
        loss: That loss.
        rest: Sum of the squared residuals of the parabola.
        freedom: Their degrees of freedom.
        gradient: Standard error of log(best) for losses that scatter by one nat.
    """

    sweep: Sweep
    best: float
    loss: float
    rest: float
    freedom: int
    gradient: float


def merge_repeats(setting: ArrayLike, loss: ArrayLike) -> tuple[Float64, Float64, Float64]:
    """Return settings in order with the mean loss of repeats, and how many each has."""
    x, y = np.asarray(setting, np.float64), np.asarray(loss, np.float64)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    new = np.concatenate([[True], x[1:] > x[:-1] * (1 + _SAME)])
    which = np.cumsum(new) - 1
    count = np.bincount(which).astype(np.float64)
    return x[new], np.bincount(which, weights=y) / count, count


def find_optimum(sweep: Sweep) -> Optimum | str:
    """Return the optimum of a sweep, or why it has none.

    A parabola in the logarithm of the setting, by least squares through the best setting and up to
    two on either side of it.
    """
    x, y, count = merge_repeats(sweep.setting, sweep.loss)
    if x.size < 3:
        return f"{x.size} settings, wanted at least 3"
    best = int(np.argmin(y))
    if best in (0, x.size - 1):
        side = "lowest" if best == 0 else "highest"
        return f"the {side} setting, {x[best]:.4g}, is the best: the optimum may lie beyond it"
    near = slice(max(best - _REACH, 0), best + _REACH + 1)
    at, value, weight = np.log(x[near]), y[near], count[near]
    centre = float(np.log(x[best]))
    design = np.stack([np.ones(at.size), at - centre, (at - centre) ** 2], axis=1)
    inverse = np.linalg.pinv(design.T @ (design * weight[:, None]))
    a, b, c = (inverse @ (design.T @ (weight * value))).tolist()
    if not c > 0:
        return "the losses do not bend upwards around the best setting"
    found = centre - b / (2 * c)
    if not at[0] <= found <= at[-1]:
        return "the parabola's lowest point lies outside the settings tried"
    rest = float(np.sum(weight * (value - design @ np.array([a, b, c])) ** 2))
    towards = np.array([0.0, -1 / (2 * c), b / (2 * c * c)])
    return Optimum(
        sweep=sweep,
        best=math.exp(found),
        loss=a - b * b / (4 * c),
        rest=rest,
        freedom=at.size - 3,
        gradient=math.sqrt(float(towards @ inverse @ towards)),
    )


def pooled_errors(optima: Sequence[Optimum]) -> Float64:
    """Return standard errors of log(best), shape ``(optima,)``; NaN where nothing tells the noise.

    The scatter of final losses is pooled over all sweeps: a single one has too few points.
    """
    freedom = sum(optimum.freedom for optimum in optima)
    if freedom == 0:
        return np.full(len(optima), np.nan)
    noise = math.sqrt(sum(optimum.rest for optimum in optima) / freedom)
    return np.array([optimum.gradient * noise for optimum in optima])
