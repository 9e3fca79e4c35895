"""The drift alarm on made-up curves."""

from __future__ import annotations

import numpy as np
import pytest

from planner.curves import CurveError, Reference, declared_schedule
from planner.curves.alarm import find_drift
from tests.curves.made import curve


def ramp(t):
    return np.maximum(0.0, (t - 0.6) / 0.4) * 0.03


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.build([curve("ref", noise=0.002)])


def test_a_drift_is_called_and_dated(reference: Reference) -> None:
    report = find_drift(curve("sick", noise=0.01, seed=3, extra=ramp), reference)
    assert report.state == "alarm"
    assert report.at is not None
    assert 0.62 < report.at < 0.85
    assert report.since is not None
    assert report.since < report.at
    assert report.rise is not None
    assert 0.0 < report.rise < 0.05
    assert report.step == round(report.at * 1000)


def test_no_alarm_before_the_points_that_raise_it(reference: Reference) -> None:
    whole = curve("sick", noise=0.01, seed=3, extra=ramp)
    at = find_drift(whole, reference).at
    assert at is not None
    assert find_drift(whole.until(at - 0.002), reference).state == "quiet"
    assert find_drift(whole.until(at), reference).at == at


def test_healthy_runs_stay_quiet_whatever_their_level(reference: Reference) -> None:
    states = [
        find_drift(curve("run", noise=0.01, seed=s, final=2.0 + s / 10), reference).state
        for s in range(20)
    ]
    assert states == ["quiet"] * 20


def test_what_cannot_be_decided(reference: Reference) -> None:
    short = find_drift(curve("run", noise=0.01).until(0.02), reference)
    assert short.state == "undecidable"
    assert "less than" in short.reason
    constant = declared_schedule("constant", warmup_fraction=0.02)
    other = find_drift(curve("run", noise=0.01, schedule=constant), reference)
    assert other.state == "undecidable"
    assert "schedule" in other.reason
    few = find_drift(curve("run", steps=1000, every=50), reference)
    assert few.state == "undecidable"
    assert "too few" in few.reason
    early = find_drift(curve("run", noise=0.01).until(0.1), reference)
    assert early.state == "calibrating"


def test_bad_settings(reference: Reference) -> None:
    run = curve("run", noise=0.01)
    with pytest.raises(CurveError, match="--alpha"):
        find_drift(run, reference, alpha=0.5)
    with pytest.raises(CurveError, match="--start"):
        find_drift(run, reference, start=1.0)


def test_a_tolerance_covers_what_it_says(reference: Reference) -> None:
    sick = curve("sick", noise=0.001, seed=3, extra=lambda t: 0.02 * np.maximum(0.0, t - 0.4))
    assert find_drift(sick, reference, tolerance=0.0).state == "alarm"
    assert find_drift(sick, reference, tolerance=0.012).state == "quiet"
