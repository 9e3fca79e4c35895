"""The recorded family's own measurements, on losses whose answer is known."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).resolve().parents[2] / "examples" / "tiny-family"


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", HERE / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("best", [0.23, 0.4, 1.1])
def test_the_minimum_of_a_parabola_is_found(measure: ModuleType, best: float) -> None:
    taus = list(measure.SWEEP_TAUS)
    losses = [2.0 + 0.03 * np.log(tau / best) ** 2 for tau in taus]
    tau, bound = measure.best_tau(taus, losses)
    assert tau == pytest.approx(best, rel=1e-9)
    assert bound == ""


def test_a_minimum_at_an_end_is_a_bound(measure: ModuleType) -> None:
    taus = list(measure.SWEEP_TAUS)
    assert measure.best_tau(taus, taus) == (0.1, "at most")
    assert measure.best_tau(taus, [-tau for tau in taus]) == (3.2, "at least")
    # the lowest is no end, but the parabola opens downwards
    losses = [1.01, 3.0, 1.0, 3.0, 1.02]
    assert measure.best_tau([1.0, 2.0, 4.0, 8.0, 16.0], losses) == (4.0, "about")


@given(
    seed=st.integers(0, 2**32 - 1),
    rates=st.integers(1, 3),
    each=st.integers(4, 9),
    slope=st.floats(-2.0, 2.0),
)
def test_the_exponent_is_that_of_least_squares(
    measure: ModuleType, seed: int, rates: int, each: int, slope: float
) -> None:
    rng = np.random.default_rng(seed)
    points, rows, logs = [], [], []
    for rate in range(rates):
        for tpp in rng.permutation(np.geomspace(5, 320, each)):
            tau = np.exp(slope * np.log(tpp) + rate + rng.normal(0, 0.1))
            points.append((0.5 + rate, float(tpp), float(tau)))
            rows.append([np.log(tpp), *(float(rate == k) for k in range(rates))])
            logs.append(np.log(tau))
    found, error, free = measure.exponent(points)
    design = np.array(rows)
    wanted, (rest,), *_ = np.linalg.lstsq(design, np.array(logs))
    assert free == len(points) - rates - 1
    assert found == pytest.approx(wanted[0], rel=1e-6, abs=1e-9)
    covariance = rest / free * np.linalg.inv(design.T @ design)
    assert error == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-6)


def test_the_noise_floor_is_what_noise_leaves(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    t = (np.arange(2000) + 0.5) / 2000
    names = [name for size in measure.SIZES for name in measure.named(size, 20, "")]
    logs = {name: 2 + t**-0.1 + rng.normal(0, 0.1, t.size) for name in names}
    monkeypatch.setattr(measure, "log", lambda name: (logs[name], t, logs[name]))
    curves, sizes = measure.family(20, "", False)
    assert sizes == list(measure.SIZES)
    assert measure.spread(curves) == pytest.approx(measure.floor(20, False), rel=0.7)
    # one size of another shape is seen
    for name in measure.named("12k", 20, ""):
        logs[name] = logs[name] * (1 + 0.05 * (1 - t))
    assert measure.spread(measure.family(20, "", False)[0]) > 2 * measure.floor(20, False)


def test_the_recorded_family_collapses_as_its_protocol_asks(measure: ModuleType) -> None:
    for tpp in (measure.LOW, measure.HIGH):
        matched, sizes = measure.family(tpp, "", False)
        assert sizes == list(measure.SIZES)
        assert measure.spread(matched) <= max(0.01, 2 * measure.floor(tpp, False))
    mismatched, sizes = measure.family(measure.HIGH, "-fixed", False)
    assert sizes == list(measure.SIZES)
    constant, sizes = measure.family(measure.HIGH, "-constant", False)
    assert len(sizes) == 3
    assert measure.spread(mismatched) >= 3 * measure.spread(matched)
    assert measure.spread([*matched, *constant]) >= 3 * measure.spread(matched)


def test_it_prints_what_is_recorded(
    measure: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    measure.main()
    printed = capsys.readouterr().out
    wanted = ("20 TPP matched", "5 TPP matched", "mismatched", "with constant rate", "fault: rises")
    for said in wanted:
        assert said in printed
    assert "63 sweeps, 1 with a bound, 0 not recorded whole" in printed
    exponent, low, high = map(float, re.findall(r"-?\d+\.\d+", printed.splitlines()[-1]))
    assert low < exponent < high < 0  # the published law's sign
