"""The kernel's exp, log, log1p, reciprocal and pow against mpmath, at every SIMD level."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

from planner import _core
from planner._core import _testing

Float64 = NDArray[np.float64]
LEVELS = _core.simd_levels()
RNG = np.random.default_rng(17)


def log_spaced(low: float, high: float, n: int = 1500, *, signed: bool = False) -> Float64:
    x = np.exp(RNG.uniform(math.log(low), math.log(high), n))
    return x * RNG.choice([-1.0, 1.0], n) if signed else x


def around(point: float, n: int = 40) -> Float64:
    """The doubles next to a point."""
    below, above = [point], [point]
    for _ in range(n):
        below.append(math.nextafter(below[-1], -math.inf))
        above.append(math.nextafter(above[-1], math.inf))
    return np.array(below + above)


def worst_ulp(y: Float64, x: Float64, exact: Callable[[object], object]) -> float:
    """Largest |y - exact| in units in the last place of the exact value."""
    worst = 0.0
    with mpmath.workprec(200):
        for got, at in zip(y, x, strict=True):
            want = exact(mpmath.mpf(float(at)))
            ulp = math.ulp(float(want))
            worst = max(worst, float(abs(mpmath.mpf(float(got)) - want)) / ulp)
    return worst


HALF_LN2 = math.log(2.0) / 2
EXP = np.concatenate(
    [
        log_spaced(1e-20, 708.0, signed=True),
        RNG.uniform(-1.0, 1.0, 1500),
        *(around(HALF_LN2 * k, 8) for k in (-1, 1, 3, 101, -101, 2001)),
    ]
)
LOG = np.concatenate(
    [
        log_spaced(1e-307, 1e308),
        RNG.uniform(0.5, 2.0, 1500),
        *(around(x) for x in (0.75, 1.0, 1.5, 2.0)),
    ]
)
LOG1P = np.concatenate([log_spaced(1e-300, 1e300), -log_spaced(1e-300, 0.999), around(0.0)])


# Errors in ulp: with a fused multiply-add, and without (baseline).
@pytest.mark.parametrize(
    ("name", "x", "exact", "fused", "plain"),
    [
        ("exp", EXP, mpmath.exp, 1.0, 1.5),
        ("exp_bounded", EXP, mpmath.exp, 1.0, 1.5),
        ("log", LOG, mpmath.log, 2.0, 2.5),
        ("log_normal", LOG, mpmath.log, 2.0, 2.5),
        ("log1p", LOG1P, mpmath.log1p, 2.5, 3.0),
        ("reciprocal", log_spaced(1e-300, 1e300, signed=True), lambda x: 1 / x, 1.0, 2.0),
    ],
)
@pytest.mark.parametrize("level", LEVELS)
def test_accuracy(
    name: str,
    x: Float64,
    exact: Callable[[object], object],
    fused: float,
    plain: float,
    level: str,
) -> None:
    y = getattr(_testing, name)(x, level)
    assert worst_ulp(y, x, exact) <= (fused if _testing.has_fma(level) else plain)


@pytest.mark.parametrize("level", LEVELS)
def test_subnormal(level: str) -> None:
    x = RNG.uniform(-745.0, -708.5, 500)
    # One rounding at the end: within an ulp of the subnormal grid.
    assert worst_ulp(_testing.exp(x, level), x, mpmath.exp) <= 1.0
    x = np.concatenate([log_spaced(1e-320, 2e-308, 200), around(5e-324, 0), around(2.0**-1022)])
    assert worst_ulp(_testing.log(x, level), x, mpmath.log) <= 2.5


@pytest.mark.parametrize("level", LEVELS)
def test_special_values(level: str) -> None:
    inf, nan = math.inf, math.nan
    x = np.array([0.0, -0.0, 1.0, inf, -inf, nan, -1.0, 710.0, -746.0, 1e308, -1e308])
    with np.errstate(all="ignore"):
        for name, oracle in (("exp", np.exp), ("log", np.log), ("log1p", np.log1p)):
            got, want = getattr(_testing, name)(x, level), oracle(x)
            np.testing.assert_allclose(got, want, rtol=4e-16, err_msg=name)
    assert math.isfinite(_testing.exp(np.array([709.782712893384]), level)[0])
    assert _testing.exp(np.array([-745.1332191019411]), level)[0] == 5e-324
    base, power = np.array([0.0, 0.0, 2.0, -1.0, 10.0]), np.array([2.0, -1.0, 0.5, 2.0, 400.0])
    got = _testing.pow(base, power, level)
    np.testing.assert_allclose(got, [0.0, inf, math.sqrt(2), nan, inf], rtol=4e-16)


@pytest.mark.parametrize("level", LEVELS)
def test_pow(level: str) -> None:
    x, y = log_spaced(1e-6, 1e9), RNG.uniform(-4.0, 4.0, 1500)
    got = _testing.pow(x, y, level)
    for a, b, c in zip(x, y, got, strict=True):
        want = mpmath.mpf(float(a)) ** mpmath.mpf(float(b))
        assert abs(float(c / want - 1)) <= (1 + abs(b * math.log(a))) * 3e-16


def test_fused_levels_have_the_same_bits() -> None:
    anything = RNG.integers(0, 2**64, 50_000, dtype=np.uint64).view(np.float64)
    fused = [level for level in LEVELS if _testing.has_fma(level)]
    for name, x in (("exp", EXP), ("log", LOG), ("log1p", LOG1P), ("exp", anything)):
        results = [getattr(_testing, name)(x, level) for level in fused]
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)
    # The lane an argument falls in makes no difference, nor does the tail.
    for level in LEVELS:
        whole = _testing.log(LOG, level)
        for start in range(1, 9):
            np.testing.assert_array_equal(
                _testing.log(LOG[start:-start].copy(), level), whole[start:-start]
            )


def test_unchecked_forms_agree_with_the_checked_ones() -> None:
    for level in LEVELS:
        np.testing.assert_array_equal(_testing.exp(EXP, level), _testing.exp_bounded(EXP, level))
        np.testing.assert_array_equal(_testing.log(LOG, level), _testing.log_normal(LOG, level))
