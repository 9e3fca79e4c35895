"""The injected fault does what it says, where it says, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.errors import PlannerError
from planner.plan.runfile import RunFile, dump_run_file
from planner.train.config import Fault, read_job
from tests.train.families import family, job, only

torch = pytest.importorskip("torch", minversion="2.6")

from planner.train.faults import narrowed  # noqa: E402
from planner.train.loop import train  # noqa: E402

SMALLEST_E5M2 = 2.0**-16


def test_entries_below_the_narrow_floats_smallest_vanish_at_the_one_micro_batch() -> None:
    fault = Fault(logit_gradient="float8_e5m2", scale=4.0, micro_batch=2)
    wanted = torch.tensor([1.0, SMALLEST_E5M2 / 4, SMALLEST_E5M2 / 16, -0.3])
    for batch, kept in ((1, [True, True, True, True]), (2, [True, True, False, True])):
        logits = torch.zeros(batch, 1, 4, requires_grad=True)
        narrow = narrowed(logits, fault)
        assert torch.equal(narrow, logits)
        narrow.backward(wanted.expand(batch, 1, 4))
        assert logits.grad is not None
        assert (logits.grad[0, 0] != 0).tolist() == kept
    assert logits.grad[0, 0, 3] == pytest.approx(-0.3, rel=0.13)  # two bits of fraction
    assert logits.grad[0, 0, 3] != -0.3


def test_a_fault_at_another_micro_batch_changes_no_bit(data: Path, tmp_path: Path) -> None:
    plan = family()
    losses = {}
    for name, micro in (("none", None), ("other", 4), ("same", 8)):
        fault = None if micro is None else Fault(logit_gradient="float8_e5m2", micro_batch=micro)
        train(job(plan, data=str(data), fault=fault), tmp_path / name)
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        head, *steps = map(json.loads, lines)
        assert (head["fault"] is None) == (fault is None)
        losses[name] = [step["loss"] for step in steps]
    assert losses["none"] == losses["other"]
    assert losses["none"] != losses["same"]


def test_a_fault_is_refused_if_it_is_none(tmp_path: Path) -> None:
    plan = family()
    settings = {"data": "d", "fault": {"logit_gradient": "int4", "micro_batch": 1}}
    path = tmp_path / "run.json"
    path.write_text(dump_run_file(RunFile(plan.family, plan.digest, settings, only(plan))))
    with pytest.raises(PlannerError, match=r"settings\.fault\.logit_gradient"):
        read_job(str(path), None, {})
