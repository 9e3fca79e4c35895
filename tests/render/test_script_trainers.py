"""Targets that are a script and a file for each run, without the packages that they need."""

from __future__ import annotations

import ast
import math
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan import Plan, sealed
from planner.plan.model import Experts
from planner.render import check_bundle, describe, render, render_files, render_plan, target_names
from planner.render.errors import CannotExpressError, OptionError, TargetError
from planner.render.groups import check_tied, make_group, one_epsilon
from planner.render.script_check import read_yaml
from planner.render.target import TORCHRUN_LAUNCHERS

from .built import shell_and_manifests
from .plans import make_plan, make_run, parametrization, rename
from .test_bundle import compare_with_golden, stable
from .test_equality import GROUPED, LLAMA

TARGETS = ("hf-granite", "olmo-core", "torchtitan")
# What lies beside the script and the configurations.
BESIDE = {"torchtitan": {"tiny-20tpp/config_registry.py"}}
CONFIG = "tiny-20tpp/config-seed0.yaml"


def llama_plan(**changes: Any) -> Plan:
    rule = parametrization()
    return make_plan(make_run(rule, **{**LLAMA, **changes}), rule=rule)


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_bundle_holds(target: str) -> None:
    rendered = render(llama_plan(seeds=(0, 7)), f"{target}+local")
    assert {path for path in rendered.files if path.startswith("tiny-20tpp/")} == {
        "tiny-20tpp/config-seed0.yaml",
        "tiny-20tpp/config-seed7.yaml",
        "tiny-20tpp/launch.sh",
        "tiny-20tpp/train.py",
    } | BESIDE.get(target, set())
    ast.parse(rendered.files["tiny-20tpp/train.py"])
    assert "import planner" not in rendered.files["tiny-20tpp/train.py"]
    assert rendered.files == render(llama_plan(seeds=(0, 7)), f"{target}+local").files
    assert f"{target}+local" in target_names()


@pytest.mark.parametrize("target", TARGETS)
def test_the_golden_configuration(target: str) -> None:
    rule = parametrization()
    run = make_run(
        rule, **GROUPED, d_model=192, n_layers=6, biases=True, clip=1.0, name="300M-20tpp"
    )
    plan = make_plan(run, rule=rule, family="llama-like")
    files = stable(render_files(plan, f"{target}+local"), plan)
    wanted: tuple[str, ...] = ("300M-20tpp/config-seed0.yaml", "README.md")
    if target == "torchtitan":
        wanted += ("300M-20tpp/config_registry.py",)
    compare_with_golden(target, {path: files[path] for path in wanted})


