"""Killed at any moment, an ingest leaves an archive of whole runs, and a rerun completes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.archive import Archive, ingest, list_runs

from .logs import csv_log, tree

ROUNDS = 20
RUNS = 150
CODE = """
import sys
from planner.archive import front, ingest
front.SMALL_BYTES = 0
if __name__ == "__main__":
    print("started", flush=True)
    ingest([sys.argv[1]], sys.argv[2], workers=int(sys.argv[3]))
"""


def start(script: Path, logs: Path, archive: Path, workers: int) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(logs), str(archive), str(workers)],
        env=env,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.slow
def test_kill_at_random_moments(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(CODE)
    logs = tmp_path / "logs"
    for i in range(RUNS):
        csv_log(logs / f"run{i}.csv", steps=50 + i, seed=i)
    whole = tmp_path / "whole"
    ingest([logs], whole)
    expected = tree(whole)
    points = {run["run"]: run["points"] for run in list_runs(Archive(whole))}
    began = time.perf_counter()
    with start(script, logs, tmp_path / "timed", 1) as process:
        assert process.wait() == 0
    length = time.perf_counter() - began
    assert tree(tmp_path / "timed") == expected

    chance = random.Random(20)
    partial = 0
    for number in range(ROUNDS):
        archive = tmp_path / f"killed{number}"
        workers = 2 if number % 5 == 4 else 1
        with start(script, logs, archive, workers) as process:
            time.sleep(chance.random() * length)
            # the process alone: its workers must stop by themselves
            os.kill(process.pid, signal.SIGKILL)
        if (archive / "archive.json").exists():
            opened = Archive(archive)
            found = list_runs(opened)
            partial += 0 < len(found) < RUNS
            for run in found:
                assert run["points"] == points[run["run"]]
            # a worker may finish its bucket after the list was made, but never a part of a run
            counts = opened.points().column("run").value_counts().to_pylist()
            there = {each["values"]: each["counts"] for each in counts}
            assert there == {run: points[run] for run in there}
            assert {run["run"] for run in found} <= there.keys()
        with start(script, logs, archive, workers) as process:
            assert process.wait() == 0
        assert tree(archive) == expected, f"round {number}"
    assert partial, "no round was killed half way: the test shows nothing"
