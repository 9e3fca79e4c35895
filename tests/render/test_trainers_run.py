"""Rendered scripts in the hands of the real trainers: stop, go on, several processes, refusals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from planner.plan import Plan
from planner.render import check_bundle

from .built import counted_run, start, write
from .plans import parametrization
from .test_equality import GROUPED
from .test_same_training import TRAINED

pytestmark = [pytest.mark.trainers, pytest.mark.filterwarnings("ignore")]

STEPS = 16
CONFIG = "config-seed0.yaml"
# Where a checkpoint of a step is whole.
MARKS = {
    "hf-granite": "checkpoint-{}/trainer_state.json",
    "olmo-core": "step{}/.metadata.json",
}


@pytest.fixture(params=list(TRAINED))
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(TRAINED[name])
    return name


def bundle(target: str, folder: Path, data: Path, **changes: Any) -> tuple[Plan, Path]:
    """Render a small run; return the plan and the run's folder."""
    rule = parametrization(base_lr=0.01)
    options = {"data_dir": str(data), "checkpoint_steps": 4, **changes.pop("options", {})}
    shape = {**GROUPED, "d_model": 64, "n_layers": 3, "d_ffn": 96, "vocab": 97, "head_dim": 16}
    values = {"steps": STEPS, "warmup": 2, "precision": "fp32", "clip": 1.0, **shape, **changes}
    plan = write(counted_run(rule, **values), rule, target, folder, **options)
    return plan, folder / plan.runs[0].name


def log(output: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    return [line for line in lines if "step" not in line], steps


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in log(output)[1]]


def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    target: str, tmp_path: Path, data: Path
) -> None:
    plan, folder = bundle(target, tmp_path / "jobs", data)
    whole = start(folder, 0, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr[-2000:]
    _, steps = log(tmp_path / "whole")
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    run = plan.runs[0]
    assert all(line["tokens"] == line["step"] * run.batch.tokens for line in steps)
    assert steps[0]["lr"] == 0.0
    assert steps[2]["lr"] == run.optimizer.base_peak_lr
    assert all(math.isfinite(line["grad_norm"]) for line in steps)

    # Stopped by a signal as soon as there is something to stop.
    output = tmp_path / "stopped"
    command = [sys.executable, "-P", str(folder / "train.py"), str(folder / CONFIG)]
    with subprocess.Popen(
        [*command, "--output", str(output)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until = time.monotonic() + 240
        while not (output / "log.jsonl").exists() or not losses(output):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=240)
    done = len(losses(output))
    if done < STEPS:  # Else it was faster than the signal.
        assert process.returncode == 130, said[-2000:]
        assert f"of {STEPS} steps" in said
        assert (output / MARKS[target].format(done)).exists()
    again = start(folder, 0, output)
    assert again.returncode == 0, again.stderr[-2000:]
    starts, _ = log(output)
    assert [line["segment"] for line in starts] == list(range(len(starts)))
    assert starts[-1]["from_step"] in (0, done)
    assert losses(output) == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)
    assert (output / MARKS[target].format(STEPS)).exists()

    last = start(folder, 0, output)
    assert last.returncode == 0
    assert f"all {STEPS} steps are done" in last.stdout
    assert len(log(output)[1]) == STEPS


def test_two_processes_train_as_one(target: str, tmp_path: Path, data: Path) -> None:
    """With accumulation: eight sequences are two processes by two by two."""
    _, folder = bundle(target, tmp_path / "jobs", data, options={"micro_batch": 2})
    one = start(folder, 0, tmp_path / "one")
    two = start(folder, 0, tmp_path / "two", processes=2)
    assert (one.returncode, two.returncode) == (0, 0), two.stderr[-3000:]
    heads = [log(tmp_path / name)[0][0] for name in ("one", "two")]
    assert [head["processes"] for head in heads] == [1, 2]
    assert [head["accumulation"] for head in heads] == [4, 2]
    gap = max(
        abs(a - b)
        for a, b in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True)
    )
    print(f"\n{target}: two processes against one {gap:.1e}")
    assert gap < 1e-4


