"""What only torchtitan does: its schedule, its own command, one table for tied embeddings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from planner.plan.model import Schedule
from planner.render import check_bundle, render, render_plan
from planner.render.errors import CannotExpressError
from planner.render.schedule import learning_rate

from .built import (
    BUILDERS,
    compare_with_table,
    copy_to_reference,
    counted_run,
    script_of,
    start,
    write,
)
from .plans import make_plan, make_run, parametrization
from .test_equality import GROUPED, LLAMA
from .test_same_training import STEPS, gap, reference_losses, shallower

pytestmark = pytest.mark.filterwarnings("ignore")

# Where the plan multiplies nothing but queries by keys, and that by 1/sqrt(head_dim).
PLAIN = parametrization("standard", base_lr=0.01)


def test_tied_embeddings_with_two_multipliers_are_refused() -> None:
    rule = parametrization()
    plan = make_plan(make_run(rule, **LLAMA, tied=True), rule=rule)
    with pytest.raises(CannotExpressError, match="one table that is used twice") as caught:
        render(plan, "torchtitan")
    assert caught.value.field == "tiny-20tpp.model.tied_embeddings"
    assert "\n" not in str(caught.value)


def test_tied_embeddings_with_one_multiplier_are_folded() -> None:
    rule = parametrization("standard", input_multiplier=3.0, output_multiplier=3.0)
    plan = make_plan(make_run(rule, **LLAMA, tied=True, clip=1.0), rule=rule)
    (warning,) = render(plan, "torchtitan").warnings
    assert warning.endswith("embedding 0.3333")


@pytest.mark.trainers
def test_one_table_is_the_plans_and_its_clipping_too(tmp_path: Path, data: Path) -> None:
    """Nothing is folded, so that the clipped gradients are the reference's."""
    shape = {**GROUPED, "tied": True, "d_model": 64, "d_ffn": 96, "head_dim": 16, "n_layers": 3}
    values = {"vocab": 97, "steps": STEPS, "warmup": 3, "clip": 0.5, "precision": "fp32"}
    run = counted_run(PLAIN, **shape, **values, eps=1e-8, eps_mode="exact")
    run = write(run, PLAIN, "torchtitan", tmp_path / "jobs", data_dir=str(data)).runs[0]
    built = BUILDERS["torchtitan"](run, tmp_path / "jobs")
    compare_with_table(run, built)
    reference, control = copy_to_reference(run, built), copy_to_reference(run, built)
    assert "lm_head.weight" not in {part.name for part in built.parts}
    assert all(part.factor(run) == 1.0 for part in built.parts)
    done = start(tmp_path / "jobs" / run.name, 0, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").open()][1:]
    assert max(line["grad_norm"] for line in steps) > 0.5  # some of them are clipped
    losses = [line["loss"] for line in steps]
    same = gap(losses, reference_losses(run, reference, data, 0))
    for module in control.modules():
        if getattr(module, "classes", {}).get("weight") in ("attn_out", "ffn_out"):
            module.multiplier *= 2
    off = gap(losses, reference_losses(shallower(run), control, data, 0))
    print(f"\ntied and clipped: against the reference {same:.1e}, depth ratio off by 2 {off:.1e}")
    assert same < 1e-4
    assert off > 1e-2


@pytest.mark.trainers
@pytest.mark.parametrize(
    ("schedule", "own"),
    [
        (Schedule("linear-to-zero", 0.1, 0.0, 1.0), {}),
        (Schedule("linear", 0.1, 0.1, 1.0), {"min_lr_factor": 0.1}),
        (Schedule("cosine", 0.1, 0.1, 1.0), {"decay_type": "cosine", "min_lr_factor": 0.1}),
        (Schedule("wsd", 0.1, 0.0, 0.2), {"decay_ratio": 0.2}),
        (Schedule("constant", 0.1, 1.0, 0.0), {"decay_ratio": 0.0}),
    ],
    ids=lambda value: value.kind if isinstance(value, Schedule) else "",
)
def test_its_own_warm_up_is_one_update_ahead(
    schedule: Schedule, own: dict[str, Any], tmp_path: Path
) -> None:
    """Of W steps its update i uses (i + 1)/W and the plan's i/W; from W on they are one."""
    pytest.importorskip("torchtitan")
    run = counted_run(PLAIN, **LLAMA, d_model=64, n_layers=1, schedule=schedule)
    run = write(run, PLAIN, "torchtitan", tmp_path).runs[0]
    script = script_of(tmp_path / run.name)
    config = script.read_config(tmp_path / run.name / "config-seed0.yaml")
    found, _, optimizers = script.build(config)

    def factors(scheduler: Any) -> list[float]:
        built = scheduler.build(optimizers=optimizers, training_steps=run.steps)
        return [built.schedulers[0].lr_lambdas[0](update) for update in range(run.steps)]

    rendered = factors(found.lr_scheduler)
    base = run.optimizer.base_peak_lr
    wanted = [learning_rate(run, update) / base for update in range(run.steps)]
    assert rendered == pytest.approx(wanted, rel=1e-12)
    warmup = run.warmup_steps
    by_itself = factors(script.LRSchedulersContainer.Config(warmup_steps=warmup, **own))
    assert by_itself[:warmup] == pytest.approx([(i + 1) / warmup for i in range(warmup)])
    assert rendered[0] == 0.0
    assert rendered[1 : warmup + 1] == pytest.approx(by_itself[:warmup])
    assert rendered[warmup:] == pytest.approx(by_itself[warmup:], abs=1e-12)


@pytest.mark.trainers
def test_what_the_plan_decides_is_not_overridden(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("torchtitan")
    write(counted_run(PLAIN, **LLAMA), PLAIN, "torchtitan", tmp_path, data_dir=str(data))
    script = script_of(tmp_path / "tiny-20tpp")
    config = script.read_config(tmp_path / "tiny-20tpp" / "config-seed0.yaml")
    for flags, said in (
        (["--training.steps", "99"], "--training.steps: is the plan's"),
        (["--training.max_norm", "2"], "--training.max_norm: is the plan's"),
        (["--lr_scheduler.min_lr_factor", "0.5"], "--lr_scheduler: is the plan's"),
        (["--parallelism.tensor_parallel_degree", "2"], "tensor_parallel_degree: wanted 1"),
    ):
        with pytest.raises(script.Problem, match=said):
            script.parsed(config, flags).build()


@pytest.mark.trainers
def test_its_own_command_trains(tmp_path: Path, data: Path) -> None:
    """By config_registry.py, in bf16; and another run does not go on from its checkpoints."""
    pytest.importorskip("torchtitan")
    shape = {**GROUPED, "d_model": 64, "d_ffn": 96, "head_dim": 16, "n_layers": 2, "vocab": 97}
    rule = parametrization(base_lr=0.01)
    run = counted_run(rule, **shape, steps=4, warmup=1, seeds=(5,))
    options = {"data_dir": str(data), "checkpoint_steps": 2}
    run = write(run, rule, "torchtitan", tmp_path / "jobs", **options).runs[0]
    folder, output = tmp_path / "jobs" / run.name, tmp_path / "out"
    # train.py is first, so that torchtitan takes the host where there is no accelerator.
    program = "import train, torchtitan.train; torchtitan.train.main()"
    flags = ["--module", "config_registry", "--config", "seed5", "--dump_folder", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", program, *flags, "--training.local_batch_size", "2"],
        cwd=folder,
        env={
            **os.environ,
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    head, *steps = [json.loads(line) for line in (output / "log.jsonl").open()]
    assert (head["run_digest"], head["micro_batch"], head["accumulation"]) == (run.digest, 2, 4)
    reference = copy_to_reference(run, BUILDERS["torchtitan"](run, tmp_path / "jobs", 5))
    wanted = reference_losses(run, reference, data, 5)
    assert [line["loss"] for line in steps] == pytest.approx(wanted, abs=3e-2)
    shutil.rmtree(output / "checkpoint" / "step-4")
    config = folder / "config-seed5.yaml"
    config.write_text(config.read_text().replace(run.digest, "sha256:another"))
    refused = start(folder, 5, output)
    assert refused.returncode == 2, refused.stderr[-3000:]
    assert refused.stderr.splitlines()[-1] == (
        "error: the output folder holds checkpoints of another run"
    )


@pytest.mark.trainers
def test_its_classes_accept_every_option(tmp_path: Path) -> None:
    pytest.importorskip("torchtitan")
    plan = make_plan(counted_run(PLAIN, **LLAMA), rule=PLAIN)
    for number, options in enumerate(
        (
            {"activation_checkpoint": "none", "parallel": "ddp", "keep": 3},
            {"activation_checkpoint": "full", "compile": True, "cuda_graphs": True},
        )
    ):
        render_plan(plan, "torchtitan+slurm", tmp_path / str(number), options=options)
        for check in check_bundle(tmp_path / str(number)):
            assert check.problems == (), check
