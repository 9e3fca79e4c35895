"""Loss-law fits: the exact optima on the Chinchilla points, SciPy as oracle, bad input, threads."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from planner.kernel import Status
from planner.kernel.loss_law import (
    LossLawForm,
    bootstrap_loss_law,
    effective_tokens,
    fit_loss_law,
    hoffmann_starts,
    predict_loss,
    resample_counts,
)

Float64 = NDArray[np.float64]
DELTA = 1e-3


@dataclass(frozen=True)
class Runs:
    n: Float64
    d: Float64
    loss: Float64

    @property
    def columns(self) -> tuple[Float64, Float64, Float64]:
        return self.n, self.d, self.loss


@pytest.fixture(scope="module")
def chinchilla(data_dir: Path) -> Runs:
    """All 245 points of figure 4 of Hoffmann et al. that have a loss."""
    with (data_dir / "chinchilla_svg" / "svg_extracted_data.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["loss"]]
    n, c, loss = (
        np.array([float(row[key]) for row in rows])
        for key in ("Model Size", "Training FLOP", "loss")
    )
    return Runs(n, c / (6.0 * n), loss)


@pytest.fixture(scope="module")
def without_outliers(chinchilla: Runs) -> Runs:
    keep = np.sort(np.argsort(chinchilla.loss, kind="stable")[:-5])
    return Runs(*(column[keep] for column in chinchilla.columns))


def synthetic(seed: int, runs: int = 80, noise: float = 0.003) -> tuple[Runs, Float64]:
    """Random runs with a random truth (a, b, e, alpha, beta)."""
    random = np.random.default_rng(seed)
    n = np.exp(random.uniform(np.log(2e7), np.log(1e10), runs))
    d = n * np.exp(random.uniform(np.log(2), np.log(300), runs))
    truth = np.array(
        [random.uniform(5, 8), random.uniform(5, 9), np.log(random.uniform(1.2, 2.2)), 0.0, 0.0]
    )
    truth[3:] = random.uniform(0.28, 0.45, 2)
    log_loss = np.log(predict_loss(truth, n, d)) + noise * random.standard_t(4, runs)
    return Runs(n, d, np.exp(log_loss)), truth


def objective(
    theta: Float64, runs: Runs, weights: Float64 | float = 1.0, delta: float = DELTA
) -> float:
    """The plain sum, written out."""
    r = np.log(runs.loss) - np.log(predict_loss(theta[:5], runs.n, runs.d))
    huber = np.where(np.abs(r) <= delta, r * r / 2, delta * (np.abs(r) - delta / 2))
    return float(np.sum(weights * huber))


def scipy_best(runs: Runs, starts: Float64, weights: Float64 | float = 1.0) -> float:
    """Lowest end of SciPy's BFGS with the analytic gradient, in centred coordinates."""
    x, y, z = np.log(runs.n), np.log(runs.d), np.log(runs.loss)
    mx, my = x.mean(), y.mean()

    def value(t: Float64) -> tuple[float, Float64]:
        terms = np.exp([t[0] - t[3] * (x - mx), t[1] - t[4] * (y - my), np.full_like(x, t[2])])
        total = terms.sum(axis=0)
        r = z - np.log(total)
        clipped = np.clip(r, -DELTA, DELTA)
        slope = -weights * clipped / total * terms
        gradient = [*slope.sum(axis=1), -slope[0] @ (x - mx), -slope[1] @ (y - my)]
        return float(np.sum(weights * clipped * (r - clipped / 2))) * 1e6, np.array(gradient) * 1e6

    best = np.inf
    for start in starts:
        t = np.array(start[:5])
        t[0] -= t[3] * mx
        t[1] -= t[4] * my
        for _ in range(3):  # a restart frees it from a bad curvature
            result = minimize(value, t, jac=True, method="BFGS", options={"gtol": 1e-7})
            t = result.x
        best = min(best, result.fun * 1e-6)
    return best


def same_bits(a: Float64, b: Float64) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


# --- the published fit ---------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("screened", [True, False])
def test_exact_optimum_of_all_245_points(chinchilla: Runs, screened: bool) -> None:
    fit = fit_loss_law(*chinchilla.columns, screened=screened)
    assert fit.status is Status.OK
    assert fit.objective == pytest.approx(0.00182601052307, abs=5e-15)
    assert fit.theta[:5] == pytest.approx([6.20602, 9.46076, 0.63728, 0.34931, 0.45305], abs=1e-5)
    assert objective(fit.theta, chinchilla) == pytest.approx(fit.objective, rel=1e-12)
    assert len(fit.start_objectives) == 4500
    dropped = fit.start_statuses == Status.SCREENED_OUT
    assert dropped.sum() == (4500 - 64 if screened else 0)


