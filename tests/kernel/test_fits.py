"""Curve fits: against SciPy with many starts, NIST's certified values, and known truth."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares

from planner import _core
from planner.kernel import Ragged, Status
from planner.kernel.fits import ETA_FLOOR, Fits, fit_curves, fit_power

Float64 = NDArray[np.float64]
Run = Callable[..., "CompletedProcess[str]"]

DATA = Path(__file__).parent / "data"
DELTA = 0.01
LOWER = np.array([math.log(1e-6), 0.0, -2.0, 0.02])
UPPER = np.array([math.log(10.0), 5.0, 5.0, 20.0])
STARTS = [
    (math.log(eps), m, b, q)
    for eps in (0.003, 0.05)
    for m, b in ((0.05, 0.1), (0.2, 0.1), (0.1, -0.2))
    for q in (0.3, 2.0)
]


def schedule(t: Float64, kind: int) -> Float64:
    after = np.clip((t - 0.05) / 0.95, 0.0, 1.0)
    decay = [0.5 + 0.5 * np.cos(np.pi * after), 1.0 - after, np.minimum(1.0, 5.0 - 5.0 * after)]
    return np.minimum(t / 0.05, decay[kind])


def four(theta: Float64, t: Float64, eta: Float64) -> Float64:
    log_eps, m, b, q = theta[:4]
    eps = math.exp(log_eps)
    eps2, scale = theta[4:6] if len(theta) > 4 else (0.0, 1.0)
    tail: Float64 = b * np.maximum(eta + eps2, ETA_FLOOR) ** q
    result: Float64 = scale * (((1.0 + eps) / (t + eps)) ** m + tail)
    return result


def four_jacobian(theta: Float64, t: Float64, eta: Float64) -> Float64:
    log_eps, m, b, q = theta
    eps = math.exp(log_eps)
    base = np.log((1.0 + eps) / (t + eps))
    a = np.exp(m * base)
    s = np.log(np.maximum(eta, ETA_FLOOR))
    p = np.exp(q * s)
    return np.stack([a * m * (eps / (1.0 + eps) - eps / (t + eps)), a * base, p, b * p * s], 1)


def huber(r: Float64, delta: float) -> float:
    a = np.abs(r)
    return float(np.where(a <= delta, 0.5 * r * r, delta * (a - 0.5 * delta)).sum())


def curves(
    count: int, seed: int, low: int = 30, high: int = 600, rho: float = 0.0
) -> tuple[Ragged, Float64, Float64, Float64]:
    """Random curves with gaps, spikes and constants; their x, eta and true parameters."""
    rng = np.random.default_rng(seed)
    ys, xs, etas, truth = [], [], [], []
    for i in range(count):
        n = int(np.exp(rng.uniform(np.log(low), np.log(high))))
        t = np.arange(1, n + 1) / n
        eta = schedule(t, i % 3)
        theta = np.array(
            [
                rng.uniform(-7.0, -2.5),
                rng.uniform(0.03, 0.3),
                rng.uniform(0.05, 0.5),
                np.exp(rng.uniform(-1.5, 1.0)),
            ]
        )
        noise = rng.normal(size=n)
        for j in range(1, n):
            noise[j] = rho * noise[j - 1] + math.sqrt(1 - rho * rho) * noise[j]
        y = four(theta, t, eta) + noise * rng.uniform(0.003, 0.01)
        if rho == 0.0:
            for _ in range(rng.integers(4)):
                y[int(rng.integers(n))] += rng.uniform(0.1, 2.0)
            for _ in range(rng.integers(4)):
                at = int(rng.integers(n))
                y[at : at + int(rng.integers(1, 2 + n // 20))] = np.nan
        ys.append(y)
        xs.append(t)
        etas.append(eta)
        truth.append(theta)
    return Ragged.from_list(ys), np.concatenate(xs), np.concatenate(etas), np.array(truth)


def best_of_scipy(y: Float64, t: Float64, eta: Float64) -> float:
    ok = np.isfinite(y)
    y, t, eta = y[ok], t[ok], eta[ok]
    best = math.inf
    for start in STARTS:
        done = least_squares(
            lambda theta: four(theta, t, eta) - y,
            np.array(start),
            jac=lambda theta: four_jacobian(theta, t, eta),
            bounds=(LOWER, UPPER),
            loss="huber",
            f_scale=DELTA,
            x_scale="jac",
            ftol=1e-12,
            xtol=1e-12,
            gtol=1e-12,
            max_nfev=200,
        )
        best = min(best, huber(four(done.x, t, eta) - y, DELTA))
    return best


@pytest.mark.slow
def test_objective_against_scipy_with_many_starts() -> None:
    y, x, eta, _ = curves(150, 1)
    for method in ("two-level", "brute"):
        fits = fit_curves(y, x, eta, delta=DELTA, method=method)  # type: ignore[arg-type]
        assert set(fits.status.tolist()) <= {Status.OK, Status.BOUND_ACTIVE}
        if method == "two-level":
            want = np.array(
                [
                    best_of_scipy(y[i], *(a[y.offsets[i] : y.offsets[i + 1]] for a in (x, eta)))
                    for i in range(len(y))
                ]
            )
        gap = fits.objective / want - 1.0
        assert (gap <= 1e-8).mean() >= 0.995, np.sort(gap)[-5:]
        assert (gap < -1e-8).sum() >= (gap > 1e-8).sum()


def test_objective_is_that_of_the_parameters() -> None:
    y, x, eta, truth = curves(60, 2)
    fits = fit_curves(y, x, eta, delta=DELTA)
    for i in range(len(y)):
        part = slice(y.offsets[i], y.offsets[i + 1])
        ok = np.isfinite(y[i])
        assert fits.n_points[i] == ok.sum()
        t, e, values = x[part][ok], eta[part][ok], y[i][ok]
        mine = huber(four(fits.theta[i], t, e) - values, DELTA)
        assert fits.objective[i] == pytest.approx(mine, rel=1e-11)
        assert mine <= huber(four(truth[i], t, e) - values, DELTA) * (1 + 1e-9)
    assert (fits["eps2"] == 0.0).all()
    assert (fits["scale"] == 1.0).all()
    with pytest.raises(KeyError):
        fits["beta"]


def nist(name: str) -> tuple[Ragged, Float64]:
    y, x = np.loadtxt(DATA / f"nist_{name}.csv", delimiter=",", skiprows=1).T
    return Ragged.from_list([y]), np.ascontiguousarray(x)


def test_nist_danwood() -> None:
    y, x = nist("danwood")
    fits = fit_power(y, x, parameters={"e": 0.0, "alpha": (-10.0, 10.0)})
    assert fits.status[0] == Status.OK
    assert fits["a"][0] == pytest.approx(7.6886226176e-01, rel=1e-8)
    assert fits["alpha"][0] == pytest.approx(-3.8604055871e00, rel=1e-8)
    assert 2.0 * fits.objective[0] == pytest.approx(4.3173084083e-03, rel=1e-9)


def test_nist_bennett5() -> None:
    y, x = nist("bennett5")
    fits = fit_power(y, x, parameters={"e": 0.0, "x0": (-5.0, 1000.0)}, ftol=1e-15)
    assert fits.status[0] == Status.OK
    assert fits["a"][0] == pytest.approx(-2.5235058043e03, rel=1e-6)
    assert fits["x0"][0] == pytest.approx(4.6736564644e01, rel=1e-6)
    assert 1.0 / fits["alpha"][0] == pytest.approx(9.3218483193e-01, rel=1e-6)
    assert 2.0 * fits.objective[0] == pytest.approx(5.2404744073e-04, rel=1e-9)


def same(a: Fits, b: Fits) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in Fits.__slots__ if name != "names"]
    return all((p is None and q is None) or p.tobytes() == q.tobytes() for p, q in pairs)


@pytest.mark.parametrize("method", ["two-level", "brute"])
def test_same_bits_for_any_number_of_threads(method: str) -> None:
    y, x, eta, _ = curves(90, 3)
    first = fit_curves(y, x, eta, replicates=3, method=method, threads=1)  # type: ignore[arg-type]
    for threads in (2, 7):
        other = fit_curves(
            y,
            x,
            eta,
            replicates=3,
            method=method,  # type: ignore[arg-type]
            threads=threads,
        )
        assert same(first, other)


PROBE = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import test_fits
print(test_fits.digest())
"""


