"""The verb ``plot``, in this process."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command
from tests.curves.made import archived, curve


@pytest.fixture
def archive(tmp_path: Path) -> str:
    curves = [
        curve(
            f"r{i}-{tpp:g}",
            params=100_000_000 << i,
            noise=0.002,
            seed=i,
            tpp=tpp,
            extra=(lambda t: 0.1 * np.maximum(0.0, t - 0.6)) if (i, tpp) == (3, 20.0) else None,
        )
        for tpp in (5.0, 20.0, 80.0, 320.0)
        for i in range(4 if tpp == 20.0 else 3)
    ]
    curves.append(curve("lone", tpp=2000.0))
    archived(curves, tmp_path / "a")
    return str(tmp_path / "a")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_is_made(command: Command, tmp_path: Path, archive: str, suffix: str) -> None:
    pytest.importorskip("matplotlib", minversion="3.8")
    printed = command("plot", archive, "-o", f"family{suffix}")
    assert (printed.code, printed.err) == (0, "")
    first, band, *more = printed.out.splitlines()
    assert first == f"wrote family{suffix}: train/loss"
    assert band.startswith("  20 TPP, tau 0.2, linear to zero: 4 runs, 1 deviating; ")
    assert "reference r0-20" in band
    assert any(line.startswith("  not drawn: 80 TPP") for line in more)
    assert any(line.startswith("  not drawn: lone: ") for line in more)
    made = (tmp_path / f"family{suffix}").read_bytes()
    assert len(made) > 10_000
    command("plot", archive, "-o", f"again{suffix}")
    assert (tmp_path / f"again{suffix}").read_bytes() == made


def test_the_document_is_what_is_drawn(command: Command, tmp_path: Path, archive: str) -> None:
    pytest.importorskip("matplotlib", minversion="3.8")
    printed = command("plot", archive, "-o", "f.svg", "--where", "tpp<100", "--json")
    document = json.loads(printed.out)
    assert document["schema"] == "planner.plot/1"
    assert [len(band["runs"]) for band in document["bands"]] == [4, 3, 3]
    called = [r for band in document["bands"] for r in band["runs"] if r["verdict"] == "deviating"]
    assert [run["name"] for run in called] == ["r3-20"]
    text = (tmp_path / "f.svg").read_text()
    for said in (f"r3-20, since {called[0]['since']:.0%}", "parameters", "100M", "train/loss"):
        assert said in text
    for band in document["bands"]:
        assert f">{band['label']}<" in text


def test_a_name_that_is_no_pictures(command: Command, archive: str) -> None:
    printed = command("plot", archive, "-o", "family.jpeg")
    assert printed.code == 2
    assert printed.err == (
        "error: got 'family.jpeg', wanted a name that ends in .png, .svg, .pdf\n"
    )


def test_without_matplotlib(
    command: Command, archive: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    printed = command("plot", archive, "-o", "family.png")
    assert printed.code == 3
    assert printed.err == (
        "error: pictures need matplotlib, which is not installed; "
        'install it with: pip install "collapse-planner[plots]"\n'
    )
    assert not (tmp_path / "family.png").exists()


def test_no_family(command: Command, archive: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", minversion="3.8")
    printed = command("plot", archive, "-o", "f.png", "--where", "name=lone")
    assert printed.code == 2
    assert printed.err.count("\n") == 1
    assert "planner score says why" in printed.err
    assert not (tmp_path / "f.png").exists()
