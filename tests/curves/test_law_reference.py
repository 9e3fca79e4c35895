"""Runs against what a fitted law says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from planner.archive import Archive
from planner.cli.main import app
from planner.curves import Curve, CurveError, Reference, declared_schedule
from planner.curves.bands import grouping
from planner.curves.bins import bin_curves
from planner.curves.drawn import drawn_family
from planner.curves.forecast.prefix import UndecidableError
from planner.curves.law_choice import choose_laws
from planner.curves.law_reference import LawReferences, stated_errors
from planner.curves.member import GRID
from planner.curves.score import score_binned
from planner.curves.scored import Scored
from planner.curves.watch import assess
from planner.fitting import write_laws
from planner.laws import Law, load_laws
from planner.laws.law import FittedSchedule
from planner.laws.surrogate import surrogate_curve
from tests.curves.made import archived, curve
from tests.curves.test_law_shape import MULTI_POWER
from tests.curves.test_law_shape import SURROGATE as BARE

COSINE = declared_schedule("cosine", warmup_fraction=0.05, final_lr_fraction=0.1)
LINEAR = declared_schedule("linear-to-zero", warmup_fraction=0.05)
ERROR = 0.003
SURROGATE = replace(
    BARE,
    metric="train/loss",
    curve_errors=(ERROR,) * 16,
    curve_settings=20,
    fitted_range={"tau": (0.1, 0.4), "tpp": (10.0, 40.0), "params": (1e8, 4e8)},
)
SCHEDULE = replace(MULTI_POWER, curve_errors=(ERROR,) * 16, curve_settings=9, metric="train/loss")
METRIC = "train/loss"


def run(
    name: str = "r",
    *,
    tau: float = 0.2,
    tpp: float = 20.0,
    noise: float = 1e-3,
    extra: Any = None,
    off: float = 0.0,
    **more: Any,
) -> Curve:
    """A run as the surrogate says, but for a smooth error of so much at the end, and `extra`."""
    schedule = more.pop("schedule", COSINE)
    made = curve(
        name, steps=2000, every=4, schedule=schedule, warmup=100, tau=tau, tpp=tpp, lr=3e-4, **more
    )
    t = made.fraction
    shape = surrogate_curve(
        SURROGATE, t, schedule.at(t), final_lr_factor=float(schedule.at(1.0)), tau=tau, tpp=tpp
    )
    logs = np.log(3.0 * shape) + np.random.default_rng(len(name)).normal(0.0, noise, t.size)
    logs += off * (t - 0.375) / 0.625
    if extra is not None:
        logs = logs + extra(t)
    return replace(made, values=np.exp(logs))


def drift(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.maximum(0.0, t - 0.6) / 0.4 * 0.05


def scored(curves: list[Curve], law: Law = SURROGATE, **more: Any) -> Scored:
    options = {"metric": METRIC, "by": grouping(None), "trusted": False, "alpha": 0.01} | more
    return score_binned(bin_curves(curves), reference=LawReferences([law]), **options)


def test_a_run_alone_is_judged_by_a_law() -> None:
    (well,) = scored([run()]).runs
    (sick,) = scored([run(extra=drift)]).runs
    assert (well.verdict, well.reference) == ("healthy", "law curves")
    assert sick.verdict == "deviating"
    assert sick.since is not None
    assert 0.55 < sick.since < 0.85


@given(
    off=st.floats(-1.0, 1.0),
    tau=st.floats(0.1, 0.4),
    tpp=st.floats(10.0, 40.0),
    until=st.floats(0.3, 1.0),
    size=st.integers(int(1e8), int(4e8)),
)
def test_no_run_is_called_for_what_a_law_says_of_its_own_error(
    off: float, tau: float, tpp: float, until: float, size: int
) -> None:
    (found,) = scored([run(tau=tau, tpp=tpp, off=2 * ERROR * off, until=until, params=size)]).runs
    assert found.verdict == "healthy", found.reason


def test_an_error_counts_into_what_is_allowed() -> None:
    allowed = []
    for error in (0.001, 0.003, 0.006):
        law = replace(SURROGATE, curve_errors=(error,) * 16)
        (found,) = scored([run()], law).runs
        assert found.allowed is not None
        allowed.append(found.allowed)
        assert found.allowed > 3.0 * error
    assert allowed == sorted(allowed)


def test_a_coarse_law_decides_nothing() -> None:
    law = replace(SURROGATE, curve_errors=(0.02,) * 16)
    (found,) = scored([run(extra=drift)], law).runs
    assert found.verdict == "undecidable"
    assert "the error of its reference would hide" in found.reason


@pytest.mark.parametrize(
    ("law", "change", "reason"),
    [
        (replace(SURROGATE, curve_errors=(), curve_settings=None), {}, "states no error"),
        (SURROGATE, {"tau": None}, "needs its tau"),
        (SURROGATE, {"tpp": None}, "needs its TPP"),
        (SURROGATE, {"tau": 2.0}, "its tau, 2, is not what the law"),
        (SURROGATE, {"tpp": 100.0}, "its TPP, 100, is not what the law"),
        (SURROGATE, {"schedule": None}, "needs its schedule"),
        (SURROGATE, {"total_steps": None}, "how many steps"),
        (SCHEDULE, {"lr": None}, "needs its peak learning rate"),
        (
            replace(SURROGATE, schedules=(FittedSchedule((1.0, 1.0, 0.5)),)),
            {},
            "one schedule only",
        ),
    ],
)
def test_what_a_law_cannot_say_is_undecidable(
    law: Law, change: dict[str, Any], reason: str
) -> None:
    made = run()
    if "schedule" in change:
        made = replace(made, schedule=None)
    elif "total_steps" in change:
        made = replace(made, horizon=None)
    else:
        made = replace(made, facts=replace(made.facts, **change))
    (found,) = scored([made], law).runs
    assert found.verdict == "undecidable"
    assert reason in found.reason


def test_the_error_of_a_schedule_is_its_own() -> None:
    assert LINEAR is not None
    assert COSINE is not None
    linear = FittedSchedule(tuple(np.linspace(1.0, 0.0, 17)), 2 * ERROR, 5)
    held = FittedSchedule((1.0,) * 17, 4 * ERROR, 2)
    law = replace(SURROGATE, schedules=(linear, held))
    at = GRID >= 0.2
    own = stated_errors(law, LINEAR)
    assert np.isnan(own[~at]).all()
    # Student's quantile makes up for the few settings
    assert 2 * ERROR < own[at].max() < 4 * ERROR
    constant = declared_schedule("constant")
    assert constant is not None
    few, unseen = stated_errors(law, constant), stated_errors(law, COSINE)
    assert few[at].min() > 4 * ERROR
    assert few[at] == pytest.approx(unseen[at])  # as bad as the worst that was seen


def test_which_law_is_meant() -> None:
    both = {law.name: law for law in (SURROGATE, SCHEDULE)}
    with pytest.raises(CurveError, match=r"curves \(surrogate\), schedules \(multi-power-law\)"):
        choose_laws(both)
    assert choose_laws(both, "surrogate") == (SURROGATE,)
    assert choose_laws(both, "schedule") == (SCHEDULE,)
    assert choose_laws(both, "sched*") == (SCHEDULE,)
    with pytest.raises(CurveError, match="did you mean 'curves'"):
        choose_laws(both, "curve")
    with pytest.raises(CurveError, match="planner fit surrogate"):
        choose_laws({})
    sizes = {
        n: replace(SCHEDULE, name=n, fitted_range={"params": (v, v)})
        for n, v in (("small", 1e7), ("large", 1e9))
    }
    laws = LawReferences.choose(sizes)
    for params, name in ((20_000_000, "small"), (500_000_000, "large")):
        facts = replace(run().facts, params=params)
        assert laws.of(facts, COSINE, 2000.0, METRIC).name == f"law {name}"
    with pytest.raises(UndecidableError, match="its N is not known"):
        laws.of(replace(run().facts, params=None), COSINE, 2000.0, METRIC)


def test_watching_by_a_law() -> None:
    laws = LawReferences([SURROGATE])
    assert assess(run(noise=5e-3), laws).state == "quiet"
    assert assess(run(noise=5e-3, off=2 * ERROR), laws).state == "quiet"
    assert assess(run(noise=5e-3, extra=drift), laws).state == "alarm"
    half = assess(run(noise=5e-3, until=0.5), laws).forecast
    assert half is not None
    assert half.low is not None
    assert half.high is not None
    assert half.final is not None
    # the interval knows of the law's error
    assert half.high - half.low > 2.0 * 1.64 * ERROR * half.final
    lost = run()
    found = assess(replace(lost, facts=replace(lost.facts, tau=None)), laws)
    assert found.state == "undecidable"
    assert "needs its tau" in found.reason


def planner(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    runs = [run(f"f/{n}", schedule=LINEAR, extra=drift if n == "sick" else None) for n in NAMES]
    write_laws([SURROGATE, SCHEDULE], tmp_path / "laws.yaml")
    return archived(runs, tmp_path / "archive").path, tmp_path / "laws.yaml"


NAMES = ("one", "sick", "three")


def test_a_kind_of_law_that_a_file_does_not_hold(tmp_path: Path, files: tuple[Path, Path]) -> None:
    write_laws([SURROGATE], tmp_path / "one.yaml")
    done = planner("score", files[0], "--laws", tmp_path / "one.yaml", "--law", "schedule")
    assert done.exit_code == 2
    said = "error: " + str(tmp_path / "one.yaml")
    assert done.output.startswith(said)
    assert "no law of the kind 'schedule', only curves (surrogate)" in " ".join(done.output.split())


def test_score_by_a_law(tmp_path: Path, files: tuple[Path, Path]) -> None:
    archive, laws = files
    unclear = planner("score", archive, "--laws", laws)
    assert unclear.exit_code == 2
    assert "say which by --law" in unclear.output
    done = planner("score", archive, "--laws", laws, "--law", "surrogate", "--json")
    assert done.exit_code == 1
    runs = {r["name"]: r for r in json.loads(done.stdout)["runs"]}
    assert [runs[f"f/{n}"]["verdict"] for n in NAMES] == ["healthy", "deviating", "healthy"]
    assert runs["f/one"]["reference"] == "law curves"
    saved = tmp_path / "reference.json"
    assert planner("score", archive, "--laws", laws, "--law", "curves", "-o", saved).exit_code == 1
    again = planner("score", archive, "--reference", saved, "--json")
    assert {r["name"]: r["verdict"] for r in json.loads(again.stdout)["runs"]} == {
        name: r["verdict"] for name, r in runs.items()
    }
    loaded = Reference.load(saved)
    at = GRID[GRID >= 0.21]
    made = LawReferences([SURROGATE]).of(run(schedule=LINEAR).facts, LINEAR, 2000.0, METRIC)
    # the archive declares the schedule without its warm-up's exact end
    assert loaded.at(at)[0] == pytest.approx(made.at(at)[0], abs=2e-3)
    assert loaded.stray(at) == pytest.approx(made.stray(at))


def test_what_is_drawn_is_what_a_law_says(files: tuple[Path, Path]) -> None:
    laws = LawReferences.choose(load_laws(files[1]), "surrogate")
    family = drawn_family(Archive(files[0]), reference=laws)
    (band,) = family.bands
    assert band.reference == "law curves"
    assert [run.verdict for run in band.runs] == ["healthy", "deviating", "healthy"]
    assert all(run.judged.size for run in band.runs)
    assert float(band.fraction[0]) >= 0.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--law", "surrogate"), "needs --laws"),
        (("--laws", "{laws}", "--reference", "x"), "say one"),
        (("--laws", "{laws}", "--law", "nothing"), "no law is called 'nothing'"),
        (("--laws", "no.yaml"), "no.yaml"),
        (("--laws", "{laws}", "--law", "curves", "--where", "name=x"), "no run matches name=x"),
        (("--laws", "{laws}", "--law", "curves", "--metric", "eval/loss"), "eval/loss"),
    ],
)
def test_wrong_options_are_refused(
    files: tuple[Path, Path], options: tuple[str, ...], said: str
) -> None:
    done = planner("score", files[0], *(text.format(laws=files[1]) for text in options))
    assert done.exit_code == 2
    assert said in done.output