def digest() -> str:
    """Of the bits of several fits; run in processes with another PLANNER_SIMD."""
    y, x, eta, _ = curves(60, 4)
    found = [
        fit_curves(y, x, eta, replicates=2),
        fit_curves(y, x, eta, normalized=True, parameters={"scale": (0.1, 10.0)}),
        fit_curves(y, x, eta, parameters={"eps2": (0.0, 1.0), "scale": (0.1, 10.0)}),
        fit_power(y, x, parameters={"x0": (0.0, 10.0)}, delta=0.01),
    ]
    h = hashlib.sha256()
    for fits in found:
        h.update(fits.theta.tobytes())
        h.update(fits.objective.tobytes())
        h.update(fits.standard_error.tobytes())
    return h.hexdigest()


def test_same_bits_with_avx2_and_avx512(run_python: Run) -> None:
    if "avx512" not in _core.simd_levels():
        pytest.skip("no AVX-512 here")
    outs = {}
    for level in ("avx2", "avx512"):
        done = run_python(PROBE, str(Path(__file__).parent), env={"PLANNER_SIMD": level})
        assert done.returncode == 0, done.stderr
        outs[level] = done.stdout
    assert outs["avx2"] == outs["avx512"]


def test_edges_have_a_status() -> None:
    t = np.linspace(0.01, 1.0, 100)
    base = t**-0.1
    cases = {
        "empty": np.empty(0),
        "nan": np.full(50, np.nan),
        "inf": np.full(50, np.inf),
        "one": np.array([2.0]),
        "three": base[:3],
        "constant": np.full(100, 1.5),
        "zero": np.zeros(100),
        "huge": base * 1e200,
        "beyond": np.full(100, 1e301),
        "tiny": base * 1e-300,
        "subnormal": np.full(100, 5e-324),
        "good": base,
    }
    y = Ragged.from_list(list(cases.values()))
    x = np.concatenate([t[: len(c)] for c in cases.values()])
    eta = np.concatenate([1.0 - t[: len(c)] for c in cases.values()])
    for fits in (
        fit_curves(y, x, eta, replicates=2),
        fit_curves(y, x, eta, delta=math.inf, method="brute"),
        fit_curves(y, x, eta, normalized=True, parameters={"scale": (1e-3, 1e3)}),
        fit_power(y, x, parameters={"x0": (-0.5, 10.0)}),
        fit_power(y, x, delta=0.1, replicates=2),
    ):
        status = dict(zip(cases, map(Status, fits.status.tolist()), strict=True))
        assert status["empty"] == Status.EMPTY
        assert {status[name] for name in ("nan", "inf", "beyond")} == {Status.NON_FINITE}
        if fits.names[0] == "log_eps1" and np.isnan(fits.theta[3]).all():
            assert status["one"] == Status.TOO_FEW_POINTS
        assert status["good"] in (Status.OK, Status.BOUND_ACTIVE, Status.SINGULAR_COVARIANCE)
        assert status["constant"] not in (Status.EMPTY, Status.NON_FINITE, Status.TOO_FEW_POINTS)
        bad = np.isin(fits.status, (Status.EMPTY, Status.NON_FINITE, Status.TOO_FEW_POINTS))
        assert (np.isnan(fits.theta).all(axis=1) == bad).all()
        assert (np.isnan(fits.objective) == bad).all()


def test_a_curve_does_not_depend_on_the_others() -> None:
    y, x, eta, _ = curves(20, 5)
    all_of_them = fit_curves(y, x, eta)
    for i in (0, 7, 19):
        part = slice(y.offsets[i], y.offsets[i + 1])
        alone = fit_curves(Ragged.from_list([y[i]]), x[part], eta[part])
        assert alone.theta.tobytes() == all_of_them.theta[i : i + 1].tobytes()
    assert json.dumps(all_of_them.status.tolist())
