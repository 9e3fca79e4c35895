"""The target ``cstorch`` without cerebras_pytorch: its files, its refusals, its launcher."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.compile import compile_plan
from planner.plan import Plan, sealed
from planner.plan.model import Experts
from planner.render import check_bundle, describe, render, render_files, render_plan, target_names
from planner.render.errors import CannotExpressError, OptionError, TargetError
from planner.render.script_check import read_yaml
from planner.spec import parse_spec

from .plans import make_plan, make_run, parametrization, rename
from .test_bundle import compare_with_golden, stable
from .test_equality import GROUPED
from .test_script_trainers import NUMBER

CONFIG = "tiny-20tpp/config-seed0.yaml"


def tiny(**changes: Any) -> Plan:
    rule = parametrization()
    return make_plan(make_run(rule, **changes), rule=rule)


def test_what_a_bundle_holds() -> None:
    rendered = render(tiny(seeds=(0, 7)), "cstorch")
    assert rendered.target == "cstorch+cs3"
    assert {path for path in rendered.files if path.startswith("tiny-20tpp/")} == {
        "tiny-20tpp/config-seed0.yaml",
        "tiny-20tpp/config-seed7.yaml",
        "tiny-20tpp/launch.sh",
        "tiny-20tpp/train.py",
    }
    script = rendered.files["tiny-20tpp/train.py"]
    ast.parse(script)
    assert "import planner" not in script
    assert rendered.files == render(tiny(seeds=(0, 7)), "cstorch").files
    assert "cstorch+cs3" in target_names()
    with pytest.raises(TargetError, match="'slurm' cannot start 'cstorch'"):
        render(tiny(), "cstorch+slurm")


def test_the_golden_bundle() -> None:
    """The published 300M at 20 TPP, compiled from the preset, on two systems."""
    plan = compile_plan(parse_spec("family: celerity\npreset: celerity\n"))
    options = {"num_csx": 2, "mount_dirs": "/data '/more data'", "job_time_sec": 86400}
    files = stable(render_files(plan, "cstorch", options), plan)
    folder = "300M-20tpp"
    wanted = ("README.md", f"{folder}/config-seed0.yaml", f"{folder}/launch.sh")
    compare_with_golden("celerity-cstorch", {path: files[path] for path in wanted})


def test_every_row_is_taken_as_it_stands() -> None:
    """Nothing is folded, so clipping is the plan's, and nothing is warned of."""
    plan = tiny(clip=1.0, biases=True, gated=True, activation="silu")
    rendered = render(plan, "cstorch")
    assert rendered.warnings == ()
    config = read_yaml(rendered.files[CONFIG])
    run = plan.runs[0]
    for row in config["tensors"]:
        wanted = run.tensor(row["class"])
        assert row["lr"] == wanted.lr
        assert row["weight_decay"] == wanted.weight_decay
        assert row["eps"] == wanted.eps
        assert row.get("init_std", wanted.init_std) == wanted.init_std
    assert config["multipliers"] == {
        row.tensor_class: row.forward_multiplier for row in run.tensors
    }
    assert config["model"]["attention_multiplier"] == run.model.attention_multiplier