@pytest.mark.data
def test_published_optimum_and_errors(without_outliers: Runs) -> None:
    fit = fit_loss_law(*without_outliers.columns)
    assert fit.objective == pytest.approx(0.00101827, abs=5e-9)
    e, a, b = np.exp(fit.theta[[2, 0, 1]])
    assert (e, a, b) == pytest.approx((1.8172, 477.8, 2143), rel=3e-4)
    assert fit.theta[3:5] == pytest.approx([0.3473, 0.3672], abs=5e-5)

    # Besiroglu et al. (2024), table 1: bootstrap standard errors of E, A, B, alpha, beta.
    sample = bootstrap_loss_law(*without_outliers.columns, fit, seed=20240415)
    kept = sample.kept
    assert len(kept) > 3980
    errors = [*np.exp(kept[:, [2, 0, 1]]).std(axis=0), *kept[:, 3:5].std(axis=0)]
    published = [0.03, 124.58, 1293.23, 0.02, 0.02]
    assert np.all(np.abs(np.log(np.divide(errors, published))) < np.log(1.4))
    # The sandwich is first order: the right size.
    ratio = fit.standard_error[:5] / np.sqrt(np.diag(sample.covariance))[:5]
    assert np.all((ratio > 0.6) & (ratio < 1.6))
    low, middle, high = sample.percentiles()[:, :5]
    assert np.all((low < fit.theta[:5]) & (fit.theta[:5] < high))
    assert np.all(np.abs(middle - fit.theta[:5]) < 0.5 * (high - low))


@pytest.mark.data
def test_screened_is_exhaustive_on_bootstrap_sets(without_outliers: Runs) -> None:
    runs = len(without_outliers.n)
    for weights in resample_counts(runs, 12, seed=7).astype(float):
        ends = [
            fit_loss_law(*without_outliers.columns, weights=weights, screened=screened)
            for screened in (True, False)
        ]
        assert ends[0].objective <= ends[1].objective * (1 + 1e-9)


@pytest.mark.data
def test_refits_against_scipy(without_outliers: Runs) -> None:
    fit = fit_loss_law(*without_outliers.columns)
    counts = resample_counts(len(without_outliers.n), 25, seed=3)
    sample = bootstrap_loss_law(*without_outliers.columns, fit, counts=counts)
    wins = 0
    for i, drawn in enumerate(counts.astype(float)):
        oracle = scipy_best(without_outliers, fit.theta[None], drawn)
        assert sample.objective[i] <= oracle * (1 + 1e-8)
        assert objective(sample.theta[i], without_outliers, drawn) == pytest.approx(
            sample.objective[i], rel=1e-11
        )
        wins += sample.objective[i] < oracle * (1 + 1e-10)
    assert wins == len(counts)


# --- random truths -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_against_scipy(seed: int) -> None:
    runs, truth = synthetic(seed)
    fit = fit_loss_law(*runs.columns)
    assert fit.status is Status.OK
    starts = np.array([truth, truth + 0.05, [6, 7, 0.5, 0.4, 0.4], [8, 8, 0.3, 0.5, 0.3]])
    assert fit.objective <= scipy_best(runs, starts) * (1 + 1e-9)
    assert fit.objective == pytest.approx(objective(fit.theta, runs), rel=1e-11)


@pytest.mark.parametrize("seed", range(20, 32))
def test_screened_is_exhaustive_on_synthetic_runs(seed: int) -> None:
    runs, _ = synthetic(seed, runs=24 + 10 * (seed % 5), noise=0.01)
    screened, exhaustive = (
        fit_loss_law(*runs.columns, screened=screened) for screened in (True, False)
    )
    assert screened.objective <= exhaustive.objective * (1 + 1e-9)


def test_noiseless_runs_give_the_truth_back() -> None:
    runs, truth = synthetic(1, noise=0.0)
    fit = fit_loss_law(*runs.columns)
    assert fit.theta[:5] == pytest.approx(truth, rel=1e-6)
    assert np.isnan(fit.theta[5])
    assert fit.objective < 1e-20
    assert fit.predict(runs.n, runs.d) == pytest.approx(runs.loss, rel=1e-9)


