"""Forecasts by fitted laws, and their intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.curves import Curve, CurveError, declared_schedule
from planner.curves.forecast import METHODS, Pool, forecast_run, law_methods
from planner.curves.forecast.interval import student_quantile
from planner.curves.forecast.runs import check_method
from planner.laws import Law
from planner.laws.surrogate import surrogate_curve
from tests.curves.made import curve

SURROGATE = Law(
    "curves",
    "curve",
    "collapse-surrogate",
    "tau_and_tpp",
    {
        "b_coefficient": 0.05,
        "b_exponent": -0.5,
        "q_coefficient": 0.6,
        "q_exponent": -0.1,
        "eps1": 1e-3,
        "eps2": 0.1,
        "m": 0.05,
    },
    "made up",
    "fitted",
)
MULTI_POWER = Law(
    "schedules",
    "schedule",
    "multi-power",
    "lr_schedule",
    {"L0": 2.65, "A": 0.6, "alpha": 0.45, "B": 438.0, "C": 2.13, "beta": 0.6, "gamma": 0.65},
    "made up",
    "fitted",
)
LAWS = {law.name: law for law in (SURROGATE, MULTI_POWER)}


def run(name: str, *, tau: float, steps: int = 2000, final: float = 3.0, lr: float = 3e-4) -> Curve:
    schedule = declared_schedule("cosine", warmup_fraction=0.05, final_lr_fraction=0.1)
    assert schedule is not None
    made = curve(name, steps=steps, every=20, schedule=schedule, warmup=steps // 20, tau=tau, lr=lr)
    t = made.fraction
    shape = surrogate_curve(
        SURROGATE, t, schedule.at(t), final_lr_factor=0.1, tau=tau, tpp=made.facts.tpp
    )
    noise = np.random.default_rng(len(name)).normal(0.0, 1e-3, t.size)
    return replace(made, values=final * shape * np.exp(noise))


@pytest.mark.parametrize("method", ["surrogate", "multi-power-law"])
def test_a_law_needs_no_band(method: str) -> None:
    others = [run(f"r{i}", tau=tau) for i, tau in enumerate((0.05, 0.1, 0.4))]
    methods = METHODS | law_methods(LAWS)
    found = forecast_run(
        run("new", tau=2.0), Pool.of(others), at=0.3, method=method, methods=methods
    )
    assert found.method == method
    assert found.low is not None
    assert found.high is not None
    assert found.actual is not None
    if method == "surrogate":
        assert found.final == pytest.approx(found.actual, rel=0.003)
        assert found.low < found.actual < found.high


def test_the_level_of_a_law_does_not_count() -> None:
    new = run("new", tau=2.0)
    higher = {
        k: v * (1.1 if k in ("L0", "A", "B") else 1.0) for k, v in MULTI_POWER.constants.items()
    }
    finals = [
        forecast_run(
            new, Pool.of([]), at=0.3, method="multi-power-law", methods=law_methods({"law": law})
        ).final
        for law in (MULTI_POWER, replace(MULTI_POWER, constants=higher))
    ]
    assert finals[0] == pytest.approx(finals[1])


def test_a_law_that_is_given_is_used_where_there_is_no_band() -> None:
    others = [run(f"r{i}", tau=tau) for i, tau in enumerate((0.05, 0.1, 0.4))]
    new = run("new", tau=2.0)
    assert not forecast_run(new, Pool.of(others), at=0.3).decided
    with_law = forecast_run(
        new, Pool.of(others), at=0.3, methods=METHODS | law_methods({"curves": SURROGATE})
    )
    assert with_law.method == "surrogate"


def law_of(name: str, params: float, exponent: float, metric: str | None = None) -> Law:
    return replace(
        SURROGATE,
        name=name,
        metric=metric,
        constants=SURROGATE.constants | {"q_exponent": exponent},
        fitted_range={"params": (params, params)},
    )


def test_of_laws_of_several_sizes_each_run_has_the_nearest() -> None:
    new = run("new", tau=2.0)  # of 100M parameters
    small, near, large = (
        law_of(f"law-{n}", n, -0.1 - k / 10) for k, n in enumerate((1e7, 8e7, 1e9))
    )

    def final(*laws: Law, of: Curve = new) -> float | None:
        methods = law_methods({law.name: law for law in laws})
        return forecast_run(of, Pool.of([]), at=0.3, method="surrogate", methods=methods).final

    assert final(small, near, large) == final(large, near, small) == final(near)
    assert final(small, large) == final(large)  # closer in log N
    assert final(near) != final(small) != final(large)
    unknown = replace(new, facts=replace(new.facts, params=None))
    methods = law_methods({law.name: law for law in (small, near)})
    found = forecast_run(unknown, Pool.of([]), at=0.3, method="surrogate", methods=methods)
    assert not found.decided
    assert "N is not known" in found.why
    # a law of the run's own metric counts before a nearer one of another
    other = law_of("other", 1e8, -0.3, "eval/loss")
    assert final(small, other) == final(small)
    assert final(other) == final(replace(other, metric=None))


@pytest.mark.parametrize("method", ["surrogate", "multi-power-law"])
def test_what_a_law_needs_must_be_known(method: str) -> None:
    methods = METHODS | law_methods(LAWS)
    new = run("new", tau=2.0)
    fact = "tau" if method == "surrogate" else "lr"
    unknown = replace(new, facts=replace(new.facts, **{fact: None}))
    found = forecast_run(unknown, Pool.of([]), at=0.3, method=method, methods=methods)
    assert found.final is None


def test_without_a_law_there_is_no_such_method() -> None:
    with pytest.raises(CurveError, match="needs a law"):
        check_method("surrogate")


@pytest.mark.parametrize(
    ("level", "freedom", "quantile"),
    # Student's table
    [(0.9, 1, 6.3138), (0.9, 2, 2.9200), (0.9, 5, 2.0150), (0.95, 10, 2.2281), (0.99, 30, 2.7500)],
)
def test_student(level: float, freedom: int, quantile: float) -> None:
    assert student_quantile(level, freedom) == pytest.approx(quantile, abs=1e-4)
