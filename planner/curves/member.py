"""The runs that a reference is made of: normalized, smoothed where noisy, on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import RunFacts
from planner.curves.errors import CurveError
from planner.curves.noise import point_noise
from planner.curves.normalize import final_level
from planner.curves.schedule import Schedule

Float64 = NDArray[np.float64]

# fractions of training at which members are kept: even in log t, then even in t
GRID: Float64 = np.concatenate(
    [np.geomspace(0.001, 0.1, 120, endpoint=False), np.linspace(0.1, 1.0, 361)]
)
_LOG_GRID = np.log(GRID)
# half-width of the smoothing window: of log t early, of t late
_LOG_WINDOW, WINDOW = 0.10, 0.025
# Points that are noisier than this are smoothed: an evaluation loss is not.
SMOOTHED = 0.002
# A bend of the schedule at which no window reaches over: its slope changes by so much.
_KINK = 0.5


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """A run that a reference is made of.

    Attributes:
        run: Id in the archive; a name where it came from elsewhere.
        name: Name.
        params: N, if known.
        final: Its divisor, nats a token.
        shape: log((loss - offset) / (final - offset)) at `GRID`; not-a-number before its first
            point.
        error: Standard error of the log curve by its own noise, at `GRID`.
        final_error: That of the log of its divisor.
        tpp: Its tokens per parameter, if known.
        tau: Its AdamW timescale, if known.
        steps: Steps of its points, where they are noisy and kept (`planner.curves.points`), shape
            ``(points,)``; None otherwise.
        noise: How far each strays from the smooth log curve, of that shape.
    """

    run: str
    name: str
    params: int | None
    final: float
    shape: Float64
    error: Float64
    final_error: float
    tpp: float | None = None
    tau: float | None = None
    steps: NDArray[np.int64] | None = None
    noise: Float64 | None = None


def schedule_kinks(schedule: Schedule | None) -> Float64:
    """Return the fractions of training at which a schedule bends sharply, warm-up left out."""
    if schedule is None:
        return np.zeros(0)
    t = np.linspace(0.0, 1.0, 401)
    slope = np.diff(schedule.at(t)) / np.diff(t)
    # over two steps: a knot may lie within one
    bend = np.abs(slope[2:] - slope[:-2])
    inside = (bend > _KINK) & (t[2:-1] > 2.0 * schedule.warmup)
    peaks = np.flatnonzero(inside & (bend >= np.roll(bend, 1)) & (bend > np.roll(bend, -1)))
    return np.asarray(t[peaks + 2] - 0.00125)


def make_member(
    facts: RunFacts,
    fraction: Float64,
    logs: Float64,
    *,
    offset: float = 0.0,
    smooth: bool | None = None,
    kinks: Float64 | None = None,
) -> Member:
    """Make a member of the points of a finished run.

    Args:
        facts: What is known of the run.
        fraction: Fractions of training, rising, shape ``(points,)``.
        logs: log(loss - offset), not-a-number where missing, shape ``(points,)``.
        offset: Nats a token.
        smooth: As for `Reference.build`.
        kinks: Fractions of training that no smoothing window reaches over.

    Raises:
        CurveError: Fewer than 5 points are usable.
    """
    usable = np.isfinite(logs) & (fraction > 0)
    t, y = fraction[usable], logs[usable]
    if t.size < 5:
        raise CurveError(f"{facts.name}: {t.size} usable points are too few for a reference")
    level, level_error = final_level(t, y)
    sigma = point_noise(y[-200:])
    if smooth is None:
        smooth = sigma > SMOOTHED
    if smooth:
        values, error = _local_lines(t, y, sigma, kinks)
        level, level_error = float(values[-1]), float(error[-1])
    else:
        values = np.interp(_LOG_GRID, np.log(t), y)
        error = np.hypot(sigma, _between(np.log(t), y))
    values[t[0] > GRID * (1.0 + 1e-9)] = np.nan
    final = float(np.exp(level)) + offset
    return Member(
        facts.run,
        facts.name,
        facts.params,
        final,
        values - level,
        error,
        level_error,
        facts.tpp,
        facts.tau,
    )


def _between(x: Float64, y: Float64) -> Float64:
    """Return how far a curve may lie off the straight lines between its points, at `GRID`.

    Half of what leaving a point out does: a kink between two points errs by at most that, a bend by
    half of it.
    """
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    missed = np.zeros(x.size)
    missed[1:-1] = np.abs(y[1:-1] - (1.0 - share) * y[:-2] - share * y[2:])
    right = np.clip(np.searchsorted(x, _LOG_GRID), 1, x.size - 1)
    on_point = np.isclose(_LOG_GRID, x[right]) | np.isclose(_LOG_GRID, x[right - 1])
    return np.where(on_point, 0.0, np.maximum(missed[right - 1], missed[right]) / 2.0)


def _local_lines(
    t: Float64, y: Float64, sigma: float, kinks: Float64 | None
) -> tuple[Float64, Float64]:
    """Return local straight-line fits in log t at `GRID`, and their standard errors."""
    x = np.log(t)
    half = np.minimum(_LOG_WINDOW * GRID, WINDOW)
    # at the end the window keeps its width
    low = np.searchsorted(t, np.minimum(GRID - half, 1.0 - 2.0 * half))
    high = np.searchsorted(t, GRID + half, side="right")
    for kink in () if kinks is None else kinks.tolist():
        at = int(np.searchsorted(t, kink))
        low = np.where(kink < GRID, np.maximum(low, at), low)
        high = np.where(kink >= GRID, np.minimum(high, at), high)
    low = np.minimum(low, np.maximum(high - 4, 0))  # at least four points
    high = np.maximum(high, np.minimum(low + 4, t.size))
    mid = float(x.mean())
    u = x - mid

    def sums(values: Float64) -> Float64:
        cumulated = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(cumulated[high] - cumulated[low])

    # spikes: what stands five standard deviations off the line does not count
    line, error = _lines(sums, u, y, high - low, _LOG_GRID - mid, sigma)
    off = np.abs(y - np.interp(x, _LOG_GRID, line)) > 5.0 * sigma
    if off.any():
        tamed = np.where(off, np.interp(x, _LOG_GRID, line), y)
        line, error = _lines(sums, u, tamed, high - low, _LOG_GRID - mid, sigma)
    return line, error


def _lines(
    sums: Callable[[Float64], Float64],
    u: Float64,
    y: Float64,
    n: NDArray[np.int64],
    at: Float64,
    sigma: float,
) -> tuple[Float64, Float64]:
    mean_u, mean_y = sums(u) / n, sums(y) / n
    spread = np.maximum(sums(u * u) / n - mean_u**2, 1e-12)
    slope = (sums(u * y) / n - mean_u * mean_y) / spread
    distance = at - mean_u
    error = sigma * np.sqrt((1.0 + distance**2 / spread) / n)
    return mean_y + slope * distance, error