def test_weights_are_copies() -> None:
    runs, _ = synthetic(2, runs=40)
    counts = np.random.default_rng(0).integers(0, 4, 40)
    copies = Runs(*(np.repeat(column, counts) for column in runs.columns))
    weighted = fit_loss_law(*runs.columns, weights=counts)
    copied = fit_loss_law(*copies.columns)
    assert weighted.objective == pytest.approx(copied.objective, rel=1e-9)
    assert weighted.theta[:5] == pytest.approx(copied.theta[:5], rel=1e-5)


def test_sandwich_covers_the_truth() -> None:
    """Of the predicted loss at a far point, as wide as it says: z scores near one."""
    scores = []
    for seed in range(100, 160):
        runs, truth = synthetic(seed, runs=200)
        fit = fit_loss_law(*runs.columns, threads=1)
        n, d = 3e9, 1e11
        terms = np.exp([truth[0] - truth[3] * np.log(n), truth[1] - truth[4] * np.log(d), truth[2]])
        p = terms / terms.sum()
        gradient = np.array([*p, -p[0] * np.log(n), -p[1] * np.log(d)])
        error = np.sqrt(gradient @ fit.covariance[:5, :5] @ gradient)
        off = np.log(fit.predict(n, d) / predict_loss(truth, n, d))
        scores.append(float(off / error))
    assert 0.7 < np.std(scores) < 1.4


# --- other forms ---------------------------------------------------------------------------------


def test_fixed_e() -> None:
    runs, truth = synthetic(4)
    fit = fit_loss_law(*runs.columns, form=LossLawForm(fixed_e=1.5))
    assert np.exp(fit.theta[2]) == pytest.approx(1.5, rel=1e-15)
    assert fit.standard_error[2] == 0.0
    free = fit_loss_law(*runs.columns)
    again = fit_loss_law(*runs.columns, form=LossLawForm(fixed_e=float(np.exp(free.theta[2]))))
    assert again.objective == pytest.approx(free.objective, rel=1e-9)
    assert fit.objective > free.objective
    assert truth.shape == (5,)


def test_equal_exponents() -> None:
    runs, truth = synthetic(5)
    truth[4] = truth[3]
    tied = Runs(runs.n, runs.d, predict_loss(truth, runs.n, runs.d))
    fit = fit_loss_law(*tied.columns, form=LossLawForm(equal_exponents=True))
    assert fit.theta[:5] == pytest.approx(truth, rel=1e-6)
    noisy = fit_loss_law(*runs.columns, form=LossLawForm(equal_exponents=True))
    assert noisy.theta[3] == noisy.theta[4]
    assert noisy.objective >= fit_loss_law(*runs.columns).objective
    # The best over a scan of the common exponent.
    scan = [
        fit_loss_law(*runs.columns, form=LossLawForm(alpha_bounds=(x, x), beta_bounds=(x, x)))
        for x in noisy.theta[3] + np.array([-0.002, 0.0, 0.002])
    ]
    assert scan[1].objective == pytest.approx(noisy.objective, rel=1e-7)
    assert noisy.objective <= min(scan[0].objective, scan[2].objective)
    assert noisy.standard_error[3] == noisy.standard_error[4] > 0


