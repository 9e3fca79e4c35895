"""A growing log, as it is written, cut, rotated and restarted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planner.curves import CurveError
from planner.curves.watch import Follower, Told


def rows(first: int, last: int, offset: float = 0.0) -> str:
    steps = range(first, last + 1)
    lines = [json.dumps({"step": s, "loss": 3.0 + 5.0 / s + offset, "lr": 1e-3}) for s in steps]
    return "".join(line + "\n" for line in lines)


def follower(path: Path, **told: object) -> Follower:
    made = Follower([path], told=Told(**told))
    made._not_before = float("-inf")
    return made


def poll(made: Follower):
    made._not_before = float("-inf")
    return made.poll()


def test_it_grows(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    made = follower(log, steps=100)
    assert poll(made) is None
    assert "no such file" in made.problem
    log.write_text(rows(1, 30))
    curve = poll(made)
    assert curve.steps.tolist() == list(range(1, 31))
    assert curve.horizon == 100
    assert made.problem == ""
    assert poll(made) is None  # nothing new
    with log.open("a") as stream:
        stream.write(rows(31, 50))
    assert poll(made).steps[-1] == 50


def test_a_line_that_is_being_written(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    whole = rows(1, 40)
    log.write_text(whole[:-20])
    made = follower(log)
    assert poll(made).steps[-1] == 39
    log.write_text(whole)
    assert poll(made).steps[-1] == 40


def test_a_rotated_log_keeps_what_was_seen(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(rows(1, 60))
    made = follower(log)
    poll(made)
    log.write_text("")  # cut before it is written anew
    assert poll(made) is None
    log.write_text(rows(61, 80))
    curve = poll(made)
    assert curve.steps.tolist() == list(range(1, 81))
    assert curve.facts.boundaries == (61,)


def test_a_restart_replaces_what_it_logs_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(rows(1, 60))
    made = follower(log)
    poll(made)
    log.write_text(rows(41, 50, offset=1.0))
    curve = poll(made)
    assert curve.steps.tolist() == list(range(1, 51))
    assert np.all(curve.values[40:] > 4.0)


def test_another_run_in_the_same_place(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(rows(1, 60))
    made = follower(log)
    poll(made)
    log.write_text(rows(1, 20, offset=1.0))
    assert poll(made).steps.tolist() == list(range(1, 21))


def test_several_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(rows(1, 20, offset=float(ord(name))))
    with pytest.raises(CurveError, match=r"--run.*2 runs"):
        poll(follower(tmp_path))
    assert poll(follower(tmp_path, run="a")).steps.size == 20
    with pytest.raises(CurveError, match="no run 'c'"):
        poll(follower(tmp_path, run="c"))


def test_a_horizon_that_is_past(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(rows(1, 60))
    with pytest.raises(CurveError, match="--steps"):
        poll(follower(log, steps=50))
