"""Rendered scripts in the hands of the real trainers: stop, go on, several processes, refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from planner.plan import Plan, Run
from planner.render import check_bundle, render_plan
from planner.render.schedule import learning_rate

from .built import counted_run, log, losses, script_of, start, start_and_stop
from .plans import make_plan, parametrization
from .test_equality import GROUPED
from .test_same_training import TRAINED

pytestmark = [pytest.mark.trainers, pytest.mark.filterwarnings("ignore")]

STEPS = 16
CONFIG = "config-seed0.yaml"
# Where a checkpoint of a step is whole.
MARKS = {
    "hf-granite": "checkpoint-{}/trainer_state.json",
    "olmo-core": "step{}/.metadata.json",
    "torchtitan": "checkpoint/step-{}/.metadata",
}
# The way of sharing work between processes that is not the default.
OTHER = {"olmo-core": "fsdp", "torchtitan": "ddp"}


@dataclass(frozen=True)
class Trained:
    """A small run that was trained to its end, two sequences at a time."""

    target: str
    plan: Plan
    folder: Path
    output: Path


@pytest.fixture(params=list(TRAINED), scope="module")
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path
) -> Trained:
    target: str = request.param
    pytest.importorskip(TRAINED[target])
    place = tmp_path_factory.mktemp(target)
    plan = bundle(target, place / "jobs", data, {"micro_batch": 2, "checkpoint_steps": 4})
    found = Trained(target, plan, place / "jobs" / "small", place / "runs" / "whole")
    found.output.parent.mkdir()
    done = start(found.folder, 0, found.output)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


def small_run(**changes: Any) -> Run:
    shape = {**GROUPED, "d_model": 64, "n_layers": 3, "d_ffn": 96, "vocab": 97, "head_dim": 16}
    values = {"steps": STEPS, "warmup": 2, "precision": "fp32", "clip": 1.0, "name": "small"}
    return counted_run(parametrization(base_lr=0.01), **{**values, **shape, **changes})


def bundle(target: str, folder: Path, data: Path, options: dict[str, Any], *runs: Run) -> Plan:
    """Render small runs; return the plan."""
    plan = make_plan(*(runs or (small_run(),)), rule=parametrization(base_lr=0.01))
    render_plan(plan, f"{target}+local", folder, options={"data_dir": str(data), **options})
    return plan


def gap(left: Path, right: Path) -> float:
    return max(abs(a - b) for a, b in zip(losses(left), losses(right), strict=True))


def test_the_log_of_a_whole_run(whole: Trained) -> None:
    run = whole.plan.runs[0]
    (head,), steps = log(whole.output)
    assert (head["run_digest"], head["processes"], head["accumulation"]) == (run.digest, 1, 4)
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(line["tokens"] == line["step"] * run.batch.tokens for line in steps)
    rates = [learning_rate(run, line["step"] - 1) for line in steps]
    assert [line["lr"] for line in steps] == pytest.approx(rates, rel=1e-12)
    assert all(math.isfinite(line["grad_norm"]) for line in steps)
    assert (whole.output / MARKS[whole.target].format(STEPS)).exists()


def test_granites_checkpoint_is_a_granite_model(whole: Trained) -> None:
    if whole.target != "hf-granite":
        pytest.skip("a checkpoint of another kind")
    from transformers import GraniteForCausalLM

    model = GraniteForCausalLM.from_pretrained(whole.output / f"checkpoint-{STEPS}")
    run = whole.plan.runs[0]
    assert model.config.residual_multiplier == run.tensor("attn_out").forward_multiplier
    assert sum(p.numel() for p in model.parameters()) == run.params.total
    moved = model.model.norm.weight.detach() - 1.0
    assert 0 < float(moved.abs().max()) < 1  # trained, not drawn anew


def test_ingest_reads_the_folder_of_runs(whole: Trained, tmp_path: Path) -> None:
    """Checkpoints and all: one run, nothing that fails."""
    from planner.archive import Archive, ingest, list_runs

    report = ingest([whole.output.parent], tmp_path / "archive")
    assert report.failed == []
    (found,) = list_runs(Archive(tmp_path / "archive"), plans=[whole.plan])
    assert found["run_digest"] == whole.plan.runs[0].digest
    assert found["planned"]["by"] == "digest"
    assert (found["seed"], found["total_steps"], found["last_step"]) == (0, STEPS, STEPS)
    assert found["final"] == losses(whole.output)[-1]


def test_a_stopped_run_goes_on_as_if_nothing_had_been(whole: Trained, tmp_path: Path) -> None:
    output, mark = tmp_path / "stopped", MARKS[whole.target]
    status, said = start_and_stop(whole.folder, 0, output)
    done = len(losses(output))
    assert done < STEPS  # a run that was faster than the signal would show nothing
    assert status == 130, said[-2000:]
    assert f"of {STEPS} steps" in said
    assert (output / mark.format(done)).exists()
    again = start(whole.folder, 0, output)
    assert again.returncode == 0, again.stderr[-2000:]
    starts, _ = log(output)
    assert [(line["segment"], line["from_step"]) for line in starts] == [(0, 0), (1, done)]
    assert losses(output) == pytest.approx(losses(whole.output), rel=1e-6)
    assert (output / mark.format(STEPS)).exists()
    before = (output / "log.jsonl").read_bytes()
    last = start(whole.folder, 0, output)
    assert last.returncode == 0
    assert f"all {STEPS} steps are done" in last.stdout
    assert (output / "log.jsonl").read_bytes() == before


def test_two_processes_train_as_one(whole: Trained, tmp_path: Path) -> None:
    """With accumulation: eight sequences are two processes by two by two."""
    two = start(whole.folder, 0, tmp_path / "two", processes=2)
    assert two.returncode == 0, two.stderr[-3000:]
    (head,), _ = log(tmp_path / "two")
    assert (head["processes"], head["accumulation"]) == (2, 2)
    found = gap(tmp_path / "two", whole.output)
    print(f"\n{whole.target}: two processes against one {found:.1e}")
    assert found < 1e-4


def test_the_other_way_trains_as_one_process(whole: Trained, tmp_path: Path, data: Path) -> None:
    if whole.target not in OTHER:
        pytest.skip("data parallel only")
    options = {"micro_batch": 2, "parallel": OTHER[whole.target]}
    bundle(whole.target, tmp_path / "jobs", data, options)
    two = start(tmp_path / "jobs" / "small", 0, tmp_path / "two", processes=2)
    assert two.returncode == 0, two.stderr[-3000:]
    found = gap(tmp_path / "two", whole.output)
    print(f"\n{whole.target}: two processes by {OTHER[whole.target]} against one {found:.1e}")
    assert found < 1e-4


@pytest.mark.parametrize("target", TRAINED)
def test_a_run_that_diverges_says_so_and_saves_nothing(
    target: str, tmp_path: Path, data: Path
) -> None:
    pytest.importorskip(TRAINED[target])
    bundle(target, tmp_path / "jobs", data, {"checkpoint_steps": 2})
    config = tmp_path / "jobs" / "small" / CONFIG
    text = config.read_text()
    at = text.index("lr: ", text.index('"unembedding"'))
    config.write_text(text[:at] + "lr: 1.0e+37" + text[text.index("\n", at) :])
    done = start(tmp_path / "jobs" / "small", 0, tmp_path / "out")
    assert done.returncode == 1, done.stderr[-2000:]
    assert "error: the loss is not finite" in done.stderr
    _, steps = log(tmp_path / "out")
    assert steps[-1]["loss"] is None
    assert 2 <= len(steps) < STEPS
    last = len(steps)
    assert not (tmp_path / "out" / MARKS[target].format(last)).exists()


@pytest.mark.parametrize("target", TRAINED)
def test_the_real_classes_accept(target: str, tmp_path: Path, data: Path) -> None:
    pytest.importorskip(TRAINED[target])
    shapes = [{}, {"biases": True, "tied": target != "torchtitan"}]
    runs = [
        small_run(name=f"{precision}-{number}", precision=precision, **shape)
        for precision in ("bf16", "fp32")
        for number, shape in enumerate(shapes)
    ]
    bundle(target, tmp_path, data, {}, *runs)
    for check in check_bundle(tmp_path):
        assert check.problems == (), check
        assert check.skipped is None or check.name == "shellcheck"


REFUSED = {
    "hf-granite": [
        ("logging_steps:", "logging_stepz:", "logging_stepz"),
        ("hidden_act: ", "hidden_actt: ", "hidden_actt"),
        ('hidden_act: "silu"', 'hidden_act: "sillu"', "sillu"),
        ('save_strategy: "steps"', 'save_strategy: "stepz"', "stepz"),
        ("self_attn.o_proj", "self_attn.p_proj", "o_proj"),
        ("num_hidden_layers: 3", "num_hidden_layers: 4", "parameters"),
        ("data:\n", "dada:\n", "data: is missing"),
    ],
    "olmo-core": [
        ("metrics_collect_interval:", "metrics_collect_intervall:", "intervall"),
        ("compile_model:", "compile_modell:", "compile_modell"),
        ("save_interval:", "save_intervall:", "save_intervall"),
        ("attention_residual_alpha:", "attention_residual_alfa:", "alfa"),
        ('activation: "silu"', 'activation: "relu"', "relu' is not a valid"),
        ("attention.w_out", "attention.w_o", "w_out"),
        ("data:\n", "dada:\n", "data: is missing"),
    ],
    "torchtitan": [
        ("disable_cuda_graphs:", "disable_cuda_graphz:", "graphz"),
        ("data_parallel_shard_degree:", "data_parallel_shard_degre:", "shard_degre"),
        ("  interval:", "  intervall:", "intervall"),
        ('mixed_precision_param: "float32"', 'mixed_precision_param: "float8"', "float8"),
        ('async_mode: "disabled"', 'async_mode: "disable"', "disable"),
        ('activation_checkpoint: "selective"', 'activation_checkpoint: "some"', "selective"),
        ("hidden_dim:", "hidden_dimm:", "hidden_dim"),
        ("attention.wo", "attention.wp", "wo"),
        ("n_layers: 3", "n_layers: 4", "parameters"),
        ("data:\n", "dada:\n", "data: is missing"),
    ],
}


@pytest.mark.parametrize("target", REFUSED)
def test_the_real_classes_refuse(target: str, tmp_path: Path, data: Path) -> None:
    package = TRAINED[target]
    pytest.importorskip(package)
    cases = REFUSED[target]
    bundle(target, tmp_path, data, {}, *(small_run(name=f"r{i}") for i in range(len(cases))))
    for number, (old, new, _) in enumerate(cases):
        path = tmp_path / f"r{number}" / CONFIG
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
    checks = {check.name: check for check in check_bundle(tmp_path)}
    problems = checks[f"{package}'s own classes"].problems
    for number, (_, new, said) in enumerate(cases):
        (problem,) = [text for text in problems if text.startswith(f"r{number}/{CONFIG}: ")]
        assert said in problem, (new, problem)


@pytest.mark.parametrize("target", TRAINED)
def test_bad_input_is_one_sentence(
    target: str,
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(TRAINED[target])
    bundle(target, tmp_path / "jobs", data, {"data_dir": "env:SOME_DATA"})
    script = script_of(tmp_path / "jobs" / "small")
    config, output = tmp_path / "jobs" / "small" / CONFIG, tmp_path / "out"
    good = config.read_text()

    def said(text: str, folder: str) -> str:
        config.write_text(text)
        monkeypatch.setenv("SOME_DATA", folder)
        assert script.main([str(config), "--output", str(output)]) == 2
        assert not output.exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    wanted = "error: wanted the folder of the data in the environment variable SOME_DATA"
    assert said(good, "") == wanted
    nowhere = str(tmp_path / "nowhere")
    assert said(good, nowhere).startswith(f"error: {nowhere}: is not a folder made by `planner")
    odd = good.replace("sequences: 8", "sequences: 7").replace("micro: null", "micro: 2")
    assert "does not divide the 7 sequences" in said(odd, str(data))
    few = good.replace("vocab_size: 97", "vocab_size: 96")
    assert "has ids up to 96, the model 96" in said(few, str(data))
    assert "is not YAML" in said("a: [", str(data))
    assert "schedule: is missing" in said(good.replace("schedule:\n", "schedul:\n"), str(data))
