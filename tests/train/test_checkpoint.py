"""Checkpoints that were damaged, that the disk has no room for, or that a killed start left."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from planner.errors import OutputError, PlannerError
from planner.train.log import Log

from .families import family, job, read_log

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.usefixtures("one_thread")

from planner.train import checkpoint  # noqa: E402
from planner.train.errors import CheckpointError  # noqa: E402
from planner.train.loop import train  # noqa: E402
from planner.train.parallel import Workers  # noqa: E402

ALONE = Workers(0, 1, torch.device("cpu"), "none")
IDENTITY = {"seed": 0}


def a_model(size: int = 4, device: str = "cpu") -> tuple[list[Any], Any]:
    """One parameter that has seen an update, and its optimizer."""
    weight = torch.nn.Parameter(torch.ones(size, 3, device=device))
    optimizer = torch.optim.AdamW([weight])
    if device == "cpu":
        weight.sum().backward()
        optimizer.step()
    return [("w", "ffn_in", weight)], optimizer


def save(out: Path, step: int = 1, **model: Any) -> Path:
    checkpoint.save(out, step, *a_model(**model), IDENTITY, ALONE, keep=9)
    return out / "checkpoints" / checkpoint.checkpoint_name(step)


def restore(path: Path, **model: Any) -> Any:
    tensors, optimizer = a_model(**model)
    checkpoint.restore(path, tensors, optimizer, IDENTITY)
    return optimizer.state[tensors[0][2]]


def test_any_damaged_byte_of_the_weights_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path, size=400)
    assert set(restore(path, size=400)) == {"step", "exp_avg", "exp_avg_sq"}
    whole = path.read_bytes()
    for place in range(100, len(whole) - 3000, 997):  # all but the list of contents
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if whole[place - 1 : place + 2] in (b"ZZZ", b"\0\0\0"):
            continue  # padding between the parts holds nothing
        with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
            restore(path, size=400)


@pytest.mark.parametrize("missing", ["identity", "model", "optimizer", "rng", "step", "schema"])
def test_a_missing_part_is_named(tmp_path: Path, missing: str) -> None:
    path = save(tmp_path)
    state = torch.load(path, weights_only=True)
    del state[missing]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"step-00000001\.pt: is not a whole checkpoint"):
        restore(path)


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_a_tensor_of_another_shape_is_named(tmp_path: Path, part: str) -> None:
    path = save(tmp_path)
    state = torch.load(path, weights_only=True)
    kept = state[part]["w"]
    state[part]["w"] = kept[:1] if part == "model" else {**kept, "exp_avg": kept["exp_avg"][:1]}
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"has no whole w of shape \(4, 3\); move it away"):
        restore(path)
    del state[part]["w"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="has no whole w"):
        restore(path)


def test_all_that_is_restored_lies_where_its_parameter_does(tmp_path: Path) -> None:
    # fused AdamW on a GPU reads the step count there, too; meta stands in for the GPU
    state = restore(save(tmp_path), device="meta")
    assert {name: value.device.type for name, value in state.items()} == {
        "step": "meta",
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
    }


class Full(io.FileIO):
    """A file on a disk that is full after some bytes."""

    room = 0

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > Full.room:
            raise OSError(28, "No space left on device")
        return super().write(data) or 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_full_disk_is_named_and_the_old_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    old = save(tmp_path)
    Full.room = int(share * old.stat().st_size)
    monkeypatch.setattr(checkpoint, "open", lambda path, mode: Full(str(path), mode), raising=False)
    with pytest.raises(OutputError, match="cannot write the checkpoint: No space left on device"):
        save(tmp_path, 2)
    assert list((tmp_path / "checkpoints").iterdir()) == [old]
    restore(old)


def test_what_a_killed_start_left_half_written_goes(tmp_path: Path) -> None:
    old = save(tmp_path)
    (old.parent / "step-00000002.new").write_bytes(b"half")
    assert checkpoint.latest(tmp_path) == old
    new = save(tmp_path, 3)
    assert sorted(old.parent.iterdir()) == [old, new]


@pytest.mark.parametrize("change", ["seed", "data_seed", "run"])
def test_a_log_of_another_run_is_not_added_to(data: Path, tmp_path: Path, change: str) -> None:
    train(job(family(), data=str(data), stop_after=2), tmp_path)
    (tmp_path / "checkpoints" / "step-00000002.pt").unlink()  # as if killed before the first one
    before = (tmp_path / "log.jsonl").read_bytes()
    other = family(tpp=2) if change == "run" else family()
    settings = {} if change == "run" else {change: 7}
    with pytest.raises(PlannerError, match=r"log\.jsonl: is of another run: its .* choose another"):
        train(job(other, data=str(data), stop_after=2, **settings), tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before
    train(job(family(), data=str(data), stop_after=2), tmp_path)


def test_another_weight_of_the_experts_balance_is_another_objective(
    data: Path, tmp_path: Path
) -> None:
    plan = family(architecture={"experts": {"count": 2, "top_k": 1}})
    settings = {"data": str(data), "stop_after": 2}
    done = train(job(plan, **settings, balance_loss=0.01), tmp_path)
    run = plan.runs[0]
    (head,), _ = read_log(tmp_path)
    # 36,004 tokens are trained on, in windows of 16
    assert done.epochs == pytest.approx(run.steps * run.batch.sequences / (36_004 // 16))
    assert head["epochs"] == round(done.epochs, 4)
    with pytest.raises(PlannerError, match=r"its balance_loss is 0\.01, not 5\.0"):
        train(job(plan, **settings, balance_loss=5.0), tmp_path)
    assert len(read_log(tmp_path)[1]) == 2


def test_a_log_on_a_full_disk_is_named(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    log = Log(tmp_path / "log.jsonl")
    log._stream.close()
    log._stream = full.open("w")
    for attempt in (lambda: log.line(1, 2, {}), log.close):
        with pytest.raises(OutputError, match=r"log\.jsonl: cannot be written: No space left on"):
            attempt()


def test_the_log_is_on_the_disk_before_the_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a machine that loses power goes on from a step whose line in the log is lost."""
    synced = []

    def fsync(handle: int) -> None:
        paths = {path.stat().st_ino: path for path in tmp_path.rglob("*")}
        path = paths[os.fstat(handle).st_ino]
        lines = path.read_text().splitlines() if path.name == "log.jsonl" else ["{}"]
        synced.append((path.name, json.loads(lines[-1]).get("step")))

    monkeypatch.setattr(os, "fsync", fsync)
    train(job(family(), data=str(data), stop_after=4, checkpoint_steps=2), tmp_path)
    assert synced == [
        ("log.jsonl", 2),
        ("step-00000002.new", None),
        ("checkpoints", None),
        ("log.jsonl", 4),
        ("step-00000004.new", None),
        ("checkpoints", None),
    ]


def test_evaluation_needs_something_held_out(data: Path, tmp_path: Path) -> None:
    plan = family(tpp=9, architecture={"context": 5000})  # 4,000 tokens are held out
    with pytest.raises(
        PlannerError, match=r"--eval-steps: got 0 held-out sequences, wanted one or more"
    ):
        train(job(plan, data=str(data), eval_steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
