"""Whatever was logged in whatever order: nothing is lost uncounted, and curves run forwards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.archive import Archive
from planner.archive.mapping import Repairs
from planner.archive.points_file import Stored
from planner.archive.policies import POLICIES, Policy, decimals, repair
from planner.archive.record import Column, Table
from planner.archive.schema import runs_schema
from planner.archive.store import bucket_of
from planner.archive.unite import Part, unite

STEPS = st.lists(st.integers(-5, 40), max_size=60)
CHOICES = st.builds(Policy, **{name: st.sampled_from(values) for name, values in POLICIES.items()})
VALUES = st.floats(allow_nan=True, allow_infinity=True, width=32)


@st.composite
def tables(draw: Any) -> Table:
    steps = np.asarray(draw(STEPS), np.int64)
    n = len(steps)
    columns = {}
    for name in draw(st.sets(st.sampled_from(["loss", "lr", "grad_norm"]), min_size=1)):
        present = draw(st.none() | hnp.arrays(np.bool_, n))
        values = np.asarray(draw(st.lists(VALUES, min_size=n, max_size=n)), np.float64)
        columns[name] = Column(values, present)
    return Table(steps, columns, appended=draw(st.booleans()))


@given(tables(), CHOICES)
def test_every_value_is_kept_or_counted(table: Table, policy: Policy) -> None:
    done = repair(table, policy)
    for name, column in table.columns.items():
        series = done.series[name]
        logged = len(table.steps) if column.present is None else int(column.present.sum())
        dropped = series.nonfinite if policy.nonfinite == "drop" else 0
        assert len(series.steps) + series.duplicates + series.superseded + dropped == logged
        assert not np.isinf(series.values).any()
        assert int(np.isnan(series.values).sum()) == series.nonfinite - dropped
        if policy.restarts == "keep":
            assert series.superseded == 0


@given(tables(), CHOICES)
def test_steps_run_forwards(table: Table, policy: Policy) -> None:
    for series in repair(table, policy).series.values():
        assert (np.diff(series.steps) >= 0).all()
        if policy.restarts == "stitch":
            assert (np.diff(series.steps) > 0).all()
            if series.segments is not None:
                assert (np.diff(series.segments) >= 0).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(0, 6))
def test_decimals_of_rounded_numbers(values: list[float], digits: int) -> None:
    rounded = np.round(np.asarray(values), digits)
    found = decimals(rounded[np.isfinite(rounded)])
    assert found is not None
    assert found <= digits


def test_full_precision_has_no_decimals() -> None:
    values = np.random.default_rng(0).random(100)
    assert decimals(values[np.isfinite(values)]) is None


@given(st.lists(tables(), min_size=1, max_size=4))
def test_what_is_united_runs_forwards(several: list[Table]) -> None:
    parts = [
        Part(name, name, f"file{i}", "csv", series)
        for i, table in enumerate(several)
        for name, series in repair(table, Policy()).series.items()
    ]
    united, _ = unite(parts)
    assert set(united) == {part.name for part in parts}
    for name, part in united.items():
        assert (np.diff(part.series.steps) > 0).all()
        steps = {int(s) for p in parts if p.name == name for s in p.series.steps}
        assert {int(s) for s in part.series.steps} <= steps


def row_of(unit: str, run: str, names: list[str], counts: list[int]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(runs_schema().names)
    series = [{"name": n, "points": c} for n, c in zip(names, counts, strict=True)]
    keys = [field.name for field in runs_schema().field("series").type.value_type]
    row |= {"run": run, "name": run, "unit": unit, "settings": "", "points": sum(counts)}
    return row | {"series": [dict.fromkeys(keys) | item for item in series]}


@given(data=st.data())
def test_what_is_stored_comes_back(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = Archive.create(tmp_path_factory.mktemp("store") / "archive")
    kept: dict[str, Stored] = {}
    for number in range(data.draw(st.integers(1, 3))):
        changes = {}
        for unit in data.draw(st.sets(st.sampled_from(["00aa", "40bb", "80cc"]), min_size=1)):
            counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
            n = sum(counts)
            tokens = data.draw(
                st.none()
                | st.lists(st.just(math.nan) | st.integers(0, 2**40), min_size=n, max_size=n)
            )
            stored = Stored(
                row_of(unit, f"run-{unit}", [f"s{i}" for i in range(len(counts))], counts),
                np.asarray(data.draw(st.lists(st.integers(0, 99), min_size=n, max_size=n))),
                None if tokens is None else np.asarray(tokens, np.float64),
                np.asarray(
                    data.draw(
                        st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=n, max_size=n)
                    )
                ),
                None if number else np.arange(n, dtype=np.int32),
            )
            kept[unit] = stored
            changes[unit] = lambda held, stored=stored: [stored]
        assert {bucket_of(unit) for unit in changes} == {0}
        archive.update(0, changes)
    assert archive.runs().num_rows == len(kept)
    for stored in kept.values():
        table = archive.points([stored.row["run"]])
        assert table.column("step").to_pylist() == stored.steps.tolist()
        values = [None if math.isnan(v) else v for v in stored.values.tolist()]
        assert table.column("value").to_pylist() == values
        if stored.tokens is not None:
            known = [None if math.isnan(v) else int(v) for v in stored.tokens.tolist()]
            assert table.column("tokens").to_pylist() == known


def test_large_buckets_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.archive.points_file._CHUNK", 100)
    archive = Archive.create(tmp_path / "archive")

    def stored(i: int) -> Stored:
        n = 30 + i
        row = row_of(f"00{i:04d}", f"run{i}", ["s"], [n])
        return Stored(row, np.arange(n), None, np.full(n, float(i)), None)

    archive.update(0, {f"00{i:04d}": lambda held, i=i: [stored(i)] for i in range(0, 40, 2)})
    archive.update(0, {f"00{i:04d}": lambda held, i=i: [stored(i)] for i in range(1, 40, 2)})
    archive.update(0, {"000007": lambda held: None})
    for i in range(40):
        assert archive.points([f"run{i}"]).column("value").to_pylist() == [float(i)] * (30 + i)


def test_one_step_logged_twice_is_a_duplicate() -> None:
    """Whether rows of an export or of a text, and whether its values agree: none of it tells."""
    for appended in (True, False):
        values = Column(np.asarray([5.0, 4, 3, 2.5, 2, 1]))
        table = Table(np.asarray([0, 1, 2, 2, 3, 4]), {"loss": values}, appended=appended)
        done = repair(table, Policy())
        series = done.series["loss"]
        assert (done.boundaries, series.duplicates, series.superseded) == ([], 1, 0)
        assert series.steps.tolist() == [0, 1, 2, 3, 4]
        assert series.values.tolist() == [5, 4, 2.5, 2, 1]
    table = Table(np.asarray([0, 1, 2, 1, 2, 3]), {"loss": values})
    done = repair(table, Policy())
    assert (done.boundaries, done.series["loss"].superseded) == ([1], 2)


def test_rows_of_an_export_taken_in_order_of_time() -> None:
    steps = np.asarray([10, 20, 30, 0, 10])
    table = Table(steps, {"loss": Column(np.arange(5.0))}, appended=False)
    sorted_ = repair(table, Policy())
    assert sorted_.out_of_order
    assert sorted_.series["loss"].values.tolist() == [3, 0, 1, 2]
    as_logged = repair(table, Policy(parts="as_logged"))
    assert not as_logged.out_of_order
    assert as_logged.boundaries == [0]
    assert as_logged.series["loss"].values.tolist() == [3, 4]


def test_missing_values_and_tokens_that_fell() -> None:
    table = Table(
        np.arange(4),
        {"loss": Column(np.asarray([3, np.nan, 2, np.inf]))},
        tokens=np.asarray([0.0, 20, 10, 30]),
    )
    kept = repair(table, Policy()).series["loss"]
    assert (kept.steps.tolist(), kept.nonfinite) == ([0, 1, 2, 3], 2)
    done = repair(table, Policy(nonfinite="drop", tokens="missing"))
    series = done.series["loss"]
    assert (series.steps.tolist(), series.values.tolist(), series.nonfinite) == ([0, 2], [3, 2], 2)
    assert done.tokens_fell == 1
    assert series.tokens is not None
    assert np.array_equal(series.tokens, [0, np.nan], equal_nan=True)


def test_a_mapping_file_knows_the_same_policies() -> None:
    declared = Repairs.model_fields
    assert declared.keys() == POLICIES.keys()
    for name, values in POLICIES.items():
        for value in values:
            assert Repairs.model_validate({name: value})
