"""The ragged mean against exact sums (math.fsum) and NumPy."""

from __future__ import annotations

import itertools
import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from planner import _core

EPS = np.finfo(np.float64).eps


def ragged(curves: list[list[float]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    offsets = np.cumsum([0, *map(len, curves)], dtype=np.int64)
    return np.array([x for curve in curves for x in curve], dtype=np.float64), offsets


numbers = st.floats(min_value=-1e12, max_value=1e12) | st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e300, -0.0, 5e-324, 1e-310]
)


@given(st.lists(st.lists(numbers, max_size=40), max_size=12))
def test_against_exact_sums(curves: list[list[float]]) -> None:
    mean, n_finite, status = _core.ragged_mean(*ragged(curves))
    for i, curve in enumerate(curves):
        usable = [x for x in curve if abs(x) < 1e300]
        assert n_finite[i] == len(usable)
        if not usable:
            assert math.isnan(mean[i])
            assert status[i] == (_core.STATUS_NON_FINITE if curve else _core.STATUS_EMPTY)
            continue
        assert status[i] == _core.STATUS_OK
        exact = math.fsum(usable) / len(usable)
        # Compensated summation: the error is that of one rounding plus a second-order term.
        second = (len(usable) * EPS) ** 2 * math.fsum(map(abs, usable)) / len(usable)
        assert abs(mean[i] - exact) <= 2 * EPS * abs(exact) + second


def test_sums_that_cancel() -> None:
    curve = [1e16, 1.0, -1e16, 1.0] * 1000
    mean, _, _ = _core.ragged_mean(*ragged([curve]))
    assert mean[0] == 0.5
    assert np.sum(curve) / len(curve) != 0.5  # what plain summation makes of it


def test_against_numpy() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(3.0, 0.5, 100_003)
    values[rng.random(values.size) < 0.05] = np.nan
    offsets = np.sort(rng.integers(0, values.size, 500))
    mean, n_finite, _ = _core.ragged_mean(values, offsets)
    curves = [values[a:b] for a, b in itertools.pairwise(offsets)]
    kept = [curve[np.isfinite(curve)] for curve in curves]
    assert n_finite.tolist() == [len(curve) for curve in kept]
    expected = [curve.mean() if curve.size else np.nan for curve in kept]
    np.testing.assert_allclose(mean, expected, rtol=1e-14)


def test_slices_are_read_in_place() -> None:
    values = np.arange(20.0)
    mean, n_finite, _ = _core.ragged_mean(values[3:], np.array([2, 5, 5, 17]))
    assert mean[[0, 2]].tolist() == [6.0, 13.5]
    assert n_finite.tolist() == [3, 0, 12]
    read_only = values.copy()
    read_only.flags.writeable = False
    assert _core.ragged_mean(read_only, np.array([0, 20]))[0][0] == 9.5
    assert [len(out) for out in _core.ragged_mean(values, np.array([4]))] == [0, 0, 0]


GOOD = np.zeros(8), np.array([0, 4, 8])
BYTES = np.zeros(8 * 8 + 1, dtype=np.uint8)


@pytest.mark.parametrize(
    ("values", "offsets", "error", "message"),
    [
        (GOOD[0].astype(np.float32), GOOD[1], TypeError, "values must be .* got float32"),
        (GOOD[0].astype(">f8"), GOOD[1], TypeError, "values must be .* got >f8"),
        (GOOD[0], GOOD[1].astype(np.int32), TypeError, "offsets must be .* got int32"),
        ([0.0], GOOD[1], TypeError, "incompatible function arguments"),
        (np.zeros(16)[::2], GOOD[1], ValueError, "values must be .* got a strided view"),
        (BYTES[1:].view(np.float64), GOOD[1], ValueError, "got unaligned memory"),
        (np.zeros((4, 2)), GOOD[1], ValueError, "values must be .* got 2 dimensions"),
        (GOOD[0], GOOD[1][:0], ValueError, "offsets must hold at least one number"),
        (GOOD[0], np.array([-1, 4]), ValueError, r"offsets\[0\] must not be negative, got -1"),
        (GOOD[0], np.array([0, 5, 4]), ValueError, "must not decrease, got 5 then 4 at index 2"),
        (GOOD[0], np.array([0, 9]), ValueError, "offsets end at 9, past the 8 values"),
    ],
)
def test_what_is_refused(
    values: NDArray[np.float64], offsets: NDArray[np.int64], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        _core.ragged_mean(values, offsets)


def test_the_gil_is_released() -> None:
    values, offsets = np.ones(4_000_000), np.array([0, 4_000_000])
    go, ran = threading.Event(), threading.Event()

    def other() -> None:
        go.wait()
        ran.set()

    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # from here on a thread runs only when another lets go by itself
    try:
        go.set()
        sum(range(1_000_000))
        held = not ran.is_set()
        for _ in range(1000):
            _core.ragged_mean(values, offsets)
            if ran.is_set():
                break
        released = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert held
    assert released
