"""Whole bundles: the expected files, determinism, rendering again, options, speed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from planner._version import __version__
from planner.errors import OutputError, PlannerError
from planner.plan import Plan, dump_plan, load_plan, sealed
from planner.render import describe, render, render_files, render_plan, target_names
from planner.render.errors import CannotExpressError, OptionError, TargetError
from planner.render.paths import short

from .plans import make_plan, make_run, parametrization, rename, tiny_plan

GOLDEN = Path(__file__).parent / "golden"


def stable(files: dict[str, str], plan: Plan) -> dict[str, str]:
    """Put names in place of digests and version, which change for reasons of their own."""
    names = {plan.digest: "PLAN-DIGEST", short(plan.digest): "PLAN"}
    names[f"collapse-planner {__version__}"] = "collapse-planner VERSION"
    names[f"collapse-planner `{__version__}`"] = "collapse-planner `VERSION`"
    for run in plan.runs:
        names |= {run.digest: "RUN-DIGEST", short(run.digest): "RUN"}
    found = {}
    for path, text in files.items():
        for value, name in names.items():
            text = text.replace(value, name)
        found[path] = text
    return found


def compare_with_golden(name: str, files: dict[str, str]) -> None:
    """Compare with the files below golden/NAME; PLANNER_UPDATE_GOLDEN=1 writes them anew."""
    folder = GOLDEN / name
    if os.environ.get("PLANNER_UPDATE_GOLDEN") == "1":
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            path.unlink()
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    expected = {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8")
        for p in folder.rglob("*")
        if p.is_file()
    }
    assert sorted(files) == sorted(expected)
    for path, text in files.items():
        assert text == expected[path], f"{name}/{path}; PLANNER_UPDATE_GOLDEN=1 writes it anew"


def small_family() -> Plan:
    """Two depths and widths, biases, two seeds, clipping: one of everything to look at."""
    rule = parametrization()
    small = make_run(rule, name="small-20tpp", d_model=128, n_layers=4, biases=True, clip=1.0)
    large = make_run(
        rule, name="large-20tpp", d_model=256, n_layers=8, biases=True, clip=1.0, seeds=(0, 1)
    )
    return make_plan(large, small, rule=rule, family="small family")


def test_the_golden_bundle() -> None:
    plan = small_family()
    files = render_files(plan, "modelzoo")
    assert files.pop("plan.json") == dump_plan(plan)
    compare_with_golden("small-family", stable(files, plan))


def test_the_golden_mup_run() -> None:
    """The shapes of Cerebras-GPT 256M (FACTS A10b), tied, with a literal data folder."""
    rule = parametrization(
        "mup",
        base_width=256,
        base_ffn_width=1024.0,
        base_lr=0.006,
        init_std=0.08,
        input_multiplier=10.0,
        output_multiplier=1.0,
    )
    run = make_run(
        rule,
        name="256M-20tpp",
        d_model=1088,
        n_layers=14,
        head_dim=64,
        d_ffn=4352,
        activation="gelu",
        position="learned",
        biases=True,
        tied=True,
        clip=1.0,
        vocab=50257,
        seq_len=2048,
        sequences=264,
        steps=9468,
        warmup=693,
    )
    plan = make_plan(run, rule=rule, family="cerebras-gpt")
    options = {"data_dir": "/data/it's here", "num_csx": 2, "eval_data_dir": "/data/eval"}
    files = stable(render_files(plan, "modelzoo", options), plan)
    wanted = ("256M-20tpp/params-seed0.yaml", "256M-20tpp/launch.sh")
    compare_with_golden("cerebras-gpt-256M", {path: files[path] for path in wanted})


def test_the_golden_celerity_run() -> None:
    """The published 300M at 20 TPP, compiled from the preset."""
    from planner.compile import compile_plan
    from planner.spec import parse_spec

    plan = compile_plan(parse_spec("family: celerity\npreset: celerity\n"))
    files = stable(render_files(plan, "modelzoo"), plan)
    path = "300M-20tpp/params-seed0.yaml"
    compare_with_golden("celerity", {path: files[path]})
    assert len([path for path in files if path.endswith(".yaml")]) == 15


def test_the_bundle_is_what_its_parts_say(tmp_path: Path) -> None:
    plan = small_family()
    bundle = render_plan(plan, "modelzoo", tmp_path / "jobs")
    assert bundle.rendered.target == "modelzoo+cs3"
    assert sorted(bundle.written.changed) == sorted(bundle.rendered.files)
    manifest = json.loads((tmp_path / "jobs" / "manifest.json").read_text())
    assert manifest["schema"] == "planner.bundle/1"
    assert (manifest["plan"], manifest["target"]) == (plan.digest, "modelzoo+cs3")
    assert sorted(manifest["files"]) == sorted(bundle.rendered.files)
    assert load_plan((tmp_path / "jobs" / "plan.json").read_bytes()) == plan
    assert len(bundle.warnings) == 1
    assert "2 of 2 runs clip" in bundle.warnings[0]
    assert render_plan(plan, "modelzoo", tmp_path / "jobs").written.changed == ()


def test_headers_name_digests_and_version() -> None:
    plan = tiny_plan()
    text = render_files(plan, "modelzoo")["tiny-20tpp/params-seed0.yaml"]
    head = text.split("trainer:")[0]
    for value in (plan.digest, plan.runs[0].digest, __version__, "modelzoo+cs3", "m_L = 2"):
        assert value in head
    assert all(line.startswith("#") for line in head.splitlines())


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_same_bytes_whatever_the_hash_seed_and_locale(
    seed: str, run_python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    plan = small_family()
    (tmp_path / "plan.json").write_text(dump_plan(plan), encoding="utf-8")
    code = """
