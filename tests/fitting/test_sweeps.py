"""tau over TPP, batch over tokens, critical batch over tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.archive import Archive
from planner.curves import RunFacts
from planner.fitting import FitError
from planner.fitting.inputs import FinalLoss, group, same
from planner.fitting.optimum import Optimum, Sweep, find_optimum, merge_repeats
from planner.fitting.statistics import fit_line, t_quantile
from planner.fitting.sweeps import fit_batch, fit_tau

from .runs import Made, ended, law_loss, made_archive, sweep

FACTORS = (0.25, 0.5, 1.1, 2.0, 4.0)


def tau_law(tpp: float) -> float:
    return 1.1 * float(tpp**-0.5)


def tau_runs(seed: int = 0, noise: float = 0.0) -> list[Made]:
    runs = [
        run
        for n in (5e7, 2e8)
        for tpp in (5, 20, 80, 320)
        for run in sweep(n, tpp, tau_law(tpp), [f * tau_law(tpp) for f in FACTORS])
    ]
    random = np.random.default_rng(seed)
    for run in runs:
        run.loss = np.asarray(run.loss) * (1 + noise * random.standard_normal())
    return runs


def one(setting: list[float], loss: list[float]) -> Sweep:
    return Sweep("s", np.array(setting), np.array(loss), 20.0, 1e8, ("r",))


class TestOptimum:
    @settings(max_examples=50)
    @given(
        best=st.floats(0.02, 2.0),
        shift=st.floats(-0.6, 0.6),
        steepness=st.floats(0.001, 1.0),
        level=st.floats(1.0, 10.0),
    )
    def test_a_parabola_gives_its_lowest_point(
        self, best: float, shift: float, steepness: float, level: float
    ) -> None:
        at = best * np.exp(shift) * 2.0 ** np.arange(-2, 3)
        loss = level + steepness * np.log(at / best) ** 2
        found = find_optimum(one(at.tolist(), loss.tolist()))
        assert isinstance(found, Optimum)
        assert found.best == pytest.approx(best, rel=1e-6)
        assert found.loss == pytest.approx(level)

    def test_far_points_do_not_matter(self) -> None:
        at = 2.0 ** np.arange(-6, 7)
        loss = 3 + 0.01 * np.log(at / 1.3) ** 2 + 0.01 * np.abs(np.log(at / 1.3)) ** 5
        found = find_optimum(one(at.tolist(), loss.tolist()))
        assert isinstance(found, Optimum)
        assert found.best == pytest.approx(1.3, rel=0.15)

    @pytest.mark.parametrize(
        ("setting", "loss", "why"),
        [
            ([0.1, 0.2], [3.0, 3.1], "2 settings, wanted at least 3"),
            ([0.1, 0.2, 0.4], [3.0, 3.1, 3.2], "the lowest setting, 0.1, is the best"),
            ([0.1, 0.2, 0.4], [3.2, 3.1, 3.0], "the highest setting, 0.4, is the best"),
            ([0.1, 0.1, 0.2], [3.0, 3.1, 3.2], "2 settings"),
        ],
    )
    def test_what_has_no_optimum(self, setting: list[float], loss: list[float], why: str) -> None:
        found = find_optimum(one(setting, loss))
        assert isinstance(found, str)
        assert found.startswith(why)

    def test_repeats_are_averaged(self) -> None:
        x, y, count = merge_repeats([0.2, 0.1, 0.2], [3.0, 2.0, 4.0])
        assert x.tolist() == [0.1, 0.2]
        assert y.tolist() == [2.0, 3.5]
        assert count.tolist() == [1, 2]


class TestLine:
    def test_student(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        for freedom in (1, 2, 3, 5, 11, 100):
            for level in (0.5, 0.8, 0.9, 0.95):
                exact = stats.t.ppf((1 + level) / 2, freedom)
                assert t_quantile(level, freedom) == pytest.approx(exact, rel=0.01)
        with pytest.raises(ValueError, match="level"):
            t_quantile(1.0, 3)

    def test_without_errors_it_is_ordinary_least_squares(self) -> None:
        linregress = pytest.importorskip("scipy.stats").linregress
        random = np.random.default_rng(0)
        x = np.arange(8.0)
        y = 2 - 0.5 * x + 0.1 * random.standard_normal(8)
        line, theirs = fit_line(x, y), linregress(x, y)
        assert line.slope == pytest.approx(theirs.slope)
        assert line.intercept == pytest.approx(theirs.intercept)
        assert line.covariance[1, 1] ** 0.5 == pytest.approx(theirs.stderr)
        assert line.covariance[0, 0] ** 0.5 == pytest.approx(theirs.intercept_stderr)

    def test_precise_points_count_more(self) -> None:
        x, y = [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 9.0]
        line = fit_line(x, y, [0.01, 0.01, 0.01, 6.0])
        assert line.slope == pytest.approx(1.0, abs=0.01)
        assert line.scatter == 0

    def test_scatter_beyond_the_errors_is_found(self) -> None:
        random = np.random.default_rng(1)
        x = np.linspace(0, 3, 400)
        y = x + 0.2 * random.standard_normal(400) + 0.1 * random.standard_normal(400)
        assert fit_line(x, y, np.full(400, 0.1)).scatter == pytest.approx(0.2, rel=0.15)

    def test_one_x_is_refused(self) -> None:
        with pytest.raises(ValueError, match="two different x"):
            fit_line([1.0, 1.0], [2.0, 3.0])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=40))
def test_groups_are_those_of_comparing_each_with_each(pairs: list[tuple[int, int]]) -> None:
    runs = [
        FinalLoss(
            RunFacts(
                str(i),
                "x",
                params=10**6 * n,
                tokens=None if d == 0 else 10**9 + 2 * 10**6 * d,
            ),
            1.0,
            None,
        )
        for i, (n, d) in enumerate(pairs)
    ]
    wanted: list[list[FinalLoss]] = []
    for run in runs:
        for members in wanted:
            facts = members[0].facts
            if same(facts.params, run.facts.params) and same(facts.tokens, run.facts.tokens):
                members.append(run)
                break
        else:
            wanted.append([run])
    assert group(runs, ("params", "tokens")) == wanted


class TestTau:
    def test_an_exact_law_comes_back(self, tmp_path: Path) -> None:
        fit = fit_tau(made_archive(tmp_path, tau_runs()))
        assert fit.law.constants == pytest.approx({"coefficient": 1.1, "exponent": -0.5}, rel=1e-3)
        assert fit.law.fitted_range == {"tpp": (5, 320)}
        assert (fit.runs, fit.warnings, len(fit.residuals)) == (40, (), 8)
        assert fit.left_out[0].error < 1e-3

    def test_intervals_hold_the_truth_under_noise(self, tmp_path: Path) -> None:
        inside = []
        for seed in range(5):
            archive = made_archive(tmp_path / str(seed), tau_runs(seed, noise=0.001))
            low, high = fit_tau(archive).law.intervals["exponent"]
            inside.append(low <= -0.5 <= high)
        assert sum(inside) >= 4

    def test_sweeps_that_do_not_enclose_their_optimum_are_named(self, tmp_path: Path) -> None:
        runs = tau_runs() + sweep(1e8, 20, 5.0, [0.1, 0.2, 0.4])
        fit = fit_tau(made_archive(tmp_path, runs))
        assert fit.law.constants["exponent"] == pytest.approx(-0.5, rel=1e-3)
        (warning,) = fit.warnings
        assert warning.startswith("1 of 9 sweeps do not enclose their optimum, such as 100M 20 TPP")

    def test_a_grid_over_rates_is_a_sweep_for_each(self, tmp_path: Path) -> None:
        runs = []
        for lr, shift in ((0.001, 0.8), (0.002, 1.25)):
            for tpp in (5, 20, 80):
                best = shift * tau_law(tpp)
                for run in sweep(1e8, tpp, best, [f * tau_law(tpp) for f in FACTORS]):
                    # higher rates are worse here: one parabola through all would be off
                    run.loss = np.asarray(run.loss) * (1 + 20 * lr)
                    run.facts["lr"] = lr
                    run.name += f"-{lr}"
                    runs.append(run)
        fit = fit_tau(made_archive(tmp_path, runs))
        assert len(fit.residuals) == 6
        assert fit.law.constants == pytest.approx({"coefficient": 1.1, "exponent": -0.5}, rel=1e-2)
        assert fit.law.scatter == pytest.approx(0.27, abs=0.03)
        assert {residual.name.split(" lr ")[1] for residual in fit.residuals} == {"0.001", "0.002"}

    def test_one_tpp_is_no_law(self, tmp_path: Path) -> None:
        runs = sweep(1e8, 20, 0.25, [0.06, 0.12, 0.25, 0.5, 1.0])
        with pytest.raises(FitError, match=r"optima at two different tpp at least, got 20"):
            fit_tau(made_archive(tmp_path, runs))

    def test_runs_without_tau_are_no_sweep(self, tmp_path: Path) -> None:
        runs = [ended(f"r{i}", 3.0 + i, params=10**8, tokens=10**9) for i in range(4)]
        with pytest.raises(FitError, match="got none"):
            fit_tau(made_archive(tmp_path, runs))

    def test_a_narrow_span_leaves_the_exponent_open(self, tmp_path: Path) -> None:
        runs = [
            run
            for tpp in (18, 20, 22)
            for run in sweep(1e8, tpp, 0.25, [0.06, 0.12, 0.25, 0.5, 1.0])
        ]
        random = np.random.default_rng(3)
        for run in runs:
            run.loss = np.asarray(run.loss) * (1 + 0.002 * random.standard_normal())
        fit = fit_tau(made_archive(tmp_path, runs))
        assert fit.law.unidentified == ("coefficient", "exponent")
        assert any("do not determine the exponent" in text for text in fit.warnings)


def batch_runs() -> list[Made]:
    runs = []
    for d in (1e9, 4e9, 1.6e10):
        best = 20 * d**0.4
        for factor in FACTORS:
            loss = law_loss(1e8, d) + 0.02 * np.log(factor) ** 2
            runs.append(
                ended(
                    f"{d:g}-{factor:g}",
                    float(loss),
                    params=10**8,
                    tokens=int(d),
                    batch_tokens=round(best * factor),
                )
            )
    return runs


def critical_runs(exponent: float = 0.45, noise: float = 0.0) -> list[Made]:
    """Losses that depend on the batch by way of D_min alone."""
    random = np.random.default_rng(0)
    runs = []
    for n in (5e7, 2e8):
        for batch in (2e4, 8e4, 3.2e5, 1.28e6):
            for least in np.geomspace(5e8, 2e10, 6):
                critical = 12 * least**exponent
                d = least * (1 + batch / critical)
                loss = law_loss(n, least) * (1 + noise * random.standard_normal())
                runs.append(
                    ended(
                        f"{n:g}-{batch:g}-{least:.3g}",
                        float(loss),
                        params=int(n),
                        tokens=int(d),
                        batch_tokens=int(batch),
                    )
                )
    return runs


class TestBatch:
    def test_an_exact_law_comes_back(self, tmp_path: Path) -> None:
        (fit,) = fit_batch(made_archive(tmp_path, batch_runs()))
        assert fit.law.constants == pytest.approx({"coefficient": 20, "exponent": 0.4}, rel=2e-2)
        assert fit.law.quantity == "batch"
        assert any("no critical batch: it needs one size with 3 batches" in n for n in fit.notes)

    def test_the_critical_batch_comes_back(self, tmp_path: Path) -> None:
        archive = made_archive(tmp_path, critical_runs())
        (fit,) = fit_batch(archive)
        assert fit.law.quantity == "critical_batch"
        assert fit.law.name == "fitted-batch-critical"
        # L_B(D) is not quite a power law in D: the procedure's own error
        assert fit.law.constants["exponent"] == pytest.approx(0.45, abs=0.05)
        at = 3e9
        assert fit.law.at(at) == pytest.approx(12 * at**0.45, rel=0.15)
        assert any("no law of the best batch" in note for note in fit.notes)

    def test_noise_widens_the_interval(self, tmp_path: Path) -> None:
        quiet = fit_batch(made_archive(tmp_path / "a", critical_runs(noise=1e-5)))[0].law
        loud = fit_batch(made_archive(tmp_path / "b", critical_runs(noise=2e-3)))[0].law
        spans = [
            law.intervals["exponent"][1] - law.intervals["exponent"][0] for law in (quiet, loud)
        ]
        assert spans[1] > 2 * spans[0]

    def test_nothing_at_all_is_refused(self, tmp_path: Path) -> None:
        runs = [ended("a", 3.0, params=10**8, tokens=10**9, batch_tokens=1000)]
        with pytest.raises(FitError, match="nor a critical batch"):
            fit_batch(made_archive(tmp_path, runs))


@pytest.mark.data
def test_a_real_sweep(data_dir: Path, tmp_path: Path) -> None:
    """LR sweeps at 124M: the optimum is near tau 0.5 at 15,000 steps, and two TPP are too few."""
    from planner.archive import ingest

    ingest([str(data_dir / "wsd_cosine_llama")], str(tmp_path / "archive"))
    fit = fit_tau(Archive(tmp_path / "archive"), metric="final_val_loss", where=["params>=120M"])
    assert len(fit.residuals) >= 5
    assert all(0.2 < residual.observed < 1.0 for residual in fit.residuals)
    assert "exponent" in fit.law.unidentified
    assert any("do not enclose their optimum" in text for text in fit.warnings)
