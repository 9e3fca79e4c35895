"""What the shared runs say of themselves; benchmarks/accuracy/detection.py measures the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.archive import Archive, ingest
from planner.curves import Curve, load_curves
from planner.curves.alarm import data_orders, find_divergence, hard_batches

TRAIN, VALID = "train/loss", "eval/validation/loss"


def curves(data: Path, folder: str, metric: str, work: Path) -> dict[str, Curve]:
    archive = work / folder
    ingest([data / folder], archive)
    batches = load_curves(Archive(archive), metric=metric)
    return {curve.facts.name: curve for batch in batches for curve in batch}


def called(runs: dict[str, Curve]) -> dict[str, dict[str, int]]:
    found = {name: find_divergence(c.steps, c.values) for name, c in runs.items()}
    return {name: {f.kind: f.step for f in these} for name, these in found.items() if these}


def test_megatron_blowups(data_dir: Path, tmp_path: Path) -> None:
    train = called(curves(data_dir, "megatron_blowups", TRAIN, tmp_path))
    valid = called(curves(data_dir, "megatron_blowups", VALID, tmp_path))
    one = "blowup-4-alibi-nods-1814186"
    assert min(train[one].values()) <= 1600
    assert min(valid[one].values()) <= 1400
    for name in ("blowup-4-adam-alibi-fp32-1805002", "blowup-4-adam-alibi-bf16-1804475"):
        assert "stalled" in train[name]
        assert "stalled" in valid[name]
    assert "blowup-2-1793438" not in train  # two points: nothing can be said


@pytest.mark.parametrize("metric", [TRAIN, VALID])
def test_algoperf(data_dir: Path, tmp_path: Path, metric: str) -> None:
    found = called(curves(data_dir, "algoperf_wmt", metric, tmp_path))
    assert not [name for name in found if "baseline" in name]
    if metric == VALID:
        (name,) = [name for name in found if "generalized_adam" in name]
        assert "not finite" in found[name]


@pytest.mark.parametrize("metric", [TRAIN, VALID])
def test_wsd_cosine(data_dir: Path, tmp_path: Path, metric: str) -> None:
    found = called(curves(data_dir, "wsd_cosine_llama", metric, tmp_path))
    assert len(found) == 1
    assert "lr0.005" in next(iter(found))


def test_nanogpt_speedrun(data_dir: Path, tmp_path: Path) -> None:
    runs = curves(data_dir, "nanogpt_speedrun", TRAIN, tmp_path)
    assert len(runs) == 8
    assert called(runs) == {}
    (order,) = data_orders(list(runs.values()))
    assert len(order) == 6
    shared = {b.step for b in hard_batches(list(runs.values())) if len(b.runs) == 6}
    assert {919, 947, 1760, 3194, 3473, 3656, 5086} <= shared