import hashlib, json, sys
from pathlib import Path
from planner.plan import load_plan
from planner.render import render_files
plan = load_plan(Path(sys.argv[1]).read_bytes())
for target, options in json.loads(sys.argv[2]).items():
    files = render_files(plan, target, options)
    print(hashlib.sha256(repr(list(files.items())).encode()).hexdigest())
"""
    targets = {
        "modelzoo": {},
        "torch+slurm": {},
        "torch+kubernetes": {"image": "a", "env": "TRAIN_DATA_DIR=/d A=b", "secrets": "C=d/e"},
        "torch+skypilot": {"env": "TRAIN_DATA_DIR=/d A=b", "secrets": "C D"},
    }
    env = {"PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": f"UTC{seed}"}
    done = run_python(code, str(tmp_path / "plan.json"), json.dumps(targets), env=env)
    assert done.returncode == 0, done.stderr
    import hashlib

    assert done.stdout.split() == [
        hashlib.sha256(repr(list(render_files(plan, *item).items())).encode()).hexdigest()
        for item in targets.items()
    ]


def test_no_clock_in_what_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    before = render_files(tiny_plan(), "modelzoo")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert render_files(tiny_plan(), "modelzoo") == before


def test_an_edit_is_kept_and_named(tmp_path: Path) -> None:
    plan = tiny_plan()
    render_plan(plan, "modelzoo", tmp_path / "jobs")
    path = tmp_path / "jobs" / "tiny-20tpp" / "params-seed0.yaml"
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(OutputError, match=r"tiny-20tpp/params-seed0\.yaml was edited"):
        render_plan(plan, "modelzoo", tmp_path / "jobs")
    assert path.read_text().endswith("# mine\n")
    render_plan(plan, "modelzoo", tmp_path / "jobs", force=True)
    assert not path.read_text().endswith("# mine\n")


def test_runs_that_left_the_plan_leave_the_bundle(tmp_path: Path) -> None:
    plan = small_family()
    render_plan(plan, "modelzoo", tmp_path / "jobs")
    one = sealed(replace(plan, runs=plan.runs[:1]))
    bundle = render_plan(one, "modelzoo", tmp_path / "jobs")
    assert bundle.written.removed == ("small-20tpp/launch.sh", "small-20tpp/params-seed0.yaml")
    assert not (tmp_path / "jobs" / "small-20tpp").exists()


def test_a_plan_that_cannot_be_expressed_writes_nothing(tmp_path: Path) -> None:
    rule = parametrization()
    good, bad = make_run(rule, name="a"), make_run(rule, name="b", precision="fp32")
    with pytest.raises(CannotExpressError, match=r"b\.precision"):
        render_plan(make_plan(good, bad, rule=rule), "modelzoo", tmp_path / "jobs")
    assert not (tmp_path / "jobs").exists()
    with pytest.raises(CannotExpressError, match="no runs"):
        render(make_plan(rule=rule), "modelzoo")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("modelzo", "did you mean 'modelzoo'"),
        ("modelzoo+cs4", "did you mean 'cs3'"),
        ("", "wanted one of"),
        ("modelzoo+", None),
    ],
)
def test_targets_by_name(target: str, message: str | None) -> None:
    if message is None:
        assert render(tiny_plan(), target).target == "modelzoo+cs3"
        return
    with pytest.raises(TargetError, match=message) as caught:
        render(tiny_plan(), target)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"num_csxx": 1}, "num_csxx", "did you mean 'num_csx'"),
        ({"num_csx": "three"}, "num_csx", "'three'"),
        ({"num_csx": 0}, "num_csx", "greater than or equal to 1"),
        ({"num_csx": 3}, "num_csx", "do not divide"),
        ({"num_csx": 2, "micro_batch": 3}, "micro_batch", "does not divide"),
        ({"micro_batch": 0}, "micro_batch", "positive"),
        ({"data_dir": "env:2X"}, "data_dir", "env:NAME"),
        ({"data_dir": "a\0b"}, "data_dir", "NUL"),
        ({"data_dir": ""}, "data_dir", "at least 1"),
        ({"job_priority": "p9"}, "job_priority", "'p1', 'p2' or 'p3'"),
        ({"runs_dir": "a\0b"}, "runs_dir", "NUL"),
    ],
)
def test_options_are_checked(options: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(PlannerError, match=message) as caught:
        render(tiny_plan(), "modelzoo", options)
    assert isinstance(caught.value, (OptionError, CannotExpressError))
    assert caught.value.field is not None
    assert field in caught.value.field
    assert "\n" not in str(caught.value)


def test_options_may_be_text() -> None:
    """As a command line has them."""
    text = render_files(
        tiny_plan(), "modelzoo", {"num_csx": "2", "micro_batch": "4", "wandb": "true"}
    )["tiny-20tpp/params-seed0.yaml"]
    assert "num_csx: 2\n" in text
    assert "micro_batch_size: 4\n" in text
    assert "WandbLogger" in text


@pytest.mark.parametrize(("precision", "wanted"), [("bf16", '"bfloat16"'), ("fp16", '"float16"')])
def test_precision(precision: str, wanted: str) -> None:
    text = render_files(tiny_plan(precision=precision), "modelzoo")["tiny-20tpp/params-seed0.yaml"]
    assert f"fp16_type: {wanted}\n" in text
    scaling = "1.0" if precision == "bf16" else "dynamic"
    assert f"loss_scaling_factor: {scaling}\n" in text


def test_names_of_any_kind_come_back_from_the_yaml() -> None:
    from planner.render.modelzoo.check import _parse

    for name in ("$(reboot)", 'a: "b" # c', "line\nbreak", "😀", "{{ 7*7 }}", "- x", "' '' \\"):
        plan = rename(tiny_plan(), family=name, runs=[name])
        options = {"data_dir": name, "wandb": True, "wandb_entity": name}
        files = render_files(plan, "modelzoo", options)
        (path,) = [path for path in files if path.endswith("params-seed0.yaml")]
        params = _parse(files[path])["trainer"]
        assert params["fit"]["train_dataloader"]["data_dir"] == name
        wandb = params["init"]["loggers"][0]["WandbLogger"]
        assert (wandb["project"], wandb["job_type"], wandb["entity"]) == (name, name, name)
        assert wandb["run_name"] == f"{name}-seed0"


def test_targets_describe_themselves() -> None:
    assert "modelzoo+cs3" in target_names()
    about = describe("modelzoo")
    assert json.loads(json.dumps(about)) == about
    hows = {item["how"] for item in about["capabilities"]}
    assert hows == {"native", "absorbed", "refused", "by itself"}
    assert {"num_csx", "data_dir", "runs_dir"} <= {item["name"] for item in about["options"]}
    assert all(item["help"] for item in about["options"])


def test_a_thousand_runs_take_seconds(tmp_path: Path) -> None:
    """2 s is the promise on an idle machine; the test leaves room for a busy one."""
    rule = parametrization()
    plan = make_plan(*(make_run(rule, name=f"run{i:04}") for i in range(1000)), rule=rule)
    start = time.process_time()
    render_plan(plan, "modelzoo", tmp_path / "jobs")
    elapsed = time.process_time() - start
    print(f"1000 runs rendered and written in {elapsed:.2f} s")
    assert elapsed < 10


@pytest.mark.parametrize("name", ["README.md", "plan.json", "Manifest.json", "launch.sh"])
def test_a_run_may_be_named_as_a_file_of_the_bundle(tmp_path: Path, name: str) -> None:
    bundle = render_plan(rename(tiny_plan(), runs=[name]), "modelzoo", tmp_path / "jobs")
    folders = {path.split("/")[0] for path in bundle.rendered.files if "/" in path}
    assert len(folders) == 1
    assert name not in folders
