"""Logs in, runs out: idempotent, atomic, with every repair recorded."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.archive import Archive, ArchiveError, LogError, ingest, inspect, list_runs

from .logs import archived, by_name, csv_log, curve, tree, write


def test_one_csv_file_is_one_run(tmp_path: Path) -> None:
    archive, report = archived(tmp_path, csv_log(tmp_path / "logs" / "a.csv"))
    assert report.ok
    assert report.added == ["a"]
    run = by_name(archive)["a"]
    assert run["metric"] == "train/loss"
    assert (run["first_step"], run["last_step"], run["points"]) == (0, 40, 10)
    assert [s["name"] for s in run["series"]] == ["lr", "train/loss"]
    loss = run["series"][1]
    assert loss["unit"] == "nats per token"
    assert (loss["logged_as"], loss["decimals"]) == ("loss", 5)
    steps, values = curve(archive, run["run"], "train/loss")
    assert steps == [0, 10, 20, 30, 40]
    assert values[-1] == run["final"]


def test_the_same_again_adds_nothing(tmp_path: Path) -> None:
    for i in range(20):
        csv_log(tmp_path / "logs" / f"run{i}.csv", seed=i)
    archive, first = archived(tmp_path, tmp_path / "logs")
    before = tree(archive.path)
    _, again = archived(tmp_path, tmp_path / "logs")
    assert len(first.added) == again.unchanged == 20
    assert (again.added, again.replaced, again.points) == ([], [], 0)
    assert tree(archive.path) == before


def test_where_the_folder_lies_does_not_matter(tmp_path: Path) -> None:
    for place in ("here", "there/deeper"):
        for i in range(5):
            csv_log(tmp_path / place / "logs" / f"run{i}.csv", seed=i)
    ingest([tmp_path / "here" / "logs"], tmp_path / "one")
    ingest([tmp_path / "there" / "deeper" / "logs"], tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_same_bytes_elsewhere_are_the_same_run(tmp_path: Path) -> None:
    first = csv_log(tmp_path / "logs" / "a.csv")
    write(tmp_path / "copy" / "b.csv", first.read_bytes())
    archive, _ = archived(tmp_path, first)
    _, report = archived(tmp_path, tmp_path / "copy")
    assert report.added == []
    assert list(by_name(archive)) == ["a"]


def test_two_files_of_one_ingest_with_the_same_bytes(tmp_path: Path) -> None:
    first = csv_log(tmp_path / "logs" / "a.csv")
    write(tmp_path / "logs" / "b.csv", first.read_bytes())
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert report.ok
    assert list(by_name(archive)) == ["a"]
    assert report.skipped == [("logs/b.csv", "holds the same bytes as logs/a")]


def test_a_log_that_has_grown_replaces_its_run(tmp_path: Path) -> None:
    log = csv_log(tmp_path / "logs" / "a.csv", steps=3)
    archive, _ = archived(tmp_path, log)
    old = by_name(archive)["a"]
    csv_log(log, steps=9)
    _, report = archived(tmp_path, log)
    assert report.replaced == ["a"]
    new = by_name(archive)["a"]
    assert (new["run"], new["last_step"]) == (old["run"], 80)
    assert len(list_runs(archive)) == 1


def test_another_run_of_the_same_name_is_kept_beside_it(tmp_path: Path) -> None:
    archive, _ = archived(tmp_path, csv_log(tmp_path / "labA" / "logs" / "a.csv", seed=1))
    _, report = archived(tmp_path, csv_log(tmp_path / "labB" / "logs" / "a.csv", seed=2))
    assert report.added == ["a"]
    runs = list_runs(archive)
    assert [run["name"] for run in runs] == ["a", "a"]
    assert len({run["run"] for run in runs}) == 2
    _, again = archived(tmp_path, tmp_path / "labB" / "logs")
    assert again.unchanged == 1


def test_the_order_of_ingests_does_not_matter(tmp_path: Path) -> None:
    logs = [csv_log(tmp_path / "logs" / f"run{i}.csv", seed=i) for i in range(30)]
    for log in logs:
        ingest([log], tmp_path / "one")
    ingest([*reversed(logs)], tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.archive.front.SMALL_BYTES", 0)
    for i in range(10):
        csv_log(tmp_path / "logs" / f"run{i}.csv", seed=i)
    ingest([tmp_path / "logs"], tmp_path / "one")
    ingest([tmp_path / "logs"], tmp_path / "two", workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_ingests_at_the_same_time(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for i in range(60):
        csv_log(tmp_path / "logs" / f"run{i}.csv", seed=i)
    ingest([tmp_path / "logs"], tmp_path / "alone")
    code = (
        "import sys; from planner.archive import ingest; "
        "ingest([sys.argv[1]], sys.argv[2], workers=1)"
    )
    env = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    results = []

    def one() -> None:
        results.append(run_python(code, str(tmp_path / "logs"), str(tmp_path / "shared"), env=env))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.returncode for r in results] == [0, 0, 0], results
    assert tree(tmp_path / "shared") == tree(tmp_path / "alone")


def test_files_of_one_folder_with_names_that_say_nothing_are_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "run7"
    write(folder / "measurements.csv", "global_step,loss\n0,9.5\n100,4.25\n")
    write(folder / "eval_measurements.csv", "global_step,validation/loss\n100,4.5\n")
    write(folder / "hparams.json", '{"learning_rate": 0.01, "weight_decay": 0.1}')
    archive, _ = archived(tmp_path, tmp_path / "logs")
    run = by_name(archive)["run7"]
    assert [s["name"] for s in run["series"]] == ["eval/validation/loss", "train/loss"]
    assert (run["lr"], run["weight_decay"]) == (0.01, 0.1)
    assert run["origins"]["lr"] == "hparams.json: learning_rate"
    assert "params" in run["unknown"]
    assert run["params"] is None


def test_a_restart_is_stitched_and_marked(tmp_path: Path) -> None:
    lines = [{"step": s, "loss": 5 - s / 100} for s in range(0, 100, 10)]
    lines += [{"step": s, "loss": 1 + s / 100} for s in range(60, 150, 10)]
    log = write(tmp_path / "logs" / "r.jsonl", "".join(json.dumps(x) + "\n" for x in lines))
    archive, _ = archived(tmp_path, log)
    run = by_name(archive)["r"]
    assert run["boundaries"] == [60]
    assert run["series"][0]["superseded"] == 4
    table = archive.points([run["run"]])
    assert table.column("step").to_pylist() == [*range(0, 150, 10)]
    assert table.column("segment").to_pylist() == [0] * 6 + [1] * 9
    assert table.column("value").to_pylist()[6] == pytest.approx(1.6)
    assert any("restarted at step 60" in note for note in run["notes"])


def test_restarts_in_files_of_their_own_are_stitched(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "r" / "log.jsonl", '{"step":0,"loss":5}\n{"step":10,"loss":4}\n')
    write(tmp_path / "logs" / "r" / "train.jsonl", '{"step":10,"loss":3}\n{"step":20,"loss":2}\n')
    archive, _ = archived(tmp_path, tmp_path / "logs")
    run = by_name(archive)["r"]
    assert curve(archive, run["run"], "train/loss") == ([0, 10, 20], [5, 3, 2])
    assert run["boundaries"] == [10]


def test_nan_and_infinity_are_missing_and_counted(tmp_path: Path) -> None:
    text = '{"step":0,"loss":1.5}\n{"step":1,"loss":NaN}\n{"step":2,"loss":Infinity}\n'
    archive, _ = archived(tmp_path, write(tmp_path / "logs" / "n.jsonl", text))
    run = by_name(archive)["n"]
    assert run["series"][0]["nonfinite"] == 2
    assert curve(archive, run["run"], "train/loss") == ([0, 1, 2], [1.5, None, None])
    assert (run["final"], run["diverged_step"]) == (None, 1)


def test_of_duplicate_steps_the_last_counts(tmp_path: Path) -> None:
    text = "step,loss\n0,3\n1,2\n1,1\n2,0.5\n"
    archive, _ = archived(tmp_path, write(tmp_path / "logs" / "d.csv", text))
    run = by_name(archive)["d"]
    assert curve(archive, run["run"], "train/loss") == ([0, 1, 2], [3, 1, 0.5])
    assert run["series"][0]["duplicates"] == 1
    assert run["policy"]["duplicates"] == "last"


def test_an_exported_table_with_the_later_part_first(tmp_path: Path) -> None:
    text = "step,loss\n" + "".join(f"{s},{s / 8}\n" for s in [*range(50, 80), *range(60)])
    archive, _ = archived(tmp_path, write(tmp_path / "logs" / "o.csv", text))
    run = by_name(archive)["o"]
    assert run["policy"]["out_of_order"] is True
    assert curve(archive, run["run"], "train/loss")[0] == list(range(80))
    assert run["boundaries"] == [50]


def test_tokens_that_go_back_are_counted(tmp_path: Path) -> None:
    text = "step,tokens,loss\n0,0,3\n1,100,2\n2,50,1\n"
    archive, _ = archived(tmp_path, write(tmp_path / "logs" / "t.csv", text))
    run = by_name(archive)["t"]
    assert run["policy"]["tokens_fell"] == 1
    assert archive.points([run["run"]]).column("tokens").to_pylist() == [0, 100, 50]


def test_validation_is_kept_apart(tmp_path: Path) -> None:
    text = "step:1/3 train_loss:5.5 train_time:1ms step_avg:nan\nstep:2/3 train_loss:5.25 x:1\n"
    text += "step:2/3 val_loss:5.1 train_time:2ms step_avg:1ms\n"
    archive, _ = archived(tmp_path, write(tmp_path / "logs" / "m.log", text))
    run = by_name(archive)["m"]
    points = {s["name"]: s["points"] for s in run["series"]}
    assert (points["train/loss"], points["eval/validation/loss"]) == (2, 1)
    assert run["total_steps"] == 3


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_files(tmp_path: Path, ending: str) -> None:
    import pyarrow as pa

    plain = csv_log(tmp_path / "logs" / "a.csv").read_bytes()
    packed = gzip.compress(plain) if ending == ".gz" else pa.compress(plain, "zstd", asbytes=True)
    if ending == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(plain)
        packed = sink.getvalue().to_pybytes()
    archive, report = archived(tmp_path, write(tmp_path / "packed" / f"a.csv{ending}", packed))
    assert report.ok
    assert by_name(archive)["a"]["points"] == 10


def test_a_run_that_branches_off_another(tmp_path: Path) -> None:
    config = '{"n_params": 1000000, "lr": 0.001, "schedule": "wsd", "seed": 1}\n'

    def log(name: str, steps: range) -> None:
        lines = "".join(f'{{"step": {s}, "loss": {5 - s / 1000}}}\n' for s in steps)
        write(tmp_path / "logs" / f"{name}.jsonl", config + lines)

    log("trunk", range(0, 1000, 10))
    log("cooldown", range(610, 900, 10))
    archive, _ = archived(tmp_path, tmp_path / "logs")
    runs = by_name(archive)
    assert runs["cooldown"]["parent_run"] == runs["trunk"]["run"]
    assert runs["cooldown"]["branch_step"] == 610
    assert runs["trunk"]["parent_run"] is None
    table = archive.history(runs["cooldown"]["run"], "train/loss")
    assert table.column("step").to_pylist() == [*range(0, 900, 10)]
    owners = table.column("run").to_pylist()
    assert owners == [runs["trunk"]["run"]] * 61 + [runs["cooldown"]["run"]] * 29
    assert archive.history(runs["trunk"]["run"], "train/loss").num_rows == 100
    with pytest.raises(ArchiveError, match="holds no run 'none'"):
        archive.history("none", "train/loss")


def test_an_interrupted_change_is_finished_by_whoever_opens_next(tmp_path: Path) -> None:
    log = csv_log(tmp_path / "logs" / "a.csv", steps=3)
    archive, _ = archived(tmp_path, log)
    before = tree(archive.path)
    csv_log(log, steps=9)
    archived(tmp_path, log)
    after = tree(archive.path)
    changed = [name for name in after if before.get(name) != after[name]]
    assert len(changed) == 2
    work = archive.path / ".work"
    for name in changed:  # as if killed between the two moves
        part, bucket = Path(name).parts[0], Path(name).stem
        (work / f"commit-{bucket}").touch()
        if part == "runs":
            (archive.path / name).write_bytes(before[name])
            (work / f"runs-{bucket}").write_bytes(after[name])
    assert by_name(Archive(archive.path))["a"]["last_step"] == 80
    assert tree(archive.path) == after


def test_half_written_files_are_dropped(tmp_path: Path) -> None:
    archive, _ = archived(tmp_path, csv_log(tmp_path / "logs" / "a.csv"))
    before = tree(archive.path)
    (archive.path / ".work" / "points-3f").write_bytes(b"PAR1 half")
    Archive(archive.path)
    assert tree(archive.path) == before


def test_a_folder_of_other_files_is_no_archive(tmp_path: Path) -> None:
    log = csv_log(tmp_path / "logs" / "a.csv")
    with pytest.raises(ArchiveError, match="is a folder of other files"):
        ingest([log], tmp_path / "logs")
    with pytest.raises(ArchiveError, match="is a file, wanted a folder"):
        ingest([log], log)
    with pytest.raises(ArchiveError, match="no such archive"):
        Archive(tmp_path / "none")
    with pytest.raises(ArchiveError, match="is no archive"):
        Archive(tmp_path / "logs")
    with pytest.raises(LogError, match="no such file or folder"):
        ingest([tmp_path / "absent"], tmp_path / "archive")


def test_an_archive_of_another_version(tmp_path: Path) -> None:
    archive, _ = archived(tmp_path, csv_log(tmp_path / "logs" / "a.csv"))
    (archive.path / "archive.json").write_text('{"schema": "planner.archive/9", "buckets": 256}')
    with pytest.raises(ArchiveError, match=r"is of schema 'planner.archive/9', wanted"):
        Archive(archive.path)


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    archive, _ = archived(tmp_path, csv_log(tmp_path / "logs" / "a.csv"))
    for file in (archive.path / "runs").iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match="is damaged"):
        list_runs(archive)


def test_an_archive_among_the_logs_is_not_read(tmp_path: Path) -> None:
    csv_log(tmp_path / "logs" / "a.csv")
    report = ingest([tmp_path / "logs"], tmp_path / "logs" / "archive")
    again = ingest([tmp_path / "logs"], tmp_path / "logs" / "archive")
    assert (report.added, again.unchanged, again.files) == (["a"], 1, 1)


def test_other_tools_read_it(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    archive, _ = archived(tmp_path, csv_log(tmp_path / "logs" / "a.csv"))
    points = pq.read_table(archive.path / "points")
    assert points.column_names == ["run", "series", "step", "tokens", "value", "segment"]
    file = next((archive.path / "points").iterdir())
    assert pq.read_metadata(file).metadata[b"planner.archive"] == b"planner.archive/1"


def test_inspect_changes_nothing(tmp_path: Path) -> None:
    csv_log(tmp_path / "logs" / "a.csv")
    write(tmp_path / "logs" / "README.md", "Some words, and more.\n")
    before = tree(tmp_path)
    found = inspect([tmp_path / "logs"])
    assert tree(tmp_path) == before
    assert [stored.row["name"] for stored in found.runs] == ["a"]
    assert {item.source.name: item.status for item in found.surveyed} == {
        "logs/README.md": "skipped",
        "logs/a.csv": "log",
    }


def test_what_steps_and_batches_round_is_as_asked_for(tmp_path: Path) -> None:
    """20 TPP comes out at 19.99 or 20.01: it is 20 all the same, and not more than 20."""
    tpp = {"below": 19.99, "above": 20.01, "more": 21.0, "twice": 40.0}
    for name, value in tpp.items():
        head = f'{{"n_params": 1000, "tpp": {value}}}'
        write(tmp_path / "logs" / f"{name}.jsonl", f'{head}\n{{"step": 1, "loss": 2.5}}\n')
    archive, _ = archived(tmp_path, tmp_path / "logs")

    def names(condition: str) -> set[str]:
        return {run["name"] for run in list_runs(archive, where=[condition])}

    assert names("tpp=20") == names("tpp==20") == names("tpp<=20") == {"below", "above"}
    assert names("tpp!=20") == names("tpp>20") == {"more", "twice"}
    assert names("tpp>=20") == set(tpp)
    assert names("tpp<20") == set()
    assert names("tpp>=inf") == names("tpp=nan") == set()


def test_list_filters_and_sorts(tmp_path: Path) -> None:
    for name, params in (("small", 10_000_000), ("big", 2_000_000_000)):
        write(
            tmp_path / "logs" / f"{name}.jsonl",
            f'{{"n_params": {params}}}\n{{"step": 1, "loss": 2.5}}\n{{"step": 2, "loss": 2.25}}\n',
        )
    csv_log(tmp_path / "logs" / "unknown.csv")
    archive, _ = archived(tmp_path, tmp_path / "logs")

    def names(**options: Any) -> list[str]:
        return [run["name"] for run in list_runs(archive, **options)]

    assert names() == ["big", "small", "unknown"]
    assert names(where=["params>=100M"]) == ["big"]
    assert names(where=["params<1B", "final=2.25"]) == ["small"]
    assert names(where=["params=null"]) == ["unknown"]
    assert names(where=["final=2.251"]) == []
    assert names(where=["name!=*n*"]) == ["big", "small"]
    assert names(sort="params") == ["small", "big", "unknown"]
    assert names(sort="-params", limit=1) == ["big"]
    for bad, match in (("parms>1", "did you mean 'params'"), ("params", "wanted such as")):
        with pytest.raises(ArchiveError, match=match):
            names(where=[bad])
    with pytest.raises(ArchiveError, match="no field is called"):
        names(sort="nothing")


def test_every_value_in_json_is_finite_or_null(tmp_path: Path) -> None:
    text = "step,loss\n0,nan\n1,inf\n"
    archive, _ = archived(tmp_path, write(tmp_path / "logs" / "n.csv", text))
    run = by_name(archive)["n"]
    assert run["final"] is None
    assert not any(isinstance(v, float) and not math.isfinite(v) for v in run.values())


def test_an_older_archive_lacks_columns(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    archive, _ = archived(tmp_path, csv_log(tmp_path / "logs" / "a.csv"))
    for file in (archive.path / "runs").iterdir():
        pq.write_table(pq.read_table(file).drop_columns(["every", "metric"]), file)
    run = by_name(archive)["a"]
    assert (run["every"], run["metric"], run["points"]) == (None, None, 10)
    _, report = archived(tmp_path, csv_log(tmp_path / "logs" / "b.csv", seed=1))
    assert report.added == ["b"]
    assert sorted(by_name(archive)) == ["a", "b"]
