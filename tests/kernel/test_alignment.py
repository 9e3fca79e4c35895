"""Divisor alignment against SciPy, closed forms, and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.signal import lfilter

from planner.kernel import Status
from planner.kernel.alignment import Method, align

Array = NDArray[np.float64]


def shapes(n: int, grid: int = 500) -> Array:
    t = np.arange(1, grid + 1) / grid
    powers = np.linspace(0.05, 0.3, n)[:, None]
    return ((1.02 / (t + 0.02)) ** powers) * (1 + 0.1 * (1 - t**2))


def partial_curves(rng: np.random.Generator, candidates: Array, n: int) -> Array:
    curves = rng.uniform(2, 4, n)[:, None] * candidates[rng.integers(0, len(candidates), n)]
    curves *= 1 + rng.normal(0, 0.01, curves.shape)
    curves[rng.random(curves.shape) < 0.01] *= 1.5
    grid = curves.shape[1]
    curves[:, : grid // 4] = np.nan
    curves[:, grid // 2 :] = np.nan
    curves[::3][rng.random(curves[::3].shape) < 0.1] = np.nan
    return curves


def objective(c: float, x: Array, u: Array, method: Method, delta: float) -> float:
    r = np.abs(x - c * u)
    if method is Method.LEAST_SQUARES:
        return float(np.sum(r * r) / 2)
    if method is Method.LEAST_ABSOLUTE:
        return float(np.sum(r))
    return float(np.sum(np.where(r <= delta, r * r / 2, delta * (r - delta / 2))))


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("grid", [500, 37])
def test_against_scipy(method: Method, grid: int) -> None:
    rng = np.random.default_rng(0)
    candidates = shapes(11, grid)
    curves = partial_curves(rng, candidates, 30)
    result = align(curves, candidates, method=method, delta=0.02)
    assert np.all(result.status == Status.OK)
    for i, curve in enumerate(curves):
        good = np.isfinite(curve)
        assert result.n_finite[i] == good.sum()
        x = curve[good]
        for j, candidate in enumerate(candidates):
            u = candidate[good]
            c = result.divisor[i, j]
            got = objective(c, x, u, method, 0.02)
            assert result.objective[i, j] == pytest.approx(got, rel=1e-9)
            assert (result.iterations[i, j] > 0) == (method is Method.HUBER)
            ratios = x / u
            best = minimize_scalar(
                objective,
                bounds=(ratios.min(), ratios.max()),
                args=(x, u, method, 0.02),
                method="bounded",
                options={"xatol": 1e-10},
            )
            assert got <= best.fun * (1 + 1e-12)
            assert c == pytest.approx(best.x, rel=1e-6)
            if method is Method.LEAST_SQUARES:
                assert c == pytest.approx((x @ u) / (u @ u), rel=1e-12)
            if method is Method.LEAST_ABSOLUTE:
                order = np.argsort(ratios)
                weight = np.cumsum(u[order])
                median = ratios[order][np.searchsorted(weight, weight[-1] / 2)]
                assert c == pytest.approx(median, rel=1e-12)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_intervals_cover(method: Method, rho: float) -> None:
    rng = np.random.default_rng(1)
    candidate = shapes(3)[1:2]
    runs = 2000
    noise = lfilter([np.sqrt(1 - rho * rho)], [1, -rho], rng.normal(size=(runs, 800)), axis=1)
    curves = 2.7 * candidate + 0.01 * noise[:, 300:]
    curves[:, :125] = np.nan
    curves[:, 375:] = np.nan
    result = align(curves, candidate, method=method, delta=0.02, errors=True)
    assert result.error is not None
    covered = np.abs(result.divisor - 2.7) <= 1.645 * result.error
    assert 0.85 <= covered.mean() <= 0.95


def test_difficult_input() -> None:
    u = shapes(2, 40)
    curves = np.full((7, 40), np.nan)
    curves[1, :2] = 1.0  # too few
    curves[2, :20] = 2.0 * u[0, :20]  # exact
    curves[3] = 1e250 * u[0]
    curves[4] = 1e-250 * u[0]
    curves[5] = np.inf
    curves[6] = 0.0
    for method in Method:
        result = align(curves, u, method=method, delta=0.01, errors=True)
        assert np.all(result.status[0] == Status.NON_FINITE)
        assert np.all(result.status[1] == Status.TOO_FEW_POINTS)
        assert np.all(np.isnan(result.divisor[[0, 1, 5]]))
        assert result.divisor[2, 0] == pytest.approx(2.0, rel=1e-12)
        assert result.divisor[4, 0] == pytest.approx(1e-250, rel=1e-9)
        assert np.all(result.divisor[6] == 0.0)
    assert np.all(align(curves, 0 * u, method=method).status[2:5] == Status.NON_FINITE)
    assert align(curves[:0], u).divisor.shape == (0, 2)
    assert align(curves, u[:0]).divisor.shape == (7, 0)


@pytest.mark.parametrize("method", Method)
def test_same_bits_for_any_number_of_threads(method: Method) -> None:
    rng = np.random.default_rng(2)
    candidates = shapes(19)
    curves = partial_curves(rng, candidates, 100)
    first = align(curves, candidates, method=method, errors=True, threads=1)
    assert first.error is not None
    for threads in (2, 7):
        other = align(curves, candidates, method=method, errors=True, threads=threads)
        assert other.divisor.tobytes() == first.divisor.tobytes()
        assert other.error is not None
        assert other.error.tobytes() == first.error.tobytes()


@pytest.mark.parametrize("method", Method)
def test_a_pair_does_not_depend_on_the_others(method: Method) -> None:
    rng = np.random.default_rng(3)
    candidates = shapes(29, 203)
    curves = partial_curves(rng, candidates, 45)
    for curve in range(20, 30):  # of several lengths
        curves[curve, rng.integers(60, 90) :] = np.nan
    together = align(curves, candidates, method=method, delta=0.02, errors=True)
    for curve in range(len(curves)):
        alone = align(curves[curve : curve + 1], candidates, method=method, delta=0.02, errors=True)
        assert alone.divisor.tobytes() == together.divisor[curve].tobytes()
        assert alone.objective.tobytes() == together.objective[curve].tobytes()
        assert alone.error is not None
        assert together.error is not None
        assert alone.error.tobytes() == together.error[curve].tobytes()
    if method is not Method.HUBER:  # Huber's steps start from what the candidate before has found
        fewer = align(curves, candidates[5:6], method=method)
        assert fewer.divisor.tobytes() == together.divisor[:, 5:6].tobytes()


def test_a_stretch_that_is_small_beside_what_is_missing() -> None:
    rng = np.random.default_rng(4)
    candidates = np.exp(-20 * np.linspace(0, 1, 300)) * (1 + rng.random((9, 1)))
    curves = 3 * candidates[:4] * (1 + 0.1 * rng.normal(size=(4, 300)))
    curves[:, :280] = np.nan
    curves[0, 290] = np.nan
    for method in (Method.LEAST_SQUARES, Method.HUBER):
        result = align(curves, candidates, method=method, delta=1.0)
        assert np.all(result.status == Status.OK)
        for curve, row in zip(curves, result.divisor, strict=True):
            good = np.isfinite(curve)
            u = candidates[:, good]
            np.testing.assert_allclose(row, u @ curve[good] / np.sum(u * u, axis=1), rtol=1e-13)


@pytest.mark.parametrize("delta", [1e-6, 1e-3, 0.1])
def test_huber_where_steps_are_difficult(delta: float) -> None:
    rng = np.random.default_rng(5)
    u = rng.normal(size=(13, 61)) * np.exp(rng.normal(size=(13, 61)))
    curves = rng.standard_cauchy(size=(21, 61))
    result = align(curves, u, delta=delta)
    assert np.all(result.status == Status.OK)
    for curve, row in zip(curves, result.divisor, strict=True):
        low = np.min(curve / u, axis=1)
        high = np.max(curve / u, axis=1)
        for _ in range(80):
            c = (low + high) / 2
            up = np.sum(np.clip(curve - c[:, None] * u, -delta, delta) * u, axis=1) > 0
            low, high = np.where(up, c, low), np.where(up, high, c)
        for j, found in enumerate(row):
            best = objective(c[j], curve, u[j], Method.HUBER, delta)
            assert objective(found, curve, u[j], Method.HUBER, delta) <= best * (1 + 1e-12)


def test_what_is_refused() -> None:
    u = shapes(2, 40)
    for call, message in (
        (lambda: align(u[:, :30], u), "on one grid"),
        (lambda: align(u, np.full((1, 40), np.nan)), "candidates must be finite"),
        (lambda: align(u, u, delta=0.0), "delta must be positive"),
        (lambda: align(u, u, delta=[1.0]), "one per curve"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
