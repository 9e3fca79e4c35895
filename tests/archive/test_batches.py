"""Points in bulk are those that `Archive.points` returns, each run whole, whatever the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.archive import Archive, ArchiveError, Batch, list_runs, points_file
from planner.archive.store import bucket_of

from .logs import archived, csv_log, write

Curve = tuple[list[int], list[float | None], list[float | None], list[int]]


def make(tmp_path: Path) -> Archive:
    for i in range(12):
        csv_log(tmp_path / "logs" / f"run{i:02d}.csv", steps=3 + i, seed=i)
    write(tmp_path / "logs" / "tokens.csv", "step,tokens,loss\n0,0,3.5\n1,100,\n2,200,nan\n")
    write(tmp_path / "logs" / "restart.csv", "step,loss\n0,5\n1,4\n2,3\n1,3.5\n2,2.5\n3,2\n")
    write(tmp_path / "logs" / "rates.csv", "step,lr\n0,0.1\n1,0.2\n")
    return archived(tmp_path, tmp_path / "logs")[0]


def curves(batches: list[Batch], series: str) -> dict[str, Curve]:
    found: dict[str, Curve] = {}
    for batch in batches:
        ragged = batch.series[series]
        assert ragged.offsets[0] == 0
        assert len(ragged.offsets) == len(batch.runs) + 1
        for array in (ragged.steps, ragged.tokens, ragged.values, ragged.segments):
            assert len(array) == ragged.offsets[-1]
        for i, run in enumerate(batch.runs):
            part = slice(ragged.offsets[i], ragged.offsets[i + 1])
            assert run not in found
            found[run] = (
                ragged.steps[part].tolist(),
                [None if np.isnan(t) else t for t in ragged.tokens[part]],
                [None if np.isnan(v) else v for v in ragged.values[part]],
                ragged.segments[part].tolist(),
            )
    return found


def expected(archive: Archive, run: str, series: str) -> Curve:
    table = archive.points([run], [series])
    steps, tokens, values, segments = (
        table.column(name).to_pylist() for name in ("step", "tokens", "value", "segment")
    )
    return steps, tokens, values, segments


@pytest.mark.parametrize("most", [1, 7, 1_000_000])
def test_batches_hold_what_points_returns(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points_file, "_CHUNK", 20)  # several row groups a file
    archive = make(tmp_path)
    series = ["train/loss", "lr"]
    batches = list(archive.batches(series, points_per_batch=most))
    runs = [run["run"] for run in list_runs(archive)]
    for name in series:
        found = curves(batches, name)
        assert found.keys() == set(runs)
        for run in runs:
            assert found[run] == expected(archive, run, name)
    if most == 1:
        assert len(batches) == len(runs)
    for batch in batches[:-1]:
        points = sum(int(ragged.offsets[-1]) for ragged in batch.series.values())
        last = sum(int(np.diff(ragged.offsets)[-1]) for ragged in batch.series.values())
        assert points >= most > points - last


def test_runs_are_chosen_and_those_without_the_series_left_out(tmp_path: Path) -> None:
    archive = make(tmp_path)
    ids = {run["name"]: run["run"] for run in list_runs(archive)}
    some = [ids["run03"], ids["rates"], "no such run"]
    [batch] = archive.batches(["train/loss"], runs=some)
    assert batch.runs == [ids["run03"]]
    [batch] = archive.batches(["lr", "train/loss", "lr"], runs=some)
    assert set(batch.runs) == {ids["run03"], ids["rates"]}
    assert curves([batch], "train/loss")[ids["rates"]] == ([], [], [], [])
    assert list(archive.batches(["train/loss"], runs=[])) == []
    assert list(archive.batches(["no such series"])) == []
    assert list(Archive.create(tmp_path / "empty").batches(["train/loss"])) == []


def test_the_order_is_the_same_each_time(tmp_path: Path) -> None:
    archive = make(tmp_path)
    orders = [[run for b in archive.batches(["lr"]) for run in b.runs] for _ in range(2)]
    assert orders[0] == orders[1]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    archive = make(tmp_path)
    with pytest.raises(ValueError, match="wanted at least 1"):
        archive.batches(["lr"], points_per_batch=0)
    with pytest.raises(ValueError, match="wanted a list of names"):
        archive.batches("lr")
    file = next((archive.path / "points").iterdir())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ArchiveError, match="is damaged"):
        list(archive.batches(["train/loss", "lr"]))


@pytest.mark.parametrize("most", [1, 1_000_000])
def test_with_what_the_parents_logged(tmp_path: Path, most: int) -> None:
    for name, start in (("trunk", 0), ("branch", 4), ("twig", 2), ("leaf", 7), ("other", 5)):
        csv_log(tmp_path / "logs" / f"{name}.csv", steps=6, start=start, seed=start)
    write(tmp_path / "logs" / "bare.csv", "step,lr\n60,0.1\n70,0.2\n")
    archive = archived(tmp_path, tmp_path / "logs")[0]
    rows = {run["name"]: run for run in archive.rows(["unit"])}
    ids = {name: row["run"] for name, row in rows.items()}
    # twig begins before its parent does; other and leaf branch off each other; gone is no run
    links = {
        "branch": (ids["trunk"], 40),
        "twig": (ids["branch"], 30),
        "bare": (ids["trunk"], 20),
        "leaf": (ids["other"], 70),
        "other": (ids["leaf"], None),
        "trunk": ("gone", 5),
    }
    for name, link in links.items():
        archive.link(bucket_of(rows[name]["unit"]), {ids[name]: link})
    series = ["lr", "train/loss"]
    for runs in (None, [ids["twig"], ids["leaf"]]):
        batches = list(archive.batches(series, runs=runs, parents=True, points_per_batch=most))
        for name in series:
            found = curves(batches, name)
            assert found.keys() == set(runs or ids.values())
            for run, curve in found.items():
                table = archive.history(run, name)
                columns = ("step", "tokens", "value", "segment")
                assert curve == tuple(table.column(n).to_pylist() for n in columns)
    steps = curves(batches, "train/loss")[ids["twig"]][0]
    assert steps == [0, 10, 20, 30, 40, 50, 60, 70]
