"""Curve fits: against SciPy with many starts, NIST's certified values, and known truth."""

from __future__ import annotations

import hashlib
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
@pytest.mark.parametrize(("count", "low", "high"), [(90, 30, 600), (60, 500, 2500)])
def test_objective_against_scipy_with_many_starts(count: int, low: int, high: int) -> None:
    """Short curves, some fitted whole, and long ones, fitted coarse to fine.

    Over a thousand curves: ``benchmarks/kernel --quality 1000``.
    """
    y, x, eta, _ = curves(count, 1, low, high)
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


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_intervals_cover_the_truth(rho: float) -> None:
    y, x, eta, truth = curves(400, 31, 800, 2500, rho=rho or 1e-9)
    fits = fit_curves(y, x, eta, replicates=200, seed=5)
    assert (fits.status == Status.OK).mean() > 0.99
    assert fits.autocorrelation is not None
    assert np.median(fits.autocorrelation) == pytest.approx(rho, abs=0.03)
    error = np.abs(fits.theta - truth_of_six(truth))[:, :4] / fits.standard_error[:, :4]
    sandwich = (error < 1.6449).mean(axis=0)
    low, high = fits.interval(0.9)
    bootstrap = ((low[:, :4] <= truth) & (truth <= high[:, :4])).mean(axis=0)
    for covered in (sandwich, bootstrap):
        assert ((covered >= 0.85) & (covered <= 0.95)).all(), (sandwich, bootstrap)


def truth_of_six(truth: Float64) -> Float64:
    return np.concatenate([truth, np.tile([0.0, 1.0], (len(truth), 1))], axis=1)


def surrogate(p: Float64, t: Float64, eta: Float64, end: float) -> Float64:
    log_eps, m, b, q, eps2, scale = p
    result: Float64 = four(np.array([log_eps, m, b, q, eps2, scale]), t, eta) / (
        1.0 + b * (end + eps2) ** q
    )
    return result


def test_surrogate_finds_its_parameters() -> None:
    rng = np.random.default_rng(8)
    t = np.arange(1, 1501) / 1500
    ys, etas, truth = [], [], []
    for i in range(40):
        eta = schedule(t, i % 3)
        p = np.array([math.log(1e-3), 0.05, rng.uniform(0.1, 0.5), rng.uniform(0.1, 1.0), 0.1, 1.0])
        p[5] = rng.uniform(1.0, 4.0) if i >= 20 else 1.0
        ys.append(surrogate(p, t, eta, eta[-1]))
        etas.append(eta)
        truth.append(p)
    y, x, eta = Ragged.from_list(ys), np.tile(t, 40), np.concatenate(etas)
    true = np.array(truth)
    for bound in ((0.1, 10.0), true[:, 5]):
        fits = fit_curves(y, x, eta, normalized=True, parameters={"scale": bound})
        assert set(fits.status.tolist()) <= {Status.OK, Status.SINGULAR_COVARIANCE}
        assert fits.theta == pytest.approx(true, rel=1e-5)
        assert (fits.objective < 1e-15).all()
    # Everything free. eps2 at its end is hard to tell from b, q and scale; the fit is what counts.
    free = {"log_eps1": (-10.0, 0.0), "m": (0.0, 1.0), "eps2": (0.01, 1.0), "scale": (0.1, 10.0)}
    fits = fit_curves(y, x, eta, normalized=True, parameters=free, max_iterations=500)
    assert (fits.objective < 1e-6).mean() >= 0.95


def test_derivatives_of_every_form() -> None:
    """At the optimum of a fit with noise the objective is flat in each free parameter."""
    y, x, eta, _ = curves(12, 9, 200, 600)
    free = {"eps2": (0.01, 1.0), "scale": (0.1, 10.0)}
    end = np.full(len(y), 0.3)
    for normalized, changes in (
        (False, {}),
        (False, {"scale": (0.1, 10.0)}),
        (False, {"log_eps1": -4.0, "m": 0.1}),
        (False, free),
        (True, {}),
        (True, {"scale": (0.1, 10.0)}),
        (True, {"log_eps1": (-12.0, 2.0), "m": (0.0, 3.0)}),
        (True, free),
    ):
        fits = fit_curves(
            y,
            x,
            eta,
            normalized=normalized,
            eta_end=end,
            parameters=changes,  # type: ignore[arg-type]
            ftol=1e-14,
            max_iterations=500,
        )
        for i in np.flatnonzero(fits.status == Status.OK):
            part = slice(y.offsets[i], y.offsets[i + 1])
            ok = np.isfinite(y[i])
            t, e, values = x[part][ok], eta[part][ok], y[i][ok]

            def cost(p: Float64, t: Float64 = t, e: Float64 = e, v: Float64 = values) -> float:
                f = surrogate(p, t, e, 0.3) if normalized else four(p, t, e)  # noqa: B023
                return huber(f - v, DELTA)

            best = cost(fits.theta[i])
            assert fits.objective[i] == pytest.approx(best, rel=1e-10)
            for k in np.flatnonzero(fits.standard_error[i] > 0):
                for sign in (-1.0, 1.0):
                    p = fits.theta[i].copy()
                    p[k] += sign * 1e-3 * min(fits.standard_error[i, k], 1.0)
                    assert cost(p) >= best * (1.0 - 1e-10)


