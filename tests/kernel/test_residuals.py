"""Residual scoring against a plain loop over the points, in NumPy doubles."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from planner.kernel import Ragged, Status
from planner.kernel.residuals import Rules, Scores, score

Array = NDArray[np.float64]
COUNTS = (
    "n_finite",
    "spikes",
    "first_spike",
    "cusum_up",
    "cusum_down",
    "page_hinkley",
    "deviates",
    "status",
)
NUMBERS = ("level", "noise", "slope", "lowest", "highest")


def tree(x: Array) -> float:
    """The sum as eight lanes add it."""
    lanes = np.zeros(8)
    for i in range(0, x.size, 8):
        part = x[i : i + 8]
        lanes[: part.size] = lanes[: part.size] + part
    a, b, c, d, e, f, g, h = lanes.tolist()
    return float(((a + e) + (c + g)) + ((b + f) + (d + h)))


@dataclass
class Expected:
    level: float = math.nan
    noise: float = math.nan
    slope: float = math.nan
    lowest: float = math.nan
    highest: float = math.nan
    n_finite: int = 0
    spikes: int = 0
    first_spike: int = -1
    cusum_up: int = -1
    cusum_down: int = -1
    page_hinkley: int = -1
    deviates: int = -1
    status: int = Status.OK
    z: list[float] = field(default_factory=list)


def reference_score(x: Array, y: Array, rules: Rules) -> Expected:
    out = Expected()
    with np.errstate(all="ignore"):
        r = x - y
        good = np.abs(r) < 1e300
        out.z = [math.nan] * r.size
        out.n_finite = int(good.sum())
        if r.size == 0:
            out.status = Status.EMPTY
            return out
        if not out.n_finite:
            out.status = Status.NON_FINITE
            return out
        start = min(r.size, max(50, r.size // 10))
        first = good[:start]
        n = int(first.sum())
        if n < 20:
            out.status = Status.TOO_FEW_POINTS
            return out
        level = tree(np.where(first, r[:start], 0.0)) / n
        d = np.where(first, r[:start] - level, 0.0)
        noise = math.sqrt(tree(d * d) / (n - 1))
        if not noise < 1e300:
            out.status = Status.NON_FINITE
            return out
        noise = max(noise, rules.least_noise)
        out.level, out.noise = level, noise
        scaled = (r - level) * (1.0 / noise if 1.0 / noise < 1e300 else 0.0)
        us = np.clip(scaled, -rules.clip, rules.clip)

    count = total = squares = 0.0
    window: list[float | None] = [None] * 64
    up = down = walk = lowest_walk = seen_sum = 0.0
    seen = 0
    up_from = down_from = start - 1
    si = sii = su = siu = after = 0.0
    lows: list[float] = []
    for t in range(r.size):
        ok = bool(good[t])
        u = float(us[t]) if ok else 0.0
        if ok and count >= 20:
            num = count * float(scaled[t]) - total
            var = max(count * squares - total * total, 1e-6 * (count * (count - 1)))
            out.z[t] = num * math.sqrt((count - 1) / (count * var))
            if num * num * (count - 1) > rules.window_z**2 * count * var:
                out.spikes += 1
                if out.first_spike < 0:
                    out.first_spike = t
        old = window[t % 64]
        window[t % 64] = u if ok else None
        count += ok - (old is not None)
        total = (total + u) - (old or 0.0)
        squares = (squares + u * u) - (old or 0.0) * (old or 0.0)
        live = ok and t >= start
        if live:
            up = max(up + (u - rules.cusum_slack), 0.0)
            down = max(down - (u + rules.cusum_slack), 0.0)
        up_from = up_from if up > 0 else t
        down_from = down_from if down > 0 else t
        seen_sum += u
        seen += ok
        if live:
            walk += u - seen_sum / seen - rules.ph_slack
            i = float(t - start)
            si += i
            sii += i * i
            su += u
            siu += i * u
            after += 1
            lows.append(float(r[t]))
        lowest_walk = min(lowest_walk, walk)
        rises = up > rules.cusum_limit and out.cusum_up < 0
        falls = down > rules.cusum_limit and out.cusum_down < 0
        if rises:
            out.cusum_up = t
        if falls:
            out.cusum_down = t
        if (rises or falls) and out.deviates < 0:
            out.deviates = (up_from if rises else down_from) + 1
        if walk - lowest_walk > rules.ph_limit and out.page_hinkley < 0:
            out.page_hinkley = t
    if after >= 2:
        out.slope = (after * siu - si * su) / (after * sii - si * si) * noise
    if lows:
        out.lowest, out.highest = min(lows), max(lows)
    return out


def assert_same(scores: Scores, runs: Ragged, references: Ragged, rules: Rules) -> None:
    assert scores.z is not None
    assert scores.residual is not None
    for i, (x, y) in enumerate(zip(runs, references, strict=True)):
        want = reference_score(x, y, rules)
        for name in COUNTS:
            assert getattr(scores, name)[i] == getattr(want, name), (i, name)
        for name in NUMBERS:
            got, expected = getattr(scores, name)[i], getattr(want, name)
            assert got == expected or (np.isnan(got) and np.isnan(expected)), (i, name)
        part = slice(runs.offsets[i], runs.offsets[i + 1])
        np.testing.assert_array_equal(scores.z[part], want.z)
        with np.errstate(all="ignore"):
            r = x - y
            np.testing.assert_array_equal(
                scores.residual[part], np.where(np.abs(r) < 1e300, r, np.nan)
            )


def made_runs(seed: int, n: int, longest: int = 3000) -> tuple[Ragged, Ragged]:
    """Runs that are healthy, spike, shift, or drift, with gaps."""
    rng = np.random.default_rng(seed)
    runs, references = [], []
    for k in range(n):
        points = int(np.exp(rng.uniform(0, np.log(longest)))) if k % 20 else k % 3
        t = np.arange(points) / max(points, 1)
        reference = 1 + 0.3 * (1 - t) ** 2
        run = reference + rng.normal(0, 0.01, points)
        if k % 4 == 1 and points:
            run[rng.integers(0, points, 5)] += 0.3
        if k % 4 == 2:
            run += np.where(t > 0.6, rng.choice([-1, 1]) * 0.02, 0.0)
        if k % 4 == 3:
            run += 0.03 * t
        for _ in range(rng.integers(0, 3)):
            start = int(rng.integers(0, points + 1))
            run[start : start + int(rng.integers(1, 90))] = np.nan
        if k % 7 == 0 and points:
            reference[rng.integers(0, points, 3)] = np.inf
        runs.append(run)
        references.append(reference)
    return Ragged.from_list(runs), Ragged.from_list(references)


def test_against_a_plain_loop() -> None:
    runs, references = made_runs(0, 150)
    for rules in (Rules(), Rules(3.0, 0.25, 5.0, 0.01, 8.0, 4.0)):
        scores = score(runs, references, rules, residual=True, z=True)
        assert_same(scores, runs, references, rules)
        assert np.count_nonzero(scores.spikes) > 10
        for name in ("cusum_up", "cusum_down", "page_hinkley", "deviates"):
            assert np.count_nonzero(getattr(scores, name) >= 0) > 10


numbers = st.floats(-1e12, 1e12) | st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e300, -0.0, 5e-324, 9e299, -9e299, 1.0, 1.0, 1.0]
)


@given(
    st.lists(
        st.lists(numbers, min_size=0, max_size=140)
        | st.builds(lambda x, n: [x] * n, st.floats(-1e6, 1e6), st.integers(0, 300)),
        max_size=10,
    ),
    st.sampled_from([0.0, 1.0, 1e-300]),
)
@settings(deadline=None, max_examples=60)
def test_any_numbers(curves: list[list[float]], level: float) -> None:
    runs = Ragged.from_list(curves)
    references = runs.with_values(np.full(runs.values.size, level))
    assert_same(score(runs, references, residual=True, z=True), runs, references, Rules())


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 19, 20, 49, 50, 51, 65, 400, 900]),
            st.sampled_from([1e-300, 1e-12, 1.0, 1e30, 1e150, 9e299]),
            st.sampled_from(["noise", "constant", "shift"]),
            st.integers(0, 3),
        ),
        max_size=10,
    ),
    st.integers(0, 2**32),
)
@settings(max_examples=40)
def test_runs_with_gaps_at_every_scale(
    shapes: list[tuple[int, float, str, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    curves = []
    for points, scale, kind, gaps in shapes:
        x = rng.uniform(-0.1, 0.1, points)
        if kind == "constant":
            x[:] = 0.1
        if kind == "shift":
            x[points * 2 // 3 :] += 0.5
        x *= scale
        for _ in range(gaps if points else 0):
            start = int(rng.integers(0, points))
            x[start : start + int(rng.integers(1, 90))] = rng.choice([np.nan, np.inf, 1e300])
        curves.append(x)
    runs = Ragged.from_list(curves)
    references = runs.with_values(rng.choice([0.0, 1e-300, 1e-12], runs.values.size))
    assert_same(score(runs, references, residual=True, z=True), runs, references, Rules())


def test_the_rolling_z_is_that_of_the_window() -> None:
    runs, references = made_runs(1, 12)
    scores = score(runs, references, z=True)
    assert scores.z is not None
    for i in range(len(runs)):
        r = runs[i] - references[i]
        z = scores.z[runs.offsets[i] : runs.offsets[i + 1]]
        for t in np.flatnonzero(np.isfinite(z)):
            before = r[max(t - 64, 0) : t]
            before = before[np.isfinite(before)]
            assert before.size >= 20
            assert z[t] == pytest.approx((r[t] - before.mean()) / before.std(ddof=1), rel=1e-6)


def test_a_shift_is_dated() -> None:
    rng = np.random.default_rng(2)
    run = rng.normal(0, 0.01, 4000)
    run[2500:] += 0.02
    spiky = rng.normal(0, 0.01, 4000)
    spiky[1234] += 1
    runs = Ragged.from_list([run, spiky])
    zero = runs.with_values(np.zeros(8000))
    scores = score(runs, zero, Rules(clip=4.0))
    assert scores.noise[0] == pytest.approx(0.01, rel=0.2)
    assert abs(scores.deviates[0] - 2500) <= 5
    assert 2500 <= scores.cusum_up[0] < 2520
    assert scores.cusum_down[0] == -1
    assert scores.first_spike[1] == 1234
    assert scores.highest[1] == spiky.max()
    ramp = Ragged.from_list([rng.normal(0, 0.01, 4000) + 1e-5 * np.arange(4000)])
    slope = score(ramp, ramp.with_values(np.zeros(4000))).slope[0]
    assert slope == pytest.approx(1e-5, rel=0.05)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_deviation_begins_at_a_usable_point(sign: float) -> None:
    """Missing steps between the CUSUM's last zero and its rise are not part of the rise."""
    run = np.tile([0.1, -0.1], 100)
    run[110:120] = 0.0
    run[120:150] = np.nan
    run[150:] += sign * 0.2
    late = np.tile([0.1, -0.1], 100)
    late[40:160] = np.nan  # nothing usable between the calibration and the rise
    late[160:] += sign * 0.2
    runs = Ragged.from_list([run, late])
    scores = score(runs, runs.with_values(np.zeros(400)))
    first = (run[150:] * sign > 0.05).argmax()
    assert scores.deviates.tolist() == [150 + first, 160 + first]


