"""References: what they are made of, the change with size, and their files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.curves import Curve, CurveError, Reference
from planner.curves.member import GRID
from planner.errors import PlannerError
from tests.curves.made import curve, shape

T = np.linspace(0.02, 1.0, 99)


def test_one_run_is_its_own_normalized_curve() -> None:
    reference = Reference.build([curve(final=2.5)])
    logs, noise = reference.at(T)
    np.testing.assert_allclose(logs, np.log(shape(T)), atol=2e-5)
    assert logs[-1] == 0.0
    assert np.all(noise < 1e-4)
    assert reference.members[0].final == pytest.approx(2.5, rel=1e-6)


def test_a_noisy_run_is_smoothed_without_bias() -> None:
    runs = [curve(f"r{i}", noise=0.03, seed=i, steps=5000) for i in range(40)]
    shapes = np.array([Reference.build([run]).at(T)[0] for run in runs])
    truth = np.log(shape(T))
    assert np.abs(shapes.mean(axis=0) - truth)[T > 0.05].max() < 0.0015
    # it states the scatter that it has
    stated = Reference.build([runs[0]]).at(T)[1]
    ratio = shapes.std(axis=0)[T < 0.9] / stated[T < 0.9]
    assert 0.8 < np.median(ratio) < 1.25


def test_two_sizes_extrapolate_along_log_n() -> None:
    def bend(params: float) -> float:
        return 0.15 - 0.01 * math.log(params / 1e8)

    # log((t + 0.01) / 1.01) times a bend that is straight in log N is straight in log N
    runs = [curve(f"{n:g}", params=int(n), bend=bend(n)) for n in (1e8, 3e8)]
    reference = Reference.build(runs)
    logs, _ = reference.at(T, 1e9)
    np.testing.assert_allclose(logs, np.log(shape(T, bend(1e9))), atol=5e-5)
    np.testing.assert_allclose(
        reference.at(T)[0], np.log([shape(T, bend(n)) for n in (1e8, 3e8)]).mean(axis=0), atol=5e-5
    )
    assert reference.sizes == (100_000_000, 300_000_000)
    assert reference.weights(1e9).sum() == pytest.approx(1.0)


def test_the_unknown_change_with_size_grows_with_the_distance() -> None:
    one = Reference.build([curve(params=10**8)])
    near, far = one.drift(T, 2e8), one.drift(T, 1.6e9)
    np.testing.assert_allclose(far, 4 * near)
    two = Reference.build([curve("a", params=10**8), curve("b", params=2 * 10**8)])
    assert np.all(two.drift(T, 1.6e9) <= one.drift(T, 1.6e9))
    assert one.drift(T, 1e8).max() == 0.0


def test_repeats_show_noise_that_the_points_do_not() -> None:
    def wave(phase: float) -> Any:
        return lambda t: 0.004 * np.sin(9.0 * t + phase) * (1.0 - t)

    runs = [curve(f"r{i}", extra=wave(2.0 * i)) for i in range(4)]
    assert Reference.build(runs[:1]).at([0.5])[1] < 1e-4
    noise = Reference.build(runs).wander([0.5])
    assert 0.0004 < noise[0] < 0.003


def test_the_scatter_is_that_of_the_repeats_of_the_nearest_size() -> None:
    heights = np.random.default_rng(5).normal(0.0, 0.02, 8)

    def run(i: int, params: int) -> Curve:
        astray = heights[i] * (4 if params > 10**8 else 1)
        return curve(f"{params}-{i}", params=params, extra=lambda t: astray * np.cos(np.pi * t))

    small = [run(i, 10**8) for i in range(4)]
    large = [run(i, 10**9) for i in range(4, 8)]
    alone = Reference.build(small)
    wave = np.cos(np.pi * T)
    inside = (GRID >= 0.25) & (GRID <= 0.5)
    aligned = wave - np.cos(np.pi * GRID[inside]).mean()
    found = alone.scatter(T)
    far = T > 0.6  # smoothed: not where it passes through zero
    np.testing.assert_allclose(
        found[far], heights[:4].std(ddof=1) * np.abs(aligned)[far], rtol=0.15
    )
    both = Reference.build([*small, *large])
    np.testing.assert_allclose(both.scatter(T, 2e8), found)
    np.testing.assert_allclose(both.scatter(T, 5e9), Reference.build(large).scatter(T))
    pooled = np.sqrt((found**2 + Reference.build(large).scatter(T) ** 2) / 2)
    np.testing.assert_allclose(both.scatter(T), pooled)
    # two runs of one size tell too little
    assert not Reference.build([*small[:2], run(4, 10**9)]).scatter(T).any()


def test_it_is_not_known_before_its_first_point() -> None:
    late = curve(every=100)
    logs, noise = Reference.build([late]).at([0.05, 0.2])
    assert np.isnan(logs[0])
    assert np.isnan(noise[0])
    assert np.isfinite(logs[1])


def test_without_a_run() -> None:
    reference = Reference.build([curve("a"), curve("b")])
    left = reference.without("a")
    assert left is not None
    assert [m.run for m in left.members] == ["b"]
    assert left.without("b") is None
    assert left.without("c") is left


def test_a_function_is_taken_as_it_is() -> None:
    reference = Reference.from_function(
        shape, metric="train/loss", source="surrogate", schedule=None, tau=0.2, tpp=20.0, error=0.01
    )
    np.testing.assert_allclose(reference.at(T)[0], np.log(shape(T)), atol=1e-4)
    assert reference.at([0.5])[1] == pytest.approx(0.01)
    assert reference.name == "surrogate"
    with pytest.raises(CurveError, match="not positive"):
        Reference.from_function(
            lambda t: t - 0.5, metric="m", source="law", schedule=None, tau=None, tpp=None
        )


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "at least one finished run"),
        ([curve(until=0.5)], "finished runs, and this one is not"),
        ([curve(every=300, steps=1200)], "usable points are too few"),
    ],
)
def test_what_a_reference_cannot_be_made_of(runs: list[Any], message: str) -> None:
    with pytest.raises(CurveError, match=message):
        Reference.build(runs)


def test_saved_and_loaded(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    runs = [curve("a"), curve("b", params=2 * 10**8, every=50, noise=0.01)]
    reference = Reference.build(runs)
    reference.save(file)
    again = Reference.load(file)
    for params in (None, 5e8):
        for got, wanted in zip(again.at(T, params), reference.at(T, params), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-8)
    assert (again.tau, again.tpp, again.metric) == (0.2, 20.0, "train/loss")
    assert again.schedule is not None
    assert again.schedule.at(0.51) == pytest.approx(0.5)
    first = file.read_bytes()
    again.save(file)
    assert file.read_bytes() == first


def _edited(document: dict[str, Any], edit: str) -> str:
    match edit:
        case "schema":
            document["schema"] = "planner.plan/1"
        case "extra":
            document["extra"] = 1
        case "members":
            document["members"] = []
        case "final":
            document["members"][0]["final"] = -1.0
        case "short":
            document["members"][0]["shape"].pop()
        case "fractions":
            document["fractions"][3] = 0.0
        case "end":
            document["members"][0]["error"][-1] = None
        case "text":
            document["tau"] = "0.2"
        case "schedule":
            document["schedule"]["factors"].pop()
        case "list":
            return "[]"
        case "nothing":
            return "{"
        case "nan":
            return json.dumps(document).replace('"offset": 0.0', '"offset": NaN')
    return json.dumps(document)


@pytest.mark.parametrize(
    "edit",
    [
        *("schema", "extra", "members", "final", "short", "fractions"),
        *("end", "text", "schedule", "list", "nothing", "nan"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, edit: str) -> None:
    file = tmp_path / "reference.json"
    Reference.build([curve()]).save(file)
    file.write_text(_edited(json.loads(file.read_text()), edit))
    with pytest.raises(CurveError) as caught:
        Reference.load(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(PlannerError, match="no/such"):
        Reference.load("no/such")


def test_the_grid_ends_at_one() -> None:
    assert GRID[-1] == 1.0
    assert np.all(np.diff(GRID) > 0)
