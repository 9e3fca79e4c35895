"""The learning-rate transfer check finds where the loss is lowest, and says when it cannot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .families import family, only

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.usefixtures("one_thread")

from planner.train import transfer  # noqa: E402
from planner.train.transfer import Rate, Transfer, transfer_check, vertex  # noqa: E402


@given(
    at=st.floats(-3, 3),
    height=st.floats(0.1, 10),
    left=st.floats(0.1, 2),
    right=st.floats(0.1, 2),
    offset=st.floats(-1, 1),
)
def test_vertex_of_a_parabola(
    at: float, height: float, left: float, right: float, offset: float
) -> None:
    x = at + offset * min(left, right) / 2 + np.array([-left, 0.0, right])
    y = height * (x - at) ** 2 + 1.0
    assert vertex(x, y) == pytest.approx(at, abs=1e-9)


def test_vertex_where_all_is_flat() -> None:
    assert vertex(np.array([0.0, 1.0, 3.0]), np.array([2.0, 2.0, 2.0])) == 1.0


def found(*losses: float) -> transfer.Best:
    rates = [Rate(1, 32, 0.01 * 2.0**i, loss) for i, loss in enumerate(losses)]
    return transfer._best(rates)


def test_a_lowest_loss_between_others_gives_a_rate() -> None:
    best = found(3.0, 2.0, 3.0)
    assert (best.lr, best.loss) == (pytest.approx(0.02), 2.0)
    assert 0.02 < found(3.0, 2.0, 2.5).lr < 0.04


@pytest.mark.parametrize(
    "losses",
    [(1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (3.0, 2.0, math.nan), (math.nan, 2.0, 3.0)],
    ids=["low end", "high end", "diverged above", "diverged below"],
)
def test_an_end_or_a_divergence_gives_none(losses: tuple[float, ...]) -> None:
    best = found(*losses)
    assert math.isnan(best.lr)
    assert best.loss == np.nanmin(losses)


def test_all_diverged() -> None:
    best = found(math.nan, math.nan, math.nan)
    assert math.isnan(best.lr)
    assert math.isnan(best.loss)


def test_an_unknown_best_rate_never_passes() -> None:
    check = Transfer("mup", 1, (), (), math.nan, 1.5)
    assert not check.ok
    assert Transfer("mup", 1, (), (), 1.5, 1.5).ok


def test_what_a_check_holds_and_that_it_repeats() -> None:
    plan = family(schedule={"kind": "linear-to-zero", "warmup": {"fraction": 0.1}})
    run, rule = only(plan), plan.parametrization
    told: list[Rate] = []

    def check() -> Transfer:
        return transfer_check(
            run,
            rule,
            width=16,
            depth=1,
            factors=(1, 2),
            rates=(0.5, 1.0, 1e30),
            steps=6,
            sequences=2,
            progress=told.append,
        )

    one = check()
    assert tuple(told) == one.rates
    assert [(r.d_model, r.lr) for r in one.rates] == [
        (width, rule.base_lr * rate) for width in (16, 32) for rate in (0.5, 1.0, 1e30)
    ]
    assert [math.isnan(r.loss) for r in one.rates] == [False, False, True] * 2
    assert math.isnan(one.spread)
    assert not one.ok
    assert repr(check()) == repr(one)  # NaN equals nothing


@pytest.mark.parametrize("kind", ["mup", "standard"])
def test_the_recorded_checks_say_what_their_runs_do_and_the_page_says_it(
    project_root: Path, kind: str
) -> None:
    path = project_root / "examples" / "tiny-family" / "checks" / f"transfer-{kind}.json"
    document = json.loads(path.read_text())
    runs = [Rate(**each) for each in document["rates"]]
    where = []
    for each in document["best"]:
        best = transfer._best([run for run in runs if run.d_model == each["d_model"]])
        assert best.lr == pytest.approx(each["lr"], rel=1e-9)
        where.append(best.lr)
    widths = [each["d_model"] for each in document["best"]]
    assert (widths[0], widths[-1], document["steps"]) == (32, 256, 200)  # 8x
    spread = max(where) / min(where)
    assert document["spread"] == pytest.approx(spread, rel=1e-9)
    assert document["ok"] == (spread <= 1.5) == (kind == "mup")
    page = (project_root / "docs" / "train.md").read_text(encoding="utf-8")
    title = {"mup": "| muP |", "standard": "| standard "}[kind]
    (row,) = (line for line in page.splitlines() if line.startswith(title))
    told = [float(cell) for cell in row.split("|")[2:-1] if cell.strip()]
    assert told == pytest.approx([*where, spread], rel=0.015)
