"""Noise that runs on one data order share is taken out of the residual; other noise is not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.curves import Curve, CurveError, Reference
from planner.curves.alarm import find_drift
from tests.curves.made import curve

HARD = np.random.default_rng(11).normal(0.0, 0.03, 1000)


def on_batches(name: str, hard: np.ndarray, seed: int, rise: float = 0.0) -> Curve:
    made = curve(
        name, noise=0.002, seed=seed, extra=lambda t: rise * np.maximum(0.0, (t - 0.6) / 0.4)
    )
    return replace(made, values=made.values * np.exp(hard[: made.values.size]))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.build([on_batches("ref", HARD, 1)])


def test_shared_noise_is_subtracted(reference: Reference) -> None:
    report = find_drift(on_batches("run", HARD, 2), reference)
    assert report.state == "quiet"
    assert report.shared == pytest.approx(1.0, abs=0.02)
    assert float(np.std(report.residual)) < 0.004
    other = np.random.default_rng(12).normal(0.0, 0.03, 1000)
    apart = find_drift(on_batches("run", other, 2), reference)
    assert apart.shared == 0.0
    assert float(np.std(apart.residual)) > 0.02


def test_a_drift_is_called_sooner(reference: Reference) -> None:
    soon = find_drift(on_batches("run", HARD, 2, rise=0.03), reference)
    other = np.random.default_rng(12).normal(0.0, 0.03, 1000)
    late = find_drift(on_batches("run", other, 2, rise=0.03), reference)
    assert soon.at is not None
    assert soon.at < 0.68
    assert late.at is None or late.at > soon.at + 0.05


def test_points_are_judged_by_what_was_logged_before_them(reference: Reference) -> None:
    whole = on_batches("run", HARD, 2, rise=0.03)
    at = find_drift(whole, reference).at
    assert at is not None
    assert find_drift(whole.until(at - 0.002), reference).state == "quiet"
    assert find_drift(whole.until(at), reference).at == at


@pytest.mark.parametrize("same", [True, False])
def test_false_alarms(reference: Reference, same: bool) -> None:
    runs, alarms = 200, 0
    for seed in range(runs):
        hard = HARD if same else np.random.default_rng(1000 + seed).normal(0.0, 0.03, 1000)
        alarms += find_drift(on_batches("run", hard, 100 + seed), reference).state == "alarm"
    assert alarms <= 0.01 * runs + 3.0 * math.sqrt(0.0099 * runs)


def test_steps_that_the_reference_lacks(reference: Reference) -> None:
    run = on_batches("run", HARD, 2)
    (member,) = reference.members
    assert member.steps is not None
    assert member.noise is not None
    keep = member.steps % 20 != 0
    holed = replace(
        reference, members=(replace(member, steps=member.steps[keep], noise=member.noise[keep]),)
    )
    report = find_drift(run, holed)
    assert report.shared > 0.9
    assert not np.any(report.steps % 20 == 0)
    short = member.steps < 800
    ended = replace(member, steps=member.steps[short], noise=member.noise[short])
    assert find_drift(run, replace(reference, members=(ended,))).shared == 0.0


def test_it_is_kept_in_the_file(reference: Reference, tmp_path: Path) -> None:
    reference.save(tmp_path / "reference.json")
    read = Reference.load(tmp_path / "reference.json")
    run = on_batches("run", HARD, 2, rise=0.03)
    assert find_drift(run, read).at == find_drift(run, reference).at
    assert find_drift(run, read).shared == pytest.approx(find_drift(run, reference).shared)


@pytest.mark.parametrize(
    ("steps", "noise", "message"),
    [
        ([1, 2], [0.1], "differ in number"),
        ([2, 1], [0.1, 0.1], "do not rise"),
        ([1, 2], None, "belong together"),
        ([], [], "differ in number"),
        ([1, 2**70], [0.1, 0.1], "less than"),
    ],
)
def test_wrong_points_in_a_file(
    reference: Reference,
    tmp_path: Path,
    steps: list[int],
    noise: list[float] | None,
    message: str,
) -> None:
    file = tmp_path / "reference.json"
    reference.save(file)
    document = json.loads(file.read_text())
    document["members"][0] |= {"steps": steps, "noise": noise}
    file.write_text(json.dumps(document))
    with pytest.raises(CurveError, match=message):
        Reference.load(file)
