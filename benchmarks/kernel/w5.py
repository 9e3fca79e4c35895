"""W5: residual, rolling z, CUSUM, Page-Hinkley, spikes, onset and drift of each run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from case import OURS, Case, peers
from curves import Array, training_curves

from planner.kernel import Ragged, Status
from planner.kernel.residuals import Rules, Scores, score

RULES = Rules()
STEPS = ("spikes", "first_spike", "cusum_up", "cusum_down", "page_hinkley", "deviates")
K, H, DELTA, LAMBDA = 0.5, 8.0, 0.05, 20.0


def calibrate(r: Array, good: Any) -> tuple[int, Array]:
    start = min(r.size, max(50, r.size // 10))
    first = r[:start][good[:start]]
    return start, (r - first.mean()) / first.std(ddof=1)


def clamped_walk(u: Array) -> tuple[Array, Array]:
    """max(0, s + u) of all points at once: the walk less its lowest value so far."""
    walk = np.cumsum(u)
    low = np.minimum.accumulate(np.minimum(walk, 0.0))
    return walk - low, walk == low


def first(mask: Any) -> int:
    return int(np.argmax(mask)) if mask.any() else -1


def after_window(x: Array, y: Array, z_of: Callable[[Array], Array]) -> list[int]:
    """Everything vectorized over one run; z_of makes the rolling z."""
    r = x - y
    good = np.isfinite(r)
    start, u = calibrate(r, good)
    u = np.clip(u, -1000, 1000)
    spike = np.abs(z_of(u)) > 4.5
    live = good.copy()
    live[:start] = False
    at = np.flatnonzero(live)
    v = u[at]
    up, up_zero = clamped_walk(v - K)
    down, down_zero = clamped_walk(-v - K)
    kept = np.where(good, u, 0.0)
    mean = np.cumsum(kept)[at] / np.cumsum(good)[at]
    walk = np.cumsum(v - mean - DELTA)
    ph = walk - np.minimum.accumulate(np.minimum(walk, 0.0)) > LAMBDA
    alarms = [first(up > H), first(down > H)]
    onset = -1
    set_off = [a for a in alarms if a >= 0]
    if set_off:
        a = min(set_off)
        zeros = np.flatnonzero((up_zero if a == alarms[0] else down_zero)[:a])
        onset = int(at[zeros[-1] + 1 if zeros.size else 0])  # the next usable point
    i = (at - start).astype(float)
    if i.size > 1:
        np.dot(i - i.mean(), v)  # the slope
        np.dot(i - i.mean(), i)
    return [
        int(spike.sum()),
        first(spike),
        *(int(at[a]) if a >= 0 else -1 for a in alarms),
        int(at[first(ph)]) if ph.any() else -1,
        onset,
    ]


def numpy_z(u: Array) -> Array:
    good = np.isfinite(u)
    v = np.where(good, u, 0.0)
    sums = np.concatenate([[0.0], np.cumsum(v)])
    squares = np.concatenate([[0.0], np.cumsum(v * v)])
    counts = np.concatenate([[0], np.cumsum(good)])
    b = np.arange(u.size)
    a = np.maximum(b - 64, 0)
    n = counts[b] - counts[a]
    s = sums[b] - sums[a]
    with np.errstate(invalid="ignore", divide="ignore"):
        var = np.maximum((squares[b] - squares[a] - s * s / n) / (n - 1), 1e-6)
        return np.where((n >= 20) & good, (u - s / n) / np.sqrt(var), 0.0)


def numba_peer(runs: Ragged, reference: Ragged) -> Callable[[], Array] | None:
    numba = peers.get("numba")
    if numba is None:
        return None

    @numba.njit(cache=False)
    def fused(values, other, offsets, out, numbers):  # type: ignore[no-untyped-def]
        window = np.empty(64)
        for c in range(offsets.size - 1):
            a = offsets[c]
            n = offsets[c + 1] - a
            start = min(n, max(50, n // 10))
            k = 0
            level = 0.0
            for i in range(start):
                r = values[a + i] - other[a + i]
                if np.isfinite(r):
                    level += r
                    k += 1
            level /= k
            ss = 0.0
            for i in range(start):
                r = values[a + i] - other[a + i]
                if np.isfinite(r):
                    ss += (r - level) ** 2
            inverse = 1.0 / np.sqrt(ss / (k - 1))
            window[:] = np.nan
            count = 0
            total = squares = up = down = walk = low = seen_sum = 0.0
            seen = 0
            up_from = down_from = start - 1
            si = sii = su = siu = after = 0.0
            lowest, highest = np.inf, -np.inf
            spikes = 0
            first_spike = up_at = down_at = ph_at = onset = -1
            for t in range(n):
                r = values[a + t] - other[a + t]
                ok = np.isfinite(r)
                u = 0.0
                if ok:
                    u = min(max((r - level) * inverse, -1000.0), 1000.0)
                    if count >= 20:
                        num = count * u - total
                        var = max(count * squares - total * total, 1e-6 * count * (count - 1))
                        if num * num * (count - 1) > 20.25 * count * var:
                            spikes += 1
                            if first_spike < 0:
                                first_spike = t
                old = window[t & 63]
                if not np.isnan(old):
                    count -= 1
                    total -= old
                    squares -= old * old
                window[t & 63] = u if ok else np.nan
                if ok:
                    count += 1
                    total += u
                    squares += u * u
                    seen += 1
                    seen_sum += u
                    if t >= start:
                        up = max(up + u - 0.5, 0.0)
                        down = max(down - u - 0.5, 0.0)
                        walk += u - seen_sum / seen - 0.05
                        low = min(low, walk)
                        i = float(t - start)
                        si += i
                        sii += i * i
                        su += u
                        siu += i * u
                        after += 1
                        lowest = min(lowest, r)
                        highest = max(highest, r)
                if up == 0.0:
                    up_from = t
                if down == 0.0:
                    down_from = t
                if up > 8.0 and up_at < 0:
                    up_at = t
                    if onset < 0:
                        onset = up_from + 1
                if down > 8.0 and down_at < 0:
                    down_at = t
                    if onset < 0:
                        onset = down_from + 1
                if walk - low > 20.0 and ph_at < 0:
                    ph_at = t
            out[c, 0] = spikes
            out[c, 1] = first_spike
            out[c, 2] = up_at
            out[c, 3] = down_at
            out[c, 4] = ph_at
            out[c, 5] = onset
            numbers[c, 0] = (after * siu - si * su) / (after * sii - si * si) / inverse
            numbers[c, 1] = lowest
            numbers[c, 2] = highest

    def call() -> Array:
        out = np.empty((len(runs), 6), np.int64)
        fused(runs.values, reference.values, runs.offsets, out, np.empty((len(runs), 3)))
        return out

    return call


def steps_of(scores: Scores) -> Array:
    return np.stack([getattr(scores, name) for name in STEPS], axis=1)


def cases(quick: bool) -> list[Case]:
    runs = training_curves(400 if quick else 4000, seed=5)
    rng = np.random.default_rng(6)
    smooth = []
    for k, x in enumerate(runs):  # a reference with the shape of the run: its trend
        t = np.arange(1, x.size + 1) / x.size
        good = np.isfinite(x)
        basis = np.stack([np.ones_like(t), np.log(t + 0.02), t, t * t], axis=1)
        coefficients = np.linalg.lstsq(basis[good], x[good], rcond=None)[0]
        y = basis @ coefficients
        if k % 3 == 0:
            y -= np.where(t > rng.uniform(0.3, 0.9), 0.01, 0.0)
        smooth.append(y)
    reference = Ragged.from_list(smooth)
    several = 40 if quick else 200
    few = list(runs)[:several], smooth[:several]
    points = float(runs.values.size)
    part = float(sum(x.size for x in few[0]))

    task = "W5 residual scoring"
    checks = "runs with another step or count than ours"
    scores = score(runs, reference)
    ours = steps_of(scores)
    done = scores.status == Status.OK  # the peers do not ask for 20 points to calibrate on

    def other(result: Any) -> float:
        got = np.asarray(result)
        differ = (got != ours[: len(got)]).any(axis=1)
        return float(np.count_nonzero(differ & done[: len(got)]))

    def rows(z_of: Callable[[Array], Array]) -> Callable[[], Array]:
        return lambda: np.array(
            [after_window(x, y, z_of) for x, y in zip(*few, strict=True)], dtype=np.int64
        )

    def case(
        peer: str,
        run: Callable[[], Any],
        units: float,
        target: float | None = None,
        limit: float | None = None,
    ) -> Case:
        return Case(task, peer, run, units, other, "points", checks, target, limit)

    made = [case(OURS, lambda: steps_of(score(runs, reference, threads=1)), points)]
    made.append(
        case(
            f"{OURS}, with the z array",
            lambda: steps_of(score(runs, reference, z=True, threads=1)),
            points,
        )
    )
    compiled = numba_peer(runs, reference)
    if compiled is not None:
        made.append(case("numba, fused", compiled, points, 4, 0))
    made.append(case("numpy, vectorized over a run", rows(numpy_z), part, 40, 0))

    pandas, polars = peers.get("pandas"), peers.get("polars")
    if pandas is not None:

        def with_pandas() -> Array:
            found = []
            for x, y in zip(*few, strict=True):

                def z_of(u: Array) -> Array:
                    s = pandas.Series(u)
                    before = s.shift(1).rolling(64, min_periods=20)
                    z = (s - before.mean()) / before.std().clip(lower=1e-3)
                    return z.fillna(0.0).to_numpy()

                s = pandas.Series(x) - pandas.Series(y)
                found.append(after_window(s.to_numpy(), np.zeros(len(s)), z_of))
            return np.array(found)

        made.append(case("pandas rolling, rest numpy", with_pandas, part))

        def only_pandas() -> Array:
            """As it is written with pandas: rolling, cumulative and expanding methods."""
            found = []
            for x, y in zip(*few, strict=True):
                r = pandas.Series(x - y)
                start = min(len(r), max(50, len(r) // 10))
                u = ((r - r[:start].mean()) / r[:start].std()).clip(-1000, 1000)
                before = u.shift(1).rolling(64, min_periods=20)
                z = (u - before.mean()) / before.std().clip(lower=1e-3)
                spike = z.abs() > 4.5
                v = u[start:].dropna()
                steps = []
                zeros = []
                for w in (v - K, -v - K):
                    walk = w.cumsum()
                    low = walk.cummin().clip(upper=0.0)
                    over = walk - low > H
                    steps.append(over.idxmax() if over.any() else -1)
                    zeros.append(walk == low)
                walk = (v - u.expanding().mean()[v.index] - DELTA).cumsum()
                ph = walk - walk.cummin().clip(upper=0.0) > LAMBDA
                onset = -1
                set_off = [a for a in steps if a >= 0]
                if set_off:
                    a = min(set_off)
                    zero = zeros[0] if a == steps[0] else zeros[1]
                    zero = zero.loc[: a - 1]
                    zero = zero[zero]
                    after = v.index if zero.empty else v.index[v.index > zero.index[-1]]
                    onset = after[0]
                pandas.Series(v.index, index=v.index).cov(v)  # the slope
                found.append(
                    [
                        spike.sum(),
                        spike.idxmax() if spike.any() else -1,
                        *steps,
                        ph.idxmax() if ph.any() else -1,
                        onset,
                    ]
                )
            return np.array(found, dtype=np.int64)

        made.append(case("pandas", only_pandas, part))
    if polars is not None:

        def with_polars(u: Array) -> Array:
            s = polars.Series(u, nan_to_null=True)
            before = s.shift(1)
            mean = before.rolling_mean(64, min_samples=20)
            std = before.rolling_std(64, min_samples=20)
            z = (s - mean) / std.clip(1e-3)
            return z.fill_null(0.0).to_numpy()

        made.append(case("polars rolling, rest numpy", rows(with_polars), part))
    return made
