"""Divergence without a reference, on made-up losses."""

from __future__ import annotations

import numpy as np
import pytest

from planner.curves.alarm import find_divergence


def healthy(n: int = 400, every: int = 10) -> tuple[np.ndarray, np.ndarray]:
    steps = np.arange(1, n + 1) * every
    return steps, 2.0 + 8.8 * (1.0 + steps / 50.0) ** -0.6


def kinds(steps: np.ndarray, values: np.ndarray) -> list[str]:
    return [found.kind for found in find_divergence(steps, values)]


def test_a_healthy_loss() -> None:
    steps, values = healthy()
    noise = np.random.default_rng(1).normal(0.0, 0.03, steps.size)
    assert kinds(steps, values * np.exp(noise)) == []


def test_a_spike_that_recovers() -> None:
    steps, values = healthy()
    values[200:204] *= 1.5
    assert kinds(steps, values) == []


def test_not_a_number() -> None:
    steps, values = healthy()
    values[150] = np.nan
    assert kinds(steps, values) == []  # one value may be lost
    values[300:] = np.nan
    found = find_divergence(steps, values)
    assert [(f.kind, f.step, f.since) for f in found] == [("not finite", 3030, 3010)]


def test_infinite_from_the_first_step() -> None:
    assert kinds(np.arange(1, 6), np.full(5, np.inf)) == ["not finite"]


def test_all_is_lost() -> None:
    steps, values = healthy()
    values[250:] = 10.5
    found = find_divergence(steps, values)
    assert (found[0].kind, found[0].step) == ("diverged", 2510)


def test_a_rise_that_stays() -> None:
    steps, values = healthy()
    values[200:] = values[200:] + 0.5
    found = find_divergence(steps, values)
    assert [f.kind for f in found] == ["rising"]
    assert found[0].since == 2010
    assert 2200 <= found[0].step <= 2300  # a tenth of the steps so far


def test_a_stall() -> None:
    steps = np.arange(100, 4001, 100)
    values = 7.5 + 3.0 * np.exp(-steps / 150.0)
    found = find_divergence(steps, values)
    assert [f.kind for f in found] == ["stalled"]
    assert found[0].step == 1000


def test_a_character_model_is_no_stall() -> None:
    steps = np.arange(100, 4001, 100)
    assert kinds(steps, 2.5 + np.exp(-steps / 150.0)) == []


@pytest.mark.parametrize("n", range(5))
def test_few_points(n: int) -> None:
    steps, values = healthy()
    assert kinds(steps[:n], values[:n]) == []


def test_judged_point_by_point() -> None:
    steps, values = healthy()
    values[200:] = values[200:] + 0.5
    whole = find_divergence(steps, values)
    for count in range(1, steps.size + 1, 7):
        early = find_divergence(steps[:count], values[:count])
        assert early == [f for f in whole if f.step <= steps[count - 1]]