@pytest.mark.parametrize(
    ("target", "change", "field", "reason"),
    [
        (target, change, field, reason)
        for change, field, reason, targets in [
            ({"gated": False}, "model.gated", "always gated", TARGETS),
            ({"position": "alibi"}, "model.position", "'alibi'", TARGETS),
            ({"position": "learned"}, "model.position", "'learned'", TARGETS),
            ({"position": "none"}, "model.position", "'none'", ("hf-granite", "torchtitan")),
            ({"norm": "layernorm"}, "model.norm", "'layernorm'", ("hf-granite", "torchtitan")),
            ({"activation": "gelu"}, "model.activation", "'gelu'", ("olmo-core", "torchtitan")),
            ({"precision": "fp16"}, "precision", "loss scaling", TARGETS),
            ({"head_dim": 1}, "model.head_dim", "even head_dim", TARGETS),
            ({"experts": Experts(4, 2, 0.0, 0.0)}, "model.experts", "", TARGETS),
        ]
        for target in targets
    ],
)
def test_what_cannot_be_expressed_is_refused(
    target: str, change: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(CannotExpressError, match=f"{target} cannot run this") as caught:
        render(llama_plan(**change), target)
    assert caught.value.field == f"tiny-20tpp.{field}"
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"data_dir": "env:1x"}, "data_dir", "wanted env:NAME"),
        ({"data_dir": ""}, "data_dir", "at least 1"),
        ({"data_dir": "a\0b"}, "data_dir", "NUL"),
        ({"micro_batch": 3}, "micro_batch", "does not divide"),
        ({"precision": "fp8"}, "precision", "'bf16' or 'fp32'"),
        ({"keep": 0}, "keep", "greater than or equal to"),
        ({"num_csx": 1}, "num_csx", "no such option"),
    ],
)
def test_options_are_checked(
    target: str, options: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises((OptionError, CannotExpressError), match=message) as caught:
        render(llama_plan(), target, options)
    assert caught.value.field == field


def test_a_launcher_that_cannot_start_it() -> None:
    with pytest.raises(TargetError, match="'cs3' cannot start 'olmo-core'"):
        render(llama_plan(), "olmo-core+cs3")


@pytest.mark.parametrize("target", TARGETS)
def test_a_tied_head_with_values_of_its_own_is_refused(target: str) -> None:
    plan = llama_plan(tied=True)
    (run,) = plan.runs
    rows = tuple(
        replace(row, lr=2 * row.lr) if row.tensor_class == "unembedding" else row
        for row in run.tensors
    )
    with pytest.raises(CannotExpressError, match="tied but the plan's lr"):
        render(sealed(replace(plan, runs=(replace(run, tensors=rows),))), target)


def test_folded_weights_are_warned_of_where_gradients_are_clipped() -> None:
    plan = llama_plan(clip=1.0)
    assert render(plan, "hf-granite").warnings == ()
    (warning,) = render(plan, "olmo-core").warnings
    assert "global norm 1" in warning
    assert f"attn_q {math.sqrt(32):.4g}" in warning
    assert render(llama_plan(), "olmo-core").warnings == ()


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=15)
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_names_come_back_as_they_were(target: str, name: str) -> None:
    plan = rename(llama_plan(), family=name, runs=[name])
    folder = name if not name.startswith("env:") else "x" + name
    files = render_files(plan, f"{target}+local", {"data_dir": folder})
    (path,) = [path for path in files if path.endswith(".yaml")]
    config = read_yaml(files[path])
    assert (config["about"]["family"], config["about"]["run"]) == (name, name)
    assert config["data"]["folder"] == folder
    for path in files:
        if path.endswith(".py"):
            ast.parse(files[path])


