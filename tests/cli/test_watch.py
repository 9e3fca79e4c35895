"""The verb ``watch``, in this process."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from planner.archive import Archive
from planner.cli.watch_view import relative
from planner.curves import Reference
from tests.cli.conftest import Command
from tests.curves.made import curve, shape


def write(path: Path, *, until: float = 1.0, rise: float = 0.0) -> None:
    steps = np.arange(1, int(1000 * until) + 1)
    t = steps / 1000
    logs = np.log(3.0 * shape(t)) + np.random.default_rng(4).normal(0.0, 0.01, t.size)
    logs += np.maximum(0.0, (t - 0.6) / 0.4) * rise
    rows = [{"step": int(s), "loss": float(v)} for s, v in zip(steps, np.exp(logs), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def reference(tmp_path: Path) -> str:
    path = tmp_path / "reference.json"
    Reference.build([curve("ref", noise=0.002)]).save(path)
    return str(path)


def test_once(command: Command, tmp_path: Path, reference: str) -> None:
    write(tmp_path / "run.jsonl", until=0.5)
    known = ("--reference", reference, "--steps", "1000", "--params", "100M")
    printed = command("watch", "run.jsonl", "--once", *known)
    assert printed.code == 0
    assert "state     quiet" in printed.out
    assert "final" in printed.out
    document = json.loads(command("watch", "run.jsonl", "--once", "--json", *known).out)
    assert document["schema"] == "planner.watch/1"
    assert (document["state"], document["step"], document["at"]) == ("quiet", 500, 0.5)
    assert document["predicted"]["low"] < 3.0 < document["predicted"]["high"]


def test_a_folder_without_logs_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    printed = command("watch", "empty", "--once")
    assert printed.code == 2
    assert printed.err == "error: empty: holds no run yet\n"


def test_an_archive_is_no_log(command: Command, tmp_path: Path) -> None:
    Archive.create(tmp_path / "archive")
    printed = command("watch", "archive", "--once")
    assert printed.code == 2
    wanted = "is an archive, wanted a log that grows; planner score judges archived runs"
    assert printed.err == f"error: archive: {wanted}\n"


def test_an_alarm(command: Command, tmp_path: Path, reference: str) -> None:
    write(tmp_path / "run.jsonl", rise=0.05)
    known = ("--reference", reference, "--steps", "1000", "--params", "100M")
    printed = command("watch", "run.jsonl", "--once", "--json", *known)
    assert printed.code == 1
    document = json.loads(printed.out)
    assert document["state"] == "alarm"
    assert [alarm["kind"] for alarm in document["alarms"]] == ["drift"]
    assert 600 < document["alarms"][0]["step"] < 900
    # following it says the same, and a hook that fails does not matter
    printed = command(
        "watch", "run.jsonl", *known, "--interval", "0.1", "--command", "true x=T0K3N"
    )
    assert printed.code == 1
    assert "ALARM drift at step" in printed.out
    assert "T0K3N" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("factor", "wanted"),
    [(1.01, "+1.00%"), (0.95, "-5.13%"), (1.5, "+50.0%"), (1 / 56.0, "-98.2%"), (56.0, "x56")],
)
def test_a_residual_is_a_share_of_the_loss(factor: float, wanted: str) -> None:
    """Of a run that diverged, too, where the difference of logarithms is no share."""
    assert relative(math.log(factor)) == wanted


def test_a_residual_of_any_size() -> None:
    assert relative(1e4) == "x1e4343"
    assert relative(-1e4) == "-100.0%"


def test_a_run_that_diverged_shows_a_factor(
    command: Command, tmp_path: Path, reference: str
) -> None:
    write(tmp_path / "run.jsonl", rise=12.0)
    known = ("--reference", reference, "--steps", "1000", "--params", "100M")
    printed = command("watch", "run.jsonl", "--once", *known)
    (line,) = [text for text in printed.out.splitlines() if text.startswith("residual")]
    document = json.loads(command("watch", "run.jsonl", "--once", "--json", *known).out)
    assert document["residual"] > 3.0
    assert line.split()[1] == f"x{math.exp(document['residual']):.3g}"


def test_a_healthy_run_to_its_end(command: Command, tmp_path: Path, reference: str) -> None:
    write(tmp_path / "run.jsonl")
    known = ("--reference", reference, "--steps", "1000", "--params", "100M")
    printed = command("watch", "run.jsonl", *known, "--interval", "0.1", "--timeout", "60")
    assert printed.code == 0
    assert "quiet" in printed.out.splitlines()[-1]


def test_without_a_reference(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "run.jsonl", until=0.3)
    printed = command("watch", "run.jsonl", "--once")
    assert printed.code == 0
    assert "no reference" in printed.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.jsonl", "--once"), "no such file"),
        (("run.jsonl", "--json"), "--once"),
        (("run.jsonl", "--once", "--webhook", "ftp://x"), "--webhook"),
        (("run.jsonl", "--once", "--alpha", "0.5", "--reference", "REF"), "--alpha"),
        (("run.jsonl", "--once", "--steps", "10"), "--steps"),
        (("run.jsonl", "--once", "--run", "other"), "--run"),
    ],
)
def test_bad_usage(
    command: Command, tmp_path: Path, reference: str, arguments: tuple[str, ...], said: str
) -> None:
    write(tmp_path / "run.jsonl", until=0.3)
    given = [reference if word == "REF" else word for word in arguments]
    printed = command("watch", *given)
    assert printed.code == 2
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
