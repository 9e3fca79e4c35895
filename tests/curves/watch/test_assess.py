"""What is said of a run so far."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.curves import Reference, declared_schedule
from planner.curves.forecast import Pool, forecast_run
from planner.curves.forecast.collapse import Collapse
from planner.curves.watch import assess
from tests.curves.made import curve


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.build([curve("ref", noise=0.002)])


def test_the_final_loss_is_within_its_interval(reference: Reference) -> None:
    inside = 0
    for seed in range(40):
        part = curve("run", noise=0.01, seed=seed, final=2.7).until(0.4)
        found = assess(part, reference).forecast
        assert found is not None
        assert found.final is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.final < found.high
        assert found.level == 0.9
        inside += found.low <= 2.7 <= found.high
    assert inside >= 32


def test_it_is_what_forecast_says(reference: Reference) -> None:
    part = curve("run", noise=0.01, final=2.7).until(0.4)
    method = Collapse(reference=reference)
    said = forecast_run(part, Pool(()), method="collapse", methods={"collapse": method})
    found = assess(part, reference).forecast
    assert found is not None
    assert (found.final, found.low, found.high) == (said.final, said.low, said.high)


def test_what_the_log_does_not_say_the_user_vouches_for(reference: Reference) -> None:
    part = curve("run", noise=0.01, final=2.7, tpp=None, tau=None).until(0.4)
    found = assess(replace(part, schedule=None), reference).forecast
    assert found is not None
    assert found.final == pytest.approx(2.7, rel=0.02)


def test_no_final_loss_where_the_reference_does_not_fit(reference: Reference) -> None:
    early = assess(curve("run", noise=0.01).until(0.03), reference).forecast
    assert early is not None
    assert early.final is None
    assert "is needed" in early.why
    other = declared_schedule("cosine", warmup_fraction=0.02, final_lr_fraction=0.3)
    wrong = assess(curve("run", noise=0.01, schedule=other).until(0.5), reference)
    assert wrong.forecast is not None
    assert wrong.forecast.final is None
    assert "another schedule" in wrong.forecast.why
    assert wrong.document()["predicted"]["final"] is None


def test_without_a_reference_nothing_is_predicted() -> None:
    found = assess(curve("run", noise=0.01))
    assert found.forecast is None
    assert found.document()["predicted"] is None
