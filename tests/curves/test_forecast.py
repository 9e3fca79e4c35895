"""Forecasts of made-up runs whose end is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.curves import Curve, Reference, RunFacts, Schedule, declared_schedule
from planner.curves.forecast import LEAST_FRACTION, METHODS, Pool, forecast_run
from planner.curves.forecast.collapse import Collapse
from planner.curves.select import judge
from tests.curves.made import curve

SIZES = (100_000_000, 300_000_000, 1_000_000_000)
BIG = 3_000_000_000


def member(params: int, *, noise: float = 0.002, drift: float = 0.01, **kwargs: float) -> Curve:
    """A run of a family whose shape drifts with log N."""
    folds = float(np.log(params / SIZES[0]))
    return curve(
        f"run-{params}",
        params=params,
        final=3.6 * np.exp(-0.08 * folds),
        bend=0.15 + drift * folds,
        noise=noise,
        seed=params % 1013,
        **kwargs,
    )


def family(**kwargs: float) -> list[Curve]:
    return [member(params, **kwargs) for params in SIZES]


def test_a_larger_size_is_met() -> None:
    found = forecast_run(member(BIG), Pool.of(family()), at=0.2)
    assert found.method == "combined"
    assert found.final == pytest.approx(found.actual, rel=0.003)
    assert found.low is not None
    assert found.high is not None
    assert found.actual is not None
    assert found.low < found.actual < found.high
    assert found.references == tuple(f"run-{params}" for params in SIZES)
    assert "2 finished runs" in found.why


def test_averaging_is_biased_where_shapes_drift() -> None:
    pool, run = Pool.of(family(noise=0.0, drift=0.02)), member(BIG, noise=0.0, drift=0.02)
    collapse = forecast_run(run, pool, at=0.2, method="collapse")
    mean = forecast_run(run, pool, at=0.2, method="mean")
    assert collapse.final is not None
    assert mean.final is not None
    assert collapse.actual is not None
    assert abs(mean.final / collapse.actual - 1) > 0.01
    assert abs(collapse.final / collapse.actual - 1) < 0.002


def test_a_size_that_is_repeated_often_counts_no_more_in_the_mean() -> None:
    runs, run = family(noise=0.0, drift=0.02), member(BIG, noise=0.0, drift=0.02)
    first = runs[0]
    again = [
        replace(first, facts=replace(first.facts, run=f"again-{i}", name=f"again-{i}"))
        for i in range(20)
    ]

    def final(curves: list[Curve]) -> float | None:
        return forecast_run(run, Pool.of(curves), at=0.2, method="mean").final

    assert final([*runs, *again]) == pytest.approx(final(runs), rel=1e-9)
    assert final([*runs[1:], *again]) == pytest.approx(final(runs), rel=1e-9)
    assert final(runs[1:]) != pytest.approx(final(runs), rel=1e-3)


@settings(max_examples=10)
@given(st.floats(0.1, 10.0))
def test_units_of_the_loss(factor: float) -> None:
    runs = [*family(), member(BIG)]
    scaled = [replace(c, values=factor * c.values) for c in runs]
    for name in ("combined", "collapse", "mean", "power-law", "size-law", "current"):
        before = forecast_run(runs[-1], Pool.of(runs), at=0.2, method=name)
        after = forecast_run(scaled[-1], Pool.of(scaled), at=0.2, method=name)
        assert after.final == pytest.approx(factor * before.final, rel=1e-6)
        if before.low is not None:
            assert after.low == pytest.approx(factor * before.low, rel=1e-6)


@settings(max_examples=40)
@given(st.sampled_from(sorted(METHODS)), st.floats(0.06, 0.6), st.integers(0, 9))
def test_what_comes_later_changes_nothing(method: str, at: float, seed: int) -> None:
    run, pool = member(BIG), Pool.of(family())
    late = run.fraction > at + 1e-6
    values = run.values.copy()
    values[late] *= np.random.default_rng(seed).uniform(0.1, 9.0, int(late.sum()))
    values[np.flatnonzero(late)[:1]] = np.nan
    changed = replace(run, values=values)
    before = forecast_run(run, pool, at=at, method=method)
    after = forecast_run(changed, pool, at=at, method=method)
    assert (after.final, after.low, after.high) == (before.final, before.low, before.high)
    # nor what is gone altogether
    cut = forecast_run(run.until(at), pool, method=method)
    assert (cut.final, cut.low, cut.high) == (before.final, before.low, before.high)
    assert cut.actual is None


def test_an_interval_widens_with_noise_and_level() -> None:
    def width(noise: float, level: float) -> float:
        found = forecast_run(
            member(BIG, noise=noise), Pool.of(family(noise=noise)), at=0.2, level=level
        )
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(0.02, 0.9) > 2 * width(0.002, 0.9)
    assert width(0.002, 0.99) > 1.3 * width(0.002, 0.9)


def test_intervals_hold_as_often_as_they_say() -> None:
    pool_seeds, held = range(40), 0
    for seed in pool_seeds:
        runs = [
            curve(
                f"r{seed}-{p}",
                params=p,
                final=3.6 * np.exp(-0.08 * np.log(p / SIZES[0])),
                bend=0.15 + 0.01 * float(np.log(p / SIZES[0])),
                noise=0.01,
                seed=1000 * seed + i,
            )
            for i, p in enumerate((*SIZES, BIG))
        ]
        found = forecast_run(runs[-1], Pool.of(runs[:-1]), at=0.2)
        true = 3.6 * np.exp(-0.08 * np.log(BIG / SIZES[0]))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= true <= found.high
    assert 0.8 <= held / len(pool_seeds) <= 1.0


class TestUndecidable:
    def test_two_percent_of_a_run(self) -> None:
        found = forecast_run(member(BIG), Pool.of(family()), at=0.02)
        assert (found.final, found.method) == (None, "undecidable")
        assert f"{LEAST_FRACTION:.0%} is needed" in found.why

    @pytest.mark.parametrize("method", ["auto", *sorted(METHODS)])
    def test_no_method_speaks_of_two_percent(self, method: str) -> None:
        assert not forecast_run(member(BIG), Pool.of(family()), at=0.02, method=method).decided

    def test_no_reference_of_the_same_schedule(self) -> None:
        other = declared_schedule("constant", warmup_fraction=0.02)
        runs = [replace(c, schedule=other) for c in family()]
        found = forecast_run(member(BIG), Pool.of(runs), at=0.3)
        assert found.final is None
        assert "same schedule" in found.why

    @pytest.mark.parametrize(("fact", "value"), [("tpp", 80.0), ("tau", 0.05)])
    def test_no_reference_of_the_same_band(self, fact: str, value: float) -> None:
        runs = [replace(c, facts=replace(c.facts, **{fact: value})) for c in family()]
        assert not forecast_run(member(BIG), Pool.of(runs), at=0.3).decided

    def test_nothing_finished(self) -> None:
        runs = [c.until(0.5) for c in family()]
        assert not forecast_run(member(BIG), Pool.of(runs), at=0.3).decided

    def test_horizon_unknown(self) -> None:
        found = forecast_run(replace(member(BIG), horizon=None), Pool.of(family()))
        assert (found.final, found.at) == (None, None)
        assert "steps of the whole run" in found.why

    @pytest.mark.parametrize("field", ["params", "tpp"])
    def test_what_the_run_is_must_be_known(self, field: str) -> None:
        run = member(BIG)
        run = replace(run, facts=replace(run.facts, **{field: None}))
        assert not forecast_run(run, Pool.of(family()), at=0.3).decided

    def test_a_loss_that_is_not_a_number(self) -> None:
        run = member(BIG).until(0.3)
        values = run.values.copy()
        values[-3:] = np.nan
        found = forecast_run(replace(run, values=values), Pool.of(family()))
        assert found.final is None
        assert "not a number since 29.7%" in found.why

    def test_a_schedule_whose_cooldown_is_not_known(self) -> None:
        def of_kind(run: Curve, kind: str, until: float) -> Curve:
            assert run.schedule is not None
            t = np.linspace(0.02, until, 50)
            known = Schedule(t, run.schedule.at(t), "logged")
            return replace(run, schedule=known, facts=replace(run.facts, schedule=kind))

        for kind, decided in (("linear-to-zero", True), ("wsd", False)):
            runs = [of_kind(c, kind, 1.0) for c in family()]
            found = forecast_run(of_kind(member(BIG), kind, 0.3), Pool.of(runs), at=0.3)
            assert found.decided is decided


class TestReference:
    def test_a_reference_takes_the_place_of_runs(self) -> None:
        reference = Reference.build(family())
        methods = METHODS | {"collapse": Collapse(reference=reference)}
        run = member(BIG)
        found = forecast_run(run, Pool.of([]), at=0.2, method="collapse", methods=methods)
        same = forecast_run(run, Pool.of(family()), at=0.2, method="collapse")
        assert found.final is not None
        assert found.final == pytest.approx(same.final, rel=1e-3)
        assert found.low is not None
        assert found.high is not None
        assert found.actual is not None
        assert found.low < found.actual < found.high

    def test_a_reference_of_another_band_is_refused(self) -> None:
        reference = Reference.build(family(tpp=80.0))
        methods = METHODS | {"collapse": Collapse(reference=reference)}
        found = forecast_run(member(BIG), Pool.of([]), at=0.2, method="collapse", methods=methods)
        assert found.final is None
        assert "the reference is of another" in found.why


def test_the_run_itself_is_never_its_reference() -> None:
    runs = [*family(), member(BIG)]
    found = forecast_run(runs[-1], Pool.of(runs), at=0.3)
    assert "run-3000000000" not in found.references


def test_early_the_law_of_the_size_counts_later_the_curve() -> None:
    run, pool = member(BIG, noise=0.01), Pool.of(family(noise=0.01))
    shares = []
    for at in (0.06, 0.7):
        found = {
            m: forecast_run(run, pool, at=at, method=m)
            for m in ("combined", "collapse", "size-law")
        }
        finals = {name: f.final for name, f in found.items()}
        assert None not in finals.values()
        low, high = sorted((np.log(finals["collapse"]), np.log(finals["size-law"])))
        assert low <= np.log(finals["combined"]) <= high
        shares.append(int(found["combined"].why.split("for ")[1].split("%")[0]))
    assert shares[0] < shares[1]


def test_two_sizes_do_not_tell_how_far_a_law_of_the_size_errs() -> None:
    pool = Pool.of(family()[:2])
    found = forecast_run(member(BIG), pool, at=0.3)
    assert found.method == "collapse"
    assert found.final == forecast_run(member(BIG), pool, at=0.3, method="collapse").final


def test_one_reference_has_a_wide_interval() -> None:
    one = forecast_run(member(BIG), Pool.of(family()[:1]), at=0.3)
    three = forecast_run(member(BIG), Pool.of(family()), at=0.3)
    assert one.low is not None
    assert one.high is not None
    assert three.low is not None
    assert three.high is not None
    assert one.high - one.low > three.high - three.low
    assert one.actual is not None
    assert one.low < one.actual < one.high


def test_another_method_is_chosen_only_where_it_did_better() -> None:
    # shapes that do not drift, and six sizes to test on: the mean of them is the least noisy
    sizes = [int(1e8 * 2**i) for i in range(6)]
    runs = [member(n, noise=0.02, drift=0.0) for n in sizes]
    found = forecast_run(member(int(1e10), noise=0.02, drift=0.0), Pool.of(runs), at=0.2)
    tests = found.back_tests
    assert found.method == min(tests, key=lambda name: tests[name]) or tests[
        found.method
    ] == pytest.approx(min(tests.values()))
    assert f"{tests[found.method]:.2%}" in found.why


FACTS = st.fixed_dictionaries(
    {
        "params": st.sampled_from([None, 1, 10**8, 10**8 + 1, 10**9, 10**10]),
        "tpp": st.sampled_from([None, 0.0, 20.0, 20.0, 20.0]),
        "tau": st.sampled_from([None, None, 0.2]),
        "lr": st.sampled_from([None, 0.0, 1e-3]),
        "batch_tokens": st.sampled_from([None, 10**6]),
        "warmup_steps": st.sampled_from([None, 0, 5, 10**6]),
        "schedule": st.sampled_from([None, "cosine", "wsd"]),
    }
)
SCHEDULES = st.sampled_from(
    [None, declared_schedule("cosine", warmup_fraction=0.1), declared_schedule("linear-to-zero")]
)
ODD = st.sampled_from([np.nan, np.inf, -1.0, 0.0, 1e-300, 1.0, 2.0, 2.5, 3.0, 1e300])
VALUES = st.one_of(
    st.lists(ODD, max_size=12), st.lists(st.floats(1.0, 9.0), min_size=8, max_size=20)
)


@st.composite
def any_curve(draw: st.DrawFn, name: str) -> Curve:
    values = np.array(draw(VALUES))
    steps = np.cumsum(
        draw(st.lists(st.integers(1, 30), min_size=values.size, max_size=values.size))
    )
    horizon = draw(st.sampled_from([None, 1, 1, 1, 100]))
    if horizon is not None and steps.size:
        horizon = max(horizon, int(steps[-1]))
    every = float(np.median(np.diff(steps))) if steps.size > 1 else 1.0
    nothing = (np.zeros(0, np.int64), np.zeros(0))
    facts = RunFacts(name, name, **draw(FACTS))
    return Curve(
        facts,
        "train/loss",
        steps.astype(np.int64),
        values,
        horizon,
        draw(SCHEDULES),
        every,
        nothing,
    )


@settings(max_examples=60)
@given(st.data(), st.sampled_from(["auto", *sorted(METHODS)]), st.sampled_from([None, 0.01, 0.5]))
def test_no_curve_is_too_odd(data: st.DataObject, method: str, at: float | None) -> None:
    runs = [data.draw(any_curve(f"r{i}")) for i in range(data.draw(st.integers(1, 6)))]
    pool = Pool.of(runs)
    for run in runs:
        found = forecast_run(run, pool, at=at, method=method)
        for value in (found.final, found.low, found.high):
            assert value is None or (np.isfinite(value) and value > 0)
        assert found.decided or found.why
    if len(runs) > 1:
        sweep = judge(
            [replace(c, horizon=c.horizon or 100) for c in runs], pool, at=at, method=method
        )
        assert len(sweep.candidates) == len(runs)
