"""What the verbs of the analytics refuse, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def family(folder: Path) -> None:
    """Three sizes with the same normalized curve."""
    folder.mkdir()
    for params in (100, 200, 400):
        total = 400
        facts = {
            "params": params * 10**6,
            "tokens": params * 20 * 10**6,
            "total_steps": total,
            "lr": 0.001,
            "weight_decay": 0.1,
            "schedule": "linear",
            "warmup_steps": 20,
        }
        rows: list[dict[str, float | str]] = [dict(facts)]
        for step in range(1, total + 1):
            rate = 0.001 * min(step / 20, 1 - (step - 20) / (total - 20))
            loss = (2 + params**-0.1) * (0.7 + 0.3 * (step / total + 0.02) ** -0.3)
            loss *= 1 + 1e-3 * (step * 7919 % 101 / 101 - 0.5)
            rows.append({"step": step, "train/loss": loss, "lr": rate})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{params}M.jsonl").write_text(text)


@pytest.fixture
def archive(command: Command, tmp_path: Path) -> str:
    family(tmp_path / "logs")
    assert command("ingest", "logs", "-o", "archive", "-j", "1").code == 0
    return "archive"


def test_score_prints_its_reference(command: Command, tmp_path: Path, archive: str) -> None:
    printed = command("score", archive, "-o", "-")
    assert printed.code == 0
    assert json.loads(printed.out)["schema"] == "planner.reference/1"
    assert not (tmp_path / "-").exists()
    assert command("score", archive, "-o", "-", "--json").code == 2


def test_score_writes_over_references_only(command: Command, tmp_path: Path, archive: str) -> None:
    (tmp_path / "mine").write_text("my notes")
    printed = command("score", archive, "-o", "mine")
    assert (printed.code, printed.out) == (2, "")
    assert "mine: exists and is no reference" in printed.err
    assert (tmp_path / "mine").read_text() == "my notes"
    assert [command("score", archive, "-o", "new").code for _ in range(2)] == [0, 0]


def test_run_names_of_forecasts(command: Command, archive: str) -> None:
    assert command("forecast", archive, "100M", "--at", "0.3").code == 0
    for name in ("", "1", "M"):
        assert command("forecast", archive, name, "--at", "0.3").code == 2
    printed = command("forecast", archive, "--at", "0.3", "--level", "0.975")
    assert "intervals at 97.5%" in printed.out


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (("score", "archive", "--alpha", "1e-300"), "--alpha"),
        (("fit", "loss", "archive", "--name", ""), "--name"),
        (("fit", "loss", "archive", "--residuals", "-"), "--residuals"),
        (("watch", "log", "--alpha", "0"), "--alpha"),
        (("watch", "log", "--alpha", "nan"), "--alpha"),
        (("watch", "log", "--interval", "nan"), "--interval"),
        (("watch", "log", "--timeout", "nan"), "--timeout"),
        (("watch", "log", "--tolerance", "nan"), "--tolerance"),
    ],
)
def test_numbers_out_of_range(command: Command, args: tuple[str, ...], field: str) -> None:
    printed = command(*args)
    assert (printed.code, printed.out) == (2, "")
    assert printed.err.startswith(f"error: {field}: got ")
    assert len(printed.err.splitlines()) == 1
