"""The verbs ingest, runs and inspect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from planner.archive import Archive
from planner.cli.main import app

from .logs import csv_log, write

CLI = CliRunner()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    csv_log(tmp_path / "logs" / "a.csv")
    csv_log(tmp_path / "logs" / "b.csv", seed=1)
    write(tmp_path / "logs" / "notes.txt", "nothing of interest\n")
    return tmp_path / "logs"


def test_ingest_then_runs(logs: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    done = CLI.invoke(app, ["ingest", str(logs), "-o", archive])
    assert done.exit_code == 0, done.output
    assert "2 runs added; 20 points from 3 files" in done.output
    listed = CLI.invoke(app, ["runs", archive])
    assert listed.exit_code == 0
    assert [line.split()[1] for line in listed.output.splitlines()[1:]] == ["a", "b"]


def test_runs_json(logs: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    done = CLI.invoke(app, ["ingest", str(logs), "-o", archive, "--json"])
    assert json.loads(done.stdout)["added"] == ["a", "b"]
    document = json.loads(CLI.invoke(app, ["runs", archive, "--json"]).stdout)
    assert document["schema"] == "planner.runs/1"
    assert [run["name"] for run in document["runs"]] == ["a", "b"]
    assert {"run", "params", "series", "unknown", "policy"} <= document["runs"][0].keys()


def test_inspect(logs: Path) -> None:
    done = CLI.invoke(app, ["inspect", str(logs)])
    assert done.exit_code == 0
    assert "train/loss: 5 points" in done.output
    assert "not read: logs/notes.txt: is text of no known log format" in done.output
    document = json.loads(CLI.invoke(app, ["inspect", str(logs), "--json"]).stdout)
    assert [item["status"] for item in document["files"]] == ["log", "log", "skipped"]


def test_a_file_that_cannot_be_read_is_exit_code_1(logs: Path, tmp_path: Path) -> None:
    write(logs / "broken.csv", b"")
    done = CLI.invoke(app, ["ingest", str(logs), "-o", str(tmp_path / "archive")])
    assert done.exit_code == 1
    assert "error: logs/broken.csv: is empty" in done.output
    assert "2 runs added" in done.output


def test_empty_lock_files_are_no_logs(logs: Path, tmp_path: Path) -> None:
    write(logs / "lock", b"")
    write(logs / "slurm-1.err", b"")
    done = CLI.invoke(app, ["ingest", str(logs), "-o", str(tmp_path / "archive"), "--json"])
    assert done.exit_code == 0
    reasons = {item["file"]: item["reason"] for item in json.loads(done.stdout)["skipped"]}
    assert reasons["logs/lock"] == reasons["logs/slurm-1.err"] == "is empty"
    named = CLI.invoke(app, ["ingest", str(logs / "lock"), "-o", str(tmp_path / "other")])
    assert named.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "absent", "-o", "archive"], "absent: no such file or folder"),
        (["runs", "absent"], "absent: no such archive"),
        (["inspect", "absent"], "absent: no such file or folder"),
        (["ingest", ".", "-o", "archive", "--policy", "duplicates"], "wanted NAME=VALUE"),
        (
            ["ingest", ".", "-o", "archive", "--policy", "duplicate=first"],
            "no policy is called 'duplicate'; did you mean 'duplicates'",
        ),
        (
            ["inspect", ".", "--policy", "duplicates=mean"],
            "got 'mean' for duplicates, wanted last or first",
        ),
        (["ingest", ".", "-o", "archive", "--mapping", "absent.yaml"], "absent.yaml: no such file"),
    ],
)
def test_bad_usage_is_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CLI.invoke(app, arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "archive").exists()


def test_policies_on_the_command_line_come_first(tmp_path: Path) -> None:
    logs, archive = tmp_path / "logs", str(tmp_path / "archive")
    write(logs / "a.csv", "step,loss\n0,3\n1,2\n1,1\n2,0.5\n")
    rules = write(
        tmp_path / "map.yaml",
        "schema: planner.mapping/1\n"
        "files: [{match: '*', policy: {duplicates: last, restarts: keep}}]\n",
    )
    arguments = ["ingest", str(logs), "-o", archive, "--mapping", str(rules), "--json"]

    def ingested(*more: str) -> dict[str, Any]:
        done = CLI.invoke(app, [*arguments, *more])
        assert done.exit_code == 0, done.output
        [run] = json.loads(CLI.invoke(app, ["runs", archive, "--json"]).stdout)["runs"]
        values = Archive(archive).points([run["run"]]).column("value").to_pylist()
        return {**run["policy"], "values": values}

    found = ingested()
    assert (found["duplicates"], found["restarts"], found["values"]) == (
        "last",
        "keep",
        [3, 1, 0.5],
    )
    found = ingested("--policy", "duplicates=first")
    assert (found["duplicates"], found["restarts"]) == ("first", "keep")
    assert found["values"] == [3, 2, 0.5]
    assert ingested()["duplicates"] == "last"
