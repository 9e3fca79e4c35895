"""Causes: what a residual of known origin is taken for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner.curves import Reference, RunFacts, Schedule, declared_schedule
from planner.curves.causes import Deviations, likely_causes
from planner.laws.surrogate import surrogate_shape

K = 256
T = (np.arange(K) + 0.5) / K
LINEAR = declared_schedule("linear-to-zero", warmup_fraction=0.02)
assert LINEAR is not None


def loss(schedule: Schedule = LINEAR, b: float = 0.3, q: float = 0.6) -> Any:
    def function(t: Any) -> Any:
        return surrogate_shape(t, schedule.at(t), b, q, final_lr_factor=float(schedule.at(1.0)))

    return function


def causes(change: Any, noise: float = 0.002, restarts: Any = (), **facts: Any) -> Any:
    reference = Reference.from_function(
        loss(), metric="train/loss", source="made", schedule=LINEAR, tau=0.2, tpp=20.0
    )
    curve = reference.at(T)[0]
    rng = np.random.default_rng(0)
    residual = change(T, np.exp(curve)) + rng.normal(0.0, noise, K)
    return likely_causes(
        Deviations(
            residual[None],
            curve[None],
            np.array([noise]),
            [RunFacts("r", "r", **facts)],
            [facts.pop("own", None)],
            [reference],
            [list(restarts)],
        )
    )[0]


def other(made: Any) -> Any:
    return lambda t, curve: np.log(made(t) / made(np.array([1.0]))) - np.log(curve)


LATE = declared_schedule("wsd", warmup_fraction=0.02, decay_fraction=0.15)
assert LATE is not None


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda t, _: np.maximum(t - 0.6, 0.0) * 0.1, "numerics drift"),
        (lambda t, _: 0.02 * (t > 0.5), "restart or data switch"),
        (lambda t, _: -0.02 * (t > 0.3), "restart or data switch"),
        (lambda t, _: 0.1 * (t > 0.5) * np.exp(-(t - 0.5) / 0.05), "restart or data switch"),
        (lambda t, _: 0.03 * t**-0.3, "TPP mismatch"),
        (other(loss(b=0.5)), "tau mismatch"),
        (other(loss(schedule=LATE)), "LR schedule mismatch"),
    ],
)
def test_a_residual_is_taken_for_what_made_it(change: Any, cause: str) -> None:
    found = causes(change)
    assert found[0].cause == cause
    assert found[0].weight > 0.3
    assert sum(c.weight for c in found) <= 1.0 + 1e-9
    assert all(c.evidence for c in found)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        # a term that follows a rate that falls in a straight line is nearly a ramp
        (other(loss(b=0.2)), "tau mismatch"),
        # the surrogate's power of time is so flat that its shift resembles another power
        (lambda t, c: np.log(np.interp(t - 0.02, t, c) / c) * (t > 0.02), "warmup mismatch"),
    ],
)
def test_what_resembles_another_is_among_the_first_two(change: Any, cause: str) -> None:
    assert cause in [c.cause for c in causes(change)[:2]]


def test_a_restart_is_the_likelier_where_one_was_logged() -> None:
    def step(t: Any, _: Any) -> Any:
        return 0.01 * (t > 0.5)

    found = causes(step, restarts=[0.5])
    assert found[0].cause == "restart or data switch"
    assert "where it was restarted" in found[0].evidence


def test_what_the_log_shows_counts() -> None:
    def bump(t: Any, curve: Any) -> Any:
        return other(loss(b=0.36))(t, curve)

    plain = {c.cause: c.weight for c in causes(bump, noise=0.01)}
    told = {c.cause: c.weight for c in causes(bump, noise=0.01, tau=0.4, tpp=20.0)}
    assert told["tau mismatch"] > plain.get("tau mismatch", 0.0)
    assert told.get("TPP mismatch", 0.0) <= plain.get("TPP mismatch", 0.0)
    text = next(c.evidence for c in causes(bump, tau=0.4) if c.cause == "tau mismatch")
    assert "its log implies tau 0.4, the reference has 0.2" in text


def test_nothing_is_said_of_too_few_points() -> None:
    assert causes(lambda t, _: np.where(t > 0.98, 0.1, np.nan)) == ()
