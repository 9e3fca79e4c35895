"""Jumps of the loss, and those that runs on one data order share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.curves import Curve
from planner.curves.alarm import data_orders, find_spikes, hard_batches
from tests.curves.made import curve


def jumping(name: str, at: list[int], seed: int) -> Curve:
    made = curve(name, steps=2000, noise=0.01, seed=seed)
    values = made.values.copy()
    values[[step - 1 for step in at]] *= 1.12
    return replace(made, values=values)


def test_jumps_are_found_and_rises_are_not() -> None:
    made = jumping("run", [500, 900, 901], 1)
    values = made.values.copy()
    values[1500:1530] *= 1.2
    found = find_spikes(made.steps, values)
    assert [spike.step for spike in found] == [500, 900] or [s.step for s in found] == [500, 901]
    assert all(0.08 < spike.excess < 0.16 and spike.deviations > 5 for spike in found)


def test_few_or_missing_points() -> None:
    assert find_spikes(np.arange(1, 20), np.ones(19)) == []
    assert find_spikes(np.arange(1, 200), np.full(199, np.nan)) == []


def test_shared_jumps_are_hard_batches() -> None:
    common = [300, 700, 1100, 1500, 1900]
    runs = [
        jumping("a", [*common, 1234], 1),
        jumping("b", common, 2),
        jumping("c", common[:-1], 3),
        jumping("elsewhere", [400, 800, 1234], 4),
    ]
    assert data_orders(runs) == [("a", "b", "c")]
    found = hard_batches(runs)
    assert [batch.step for batch in found] == common
    assert found[0].runs == ("a", "b", "c")
    assert found[0].quiet == ()
    assert found[-1].runs == ("a", "b")
    assert found[-1].quiet == ("c",)


def test_runs_with_nothing_in_common() -> None:
    runs = [jumping(str(s), [300 + 100 * s, 1111], s) for s in range(4)]
    assert hard_batches(runs) == []
    assert hard_batches([]) == []
