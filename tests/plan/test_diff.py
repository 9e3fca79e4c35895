"""`diff`: nothing between equal plans, and just what a change of the spec changes."""

from __future__ import annotations

from typing import Any

import pytest

from planner.compile import compile_plan
from planner.plan import Change, Plan, diff_plans, dump_plan, load_plan
from planner.spec import parse_spec

BASE = {"family": "celerity", "preset": "celerity", "tpp": "[20]", "sizes": "[300M, 500M]"}
RUNS = ("300M-20tpp", "500M-20tpp")


def plan(**lines: str) -> Plan:
    return compile_plan(parse_spec("".join(f"{k}: {v}\n" for k, v in {**BASE, **lines}.items())))


def changed(changes: list[Change], run: str | None) -> dict[str, Change]:
    return {change.field: change for change in changes if change.run == run}


def test_nothing() -> None:
    assert diff_plans(plan(), plan()) == []
    assert diff_plans(plan(), load_plan(dump_plan(plan()))) == []


def test_how_a_spec_is_written_does_not_show() -> None:
    same = plan(tpp="20.0", sizes="\n  - 300M\n  - 500M")
    assert diff_plans(plan(), same) == []
    assert [run.digest for run in same.runs] == [run.digest for run in plan().runs]


def test_another_rate() -> None:
    """Twice the rate is half the decay at the same tau; nothing else moves."""
    changes = diff_plans(plan(), plan(parametrization="{base_lr: 0.3}"))
    assert set(changed(changes, None)) == {"parametrization.base_lr"}
    decaying = ("embedding", "attn_qkv", "attn_out", "ffn_in", "ffn_out", "unembedding")
    every = (*decaying, "norm", "final_norm")
    for run in RUNS:
        found = changed(changes, run)
        assert set(found) == {
            "optimizer.base_peak_lr",
            "optimizer.base_weight_decay",
            *(f"tensors.{name}.lr" for name in every),
            *(f"tensors.{name}.weight_decay" for name in decaying),
        }
        for field, change in found.items():
            wanted = 1.0 if field.endswith("lr") else -0.5
            assert change.relative == pytest.approx(wanted)
            assert change.after == pytest.approx(change.before * (1 + wanted))


def test_another_batch_of_one_size() -> None:
    sizes = "[300M, {name: 500M, d_model: 896, n_layers: 17, head_dim: 64, batch: 248 sequences}]"
    changes = diff_plans(plan(), plan(sizes=sizes))
    assert {change.run for change in changes} == {"500M-20tpp"}
    found = changed(changes, "500M-20tpp")
    assert found["batch.sequences"] == Change(
        "500M-20tpp", "batch.sequences", 240, 248, 248 / 240 - 1
    )
    assert "steps" in found
    assert "optimizer.tau" not in found


def test_runs_that_come_and_go() -> None:
    changes = diff_plans(plan(), plan(sizes="[500M, 900M]"))
    gone, new = changed(changes, "300M-20tpp"), changed(changes, "900M-20tpp")
    assert set(gone) == set(new) == {"run"}
    assert (gone["run"].after, new["run"].before) == (None, None)
    assert changed(changes, "500M-20tpp") == {}


def test_the_family() -> None:
    changes = diff_plans(plan(), plan(family="other", compute="1e22"))
    found = changed(changes, None)
    assert found["family"].before == "celerity"
    assert found["budget.flops"].after == 1e22
    assert found["budget.flops"].relative is None
    assert all(change.run is None for change in changes)


def test_a_laws_constants() -> None:
    """Laws do not follow from the rest: another law is a difference."""
    changes = diff_plans(plan(), plan(loss_law="hoffmann"))
    found = changed(changes, None)
    assert {field.split(".")[1] for field in found} == {"besiroglu", "hoffmann"}
    assert "predicted.loss" in changed(changes, "300M-20tpp")


def test_both_ways() -> None:
    there = diff_plans(plan(), plan(parametrization="{base_lr: 0.3}"))
    back = diff_plans(plan(parametrization="{base_lr: 0.3}"), plan())

    def key(change: Change) -> Any:
        return change.run, change.field

    assert sorted((key(c), c.before, c.after) for c in there if c.run) == sorted(
        (key(c), c.after, c.before) for c in back if c.run
    )
