"""Scores of made-up families: what is healthy, what deviates since when, what cannot be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.curves import Curve, CurveError, Reference, declared_schedule
from planner.curves.bands import grouping, make_bands
from planner.curves.bins import bin_curves, join
from planner.curves.residual import quantile
from planner.curves.score import score_binned
from planner.curves.scored import Scored
from tests.curves.made import curve

SIZES = (100_000_000, 200_000_000, 400_000_000, 800_000_000)


def family(noise: float = 0.005, **rest: Any) -> list[Curve]:
    """Four sizes, two seeds each, all healthy."""
    return [
        curve(f"{n // 10**6}M-{s}", params=n, noise=noise, seed=7 * i + s, final=3.5 - 0.2 * i)
        for i, n in enumerate(SIZES)
        for s in range(2)
    ]


def score(curves: list[Curve], group_by: str | None = None, **rest: Any) -> Scored:
    options = {"reference": None, "alpha": 0.01, "metric": "train/loss"} | rest
    return score_binned(
        bin_curves(curves), by=grouping(group_by), trusted=group_by is not None, **options
    )


def one(scored: Scored, name: str) -> Any:
    return next(run for run in scored.runs if run.name == name)


def drift(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.maximum(0.0, t - 0.6) / 0.4 * 0.03


def test_a_healthy_family_is_healthy() -> None:
    scored = score(family())
    assert {run.verdict for run in scored.runs} == {"healthy"}
    assert not scored.deviating
    assert not scored.outsiders
    run = one(scored, "800M-0")
    assert run.divisor == pytest.approx(2.9, rel=0.003)
    assert run.divisor_from == "final loss"
    assert 0 < run.deviation < run.allowed < 0.02
    assert run.reason.startswith("within")
    (quality,) = scored.collapse.values()
    assert quality.runs == 8
    assert quality.deviation < 2 * quality.floor
    assert quality.low < quality.deviation < quality.high


def test_a_drift_like_the_papers_is_seen_and_dated() -> None:
    scored = score([*family(), curve("sick", params=SIZES[3], noise=0.005, seed=99, extra=drift)])
    run = one(scored, "sick")
    assert run.verdict == "deviating"
    assert run.direction == "above"
    assert 0.55 < run.since < 0.75
    assert run.deviation == pytest.approx(0.03, abs=0.006)
    assert run.causes[0].cause == "numerics drift"
    assert [r.name for r in scored.deviating] == ["sick"]
    assert [o.name for o in scored.outsiders] == ["sick"]


def test_what_was_said_of_a_run_in_progress_stands_later() -> None:
    sick = curve("sick", params=SIZES[3], noise=0.005, seed=99, extra=drift)
    since = [one(score([*family(), sick.until(at)]), "sick").since for at in (0.8, 0.9, 1.0)]
    assert None not in since
    assert max(since) - min(since) < 0.02


def test_the_verdict_does_not_know_the_future() -> None:
    sick = curve("sick", params=SIZES[3], noise=0.005, seed=99, extra=drift)
    well = curve("sick", params=SIZES[3], noise=0.005, seed=99)
    for at in (0.3, 0.55):
        a = one(score([*family(), sick.until(at)]), "sick")
        b = one(score([*family(), well.until(at)]), "sick")
        assert a == b


def test_a_spike_that_recovers_is_healthy_and_named() -> None:
    def spike(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.where((t > 0.5) & (t < 0.52), 0.4, 0.0)

    run = one(score([*family(), curve("s", params=SIZES[3], noise=0.005, extra=spike)]), "s")
    assert run.verdict == "healthy"
    assert [c.cause for c in run.causes] == ["spike that recovers"]


def test_a_sick_member_does_not_spoil_the_reference() -> None:
    runs = [r for r in family() if r.facts.name != "200M-1"]
    sick = curve("200M-1", params=SIZES[1], noise=0.005, seed=8, extra=drift, final=3.3)
    scored = score([*runs, sick])
    assert [r.name for r in scored.deviating] == ["200M-1"]
    (reference,) = scored.references.values()
    assert "200M-1" not in {m.name for m in reference.members}


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (curve("x", until=0.02), "only 2.0% is logged"),
        (curve("x", until=0.15), "only 15.0% is logged"),
        (replace(curve("x"), horizon=None), "does not tell how many steps"),
        (replace(curve("x"), schedule=None), "does not tell its schedule"),
        (curve("x", tau=None), "does not tell its tau"),
        (curve("x", tpp=None), "does not tell its TPP"),
        (curve("x", tpp=80.0), "the only finished run of its band"),
        (curve("x", tpp=80.0, until=0.5), "no finished healthy run of its band"),
        (curve("x", schedule=declared_schedule("constant")), "the only finished run"),
        (curve("x", every=100), "stretches of training with points are too few"),
        (curve("x", noise=0.2), "noise would hide"),
    ],
)
def test_undecidable_says_why(run: Curve, reason: str) -> None:
    found = one(score([*family(), run]), "x")
    assert found.verdict == "undecidable"
    assert reason in found.reason
    assert found.since is None
    assert found.causes == ()


def test_a_reference_of_another_schedule_claims_nothing() -> None:
    reference = Reference.build(family())
    other = curve("x", schedule=declared_schedule("cosine", final_lr_fraction=0.3))
    found = one(score([other], reference=reference), "x")
    assert found.verdict == "undecidable"
    assert "no reference of the same schedule" in found.reason
    same = one(score([curve("x", noise=0.005, params=SIZES[2])], reference=reference), "x")
    assert same.verdict == "healthy"


def test_a_blow_up_needs_no_reference() -> None:
    def burst(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.where(t > 0.05, 1.0, 0.0)

    up = curve("up", until=0.1, tpp=None, extra=burst, bend=0.4)
    lost = replace(
        curve("nan", until=0.1), values=np.where(np.arange(100) > 80, np.nan, curve().values[:100])
    )
    scored = score([up, lost])
    for name, since in (("up", 0.05), ("nan", 0.081)):
        run = one(scored, name)
        assert run.verdict == "deviating"
        assert run.since == pytest.approx(since, abs=0.01)
        assert [c.cause for c in run.causes] == ["divergence"]


def test_a_metric_that_ends_at_zero_has_not_diverged() -> None:
    rate = replace(curve("x"), values=np.linspace(1.0, 0.0, 1000))
    assert "divergence" not in [c.cause for c in one(score([*family(), rate]), "x").causes]
    binned = bin_curves([rate, replace(rate, values=np.full(1000, np.nan))])
    assert binned.missing.tolist() == [0, 1000]
    assert binned.missing_end.tolist() == [0, 1000]


def test_two_repeats_that_differ_accuse_nobody() -> None:
    two = [curve("a", noise=0.003), curve("b", noise=0.003, seed=5, extra=drift)]
    scored = score(two)
    assert {run.verdict for run in scored.runs} == {"undecidable"}
    assert "nothing tells which" in one(scored, "b").reason


def test_of_two_sizes_the_smaller_is_trusted() -> None:
    two = [
        curve("a", noise=0.003),
        curve("b", params=SIZES[1], noise=0.003, seed=5, extra=drift),
    ]
    scored = score(two)
    assert one(scored, "b").verdict == "deviating"
    assert one(scored, "a").verdict == "undecidable"


def test_healthy_runs_are_called_no_more_often_than_alpha() -> None:
    runs = family(noise=0.01)
    more = [
        curve(f"h{i}", params=SIZES[i % 4], noise=0.01, seed=1000 + i, final=3.5 - 0.2 * (i % 4))
        for i in range(300)
    ]
    scored = score([*runs, *more], alpha=0.05)
    called = sum(run.verdict == "deviating" for run in scored.runs)
    assert called <= 0.05 * 308


def astray(seed: int, size: float = 0.008) -> Any:
    """What sends a run astray early stays with it for long: half a wave, of another height each."""
    height = np.random.default_rng(seed).normal(0.0, size)
    return lambda t: height * np.cos(np.pi * np.minimum(t / 0.8, 1.0))


def test_runs_that_stray_no_further_than_their_repeats_are_healthy() -> None:
    def repeats(seed: int, strays: int) -> list[Curve]:
        return [
            curve(f"r{i}", noise=0.002, seed=seed + i, every=25, extra=astray(seed + i + strays))
            for i in range(12)
        ]

    called, seen = 0, 0
    for seed in range(0, 1000, 20):
        runs = repeats(seed, 10**6)
        called += len(score(runs).deviating)
        sick = curve("sick", noise=0.002, seed=seed + 19, every=25, extra=lambda t: 2 * drift(t))
        seen += "sick" in [run.name for run in score([*runs, sick]).deviating]
    # four repeats tell their scatter to a third; by the noise of its own points, a third is called
    assert called <= 0.08 * 600
    assert seen >= 40  # of 50


def test_the_quantile_allows_for_few_points() -> None:
    few, many = quantile(0.01, np.array([24, 100_000]))
    assert 3.5 < many < 3.8
    assert few > many + 1


def test_order_of_the_runs_does_not_matter() -> None:
    runs = [*family(), curve("sick", params=SIZES[3], noise=0.005, seed=9, extra=drift)]
    assert score(runs).runs == score(runs[::-1]).runs


def test_bins_of_several_batches_are_those_of_one() -> None:
    runs = family()
    whole, parts = bin_curves(runs), join([bin_curves(runs[:3]), bin_curves(runs[3:])])
    np.testing.assert_array_equal(whole.mean, parts.mean)
    np.testing.assert_array_equal(whole.outliers[0], parts.outliers[0])


def test_a_single_outlier_is_left_out_and_listed() -> None:
    def hard(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.where(np.isclose(t, 0.5), 0.5, 0.0)

    runs = [curve(f"r{i}", noise=0.01, seed=i, steps=5000, extra=hard) for i in range(3)]
    binned = bin_curves(runs)
    np.testing.assert_array_equal(binned.outliers[1], [2500] * 3)
    plain = bin_curves([curve("r0", noise=0.01, steps=5000)])
    assert abs(binned.mean[0] - plain.mean[0]).max() < 0.01
    scored = score(runs)
    assert [batch.step for batch in scored.hard_batches] == [2500]
    assert scored.hard_batches[0].runs == ("r0", "r1", "r2")


def test_bands_join_what_rounding_moved_apart() -> None:
    runs = [curve(f"r{i}", tpp=tpp) for i, tpp in enumerate((19.5, 20.0, 20.8, 40.0, 41.0))]
    bands = make_bands([r.facts for r in runs], [r.schedule for r in runs])
    assert [band.rows for band in bands] == [(0, 1, 2), (3, 4)]
    assert bands[0].label == "20.1 TPP, tau 0.2, linear to zero"


def test_a_schedule_known_to_a_part_joins_what_agrees_so_far() -> None:
    whole = declared_schedule("linear-to-zero", warmup_fraction=0.02)
    assert whole is not None
    logged = np.array([0.0, 0.02, 0.1, 0.2, 0.4])
    part = replace(whole, fractions=logged, factors=whole.at(logged), source="logged")
    runs = [curve("a"), curve("b", schedule=part)]
    bands = make_bands([r.facts for r in runs], [r.schedule for r in runs])
    assert [band.rows for band in bands] == [(0, 1)]


@pytest.mark.parametrize(("asked", "message"), [("tppp", "did you mean 'tpp'"), (",", "nothing")])
def test_group_by_names_fields(asked: str, message: str) -> None:
    with pytest.raises(CurveError, match=message):
        grouping(asked)
    assert grouping("none") == ()
