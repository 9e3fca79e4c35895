"""The target ``megatron`` without Megatron: flags, refusals, options, checks, launchers."""

from __future__ import annotations

import ast
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan import Plan, Run, sealed
from planner.plan.model import Experts, Parametrization, Schedule
from planner.render import check_bundle, describe, render, render_files, render_plan
from planner.render.errors import CannotExpressError, OptionError
from planner.render.megatron.options import MegatronOptions
from planner.render.megatron.readback import compare, multipliers, rate
from planner.render.schedule import learning_rate
from planner.render.script_check import read_yaml
from planner.render.target import TORCHRUN_LAUNCHERS

from .built import shell_and_manifests
from .plans import make_plan, make_run, parametrization, rename
from .test_bundle import compare_with_golden, stable

MUP = parametrization("mup", "coupled")
LLAMA: dict[str, Any] = {
    "gated": True,
    "activation": "silu",
    "position": "rope",
    "norm": "rmsnorm",
    "n_kv_heads": 2,
}
CONFIG = "tiny-20tpp/config-seed0.yaml"


def llama_plan(rule: Parametrization = MUP, **changes: Any) -> Plan:
    return make_plan(make_run(rule, **{**LLAMA, **changes}), rule=rule)


def flags_of(plan: Plan, **options: Any) -> dict[str, Any]:
    text = render_files(plan, "megatron+local", options)[CONFIG]
    flags: dict[str, Any] = read_yaml(text)["megatron"]
    return flags


def changed(plan: Plan, tensor_class: str, **changes: Any) -> Plan:
    """The plan with another row for a class."""
    (run,) = plan.runs
    rows = tuple(
        replace(row, **changes) if row.tensor_class == tensor_class else row for row in run.tensors
    )
    return sealed(replace(plan, runs=(replace(run, tensors=rows),)))


def test_what_a_bundle_holds() -> None:
    rendered = render(llama_plan(seeds=(0, 7)), "megatron+local")
    assert {path for path in rendered.files if path.startswith("tiny-20tpp/")} == {
        "tiny-20tpp/config-seed0.yaml",
        "tiny-20tpp/config-seed7.yaml",
        "tiny-20tpp/launch.sh",
        "tiny-20tpp/train.py",
    }
    ast.parse(rendered.files["tiny-20tpp/train.py"])
    assert "import planner" not in rendered.files["tiny-20tpp/train.py"]
    assert rendered.files == render(llama_plan(seeds=(0, 7)), "megatron+local").files
    assert rendered.warnings == ()


def test_the_golden_bundle() -> None:
    rule = parametrization("mup", "coupled", base_width=256, base_ffn_width=704.0, base_lr=0.004)
    shape = {**LLAMA, "head_dim": 64, "n_kv_heads": 4, "vocab": 32000, "seq_len": 4096}
    run = make_run(
        rule,
        **shape,
        name="110M-20tpp",
        d_model=768,
        n_layers=12,
        d_ffn=2112,
        sequences=256,
        steps=2100,
        warmup=100,
        clip=1.0,
        schedule=Schedule("wsd", 100 / 2100, 0.1, 0.2),
    )
    plan = make_plan(run, rule=rule, family="llama-like")
    options = {"tensor_parallel": 2, "wandb": "llama-like", "arguments": "--overlap-grad-reduce"}
    files = stable(render_files(plan, "megatron+slurm", options), plan)
    wanted = ("110M-20tpp/config-seed0.yaml", "110M-20tpp/start.sh", "README.md")
    compare_with_golden("megatron", {path: files[path] for path in wanted})


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"activation": "gelu"}, "model.activation", "no exact 'gelu' with a gate"),
        ({"gated": False}, "model.activation", "no exact 'silu' without a gate"),
        ({"gated": False, "activation": "relu"}, "model.activation", "'relu'"),
        ({"position": "alibi"}, "model.position", "'alibi'"),
        ({"norm": "layernorm"}, "model.norm", "its layer norm has a bias"),
        ({"head_dim": 1, "n_kv_heads": 1}, "model.head_dim", "even head_dim"),
        ({"precision": "fp16"}, "precision", "loss scaling"),
        ({"experts": Experts(4, 2, 0.0, 0.0)}, "model.experts", "routing"),
        ({"d_ffn": 320}, "model.d_ffn", "by its own ratio 1.25"),
        ({"warmup": 100}, "warmup_steps", "before the last step"),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    change: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(CannotExpressError, match="megatron cannot run this") as caught:
        render(llama_plan(**change), "megatron")
    assert caught.value.field == f"tiny-20tpp.{field}"
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (parametrization("completep", "coupled"), r"residual branches by 0.5 \(depth ratio 2\)"),
        (parametrization("completep", "independent"), "residual branches"),
        (parametrization("completep", "coupled", depth_exponent=0.5), "residual branches by 0.7"),
        (parametrization("mup", "independent"), "one for all; wanted decay: coupled"),
    ],
)
def test_other_parametrizations_are_refused(rule: Parametrization, reason: str) -> None:
    with pytest.raises(CannotExpressError, match=reason) as caught:
        render(llama_plan(rule), "megatron")
    assert "\n" not in str(caught.value)


