"""Which settings of a made-up sweep are stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.curves import Curve, declared_schedule
from planner.curves.forecast import Pool
from planner.curves.select import RISK, best_of, judge
from planner.laws.last_iterate import last_iterate_bound
from tests.curves.made import curve


def lawful(
    name: str, params: int, steps: int, lr: float, cooldown: float, noise: float = 1e-4
) -> Curve:
    """A run that follows a law of the schedule."""
    schedule = declared_schedule("wsd", warmup_fraction=0.02, decay_fraction=cooldown)
    assert schedule is not None
    warmup = round(0.02 * steps)
    made = curve(
        name, params=params, steps=steps, every=10, schedule=schedule, warmup=warmup, lr=lr
    )
    all_steps = np.arange(1, steps + 1)
    rates = lr * schedule.at(all_steps / steps)
    progress, bumps = last_iterate_bound(rates, made.steps)
    logs = 1.2 - 0.05 * np.log(params / 1e8) + 0.3 * progress**0.3 + 12.0 * bumps**0.8
    logs += np.random.default_rng(len(name) + steps).normal(0.0, noise, logs.size)
    return replace(made, values=np.exp(logs))


def small_runs() -> list[Curve]:
    return [
        lawful(f"small-{params}-{steps}-{lr:g}-{cooldown}", params, steps, lr, cooldown)
        for params in (30_000_000, 60_000_000)
        for steps in (2000, 3000)
        for lr, cooldown in ((1e-3, 0.2), (2e-3, 0.9), (1e-3, 0.0))
    ]


def sweep() -> list[Curve]:
    return [
        lawful(f"lr{lr:g}-{cooldown}", 120_000_000, 4000, lr, cooldown)
        for lr in (5e-4, 1e-3, 2e-3)
        for cooldown in (0.1, 0.4, 0.8)
    ]


def test_the_best_is_found_before_any_cooldown_shows() -> None:
    candidates = sweep()
    truth = min(candidates, key=lambda c: float(c.values[-1])).facts.name
    found = judge(candidates, Pool.of(small_runs()), at=0.2)
    assert found.method == "schedule-law"
    assert found.candidates[0].name == truth
    by_name = {c.name: c for c in found.candidates}
    assert by_name[truth].verdict != "stop"
    assert sum(c.probability or 0.0 for c in found.candidates) == pytest.approx(1.0)
    stopped = [c for c in found.candidates if c.verdict == "stop"]
    assert sum(c.probability or 0.0 for c in stopped) <= RISK + 1e-12
    assert found.saved == pytest.approx(len(stopped) * 0.8 / len(candidates))
    # the loss at a fifth would have chosen another
    assert min(found.candidates, key=lambda c: c.loss or 9.0).name != truth


def test_what_comes_later_changes_nothing() -> None:
    pool = Pool.of(small_runs())
    before = judge(sweep(), pool, at=0.25)
    changed = []
    for c in sweep():
        values = c.values.copy()
        values[c.fraction > 0.25 + 1e-6] *= 1.7
        changed.append(replace(c, values=values))
    after = judge(changed, pool, at=0.25)
    assert [replace(c, actual=None) for c in after.candidates] == [
        replace(c, actual=None) for c in before.candidates
    ]


def test_candidates_are_compared_where_all_have_been() -> None:
    candidates = [c.until(0.2 + 0.1 * (i % 3)) for i, c in enumerate(sweep())]
    found = judge(candidates, Pool.of(small_runs()))
    assert found.at == pytest.approx(0.2)
    assert (
        found.candidates
        == judge([c.until(0.2) for c in candidates], Pool.of(small_runs())).candidates
    )


def test_a_finished_candidate_is_known() -> None:
    candidates = sweep()
    live = [candidates[0], *(c.until(0.3) for c in candidates[1:])]
    found = judge(live, Pool.of(small_runs()))
    done = next(c for c in found.candidates if c.name == candidates[0].facts.name)
    assert done.final == pytest.approx(done.actual)
    # there is nothing to stop, though it is not the best
    assert (done.verdict, done.saved_tokens) == ("keep", None)
    assert done.probability == pytest.approx(0.0, abs=1e-3)
    stopped = sum(c.verdict == "stop" for c in found.candidates)
    assert found.saved == pytest.approx(stopped * 0.7 / len(live))


class TestUndecidable:
    def test_two_percent(self) -> None:
        found = judge(sweep(), Pool.of(small_runs()), at=0.02)
        assert {c.verdict for c in found.candidates} == {"undecidable"}
        assert "5% is needed" in found.why
        assert found.saved == 0

    def test_no_finished_runs(self) -> None:
        found = judge(sweep(), Pool.of([]), at=0.3)
        assert found.method == "undecidable"
        assert {c.verdict for c in found.candidates} == {"undecidable"}
        assert "schedule-law" in found.why

    def test_what_leads_now_is_no_forecast(self) -> None:
        found = judge(sweep(), Pool.of(small_runs()), at=0.3, method="current")
        assert {c.verdict for c in found.candidates} == {"undecidable"}


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=8), st.floats(0.0, 0.5))
def test_probabilities(means: list[float], error: float) -> None:
    probability, regret = best_of(means, error)
    assert probability.sum() == pytest.approx(1.0)
    assert np.all(regret >= -1e-6)
    order = np.argsort(means)
    assert np.all(np.diff(probability[order]) <= 1e-9)
    assert np.diff(regret) == pytest.approx(np.diff(means), abs=1e-9)


def test_probabilities_are_those_of_drawing() -> None:
    means, error = np.array([0.0, 0.01, 0.02, 0.05]), 0.02
    draws = means + error * np.random.default_rng(1).normal(size=(200_000, 4))
    counted = np.bincount(draws.argmin(axis=1), minlength=4) / len(draws)
    probability, regret = best_of(means, error)
    assert probability == pytest.approx(counted, abs=0.004)
    assert regret == pytest.approx(means - draws.min(axis=1).mean(), abs=2e-4)


@pytest.mark.parametrize(("means", "error"), [([], 0.1), ([np.nan], 0.1), ([1.0], -1.0)])
def test_bad_numbers_are_refused(means: list[float], error: float) -> None:
    with pytest.raises(ValueError, match=r"forecasts|error"):
        best_of(means, error)
