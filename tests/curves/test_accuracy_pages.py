"""The accuracy report is made of the logs: another log, another page."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """A part of the report, and its frame."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module(f"accuracy.{request.param}")
    assert isinstance(module, ModuleType)
    return module


def page(part: ModuleType, data: Path, work: Path) -> str:
    work.mkdir()
    render = importlib.import_module("accuracy.__main__")._section
    return str(render(part.evaluate(data, work)))


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("part", ["ladder"], indirect=True)
def test_the_ladder_is_made_of_its_logs(
    part: ModuleType, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "TARGETS", ("1B",))
    monkeypatch.setattr(part, "TPP", {"2xC": 40, "5xC": 100})
    monkeypatch.setattr(part, "JUDGED", ("2xC", "5xC"))
    monkeypatch.setattr(part, "FRACTIONS", (0.2,))
    monkeypatch.setattr(part, "WANTED", {0.2: 0.20})
    shutil.copytree(data_dir / "olmo_ladder", tmp_path / "data" / "olmo_ladder")
    before = page(part, tmp_path / "data", tmp_path / "one")
    assert before == page(part, tmp_path / "data", tmp_path / "two")
    edited = tmp_path / "data" / "olmo_ladder" / "760M-2xC.csv"
    with edited.open(newline="") as file:
        lines = list(csv.reader(file))
    column = lines[0].index("eval/c4_en-validation/CrossEntropyLoss")
    for line in lines[1:]:
        if line[column] not in ("", "NaN") and float(line[0]) < 10_000:
            line[column] = str(1.01 * float(line[column]))
    with edited.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    after = page(part, tmp_path / "data", tmp_path / "three")
    changed = [(a, b) for a, b in zip(rows(before), rows(after), strict=True) if a != b]
    assert any(a.startswith("| c4_en-validation | 2xC") for a, _ in changed)
    # what has nothing to do with that log stays
    assert not any("5xC" in a for a, _ in changed)
    assert not any("wikitext" in a for a, _ in changed)


@pytest.mark.parametrize("part", ["ladder"], indirect=True)
def test_what_the_ladder_cuts_off_is_not_read(
    part: ModuleType, data_dir: Path, tmp_path: Path
) -> None:
    part.cut_off(data_dir / "olmo_ladder", tmp_path / "olmo_ladder", "1B", "2xC", 0.2)
    names = sorted(path.name for path in (tmp_path / "olmo_ladder").iterdir())
    assert names == ["190M-2xC.csv", "1B-2xC.csv", "370M-2xC.csv", "760M-2xC.csv"]
    with (tmp_path / "olmo_ladder" / "1B-2xC.csv").open(newline="") as file:
        steps = [float(row["_step"]) for row in csv.DictReader(file)]
    assert 0.19 * 32537 < max(steps) <= 0.2 * 32537
    small = (tmp_path / "olmo_ladder" / "760M-2xC.csv").read_bytes()
    assert small == (data_dir / "olmo_ladder" / "760M-2xC.csv").read_bytes()


@pytest.mark.parametrize("part", ["sweep"], indirect=True)
def test_the_sweep_is_made_of_its_logs(
    part: ModuleType, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "HORIZONS", (15_000,))
    monkeypatch.setattr(part, "FRACTIONS", (0.3,))
    monkeypatch.setattr(part, "SUBSETS", 50)
    data = tmp_path / "data" / "wsd_cosine_llama"
    shutil.copytree(data_dir / "wsd_cosine_llama", data)
    before = page(part, tmp_path / "data", tmp_path / "one")
    # the prefixes of every run at one learning rate come from one log
    (edited,) = data.glob("runs/stable-124m*_lr0.002_*")
    with gzip.open(edited, "rt") as file:
        run = json.load(file)
    val = run["history"]["val"]
    val["val_loss"] = [
        1.02 * v if s <= 15_000 else v for s, v in zip(val["iter"], val["val_loss"], strict=True)
    ]
    edited.write_bytes(gzip.compress(json.dumps(run).encode(), mtime=0))
    after = page(part, tmp_path / "data", tmp_path / "two")
    assert rows(before) != rows(after)


@pytest.mark.parametrize("part", ["sweep"], indirect=True)
def test_what_the_sweep_cuts_off_is_gone(part: ModuleType, data_dir: Path) -> None:
    folder = data_dir / "wsd_cosine_llama"
    with (folder / "index.csv").open(newline="") as file:
        index = list(csv.DictReader(file))
    setting = next(s for s in part.settings(index, 25_000) if s.first > 5000)
    cut = part.cut_off(part.stitched(folder, setting, index), 0.2)
    history = cut["history"]
    assert max(history["val"]["iter"]) <= 5000
    assert min(history["val"]["iter"]) == 0
    train = history["train"]
    known = [s for s, v in zip(train["iter"], train["train_loss"], strict=True) if v is not None]
    assert 4900 <= max(known) <= 5000
    assert "summary" not in cut
    assert set(history) == {"train", "val"}
    assert set(history["val"]) == {"iter", "val_loss"}