@pytest.mark.parametrize("target", TARGETS)
def test_the_launcher_starts_the_script(target: str, tmp_path: Path) -> None:
    nasty = "a b'c\"$(touch x)`id`;é"
    plan = rename(llama_plan(), family=nasty, runs=[nasty])
    render_plan(plan, f"{target}+local", tmp_path / "jobs", options={"runs_dir": nasty})
    for processes, start in (("1", ["python"]), ("2", ["torchrun", "--standalone"])):
        done = subprocess.run(
            ["bash", str(tmp_path / "jobs" / "launch.sh")],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PLANNER_DRY_RUN": "1",
                "PLANNER_PROCESSES": processes,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        words = shlex.split(done.stdout) if "$'" not in done.stdout else _words(done.stdout)
        assert words[: len(start)] == start
        script, config, flag, output = words[-4:]
        folder = Path(script).parent
        assert (folder / "train.py").is_file()
        assert Path(config) == folder / "config-seed0.yaml"
        assert flag == "--output"
        assert output.startswith(f"{nasty}/")
    assert {path.name for path in tmp_path.iterdir()} == {"jobs"}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("launcher", TORCHRUN_LAUNCHERS)
def test_every_launcher_starts_it(target: str, launcher: str, tmp_path: Path) -> None:
    options = {
        "kubernetes": {"image": "trainer:1", "env": "TRAIN_DATA_DIR=/data"},
        "skypilot": {"env": "TRAIN_DATA_DIR=/data"},
    }.get(launcher, {})
    plan = llama_plan(seeds=(0, 1))
    bundle = render_plan(plan, f"{target}+{launcher}", tmp_path, options=options)
    assert "/tiny-20tpp/train.py" in shell_and_manifests(bundle)
    for check in check_bundle(tmp_path):
        assert check.problems == (), check


def _words(line: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode().split("\0")[:-1]


NUMBER = re.compile(r"^    (?P<key>lr|weight_decay|eps|init_std): (?P<value>\S+)", re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_every_number_of_the_table_is_checked(target: str, tmp_path: Path) -> None:
    """Our own reading notices any number that is changed, in any group."""
    render_plan(llama_plan(biases=True), f"{target}+local", tmp_path)
    path = tmp_path / CONFIG
    good = path.read_text()
    start = good.index("tensors:")
    places = [m for m in NUMBER.finditer(good, start) if float(m["value"])]
    assert len(places) > 30
    for place in places[::3]:
        changed = str(float(place["value"]) * 1.001)
        path.write_text(good[: place.start("value")] + changed + good[place.end("value") :])
        (check,) = [c for c in check_bundle(tmp_path) if c.name == "parameters against the plan"]
        assert any(place["key"] in problem for problem in check.problems), place
    path.write_text(good)
    (check,) = [c for c in check_bundle(tmp_path) if c.name == "parameters against the plan"]
    assert check.problems == ()


@pytest.mark.parametrize(
    ("target", "old", "new", "said"),
    [
        ("hf-granite", "embedding_multiplier: 9.17", "embedding_multiplier: 9.0", "embedding"),
        ("hf-granite", "residual_multiplier: 0.5", "residual_multiplier: 1.0", "attn_out"),
        ("hf-granite", "attention_multiplier: 0.03125", "attention_multiplier: 0.125", "attention"),
        ("hf-granite", "max_steps: 100", "max_steps: 99", "max_steps"),
        ("hf-granite", "hidden_size: 128", "hidden_size: 64", "hidden_size"),
        ("olmo-core", "embed_scale: 9.17", "embed_scale: 9.0", "embedding"),
        ("olmo-core", "attention_residual_alpha: 0.5", "attention_residual_alpha: 1", "attn_out"),
        ("olmo-core", "head_dim: 32", "head_dim: 64", "head_dim"),
        ("olmo-core", "value: 100", "value: 99", "max_duration"),
        ("torchtitan", "head_dim: 32", "head_dim: 64", "attn_q"),
        ("torchtitan", "hidden_dim: 320", "hidden_dim: 321", "hidden_dim"),
        ("torchtitan", "  steps: 100", "  steps: 99", "training.steps"),
        ("both", "steps: 90", "steps: 91", "schedule"),
        ("both", "sequences: 8", "sequences: 16", "sequences"),
        ("both", "betas: [0.9, 0.95]", "betas: [0.9, 0.99]", "betas"),
        ("both", "schema:", "scheme", "is not"),
        ("both", '  - name: "norm"', '  - name: "morn"', "norm is there 0 times"),
    ],
)
def test_the_rest_of_a_configuration_is_checked(
    target: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    for each in TARGETS if target == "both" else (target,):
        render_plan(llama_plan(), f"{each}+local", tmp_path / each)
        path = tmp_path / each / CONFIG
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        checks = {check.name: check for check in check_bundle(tmp_path / each)}
        assert any(said in text for text in checks["parameters against the plan"].problems)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_describe_themselves(target: str) -> None:
    about = describe(target)
    assert {"native", "refused", "by itself"} <= {item["how"] for item in about["capabilities"]}
    assert {"data_dir", "micro_batch", "runs_dir"} <= {item["name"] for item in about["options"]}


def test_groups() -> None:
    run = llama_plan(n_layers=4, eps=1e-8, eps_mode="exact").runs[0]
    plan = run.tensor("attn_out")
    folded = make_group(run, "x", "attn_out", "*").values
    assert (folded.folded, folded.forward_multiplier) == (0.5, 1.0)
    assert folded.lr == plan.lr / 2
    assert folded.weight_decay == plan.weight_decay * 2
    assert folded.eps == plan.eps * 2
    native = make_group(run, "x", "attn_out", "*", native=0.5).values
    assert (native.lr, native.folded) == (plan.lr, 1.0)
    groups = [make_group(run, "x", name, "*") for name in ("embedding", "attn_qkv")]
    with pytest.raises(CannotExpressError, match="one Adam epsilon"):
        one_epsilon(run, groups, "it")
    assert one_epsilon(llama_plan(eps=1e-16).runs[0], groups[:1], "it") == groups[0].values.eps
    with pytest.raises(CannotExpressError, match="used twice"):
        check_tied(llama_plan(tied=True).runs[0], native=False)
    with pytest.raises(CannotExpressError, match="no row for router"):
        make_group(run, "x", "router", "*")