@pytest.mark.parametrize(
    ("change", "options", "field", "reason"),
    [
        ({"experts": Experts(4, 2, 0.0, 0.0)}, {}, "model.experts", "dense"),
        ({"position": "rope", "head_dim": 1}, {}, "model.head_dim", "even head_dim"),
        ({"n_kv_heads": 3}, {}, "model.n_kv_heads", "divide the heads"),
        ({"activation": "mish"}, {}, "model.activation", "'mish'"),
        ({"precision": "fp16"}, {}, "precision", "loss scaling"),
        ({"precision": "fp32"}, {}, "precision", "backend=CPU"),
        ({}, {"precision": "fp32"}, "precision", "backend=CPU"),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    change: dict[str, Any], options: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(CannotExpressError, match="cstorch cannot run this") as caught:
        render(tiny(**change), "cstorch", options)
    assert caught.value.field == f"tiny-20tpp.{field}"
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_float32_is_for_the_cpu() -> None:
    for change, options in (({"precision": "fp32"}, {}), ({}, {"precision": "fp32"})):
        files = render_files(tiny(**change), "cstorch", {**options, "backend": "CPU"})
        backend = read_yaml(files[CONFIG])["backend"]
        assert (backend["type"], backend["precision"]) == ("CPU", "fp32")


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"num_csx": 0}, "num_csx", "greater than or equal to 1"),
        ({"num_csx": 3}, "num_csx", "3 systems do not divide"),
        ({"num_csx": 4, "micro_batch": 4}, "micro_batch", "has 2 sequences a system"),
        ({"micro_batch": 3}, "micro_batch", "does not divide"),
        ({"job_priority": "p9"}, "job_priority", "'p1'"),
        ({"job_time_sec": 0}, "job_time_sec", "greater than or equal to 1"),
        ({"mount_dirs": "'/data"}, "mount_dirs", "a quote is not closed"),
        ({"mount_dirs": "/a\0b"}, "mount_dirs", "NUL"),
        ({"backend": "GPU"}, "backend", "'CSX' or 'CPU'"),
        ({"data_dir": "env:1x"}, "data_dir", "wanted env:NAME"),
        ({"processes": 2}, "processes", "no such option"),
    ],
)
def test_options_are_checked(options: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises((OptionError, CannotExpressError), match=message) as caught:
        render(tiny(), "cstorch", options)
    assert caught.value.field == field


def test_an_epsilon_that_counts_is_warned_of() -> None:
    """cerebras_pytorch adds it before bias correction: 1/sqrt(1 - 0.95) in the first update."""
    (warning,) = render(tiny(eps=1e-8, eps_mode="exact"), "cstorch").warnings
    assert "up to 1e-08" in warning
    assert "4.47 times" in warning
    assert render(tiny(), "cstorch").warnings == ()


def test_a_tied_head_with_values_of_its_own_is_refused() -> None:
    plan = tiny(tied=True)
    (run,) = plan.runs
    rows = tuple(
        replace(row, lr=2 * row.lr) if row.tensor_class == "unembedding" else row
        for row in run.tensors
    )
    with pytest.raises(CannotExpressError, match="tied but the plan's lr"):
        render(sealed(replace(plan, runs=(replace(run, tensors=rows),))), "cstorch")


@pytest.mark.parametrize("shape", [{"biases": True}, {**GROUPED, "biases": True, "tied": True}])
def test_every_number_of_the_table_is_checked(shape: dict[str, Any], tmp_path: Path) -> None:
    render_plan(tiny(**shape), "cstorch", tmp_path)
    path = tmp_path / CONFIG
    good = path.read_text()

    def problems(text: str) -> tuple[str, ...]:
        path.write_text(text)
        (check,) = [c for c in check_bundle(tmp_path) if c.name == "parameters against the plan"]
        return check.problems

    places = [m for m in NUMBER.finditer(good, good.index("tensors:")) if float(m["value"])]
    assert len(places) > 20
    for place in places[::4]:
        changed = str(float(place["value"]) * 1.001)
        found = problems(good[: place.start("value")] + changed + good[place.end("value") :])
        assert any(place["key"] in problem for problem in found), place
    for old, new, said in [
        ("  attn_out: 0.5", "  attn_out: 1.0", "attn_out"),
        ("  embedding: 9.17", "  embedding: 9.0", "embedding"),
        ("  unembedding: 0.5475", "  unembedding: 0.5", "unembedding"),
        ("attention_multiplier: 0.03125", "attention_multiplier: 0.125", "attention_multiplier"),
        ("n_layers: 4", "n_layers: 5", "n_layers"),
        ("loop:\n  steps: 100", "loop:\n  steps: 99", "loop.steps"),
        ("sequences: 8", "sequences: 16", "sequences"),
        ("steps: 90", "steps: 91", "schedule"),
        ("loop:\n", "lop:\n", "not a configuration"),
    ]:
        assert old in good
        assert any(said in problem for problem in problems(good.replace(old, new, 1))), new
    assert problems(good) == ()


@settings(max_examples=15)
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_names_come_back_as_they_were(name: str) -> None:
    plan = rename(tiny(), family=name, runs=[name])
    folder = name if not name.startswith("env:") else "x" + name
    options = {"data_dir": folder, "mount_dirs": shlex.quote(name)}
    files = render_files(plan, "cstorch", options)
    (path,) = [path for path in files if path.endswith(".yaml")]
    config = read_yaml(files[path])
    assert (config["about"]["family"], config["about"]["run"]) == (name, name)
    assert config["data"]["folder"] == folder
    assert config["cluster"]["mount_dirs"] == [name]
    (script,) = [path for path in files if path.endswith("train.py")]
    ast.parse(files[script])


@pytest.mark.parametrize(
    ("mode", "more"), [("fit", []), ("compile", ["--compile-only"]), ("validate", ["--check"])]
)
def test_the_launcher_starts_the_script(mode: str, more: list[str], tmp_path: Path) -> None:
    nasty = "a b'c\"$(touch x)`id`;é"
    plan = rename(tiny(), family=nasty, runs=[nasty])
    render_plan(plan, "cstorch", tmp_path / "jobs", options={"runs_dir": nasty})
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        '#!/bin/bash\nif [[ $1 == -* ]]; then exit; fi\nprintf "%s\\0" "$@" >"$OUT"\n'
    )
    python.chmod(0o755)
    subprocess.run(
        ["bash", str(tmp_path / "jobs" / "launch.sh"), mode, "--backend", "CPU"],
        cwd=tmp_path,
        env={"PATH": f"{python.parent}:{os.environ['PATH']}", "OUT": str(tmp_path / "words")},
        capture_output=True,
        timeout=60,
        check=True,
    )
    words = (tmp_path / "words").read_text().split("\0")[:-1]
    script, config, *rest = words
    assert Path(script).is_file()
    assert Path(script).name == "train.py"
    assert config.endswith("/seed0/params.yaml")
    if mode == "validate":
        assert rest == [*more, "--backend", "CPU"]
    else:
        output = config.removesuffix("/params.yaml") + ("/compile" if mode == "compile" else "")
        assert rest == ["--output", output, *more, "--backend", "CPU"]
        assert output.startswith(f"{nasty}/")
    assert {path.name for path in tmp_path.iterdir()} == {"jobs", "bin", "words", nasty}


def test_it_describes_itself() -> None:
    about = describe("cstorch")
    assert {"native", "refused", "by itself"} == {item["how"] for item in about["capabilities"]}
    names = {item["name"] for item in about["options"]}
    assert {"data_dir", "backend", "num_csx", "mount_dirs", "job_priority", "runs_dir"} <= names
