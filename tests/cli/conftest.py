"""The command line in this process: a tenth of the time that a process of its own takes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from planner.cli.main import main


@dataclass(frozen=True)
class Printed:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Printed]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a verb in an empty folder: command("plan", "spec.yaml", stdin=b"...")."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*args: str, stdin: bytes = b"") -> Printed:
        monkeypatch.setattr(sys, "argv", ["planner", *args])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        code = stop.value.code
        return Printed(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture
def small_spec(tmp_path: Path) -> Path:
    """A spec of one run, with whose plan nothing is wrong."""
    spec = tmp_path / "small.yaml"
    spec.write_text("family: small\npreset: celerity\ntpp: 20\nsizes: [300M]\n")
    return spec