def test_power_law_against_scipy() -> None:
    rng = np.random.default_rng(10)
    ys, xs = [], []
    for _ in range(40):
        n = int(rng.integers(20, 700))
        x = np.sort(np.exp(rng.uniform(0.0, 8.0, n)))
        y = 1.7 + rng.uniform(1.0, 5.0) * x ** -rng.uniform(0.1, 0.8) + rng.normal(size=n) * 0.02
        y[rng.random(n) < 0.03] = np.nan
        ys.append(y)
        xs.append(x)
    curves_, x_all = Ragged.from_list(ys), np.concatenate(xs)
    fits = fit_power(curves_, x_all, delta=0.02)
    for i in range(40):
        ok = np.isfinite(ys[i])
        values, x = ys[i][ok], xs[i][ok]
        best = min(
            float(
                least_squares(
                    lambda p, x=x, v=values: p[0] + p[1] * x ** -p[2] - v,
                    (values.min(), np.ptp(values), alpha),
                    bounds=((-np.inf, -np.inf, 0.0), (np.inf, np.inf, 10.0)),
                    loss="huber",
                    f_scale=0.02,
                    x_scale="jac",
                    ftol=1e-13,
                    xtol=1e-13,
                    gtol=1e-13,
                ).cost
            )
            for alpha in (0.2, 1.0)
        )
        assert fits.objective[i] <= best * (1 + 1e-8)
    shifted = fit_power(curves_, x_all, delta=0.02, parameters={"x0": (0.0, 1e4)})
    assert (shifted.objective <= fits.objective * (1 + 1e-9)).all()


def test_weights_and_masks() -> None:
    y, x, eta, _ = curves(10, 12)
    plain = fit_curves(y, x, eta)
    ones = fit_curves(y, x, eta, weights=np.ones(y.values.size))
    assert ones.objective == pytest.approx(plain.objective, rel=1e-13)
    weights = np.ones(y.values.size)
    weights[::7] = 0.0
    holes = y.values.copy()
    holes[::7] = np.nan
    masked, gapped = (
        fit_curves(y, x, eta, weights=weights),
        fit_curves(y.with_values(holes), x, eta),
    )
    assert (masked.n_points == gapped.n_points).all()
    assert masked.objective == pytest.approx(gapped.objective, rel=1e-9)
    # Doubled weights are doubled points: twice the objective, the same standard errors.
    double = fit_curves(y, x, eta, weights=np.full(y.values.size, 2.0))
    assert double.objective == pytest.approx(2.0 * plain.objective, rel=1e-9)
    assert double.standard_error == pytest.approx(plain.standard_error, rel=1e-4, nan_ok=True)


def test_standard_errors_of_least_squares() -> None:
    """Without correlation the sandwich of least squares is the textbook formula."""
    rng = np.random.default_rng(13)
    x = np.linspace(1.0, 50.0, 4000)
    y = 2.0 + 3.0 * x**-0.5 + rng.normal(size=x.size) * 0.05
    fits = fit_power(Ragged.from_list([y]), x)
    e, a, alpha, _ = fits.theta[0]
    j = np.stack([np.ones_like(x), x**-alpha, -a * x**-alpha * np.log(x)], 1)
    r = e + a * x**-alpha - y
    textbook = np.linalg.inv(j.T @ j) * (r @ r) / (x.size - 3)
    assert fits.autocorrelation is not None
    rho = fits.autocorrelation[0]
    lags = rho ** np.abs(np.subtract.outer(np.arange(x.size), np.arange(x.size)))
    inverse = np.linalg.inv(j.T @ j)
    exact = inverse @ (j.T @ lags @ j) @ inverse * (r @ r) / (x.size - 3)
    assert fits.standard_error[0, :3] == pytest.approx(np.sqrt(np.diag(exact)), rel=1e-5)
    assert fits.standard_error[0, :3] == pytest.approx(np.sqrt(np.diag(textbook)), rel=0.1)
    assert fits.standard_error[0, 3] == 0.0


def test_bootstrap_is_reproducible() -> None:
    y, x, eta, _ = curves(5, 14, 200, 400)
    a, b, c = (fit_curves(y, x, eta, replicates=20, seed=seed) for seed in (1, 1, 2))
    assert a.samples is not None
    assert b.samples is not None
    assert c.samples is not None
    assert a.samples.shape == (5, 20, 6)
    assert a.samples.tobytes() == b.samples.tobytes() != c.samples.tobytes()
    low, high = a.interval(0.5)
    assert (low[:, :4] < high[:, :4]).all()
    with pytest.raises(ValueError, match="replicates > 0"):
        fit_curves(y, x, eta).interval()
    with pytest.raises(ValueError, match="covariance=True"):
        _ = fit_curves(y, x, eta, covariance=False).standard_error


def test_wrong_calls() -> None:
    y, x, eta, _ = curves(3, 15)
    for changes, message in (
        ({"parameters": {"beta": 1.0}}, "unknown parameter 'beta'"),
        ({"parameters": {"m": (1.0, 0.0)}}, "bounds of m"),
        ({"parameters": {"m": math.inf}}, "m is fixed at a number"),
        ({"parameters": {"log_eps1": (-1e4, 0.0)}}, "log_eps1 must stay within"),
        ({"delta": 0.0}, "delta must be above 0"),
        ({"delta": [0.1, 0.2]}, "delta must hold one number"),
        ({"method": "best"}, "method must be"),
        ({"starts": [(1.0, 2.0)]}, "rows of 6 numbers"),
        ({"starts": np.zeros((65, 6))}, "1 to 64 rows"),
        ({"weights": np.ones(2)}, "weights must have one number per value"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"replicates": -1}, "replicates"),
        ({"ftol": 0.0}, "ftol"),
        ({"threads": 0}, "threads"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_curves(y, x, eta, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must have one number per value"):
        fit_curves(y, x[:-1], eta)