def test_repeated_tokens() -> None:
    runs, truth = synthetic(6, runs=120)
    random = np.random.default_rng(6)
    unique = runs.d / np.exp(random.uniform(-0.5, np.log(60), len(runs.d)))
    seen = effective_tokens(runs.d, unique, 12.0)
    assert np.all(seen <= runs.d * (1 + 1e-12))
    assert seen[unique >= runs.d] == pytest.approx(runs.d[unique >= runs.d])
    loss = predict_loss(truth, runs.n, seen)
    given = fit_loss_law(runs.n, runs.d, loss, unique=unique, form=LossLawForm(r_star=12.0))
    assert given.theta == pytest.approx([*truth, np.log(12.0)], rel=1e-6)
    free = fit_loss_law(runs.n, runs.d, loss, unique=unique, form=LossLawForm(r_star="free"))
    assert free.theta == pytest.approx([*truth, np.log(12.0)], rel=1e-6)
    assert free.predict(runs.n, runs.d, unique) == pytest.approx(loss, rel=1e-9)

    noisy = loss * np.exp(0.003 * random.standard_normal(len(loss)))
    fit = fit_loss_law(runs.n, runs.d, noisy, unique=unique, form=LossLawForm(r_star="free"))
    profile = [
        fit_loss_law(
            runs.n, runs.d, noisy, unique=unique, form=LossLawForm(r_star=float(np.exp(s)))
        ).objective
        for s in fit.theta[5] + np.array([-0.05, 0.0, 0.05])
    ]
    assert fit.objective == pytest.approx(profile[1], rel=1e-8)
    assert fit.objective <= min(profile) * (1 + 1e-9)
    assert fit.theta[5] == pytest.approx(np.log(12.0), abs=5 * fit.standard_error[5])
    sample = bootstrap_loss_law(
        runs.n, runs.d, noisy, fit, unique=unique, replicates=200, restarts=0
    )
    assert sample.covariance[5, 5] ** 0.5 == pytest.approx(fit.standard_error[5], rel=0.6)


def test_bounds_hold() -> None:
    runs, _ = synthetic(7)
    form = LossLawForm(alpha_bounds=(0.0, 0.2), beta_bounds=(0.6, 1.0))
    fit = fit_loss_law(*runs.columns, form=form)
    assert fit.status is Status.BOUND_ACTIVE
    assert 0.0 <= fit.theta[3] <= 0.2
    assert 0.6 <= fit.theta[4] <= 1.0
    assert fit.objective > fit_loss_law(*runs.columns).objective
    assert np.isfinite(fit.covariance).all()


# --- bad input -----------------------------------------------------------------------------------


def test_unusable_runs_are_left_out() -> None:
    runs, _ = synthetic(8, runs=60)
    clean = fit_loss_law(*runs.columns)
    bad = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e308])
    fill = np.full(6, 1e9)
    parts = [
        np.concatenate([column, *(bad if i == j else fill for j in range(3))])
        for i, column in enumerate(runs.columns)
    ]
    fit = fit_loss_law(*parts)
    assert fit.used.tolist() == [True] * 60 + [False] * 18
    assert same_bits(fit.theta, clean.theta)
    counts = resample_counts(78, 5, seed=1)
    assert np.isfinite(bootstrap_loss_law(*parts, fit, counts=counts).objective).all()


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([], Status.EMPTY),
        ([np.nan, np.nan], Status.NON_FINITE),
        ([3.0], Status.TOO_FEW_POINTS),
        ([3.0, 2.9, 2.8, 2.7], Status.TOO_FEW_POINTS),
    ],
)
def test_too_little(runs: list[float], status: Status) -> None:
    n = np.geomspace(1e7, 1e9, len(runs)) if runs else np.empty(0)
    fit = fit_loss_law(n, n * 20, np.array(runs))
    assert fit.status is status
    assert np.isnan(fit.theta).all()
    assert np.isnan(fit.objective)
    with pytest.raises(ValueError, match="no fit to start from"):
        bootstrap_loss_law(n, n * 20, np.array(runs), fit)


@pytest.mark.parametrize("loss", [2.5, 1e-290, 1e290])
def test_runs_that_determine_nothing(loss: float) -> None:
    n = np.full(12, 1e8)
    fit = fit_loss_law(n, 20 * n, np.full(12, loss))
    assert fit.status in (Status.OK, Status.BOUND_ACTIVE, Status.SINGULAR_COVARIANCE)
    assert fit.predict(1e8, 2e9) == pytest.approx(loss, rel=1e-3)


def test_huge_and_tiny_values() -> None:
    runs, truth = synthetic(9, noise=0.002)
    scaled = Runs(runs.n * 1e30, runs.d * 1e-30, runs.loss * 1e20)
    plain, far = fit_loss_law(*runs.columns), fit_loss_law(*scaled.columns, starts=_moved(truth))
    assert far.objective == pytest.approx(plain.objective, rel=1e-6)
    wide = np.geomspace(1e-290, 1e290, 40)
    fit = fit_loss_law(wide, wide[::-1].copy(), np.full(40, 3.0))
    assert np.isfinite(fit.objective)


def _moved(truth: Float64) -> Float64:
    up = np.log(1e20)
    theta = truth.copy()
    theta[0] += up + truth[3] * np.log(1e30)
    theta[1] += up - truth[4] * np.log(1e30)
    theta[2] += up
    return theta[None]


