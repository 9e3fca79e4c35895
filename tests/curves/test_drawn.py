"""What a family's picture shows is what the score says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.archive import Archive
from planner.curves import Curve, CurveError, Reference, normalize
from planner.curves.drawn import DrawnFamily, drawn_family
from planner.curves.score import score_archive
from tests.curves.made import archived, curve, shape

SIZES = (100_000_000, 200_000_000, 400_000_000, 800_000_000)
CURVES = [
    curve(f"r{i}", params=size, final=3.0 - 0.2 * i, noise=0.002, seed=i)
    for i, size in enumerate(SIZES)
]
SICK = curve(
    "sick",
    params=SIZES[3],
    final=2.4,
    noise=0.002,
    seed=9,
    extra=lambda t: 0.1 * np.maximum(0.0, t - 0.6),
)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    lone = curve("lone", noise=0.002, tpp=200.0)
    going = curve("going", params=SIZES[2], final=2.5, noise=0.002, seed=5, until=0.6)
    return archived([*CURVES, SICK, going, lone], tmp_path / "a")


@pytest.fixture
def family(archive: Archive) -> DrawnFamily:
    return drawn_family(archive)


def test_verdicts_and_references_are_the_scores(archive: Archive, family: DrawnFamily) -> None:
    scored = score_archive(archive)
    scores = {score.name: score for score in scored.runs}
    (band,) = family.bands
    assert [run.name for run in band.runs] == ["r0", "r1", "going", "r2", "r3", "sick"]
    assert family.left_out == {"lone": scores["lone"].reason}
    assert band.reference == scored.references[band.label].name
    for run in band.runs:
        assert (run.verdict, run.since) == (scores[run.name].verdict, scores[run.name].since)
        assert np.all(np.diff(run.fraction) > 0)
    assert [run.name for run in band.runs if run.verdict == "deviating"] == ["sick"]
    sick = band.runs[-1]
    k = np.argmax(np.abs(sick.residual) / sick.allowed)
    assert abs(sick.residual[k]) == pytest.approx(scores["sick"].deviation)
    assert sick.allowed[k] == pytest.approx(scores["sick"].allowed)


def test_normalized_curves_are_over_the_final_loss(family: DrawnFamily) -> None:
    (band,) = family.bands
    for made, run in zip(CURVES, (r for r in band.runs if r.name[0] == "r"), strict=True):
        inner = (run.fraction > 0.1) & (run.fraction < 0.95)
        assert run.normalized[inner] == pytest.approx(shape(run.fraction[inner]), rel=0.006)
        assert run.normalized[-1] == pytest.approx(1.0, abs=0.005)
        raw = normalize(made)
        again = np.interp(run.fraction[inner], raw.fraction, raw.values)
        assert run.normalized[inner] == pytest.approx(again, rel=0.015)


def test_a_run_that_leaves_the_others_is_seen_to_leave_them(family: DrawnFamily) -> None:
    """It is divided by what aligns it, so that it lies on the others up to its onset."""
    runs = {run.name: run for run in family.bands[0].runs}
    for name, until in (("sick", 0.6), ("going", 0.6)):
        run = runs[name]
        early = (run.fraction > 0.25) & (run.fraction < until - 0.03)
        assert run.normalized[early] == pytest.approx(shape(run.fraction[early]), rel=0.005)
    late = runs["sick"].fraction > 0.97
    assert np.all(runs["sick"].normalized[late] > 1.03)


def blown_up(name: str, since: float) -> Curve:
    """A run whose loss has nearly doubled a tenth of training later, and stays there."""
    return curve(
        name,
        params=SIZES[3],
        final=2.4,
        noise=0.002,
        seed=11,
        extra=lambda t: np.clip(6.0 * (t - since), 0.0, 0.6),
    )


@pytest.mark.parametrize("since", [0.3, 0.45, 0.7])
def test_a_run_that_diverged_lies_on_the_others_before(since: float, tmp_path: Path) -> None:
    without = drawn_family(archived(CURVES, tmp_path / "a")).bands[0]
    found = archived([*CURVES, blown_up("blown", since)], tmp_path / "b")
    score = next(run for run in score_archive(found).runs if run.name == "blown")
    assert [cause.cause for cause in score.causes] == ["divergence"]
    (band,) = drawn_family(found).bands
    (run,) = [run for run in band.runs if run.name == "blown"]
    assert run.diverged
    assert run.since == score.since
    early = (run.fraction > 0.18) & (run.fraction < since - 0.03)
    assert run.normalized[early] == pytest.approx(shape(run.fraction[early]), rel=0.005)
    before = run.judged < since
    assert np.all(np.abs(run.residual[before]) < run.allowed[before])
    after = run.judged > since + 0.16
    assert run.residual[after] == pytest.approx(0.6, abs=0.01)
    # what it does says nothing of the healthy range of the others
    assert band.allowed == pytest.approx(without.allowed, nan_ok=True)
    assert [other.name for other in band.runs if other.diverged] == ["blown"]


def test_a_run_that_diverged_at_once_is_over_its_final_loss(tmp_path: Path) -> None:
    found = archived([*CURVES, blown_up("blown", 0.12)], tmp_path / "a")
    (band,) = drawn_family(found).bands
    (run,) = [run for run in band.runs if run.name == "blown"]
    assert (run.verdict, run.diverged, run.residual.size) == ("deviating", True, 0)
    assert run.normalized[-1] == pytest.approx(1.0, abs=0.005)


def test_the_reference_and_its_ranges(family: DrawnFamily) -> None:
    (band,) = family.bands
    assert band.curve == pytest.approx(shape(band.fraction), rel=0.004)
    assert np.all(band.noise < 0.002)
    known = np.isfinite(band.allowed)
    assert known.mean() > 0.9
    assert np.all(band.allowed[known] > 0)


def test_with_a_reference_given(archive: Archive, tmp_path: Path) -> None:
    reference = Reference.build(CURVES[:3])
    found = drawn_family(archive, reference=reference, where=["name=r3"])
    (band,) = found.bands
    assert [run.name for run in band.runs] == ["r3"]
    assert band.runs[0].verdict == "healthy"


def test_nothing_to_draw(archive: Archive) -> None:
    with pytest.raises(CurveError, match="nothing to draw; planner score says why"):
        drawn_family(archive, where=["name=lone"])