def test_fsdp_trains_as_one_process(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("olmo_core")
    options = {"micro_batch": 2, "parallel": "fsdp"}
    _, folder = bundle("olmo-core", tmp_path / "jobs", data, options=options)
    one = start(folder, 0, tmp_path / "one")
    two = start(folder, 0, tmp_path / "two", processes=2)
    assert (one.returncode, two.returncode) == (0, 0), two.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("variant", ["plain", "biased"])
def test_check_accepts(
    target: str, precision: str, variant: str, tmp_path: Path, data: Path
) -> None:
    changes: dict[str, Any] = {"biases": True, "tied": True} if variant == "biased" else {}
    bundle(target, tmp_path, data, precision=precision, seeds=(0, 1), **changes)
    for check in check_bundle(tmp_path):
        assert check.problems == (), check
        assert check.skipped is None or check.name == "shellcheck"


@pytest.mark.parametrize(
    ("target", "old", "new", "said"),
    [
        ("hf-granite", "logging_steps:", "logging_stepz:", "logging_stepz"),
        ("hf-granite", "hidden_act: ", "hidden_actt: ", "hidden_actt"),
        ("hf-granite", 'hidden_act: "silu"', 'hidden_act: "sillu"', "sillu"),
        ("hf-granite", 'save_strategy: "steps"', 'save_strategy: "stepz"', "stepz"),
        ("hf-granite", "self_attn.o_proj", "self_attn.p_proj", "o_proj"),
        ("hf-granite", "num_hidden_layers: 3", "num_hidden_layers: 4", "parameters"),
        ("olmo-core", "metrics_collect_interval:", "metrics_collect_intervall:", "intervall"),
        ("olmo-core", "compile_model:", "compile_modell:", "compile_modell"),
        ("olmo-core", "save_interval:", "save_intervall:", "save_intervall"),
        ("olmo-core", "attention_residual_alpha:", "attention_residual_alfa:", "alfa"),
        ("olmo-core", 'activation: "silu"', 'activation: "relu"', "relu"),
        ("olmo-core", "attention.w_out", "attention.w_o", "w_out"),
        ("both", "data:\n", "dada:\n", "dada"),
    ],
)
def test_the_real_classes_refuse(
    target: str, old: str, new: str, said: str, tmp_path: Path, data: Path
) -> None:
    for each in TRAINED if target == "both" else (target,):
        package = TRAINED[each]
        pytest.importorskip(package)
        _, folder = bundle(each, tmp_path / each, data)
        path = folder / CONFIG
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        checks = {check.name: check for check in check_bundle(tmp_path / each)}
        problems = checks[f"{package}'s own classes"].problems
        assert any(said in text for text in problems), problems


def test_bad_input_is_one_sentence(target: str, tmp_path: Path, data: Path) -> None:
    plan, folder = bundle(target, tmp_path / "jobs", data, options={"data_dir": "env:SOME_DATA"})
    output = tmp_path / "out"

    def said(**env: str) -> str:
        done = start(folder, 0, output, **env)
        assert done.returncode == 2, done.stderr[-2000:]
        assert "Traceback" not in done.stderr
        assert not output.exists()
        return done.stderr.strip().splitlines()[-1]

    assert said(SOME_DATA="") == (
        "error: wanted the folder of the data in the environment variable SOME_DATA"
    )
    missing = said(SOME_DATA=str(tmp_path / "nowhere"))
    assert "nowhere: is not a folder made by `planner prepare`" in missing
    config = folder / CONFIG
    good = config.read_text()
    config.write_text(good.replace("sequences: 8", "sequences: 7").replace("micro: null", "micro: 2"))
    assert "does not divide the 7 sequences" in said(SOME_DATA=str(data))
    config.write_text(good.replace("vocab_size: 97", "vocab_size: 96"))
    assert "has ids up to 96, the model 96" in said(SOME_DATA=str(data))
    config.write_text("a: [")
    assert "is not YAML" in said(SOME_DATA=str(data))
    assert plan.runs[0].digest in good


def test_the_log_is_read_by_ingest(target: str, tmp_path: Path, data: Path) -> None:
    """The whole folder of runs, checkpoints and all: one run, nothing that fails."""
    from planner.archive import Archive, ingest, list_runs

    plan, folder = bundle(target, tmp_path / "jobs", data)
    assert start(folder, 0, tmp_path / "runs").returncode == 0
    report = ingest([tmp_path / "runs"], tmp_path / "archive")
    assert report.failed == []
    (found,) = list_runs(Archive(tmp_path / "archive"), plans=[plan])
    run = plan.runs[0]
    assert found["run_digest"] == run.digest
    assert found["planned"]["by"] == "digest"
    assert (found["seed"], found["total_steps"], found["last_step"]) == (0, STEPS, STEPS)
    assert found["final"] == losses(tmp_path / "runs")[-1]
