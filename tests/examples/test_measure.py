"""The recorded family's own measurements, on losses whose answer is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

HERE = Path(__file__).resolve().parents[2] / "examples" / "tiny-family"


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", HERE / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("best", [0.13, 0.4, 1.1])
def test_the_minimum_of_a_parabola_is_found(measure: ModuleType, best: float) -> None:
    taus = list(measure.SWEEP_TAUS)
    losses = [2.0 + 0.03 * np.log(tau / best) ** 2 for tau in taus]
    tau, bound = measure.best_tau(taus, losses)
    assert tau == pytest.approx(best, rel=1e-9)
    assert bound == ""


def test_a_minimum_at_an_end_is_a_bound(measure: ModuleType) -> None:
    taus = list(measure.SWEEP_TAUS)
    assert measure.best_tau(taus, taus) == (0.05, "at most")
    assert measure.best_tau(taus, [-tau for tau in taus]) == (3.2, "at least")
    # the three lowest: no minimum in log tau
    losses = [1.2, 1.0, 3.0, 1.1, 1.11, 3.0]
    assert measure.best_tau([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], losses) == (2.0, "about")


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_the_exponent_and_its_interval_are_scipys(measure: ModuleType, count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    tpps = [20.0, 80.0, 20.0, 80.0, 20.0, 80.0][:count]
    taus = [0.5, 0.21, 0.43, 0.26, 0.61, 0.2][:count]
    slope, half = measure.exponent(tpps, taus)
    found = stats.linregress(np.log(tpps), np.log(taus))
    assert slope == pytest.approx(found.slope)
    assert half == pytest.approx(found.stderr * stats.t.ppf(0.975, count - 2), rel=1e-3)


def test_it_prints_what_is_recorded(
    measure: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    measure.main()
    printed = capsys.readouterr().out
    for said in ("tau of the sweep", "80 TPP matched", "mismatched", "with constant rate"):
        assert said in printed
