"""The schedule that a log shows, when not every step is in it."""

from __future__ import annotations

import numpy as np
import pytest

from planner.curves import RunFacts, declared_schedule, logged_schedule
from planner.curves.bands import make_bands

PEAK = 0.0162


@pytest.mark.parametrize("declared", [None, PEAK])
@pytest.mark.parametrize("kind", ["linear-to-zero", "constant", "cosine"])
def test_sparse_logs_of_one_schedule_are_one_band(kind: str, declared: float | None) -> None:
    facts, schedules = [], []
    for steps, warmup in ((11_138, 1114), (17_358, 1736), (26_280, 2628)):
        true = declared_schedule(kind, warmup_fraction=warmup / steps)
        assert true is not None
        for every in (1, 50, 100, 200):  # the last step of the warm-up is in few of these
            at = np.arange(every, steps + 1, every) / steps
            found = logged_schedule(at, PEAK * true.at(at), peak=declared)
            assert found is not None
            assert found.warmup == pytest.approx(0.1, abs=every / steps + 2e-4)
            facts.append(RunFacts("run", "run", tpp=20.0, tau=0.2))
            schedules.append(found)
    (band,) = make_bands(facts, schedules)
    assert len(band.rows) == len(facts)


def test_a_log_that_ends_in_its_warmup() -> None:
    at = np.arange(1, 51) / 1000
    found = logged_schedule(at, PEAK * at / 0.1, peak=PEAK)
    assert found is not None
    assert found.factors.max() == pytest.approx(0.5)
    assert found.warmup == at[-1]
