"""What a forecast rests on: not the runs that diverged or left their band."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from planner.archive import Archive, ingest
from planner.cli.main import app
from planner.curves import Curve
from planner.curves.forecast import forecast_archive, without_sick
from planner.curves.select import select_runs
from tests.curves.made import archived, curve, tiny_family

SIZES = (50_000_000, 100_000_000, 200_000_000, 400_000_000)


def drift(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.maximum(0.0, t - 0.5) / 0.5 * 0.08


def blow_up(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where(t > 0.6, 1.5, 0.0)


def run(name: str, params: int, seed: int, **more: Any) -> Curve:
    final = 3.5 * (params / 1e8) ** -0.05
    return curve(name, params=params, noise=0.004, seed=seed, final=final, **more)


def family() -> list[Curve]:
    return [run(f"f/{n // 10**6}M", n, i) for i, n in enumerate(SIZES)]


@pytest.mark.parametrize("harm", [drift, blow_up])
def test_a_sick_run_moves_no_forecast(tmp_path: Path, harm: Callable[..., Any]) -> None:
    target = run("f/big", 800_000_000, 9, until=0.3)
    sick = run("f/sick", 300_000_000, 8, extra=harm)
    with_it = forecast_archive(archived([*family(), sick, target], tmp_path / "a"))
    without = forecast_archive(archived([*family(), target], tmp_path / "b"))
    (found,), (wanted,) = with_it.runs, without.runs
    assert [(one.name, bool(one.reason)) for one in with_it.left_out] == [("f/sick", True)]
    assert found == wanted
    assert not without.left_out
    # who names it has it
    named = forecast_archive(Archive(tmp_path / "a"), references=["f/sick", "f/400M"])
    assert not named.left_out
    assert set(named.runs[0].references) == {"f/sick", "f/400M"}


@given(
    which=st.integers(0, 3),
    seed=st.integers(0, 10**6),
    share=st.floats(0.3, 1.0),
    harm=st.sampled_from([None, drift, blow_up]),
)
def test_only_what_deviates_is_left_out(
    which: int, seed: int, share: float, harm: Callable[..., Any] | None
) -> None:
    runs = [run(f"{n}-{k}", n, seed + 7 * i + k) for i, n in enumerate(SIZES) for k in (0, 1)]
    young = run("young", SIZES[which], seed, until=share * 0.9)
    sick = run("sick", SIZES[which], seed + 99, extra=harm)
    healthy, left_out = without_sick([*runs, young, sick])
    names = {c.facts.name for c in healthy}
    assert names | {one.name for one in left_out} == {c.facts.name for c in [*runs, young, sick]}
    assert "young" in names  # that it is unfinished is no fault
    assert ("sick" in names) == (harm is None)
    # one false call in a hundred runs is what the score's alpha allows for
    assert len(left_out) - (harm is not None) <= 1


def test_no_curve_is_no_error() -> None:
    assert without_sick([]) == ([], ())
    empty = replace(family()[0], steps=np.zeros(0, np.int64), values=np.zeros(0))
    assert without_sick([empty])[0] == [empty]


def test_it_is_said(tmp_path: Path) -> None:
    runs = [*family(), run("f/sick", 300_000_000, 8, extra=drift)]
    place = archived([*runs, run("f/big", 800_000_000, 9, until=0.3)], tmp_path / "a").path
    done = CliRunner().invoke(app, ["forecast", str(place)])
    assert done.exit_code == 0
    assert "not relied on: f/sick, which deviates: " in done.stdout
    document = json.loads(CliRunner().invoke(app, ["forecast", str(place), "--json"]).stdout)
    assert [one["name"] for one in document["left_out"]] == ["f/sick"]
    assert len(document["forecasts"]) == 1


def test_the_sick_runs_of_the_tiny_family_are_not_relied_on(tmp_path: Path) -> None:
    ingest(tiny_family(), tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    sick = {"5k-20tpp-diverged", "77k-20tpp-fault"}
    found = forecast_archive(archive, ["151k-20tpp"], at=0.5, metric="eval/loss")
    assert {one.name for one in found.left_out} == sick
    (one,) = found.runs
    assert sick.isdisjoint(one.references)
    assert one.final == pytest.approx(one.actual, rel=0.02)
    sweeps = select_runs(archive, at=0.3, metric="eval/loss")
    assert sweeps
    assert all({r.name for r in sweep.left_out} == sick for sweep in sweeps)
