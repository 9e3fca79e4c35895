"""Smoothing, resampling and normalizing against NumPy, window by window."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from planner.kernel import Ragged, Status
from planner.kernel.smoothing import Smoother, resample, smooth

Array = NDArray[np.float64]

numbers = st.floats(min_value=-1e12, max_value=1e12) | st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e300, -0.0, 5e-324, 1e-310, 9e299]
)
some_curves = st.lists(
    st.lists(numbers, max_size=60)
    | st.builds(lambda x, n: [x] * n, st.floats(-1e6, 1e6), st.integers(0, 60)),
    max_size=9,
)


def usable(x: Array) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.abs(x) < 1e300


def average(x: Array, window: int, centred: bool) -> Array:
    left, right = (window // 2, (window - 1) // 2) if centred else (window - 1, 0)
    y = np.full(x.size, np.nan)
    for i in range(x.size):
        part = x[max(i - left, 0) : i + right + 1]
        part = part[usable(part)]
        if part.size:
            y[i] = math.fsum(part) / part.size
    return y


def exponential(x: Array, weight: float) -> Array:
    y = np.full(x.size, np.nan)
    e = np.nan
    for i, value in enumerate(x):
        if usable(value):
            e = value if np.isnan(e) else (1 - weight) * e + weight * value
        y[i] = e
    return y


def on_grid(s: Array, grid: Array, total: float) -> Array:
    if s.size == 0:
        return np.full(grid.size, np.nan)
    at = np.maximum(grid * total - 1, 0.0)
    gone = at > s.size - 1 + 1e-9 * total
    at = np.minimum(at, s.size - 1)
    i = np.floor(at).astype(int)
    f = at - i
    after = s[np.minimum(i + 1, s.size - 1)]
    y = np.where(f == 0, s[i], s[i] + (after - s[i]) * f)
    return np.where(gone, np.nan, y)


def scale_of(x: Array) -> float:
    return float(np.max(np.abs(x[usable(x)]), initial=1e-300))


def assert_close(got: Array, want: Array, scale: float, tolerance: float = 1e-12) -> None:
    assert np.array_equal(np.isnan(got), np.isnan(want))
    good = ~np.isnan(want)
    if good.any():
        assert np.max(np.abs(got[good] - want[good])) <= tolerance * scale


@pytest.mark.parametrize("centred", [False, True])
@given(curves=some_curves, window=st.integers(1, 80))
def test_moving_average(centred: bool, curves: list[list[float]], window: int) -> None:
    ragged = Ragged.from_list(curves)
    result = smooth(ragged, Smoother.by_steps(window, centred=centred))
    for got, curve, n, status in zip(
        result.curves, ragged, result.n_finite, result.status, strict=True
    ):
        assert n == np.count_nonzero(usable(curve))
        empty = Status.NON_FINITE if curve.size else Status.EMPTY
        assert status == (Status.OK if n else empty)
        assert_close(got, average(curve, window, centred), scale_of(curve))


@given(curves=some_curves, weight=st.floats(0.001, 1.0))
def test_exponential_average(curves: list[list[float]], weight: float) -> None:
    ragged = Ragged.from_list(curves)
    for got, curve in zip(smooth(ragged, Smoother.exponential(weight)).curves, ragged, strict=True):
        assert_close(got, exponential(curve, weight), scale_of(curve))


@given(
    curves=some_curves,
    window=st.integers(1, 80),
    points=st.integers(0, 37),
    more=st.sampled_from([1.0, 1.5, 4.0]),
)
@settings(deadline=None)
def test_resample(curves: list[list[float]], window: int, points: int, more: float) -> None:
    ragged = Ragged.from_list(curves)
    grid = np.linspace(0, 1, points)
    totals = np.maximum(ragged.lengths * more, 1)
    result = resample(ragged, grid, Smoother.by_steps(window), totals=totals)
    assert result.values.shape == (len(ragged), points)
    for got, curve, total in zip(result.values, ragged, totals, strict=True):
        want = on_grid(average(curve, window, False), grid, total)
        # A step between two points spans twice the scale.
        assert_close(got, want, 3 * scale_of(curve))


def curves_like_logs(seed: int = 0, n: int = 60, longest: int = 5000) -> Ragged:
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(n):
        points = int(np.exp(rng.uniform(np.log(50), np.log(longest))))
        t = np.arange(1, points + 1) / points
        x = 2.5 + 1.5 * (t + 0.01) ** -0.3 + rng.normal(0, 0.02, points)
        for _ in range(rng.integers(0, 4)):
            start = int(rng.integers(0, points))
            x[start : start + int(rng.integers(1, 150))] = np.nan
        curves.append(x)
    return Ragged.from_list(curves)


@pytest.mark.parametrize("longest", [5000, 60_000])
def test_long_curves(longest: int) -> None:
    curves = curves_like_logs(1, 12, longest)
    grid = np.arange(1, 501) / 500
    for window in (2, 17, 100, 5000):
        result = smooth(curves, Smoother.by_steps(window, centred=True))
        sampled = resample(curves, grid, Smoother.by_steps(window, centred=True))
        left, right = window // 2, (window - 1) // 2
        for i, x in enumerate(curves):
            sums = np.concatenate([[0], np.cumsum(np.nan_to_num(x).astype(np.longdouble))])
            counts = np.concatenate([[0], np.cumsum(usable(x))])
            k = np.arange(x.size)
            a, b = np.maximum(k - left, 0), np.minimum(k + right + 1, x.size)
            with np.errstate(invalid="ignore"):
                want = ((sums[b] - sums[a]) / (counts[b] - counts[a])).astype(np.float64)
            want[counts[b] == counts[a]] = np.nan
            assert_close(result.curves[i], want, scale_of(x))
            assert_close(sampled.values[i], on_grid(want, grid, x.size), scale_of(x))


def test_long_runs_keep_their_digits() -> None:
    rng = np.random.default_rng(3)
    x = np.where(np.arange(1_000_000) < 500_000, 1.0, -1.0) * rng.uniform(0.5, 1.0, 1_000_000)
    got = smooth(Ragged.from_list([x]), Smoother.by_steps(2)).curves[0]
    want = np.concatenate([x[:1], (x[1:] + x[:-1]) / 2])
    assert np.max(np.abs(got - want)) < 1e-12


def test_constants_stay_constant() -> None:
    curves = Ragged.from_list([[0.1] * 9000, [0.1, np.nan] * 400, [1e299] * 30])
    for smoother in (Smoother.by_steps(7), Smoother.exponential(0.3), Smoother.none()):
        for got, x in zip(smooth(curves, smoother).curves, (0.1, 0.1, 1e299), strict=True):
            assert np.all((got == x) | np.isnan(got))


def test_normalization() -> None:
    curves = curves_like_logs(2)
    grid = np.linspace(0, 1, 101)
    smoother = Smoother.by_fraction(0.02)
    plain = resample(curves, grid, smoother)
    assert np.all(plain.divisor == 1.0)
    full = resample(curves, grid, smoother, normalize=True, offset=1.5)
    good = full.status == Status.OK
    last = np.array([c[-1] for c in smooth(curves, smoother).curves])
    assert np.array_equal(full.divisor[good], last[good])
    assert np.array_equal(good, ~np.isnan(last))
    want = (plain.values - 1.5) / (full.divisor - 1.5)[:, None]
    np.testing.assert_allclose(full.values[good], want[good], rtol=1e-15, atol=1e-15)
    given = resample(curves, grid, smoother, divisors=2.0)
    np.testing.assert_array_equal(given.values, plain.values / 2.0)
    none = resample(curves, grid, smoother, divisors=1.5, offset=1.5)
    assert np.all(none.status == Status.NON_FINITE)
    assert np.all(np.isnan(none.values))
    assert np.all(np.isnan(none.divisor))


def test_positions() -> None:
    rng = np.random.default_rng(4)
    lengths = [300, 1, 0, 7, 5000]
    curves = Ragged.from_list([rng.normal(3, 0.1, n) for n in lengths])
    positions = Ragged.from_list([np.sort(rng.uniform(0.1, 0.9, n)) for n in lengths])
    grid = np.linspace(0, 1, 201)
    result = resample(curves, grid, Smoother.by_steps(5), positions=positions)
    smoothed = smooth(curves, Smoother.by_steps(5)).curves
    for got, s, at in zip(result.values, smoothed, positions, strict=True):
        if at.size == 0:
            assert np.all(np.isnan(got))
            continue
        assert_close(got, np.interp(grid, at, s, right=np.nan), 4.0)
    even = Ragged.from_list([np.arange(1, n + 1) / max(n, 1) for n in lengths])
    np.testing.assert_allclose(
        resample(curves, grid, Smoother.by_steps(5), positions=even).values,
        resample(curves, grid, Smoother.by_steps(5)).values,
        rtol=1e-10,
    )


def test_windows() -> None:
    curves = Ragged.from_list([np.arange(1000.0), np.arange(100.0)])
    same = smooth(curves, Smoother.by_steps([97.0, 24.0])).curves.values
    by_sequences = Smoother.by_sequences(12_288, [126.6, 512.0])
    assert np.array_equal(smooth(curves, by_sequences).curves.values, same)
    part = smooth(curves, Smoother.by_steps(100, steps_per_point=10)).curves.values
    assert np.array_equal(part, smooth(curves, Smoother.by_steps(10)).curves.values)
    fraction = smooth(curves, Smoother.by_fraction(0.05)).curves.values
    assert np.array_equal(fraction, smooth(curves, Smoother.by_steps([50.0, 5.0])).curves.values)
    huge = smooth(curves, Smoother.by_steps(1e18, centred=True)).curves
    assert np.allclose(huge[1], 49.5)
    assert smooth(curves, Smoother.none()).curves.values.tolist() == curves.values.tolist()


def test_parts_of_an_array() -> None:
    curves = Ragged(np.arange(20.0), np.array([3, 8, 8, 15]))
    values = smooth(curves, Smoother.by_steps(2)).curves.values
    assert np.isnan(values[:3]).all()
    assert np.isnan(values[15:]).all()
    assert values[3:8].tolist() == [3.0, 3.5, 4.5, 5.5, 6.5]
    assert resample(Ragged(np.empty(0), np.array([0])), [0.5], Smoother.none()).values.shape == (
        0,
        1,
    )


@pytest.mark.parametrize("smoother", [Smoother.by_steps(100), Smoother.exponential(0.02)])
def test_same_bits_for_any_number_of_threads(smoother: Smoother) -> None:
    curves = curves_like_logs(5, 300)
    grid = np.linspace(0, 1, 500)
    first = smooth(curves, smoother, threads=1).curves.values
    sampled = resample(curves, grid, smoother, normalize=True, threads=1)
    for threads in (2, 7):
        other = smooth(curves, smoother, threads=threads).curves.values
        assert other.tobytes() == first.tobytes()
        again = resample(curves, grid, smoother, normalize=True, threads=threads)
        assert again.values.tobytes() == sampled.values.tobytes()
        assert again.divisor.tobytes() == sampled.divisor.tobytes()


def test_what_is_refused() -> None:
    curves = Ragged.from_list([[1.0, 2.0], [3.0]])
    for call, message in (
        (lambda: Smoother.by_steps(0), "steps must be positive"),
        (lambda: Smoother.by_fraction(1.5), "at most 1, got 1.5"),
        (lambda: Smoother.exponential(2), "weight must be at most 1"),
        (lambda: smooth(curves, Smoother.by_steps([1.0, 2.0, 3.0])), r"per curve \(2\)"),
        (lambda: resample(curves, [1.0, 0.5], Smoother.none()), "not decreasing"),
        (lambda: resample(curves, [1.0], Smoother.none(), totals=1), "totals must be at least"),
        (
            lambda: resample(
                curves, [1.0], Smoother.none(), positions=Ragged.from_list([[0.2, 0.1], [0.3]])
            ),
            "increase in each curve",
        ),
        (lambda: smooth(curves, Smoother.none(), threads=0), "threads must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# Magnitudes at which a sum must neither overflow nor lose everything; gaps; nothing; one point.
scales = st.sampled_from([1e-300, 1e-30, 1.0, 1e30, 1e290])


@st.composite
def rough_curves(draw: st.DrawFn) -> list[Array]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    curves = []
    for _ in range(draw(st.integers(1, 6))):
        points = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 100, 700, 4095, 4096, 4097, 9000]))
        x = draw(scales) * rng.uniform(0.5, 2.0, points)
        if draw(st.booleans()):
            x[:] = x[:1]
        for _ in range(draw(st.integers(0, 4)) if points else 0):
            start = int(rng.integers(0, points))
            x[start : start + int(rng.integers(1, 300))] = draw(
                st.sampled_from([np.nan, np.inf, -np.inf, 1e300])
            )
        curves.append(x)
    return curves


def plain_average(x: Array, window: int, centred: bool) -> Array:
    """As average(), in long double and all points at once."""
    left, right = (window // 2, (window - 1) // 2) if centred else (window - 1, 0)
    good = usable(x)
    kept = np.where(good, x, 0.0).astype(np.longdouble)
    sums = np.concatenate([np.zeros(1, np.longdouble), np.cumsum(kept)])
    counts = np.concatenate([[0], np.cumsum(good)])
    i = np.arange(x.size)
    a, b = np.maximum(i - left, 0), np.minimum(i + right + 1, x.size)
    with np.errstate(invalid="ignore"):
        y = ((sums[b] - sums[a]) / (counts[b] - counts[a])).astype(np.float64)
    return np.where(counts[b] > counts[a], y, np.nan)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["steps", "sequences", "fraction"])
@given(curves=rough_curves(), data=st.data())
@settings(max_examples=30)
def test_every_window_at_every_scale(
    kind: str, centred: bool, curves: list[Array], data: st.DataObject
) -> None:
    """On the curve's points and on a grid: the ends, the gaps, and blocks of 4096 points."""
    ragged = Ragged.from_list(curves)
    points = ragged.lengths
    if kind == "fraction":
        share = data.draw(st.sampled_from([1e-3, 0.02, 0.5, 1.0]))
        smoother = Smoother.by_fraction(share, centred=centred)
        windows = np.maximum(np.round(share * points), 1)
    elif kind == "sequences":
        batch = data.draw(st.sampled_from([1, 128, 5000]))
        smoother = Smoother.by_sequences(12_288, batch, centred=centred)
        windows = np.full(points.shape, max(round(12_288 / batch), 1))
    else:
        each = data.draw(st.integers(1, 200))
        smoother = Smoother.by_steps(each, centred=centred)
        windows = np.full(points.shape, each)
    grid = np.linspace(0, 1, data.draw(st.sampled_from([1, 3, 8, 33, 500, 5000])))
    result = smooth(ragged, smoother)
    sampled = resample(ragged, grid, smoother)
    for i, (x, window) in enumerate(zip(ragged, windows, strict=True)):
        want = plain_average(x, int(window), centred)
        scale = scale_of(x)
        assert_close(result.curves[i], want, scale)
        assert_close(sampled.values[i], on_grid(want, grid, x.size), scale)
        assert result.n_finite[i] == sampled.n_finite[i] == np.count_nonzero(usable(x))


@given(curves=rough_curves(), weight=st.sampled_from([1e-3, 2 / 101, 0.5, 1.0]))
@settings(max_examples=15)
def test_exponential_average_at_every_scale(curves: list[Array], weight: float) -> None:
    ragged = Ragged.from_list(curves)
    grid = np.linspace(0, 1, 100)
    smoother = Smoother.exponential(weight)
    result = smooth(ragged, smoother)
    sampled = resample(ragged, grid, smoother)
    for i, x in enumerate(ragged):
        want = exponential(x, weight)
        assert_close(result.curves[i], want, scale_of(x))
        assert_close(sampled.values[i], on_grid(want, grid, x.size), scale_of(x))
