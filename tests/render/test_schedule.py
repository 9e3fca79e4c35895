"""Schedules as pieces: their lengths, ends and values."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.model import Run, Schedule
from planner.render.errors import CannotExpressError
from planner.render.schedule import learning_rate, pieces

from .plans import make_run, parametrization

KINDS = ("linear-to-zero", "linear", "cosine", "wsd", "constant")
PEAK = parametrization().base_lr


def run_with(
    kind: str, steps: int = 100, warmup: int = 10, floor: float = 0.1, decay: float = 1.0
) -> Run:
    if kind == "linear-to-zero":
        floor = 0.0
    schedule = Schedule(kind, warmup / steps, floor, decay)  # type: ignore[arg-type]
    return make_run(parametrization(), steps=steps, warmup=warmup, schedule=schedule)


def rates(run: Run) -> list[float]:
    return [learning_rate(run, step) for step in range(run.steps)]


@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 200),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_pieces_cover_every_step_once(
    kind: str, steps: int, warmup: float, decay: float, floor: float
) -> None:
    run = run_with(kind, steps, int(warmup * steps), floor, decay)
    found = pieces(run)
    assert sum(piece.steps for piece in found) == steps
    assert all(piece.steps > 0 for piece in found)
    assert all(-1e-12 <= rate <= PEAK * (1 + 1e-12) for rate in rates(run))
    for one, two in pairwise(found):
        assert one.end == two.start


def test_linear_to_zero() -> None:
    got = rates(run_with("linear-to-zero"))
    wanted = [PEAK * t / 10 if t < 10 else PEAK * (1 - (t - 10) / 90) for t in range(100)]
    assert got == pytest.approx(wanted, rel=1e-13)
    assert got[0] == 0.0
    assert got[10] == PEAK
    assert got[99] > 0.0  # zero itself is one step beyond the last update


def test_linear_to_a_floor() -> None:
    got = rates(run_with("linear", floor=0.1))
    assert got[55] == pytest.approx(PEAK * (1 + 0.1) / 2, rel=1e-13)


def test_cosine() -> None:
    got = rates(run_with("cosine", floor=0.1))
    assert got[55] == pytest.approx(PEAK * (0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2), rel=1e-13)


def test_wsd_holds_then_decays() -> None:
    got = rates(run_with("wsd", floor=0.0, decay=0.2))
    assert got[10:81] == [PEAK] * 71
    assert got[90] == pytest.approx(PEAK / 2, rel=1e-13)


def test_constant() -> None:
    got = rates(run_with("constant"))
    assert got[10:] == [PEAK] * 90


def test_no_warmup_starts_at_the_peak() -> None:
    assert rates(run_with("linear-to-zero", warmup=0))[0] == PEAK


def test_steps_that_do_not_add_up_are_refused() -> None:
    run = run_with("linear")
    with pytest.raises(CannotExpressError, match="warm-up"):
        pieces(replace(run, warmup_steps=101))
    with pytest.raises(CannotExpressError, match="100 steps"):
        learning_rate(run, 100)