def test_the_base_depth_and_width_are_no_obstacle() -> None:
    """Where its ratios are 1, CompleteP is the same training and is rendered."""
    assert flags_of(llama_plan(parametrization("completep", "coupled", base_depth=4)))["use-mup"]
    flags = flags_of(
        llama_plan(parametrization("mup", "independent", base_width=128, base_ffn_width=512.0))
    )
    assert flags["mup-base-hidden-size"] == 128


@pytest.mark.parametrize(
    ("tensor_class", "change", "reason"),
    [
        ("norm", {"lr": 0.001}, "lr of norm is 0.001"),
        ("norm", {"weight_decay": 0.1}, "weight_decay of norm is 0.1"),
        ("attn_out", {"init_std": 0.01}, "init_std of attn_out is 0.01"),
        ("unembedding", {"lr": 0.001}, "lr of unembedding"),
        ("ffn_in", {"forward_multiplier": 2.0}, "multiplies ffn_in by 2"),
        ("attn_qkv", {"lr": 0.0123}, "whole base width"),
    ],
)
def test_a_row_of_its_own_is_refused(
    tensor_class: str, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CannotExpressError, match="megatron cannot run this") as caught:
        render(changed(llama_plan(), tensor_class, **change), "megatron")
    assert reason in str(caught.value)


def test_epsilon() -> None:
    """Megatron scales it on hidden matrices alone, the plan also on norms."""
    with pytest.raises(CannotExpressError, match="eps_mode: negligible") as caught:
        render(llama_plan(eps=1e-8, eps_mode="exact"), "megatron")
    assert caught.value.field == "tiny-20tpp.optimizer.eps"
    with pytest.raises(CannotExpressError, match="of norm would be 1e-08"):
        render(llama_plan(eps=1e-8), "megatron")
    # With the width ratio 1 nothing is scaled, and any epsilon is exact.
    rule = parametrization("mup", "coupled", base_width=128, base_ffn_width=512.0)
    assert flags_of(llama_plan(rule, eps=1e-8, eps_mode="exact"))["adam-eps"] == 1e-8
    plan = changed(llama_plan(eps=1e-8, eps_mode="exact"), "norm", eps=1e-8)
    assert flags_of(plan)["adam-eps"] == 1e-8


def test_multipliers() -> None:
    """A logits multiplier of 1 counts as not given; attention's may be anything."""
    rule = parametrization("mup", "coupled", output_multiplier=2.0)
    flags = flags_of(llama_plan(rule))
    assert flags["mup-output-mult"] == math.nextafter(1.0, 2.0)
    assert multipliers(flags)["logits"] == pytest.approx(1.0, rel=1e-15)
    (run,) = llama_plan().runs
    for value in (1 / 32, 1 / math.sqrt(32), 0.1, 8 / 32):
        shape = replace(run.model, attention_multiplier=value)
        plan = make_plan(replace(run, model=shape), rule=MUP)
        assert multipliers(flags_of(plan))["attention"] == pytest.approx(value, rel=1e-14)
    standard = flags_of(llama_plan(parametrization("standard")))
    assert "use-mup" not in standard
    assert multipliers(standard) == {"embedding": 1, "logits": 1, "attention": 1 / math.sqrt(32)}
    assert "use-mup" in flags_of(llama_plan(parametrization("standard", input_multiplier=3.0)))


SCHEDULES = [
    (Schedule("linear-to-zero", 0.1, 0.0, 1.0), 10, "linear"),
    (Schedule("linear", 0.0, 0.1, 1.0), 0, "linear"),
    (Schedule("cosine", 0.1, 0.1, 1.0), 10, "cosine"),
    (Schedule("wsd", 0.1, 0.05, 0.2), 10, "WSD"),
    (Schedule("wsd", 0.1, 0.0, 1.0), 10, "linear"),
    (Schedule("constant", 0.0, 1.0, 0.0), 0, "constant"),
    (Schedule("constant", 0.1, 1.0, 0.0), 1, "constant"),
]


