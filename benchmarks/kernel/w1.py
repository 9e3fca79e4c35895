"""W1: smooth over 100 points, resample to 500 points of t/T, divide by the last smoothed value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from case import OURS, Case, peers
from curves import Array, training_curves

from planner.kernel import Ragged
from planner.kernel.smoothing import Smoother, resample

WINDOW = 100
WEIGHT = 2 / (WINDOW + 1)
GRID = np.arange(1, 501) / 500


def on_grid(s: Array) -> Array:
    """From a smoothed curve to the normalized one."""
    at = np.arange(1, s.size + 1) / s.size
    good = ~np.isnan(s)
    if not good.all():
        y = np.interp(GRID, at, np.where(good, s, 0.0))
        touched = np.interp(GRID, at, (~good).astype(float)) > 0
        y[touched] = np.nan
    else:
        y = np.interp(GRID, at, s)
    return y / s[-1]


def each(curves: Ragged, smooth: Callable[[Array], Array]) -> Array:
    return np.array([on_grid(smooth(x)) for x in curves])


def numpy_average(x: Array) -> Array:
    good = np.isfinite(x)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, x, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    start = np.maximum(np.arange(x.size) - WINDOW + 1, 0)
    n = counts[1:] - counts[start]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, (sums[1:] - sums[start]) / n, np.nan)


def difference(reference: Array) -> Callable[[Array], float]:
    def check(result: Array) -> float:
        both = ~np.isnan(reference) & ~np.isnan(result)
        return float(np.max(np.abs(result[both] - reference[both])))

    return check


def exact_average(curves: Ragged) -> Array:
    """The moving average with sums in long double, wherever that is more than a double."""
    rows = []
    for x in curves:
        good = np.isfinite(x)
        sums = np.concatenate([[0.0], np.cumsum(np.where(good, x, 0.0).astype(np.longdouble))])
        counts = np.concatenate([[0], np.cumsum(good)])
        start = np.maximum(np.arange(x.size) - WINDOW + 1, 0)
        n = counts[1:] - counts[start]
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append(on_grid(((sums[1:] - sums[start]) / n).astype(np.float64)))
    return np.array(rows)


def exact_exponential(curves: Ragged) -> Array:
    rows = []
    for x in curves:
        e = x[np.isfinite(x)][0]
        s = np.full(x.size, np.nan)
        started = False
        for i, value in enumerate(x):
            if np.isfinite(value):
                e = (1 - WEIGHT) * e + WEIGHT * value
                started = True
            if started:
                s[i] = e
        rows.append(on_grid(s))
    return np.array(rows)


def numba_peers(curves: Ragged) -> dict[str, Callable[[], Array]]:
    """The same look-ups on the grid only, compiled: prefix sums, or the average itself."""
    numba = peers.get("numba")
    if numba is None:
        return {}

    @numba.njit(cache=False)
    def grid_of(s0, s1, f):  # type: ignore[no-untyped-def]
        return s0 if f == 0.0 else s0 + (s1 - s0) * f

    @numba.njit(cache=False)
    def average(values, offsets, window, grid, out):  # type: ignore[no-untyped-def]
        longest = np.max(offsets[1:] - offsets[:-1])
        sums = np.zeros(longest + 1)
        counts = np.zeros(longest + 1, np.int64)
        for c in range(offsets.size - 1):
            first = offsets[c]
            n = offsets[c + 1] - first
            s = 0.0
            k = 0
            for i in range(n):
                x = values[first + i]
                if np.isfinite(x):
                    s += x
                    k += 1
                sums[i + 1] = s
                counts[i + 1] = k
            a = max(n - window, 0)
            last = (sums[n] - sums[a]) / (counts[n] - counts[a])
            for g in range(grid.size):
                at = min(max(grid[g] * n - 1, 0.0), n - 1.0)
                i = int(at)
                j = min(i + 1, n - 1)
                a0 = max(i + 1 - window, 0)
                a1 = max(j + 1 - window, 0)
                k0 = counts[i + 1] - counts[a0]
                k1 = counts[j + 1] - counts[a1]
                s0 = (sums[i + 1] - sums[a0]) / k0 if k0 > 0 else np.nan
                s1 = (sums[j + 1] - sums[a1]) / k1 if k1 > 0 else np.nan
                out[c, g] = grid_of(s0, s1, at - i) / last

    @numba.njit(cache=False)
    def exponential(values, offsets, weight, grid, out):  # type: ignore[no-untyped-def]
        longest = np.max(offsets[1:] - offsets[:-1])
        s = np.zeros(longest)
        for c in range(offsets.size - 1):
            first = offsets[c]
            n = offsets[c + 1] - first
            e = np.nan
            for i in range(n):
                x = values[first + i]
                if np.isfinite(x):
                    e = x if np.isnan(e) else e + weight * (x - e)
                s[i] = e
            for g in range(grid.size):
                at = min(max(grid[g] * n - 1, 0.0), n - 1.0)
                i = int(at)
                out[c, g] = grid_of(s[i], s[min(i + 1, n - 1)], at - i) / s[n - 1]

    def run(function: Callable[..., None], parameter: float) -> Callable[[], Array]:
        def call() -> Array:
            out = np.empty((len(curves), GRID.size))
            function(curves.values, curves.offsets, parameter, GRID, out)
            return out

        return call

    return {"average": run(average, WINDOW), "exponential": run(exponential, WEIGHT)}


def cases(quick: bool) -> list[Case]:
    curves = training_curves(400 if quick else 4000)
    few = Ragged.from_list(list(curves)[: 60 if quick else 300])
    compiled = numba_peers(curves)
    made: list[Case] = []

    def add(
        name: str,
        peer: str,
        run: Callable[[], Array],
        data: Ragged,
        check: Callable[[Array], float],
        target: float | None = None,
    ) -> None:
        limit = 1e-12 if peer == OURS else None
        made.append(
            Case(name, peer, run, float(data.values.size), check, target=target, limit=limit)
        )

    def rows(smooth: Callable[[Array], Array]) -> Callable[[], Array]:
        return lambda: each(few, smooth)

    def ours(smoother: Smoother) -> Callable[[], Array]:
        return lambda: resample(curves, GRID, smoother, normalize=True, threads=1).values

    def firsts(check: Callable[[Array], float]) -> Callable[[Array], float]:
        return lambda result: check(result[: len(few)])

    pandas, polars = peers.get("pandas"), peers.get("polars")
    bottleneck, signal = peers.get("bottleneck"), peers.get("scipy.signal")

    task = "W1 moving average, 500 points of t/T, normalized"
    check = difference(exact_average(few))
    add(task, OURS, ours(Smoother.by_steps(WINDOW)), curves, firsts(check))
    if compiled:
        add(task, "numba, fused", compiled["average"], curves, firsts(check), 3.5)
    add(task, "numpy cumsum + interp", rows(numpy_average), few, check, 15)
    if pandas is not None:
        add(
            task,
            "pandas rolling + interp",
            rows(lambda x: pandas.Series(x).rolling(WINDOW, min_periods=1).mean().to_numpy()),
            few,
            check,
            30,
        )
    if polars is not None:
        add(
            task,
            "polars rolling + interp",
            rows(
                lambda x: (
                    polars.Series(x, nan_to_null=True)
                    .rolling_mean(WINDOW, min_samples=1)
                    .to_numpy()
                )
            ),
            few,
            check,
            25,
        )
    if bottleneck is not None:
        add(
            task,
            "bottleneck + interp",
            rows(lambda x: bottleneck.move_mean(x, WINDOW, min_count=1)),
            few,
            check,
        )

    task = "W1 exponential average, 500 points of t/T, normalized"
    check = difference(exact_exponential(few))
    add(task, OURS, ours(Smoother.exponential(WEIGHT)), curves, firsts(check))
    if compiled:
        add(task, "numba, fused", compiled["exponential"], curves, firsts(check), 3.5)
    if pandas is not None:
        add(
            task,
            "pandas ewm + interp",
            rows(
                lambda x: (
                    pandas.Series(x)
                    .ewm(alpha=WEIGHT, adjust=False, ignore_na=True)
                    .mean()
                    .to_numpy()
                )
            ),
            few,
            check,
            30,
        )
    if polars is not None:
        add(
            task,
            "polars ewm_mean + interp",
            rows(
                lambda x: (
                    polars.Series(x, nan_to_null=True)
                    .ewm_mean(alpha=WEIGHT, adjust=False, ignore_nulls=True)
                    .fill_null(strategy="forward")
                    .to_numpy()
                )
            ),
            few,
            check,
            25,
        )
    if signal is not None:
        b, a = [WEIGHT], [1.0, WEIGHT - 1.0]

        def lfilter(x: Array) -> Array:
            good = np.isfinite(x)
            kept = x[good]
            s, _ = signal.lfilter(b, a, kept, zi=[(1 - WEIGHT) * kept[0]])
            at = np.cumsum(good) - 1
            return np.where(at < 0, np.nan, s[at])

        add(task, "scipy lfilter + interp", rows(lfilter), few, check)
    return made