def test_a_run_that_is_its_reference() -> None:
    runs = Ragged.from_list([np.linspace(3, 2, 500)])
    scores = score(runs, runs)
    assert scores.status[0] == Status.OK
    assert scores.spikes[0] == 0
    assert [scores.cusum_up[0], scores.cusum_down[0], scores.page_hinkley[0]] == [-1, -1, -1]


def test_same_bits_for_any_number_of_threads_and_any_neighbours() -> None:
    runs, references = made_runs(3, 300)
    first = score(runs, references, residual=True, z=True, threads=1)
    for threads in (2, 7):
        other = score(runs, references, residual=True, z=True, threads=threads)
        for name in (*COUNTS, *NUMBERS, "residual", "z"):
            assert getattr(other, name).tobytes() == getattr(first, name).tobytes()
    for i in (1, 77, 299):
        alone = score(Ragged.from_list([runs[i]]), Ragged.from_list([references[i]]))
        for name in (*COUNTS, *NUMBERS):
            assert getattr(alone, name).tobytes() == getattr(first, name)[i : i + 1].tobytes()


def test_what_is_refused() -> None:
    runs = Ragged.from_list([[1.0, 2.0]])
    with pytest.raises(ValueError, match="offsets of the runs"):
        score(runs, Ragged.from_list([[1.0], [2.0]]))
    with pytest.raises(ValueError, match="cusum_limit must be finite"):
        Rules(cusum_limit=math.nan)
    with pytest.raises(ValueError, match="threads must be"):
        score(runs, runs, threads=0)