@pytest.mark.parametrize(("schedule", "warmup", "style"), SCHEDULES)
def test_every_schedule_is_the_plans_at_every_update(
    schedule: Schedule, warmup: int, style: str
) -> None:
    plan = llama_plan(schedule=schedule, warmup=warmup)
    flags = flags_of(plan)
    assert flags["lr-decay-style"] == style
    (run,) = plan.runs
    for update in range(run.steps):
        assert rate(flags, update) == pytest.approx(learning_rate(run, update), abs=1e-15)


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"megatron_dir": "env:1x"}, "megatron_dir", "wanted env:NAME"),
        ({"megatron_dir": "a\0b"}, "megatron_dir", "NUL"),
        ({"data_path": "   "}, "data_path", "at least one prefix"),
        ({"data_path": "'a"}, "data_path", "quote is not closed"),
        ({"micro_batch": 3}, "micro_batch", "does not divide"),
        ({"tensor_parallel": 4}, "tensor_parallel", "n_kv_heads 2, which 4 processes"),
        ({"pipeline_parallel": 3}, "pipeline_parallel", "4 layers, which 3 processes"),
        ({"context_parallel": 3}, "context_parallel", "sequences of 64"),
        ({"arguments": "--lr 1"}, "arguments", "--lr is decided by the plan"),
        ({"arguments": "--use_mup"}, "arguments", "--use-mup is decided"),
        ({"arguments": "--min-lr=1"}, "arguments", "--min-lr is decided"),
        ({"arguments": "lr"}, "arguments", "'lr' is not a flag"),
        ({"keep": 1}, "keep", "no such option"),
    ],
)
def test_options_are_checked(options: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises((OptionError, CannotExpressError), match=message) as caught:
        render(llama_plan(), "megatron", options)
    assert caught.value.field == field


def test_every_flag_that_is_rendered_cannot_be_given_again() -> None:
    """Whatever the plan decides, further flags must not undo."""
    plans = [llama_plan(schedule=schedule, warmup=warmup) for schedule, warmup, _ in SCHEDULES]
    plans += [llama_plan(gated=False, activation="relu2"), llama_plan(position="learned")]
    free = {"use-distributed-optimizer", "log-throughput", "no-one-logger"}
    free |= {"no-gradient-accumulation-fusion", "sequence-parallel", "no-bias-gelu-fusion"}
    for plan in plans:
        for name in set(flags_of(plan, tensor_parallel=2, pipeline_parallel=2, processes=4)) - free:
            with pytest.raises(ValueError, match="is decided by"):
                MegatronOptions(arguments=f"--{name}")


def test_parallelism_is_told_to_the_launcher() -> None:
    options = {"tensor_parallel": 2, "pipeline_parallel": 2, "context_parallel": 2}
    (job,) = render(llama_plan(), "megatron+slurm", {**options, "gpus": 8}).jobs
    assert (job.model_parallel, job.reads) == (8, ("MEGATRON_LM_DIR", "TRAIN_DATA_DIR"))
    with pytest.raises(CannotExpressError, match="which do not divide"):
        render(llama_plan(), "megatron+slurm", {**options, "gpus": 3})
    (job,) = render(llama_plan(), "megatron", {"data_path": "0.3 a 0.7 'b c'"}).jobs
    assert job.reads == ("MEGATRON_LM_DIR",)


def script(bundle: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", str(bundle / "tiny-20tpp/train.py"), *arguments],
        env={**os.environ, **env},
        cwd=bundle,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_script_prints_its_flags(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    options = {"data_path": "0.3 a 0.7 'b c'", "arguments": "--overlap-grad-reduce"}
    render_plan(llama_plan(), "megatron+local", tmp_path, options=options)
    done = script(tmp_path, CONFIG, "--arguments", "--output", "some where")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert {"--use-mup", "--hidden-size=128", "--micro-batch-size=8", "--seed=1"} <= set(words)
    assert "--save=some where/checkpoints" in words
    assert words[words.index("--data-path") :][:5] == ["--data-path", "0.3", "a", "0.7", "b c"]
    assert words[-1] == "--overlap-grad-reduce"


def test_the_script_says_what_is_wrong_with_its_input(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    render_plan(llama_plan(), "megatron+local", tmp_path)
    out = tmp_path / "out"

    def said(*words: str, **env: str) -> str:
        done = script(tmp_path, *words, **env)
        assert done.returncode == 2
        assert not out.exists()
        return done.stderr

    start = (CONFIG, "--output", str(out))
    assert (
        said(CONFIG)
        == "error: wanted one configuration and --output DIR, --arguments, or --check\n"
    )
    assert "env:MEGATRON_LM_DIR: names no checkout" in said(*start, MEGATRON_LM_DIR="")
    assert "pretrain_gpt.py: names no checkout" in said(*start, MEGATRON_LM_DIR=str(tmp_path))
    (tmp_path / "pretrain_gpt.py").touch()
    env = {"MEGATRON_LM_DIR": str(tmp_path), "TRAIN_DATA_DIR": ""}
    assert "distributed_optimizer=false" in said(*start, **env)


@settings(max_examples=15)
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_names_come_back_as_they_were(name: str) -> None:
    plan = rename(llama_plan(), family=name, runs=[name])
    path = name if not name.startswith("env:") else "x" + name
    options = {"data_dir": path, "megatron_dir": path, "wandb": name}
    files = render_files(plan, "megatron+local", options)
    (config,) = [read_yaml(text) for path, text in files.items() if path.endswith(".yaml")]
    assert (config["about"]["family"], config["about"]["run"]) == (name, name)
    assert (config["data"]["folder"], config["megatron_lm"]) == (path, path)
    assert config["megatron"]["wandb-project"] == name
    assert config["megatron"]["wandb-exp-name"] == f"{name}-seed0"


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave Megatron's own classes out, where they are: this is about our own reading."""
    monkeypatch.setattr("planner.render.script_check._installed", lambda name: False)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("launcher", TORCHRUN_LAUNCHERS)
def test_every_launcher_starts_it(launcher: str, tmp_path: Path) -> None:
    env = "TRAIN_DATA_DIR=/data MEGATRON_LM_DIR=/opt/Megatron-LM"
    options = {
        "kubernetes": {"image": "trainer:1", "env": env},
        "skypilot": {"env": env},
    }.get(launcher, {})
    bundle = render_plan(
        llama_plan(seeds=(0, 1)), f"megatron+{launcher}", tmp_path, options=options
    )
    assert "/tiny-20tpp/train.py" in shell_and_manifests(bundle)
    for check in check_bundle(tmp_path):
        assert check.problems == (), check


NUMBER = re.compile(r"^    (?P<key>lr|weight_decay|eps|init_std): (?P<value>\S+)", re.MULTILINE)


def problems(folder: Path) -> tuple[str, ...]:
    (check,) = [c for c in check_bundle(folder) if c.name == "parameters against the plan"]
    return check.problems


@pytest.mark.usefixtures("unbuilt")
def test_every_number_of_the_table_is_checked(tmp_path: Path) -> None:
    plan = llama_plan(biases=True, eps=1e-8, eps_mode="exact")
    for name in ("norm", "bias"):
        plan = changed(plan, name, eps=1e-8)
    render_plan(plan, "megatron+local", tmp_path)
    path = tmp_path / CONFIG
    good = path.read_text()
    start = good.index("tensors:")
    places = [m for m in NUMBER.finditer(good, start) if float(m["value"])]
    assert len(places) > 20
    for place in places[::2]:
        wrong = str(float(place["value"]) * 1.001)
        path.write_text(good[: place.start("value")] + wrong + good[place.end("value") :])
        assert any(place["key"] in problem for problem in problems(tmp_path)), place
    path.write_text(good)
    assert problems(tmp_path) == ()


# Flags that leave the training alone, or that only Megatron's own classes can judge.
UNJUDGED = {"rotary-base", "rotary-percent", "norm-epsilon", "tokenizer-type", "vocab-size"}
UNJUDGED |= {"optimizer", "attention-dropout", "hidden-dropout", "min-lr"}


@pytest.mark.parametrize(
    "plan",
    [
        llama_plan(clip=1.0),
        llama_plan(schedule=Schedule("wsd", 0.1, 0.1, 0.2)),
        llama_plan(gated=False, activation="relu2", biases=True, norm="layernorm", tied=True),
    ],
    ids=["linear", "wsd", "relu2"],
)
def test_every_flag_is_checked(plan: Plan) -> None:
    """Our own reading notices any flag that is changed or left out."""
    (run,) = plan.runs
    flags = {
        name: value
        for name, value in flags_of(plan).items()
        if name in render_flags(run) and name not in UNJUDGED
    }
    whole = flags_of(plan)
    assert list(compare(run, whole)) == []
    assert len(flags) > 20

    def noticed(wrong: dict[str, Any]) -> bool:
        try:
            return bool(list(compare(run, wrong)))
        except (KeyError, TypeError):
            return True

    for name, value in flags.items():
        if name != "mup-attn-scale-power":  # 1, which is Megatron's default under muP
            assert noticed({key: whole[key] for key in whole if key != name}), name
        if value is not True and value:
            assert noticed({**whole, name: value * 2 if not isinstance(value, str) else "x"}), name


def render_flags(run: Run) -> dict[str, Any]:
    from planner.render.megatron.lower import lower

    return lower(run, MegatronOptions()).model


def test_it_describes_itself() -> None:
    about = describe("megatron")
    assert {"native", "refused", "by itself"} == {item["how"] for item in about["capabilities"]}
    assert {"megatron_dir", "tensor_parallel"} <= {item["name"] for item in about["options"]}
