"""Divergence of many runs at the end of their logs: the same rules, unless a run has recovered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.curves import Curve
from planner.curves.alarm import find_divergence
from planner.curves.alarm.lasting import lasting_divergence
from planner.curves.bins import bin_curves
from tests.curves.made import curve


def called(*curves: Curve) -> list[tuple[int, str, float]]:
    found = lasting_divergence(bin_curves(curves))
    return [(f.row, f.cause, round(f.since, 1)) for f in found]


def high(start: float, end: float = 2.0) -> Curve:
    """A run that is a nat up between two fractions of training."""
    made = curve("high", noise=0.005)
    up = (made.fraction > start) & (made.fraction <= end)
    return replace(made, values=made.values + 1.0 * up)


def test_a_rise_that_stays_and_one_that_does_not() -> None:
    assert called(curve(noise=0.005), high(0.5), high(0.5, 0.7)) == [(1, "divergence", 0.5)]
    # the alarm while it lasts is another thing
    for made in (high(0.5), high(0.5, 0.7)):
        assert [f.kind for f in find_divergence(made.steps, made.values)] == ["rising"]


def test_a_run_that_rises_twice_is_named_by_the_rise_that_lasts() -> None:
    made = high(0.3, 0.4)
    values = made.values + np.where(made.fraction > 0.7, 0.8, 0.0)
    assert called(replace(made, values=values)) == [(0, "divergence", 0.7)]


def test_a_run_that_was_up_for_half_of_its_log_is_named_although_it_came_down() -> None:
    assert called(high(0.3, 0.9), high(0.3, 0.7)) == [(0, "divergence", 0.3)]
    # far too hot from the start, and down with its learning rate to less than it began with
    made = curve("hot", noise=0.02)
    t = made.fraction
    hot = made.values + 300.0 * np.minimum(t / 0.1, 1.0) * (1.0 - t) ** 3
    assert called(replace(made, values=hot)) == [(0, "divergence", 0.0)]


def test_the_last_value_of_a_log_needs_no_second_one() -> None:
    made = curve(until=0.5)
    values = made.values.copy()
    values[-1] = np.nan
    assert find_divergence(made.steps, values) == []
    assert called(replace(made, values=values)) == [(0, "divergence", 0.5)]


def test_a_stall() -> None:
    steps = np.arange(1, 4001)
    noise = np.exp(np.random.default_rng(1).normal(0.0, 0.01, steps.size))
    stuck = replace(curve(steps=4000), values=(7.5 + 3.0 * np.exp(-steps / 150.0)) * noise)
    late = replace(stuck, values=np.where(steps > 2500, 5.0 * noise, stuck.values))
    assert called(stuck, late) == [(0, "stall", 0.1)]


def test_noise_is_no_divergence() -> None:
    runs = [curve(str(seed), noise=0.1, seed=seed) for seed in range(200)]
    assert called(*runs) == []