def test_wrong_calls() -> None:
    runs, _ = synthetic(10)
    with pytest.raises(ValueError, match="one length"):
        fit_loss_law(runs.n[:-1], runs.d, runs.loss)
    with pytest.raises(ValueError, match="delta must be positive"):
        fit_loss_law(*runs.columns, delta=0.0)
    with pytest.raises(ValueError, match="need each other"):
        fit_loss_law(*runs.columns, unique=runs.d)
    with pytest.raises(ValueError, match="starts must"):
        fit_loss_law(*runs.columns, starts=np.zeros((3, 4)))
    with pytest.raises(ValueError, match="finite"):
        fit_loss_law(*runs.columns, starts=np.full((1, 5), np.nan))
    with pytest.raises(ValueError, match="threads"):
        fit_loss_law(*runs.columns, threads=0)
    with pytest.raises(ValueError, match="fixed_e"):
        LossLawForm(fixed_e=-1.0)
    with pytest.raises(ValueError, match="r_star"):
        LossLawForm(r_star=0.0)
    with pytest.raises(ValueError, match="alpha_bounds"):
        LossLawForm(alpha_bounds=(1.0, 0.0))
    fit = fit_loss_law(*runs.columns)
    with pytest.raises(ValueError, match="uint8"):
        bootstrap_loss_law(*runs.columns, fit, counts=np.ones((2, 80)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="restarts"):
        bootstrap_loss_law(*runs.columns, fit, restarts=-1)


def test_replicates_of_too_few_runs() -> None:
    runs, _ = synthetic(11)
    fit = fit_loss_law(*runs.columns)
    counts = np.zeros((3, 80), dtype=np.uint8)
    counts[1, :3] = 10
    counts[2] = 1
    sample = bootstrap_loss_law(*runs.columns, fit, counts=counts)
    assert sample.status.tolist() == [Status.TOO_FEW_POINTS, Status.TOO_FEW_POINTS, Status.OK]
    assert np.isnan(sample.theta[:2]).all()
    assert sample.objective[2] == pytest.approx(fit.objective, rel=1e-10)


# --- bits ----------------------------------------------------------------------------------------


def test_same_bits_for_any_threads() -> None:
    runs, _ = synthetic(12, runs=301)
    starts = hoffmann_starts()[::9]
    fits = [
        fit_loss_law(*runs.columns, starts=starts, screened=screened, threads=threads)
        for screened in (True, False)
        for threads in (1, 2, 7)
    ]
    for i, fit in enumerate(fits):
        first = fits[0] if i < 3 else fits[3]
        assert same_bits(fit.theta, first.theta)
        assert same_bits(fit.start_objectives, first.start_objectives)
    samples = [
        bootstrap_loss_law(*runs.columns, fits[0], replicates=300, threads=threads)
        for threads in (1, 2, 7)
    ]
    for sample in samples[1:]:
        assert same_bits(sample.theta, samples[0].theta)
        assert same_bits(sample.objective, samples[0].objective)


LEVEL_CODE = """
import numpy as np
from planner.kernel.loss_law import fit_loss_law, hoffmann_starts, predict_loss
random = np.random.default_rng(0)
n = np.exp(random.uniform(17, 23, 61))
d = n * np.exp(random.uniform(1, 5, 61))
loss = predict_loss([6.0, 7.0, 0.6, 0.33, 0.36], n, d) * np.exp(0.004 * random.standard_normal(61))
fit = fit_loss_law(n, d, loss, starts=hoffmann_starts()[::5])
print(fit.objective.hex(), *(x.hex() for x in fit.theta[:5].tolist()))
"""


def test_levels_agree(run_python) -> None:  # type: ignore[no-untyped-def]
    from planner import _core

    found = {}
    for level in _core.simd_levels():
        done = run_python(LEVEL_CODE, env={"PLANNER_SIMD": level})
        assert done.returncode == 0, done.stderr
        found[level] = [float.fromhex(x) for x in done.stdout.split()]
    first = found[_core.simd_levels()[0]]
    for level, values in found.items():
        assert values[0] == pytest.approx(first[0], rel=1e-10), level
        assert values[1:] == pytest.approx(first[1:], rel=1e-6), level
    if {"avx512", "avx2"} <= found.keys():
        assert found["avx512"] == found["avx2"]
