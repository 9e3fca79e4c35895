"""The target torch+local: run files that the trainer reads, and scripts that start it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from planner.plan import Plan, load_run_file, sealed
from planner.render import check_bundle, render, render_plan
from planner.render.errors import CannotExpressError, OptionError
from planner.train.config import Settings, read_job

from .plans import make_plan, make_run, parametrization, rename, tiny_plan

NASTY = "a b'c\"$(touch x)`id`;é"


def two_runs() -> Plan:
    rule = parametrization()
    return make_plan(
        make_run(rule, name="big", d_model=256, seeds=(0, 5)),
        make_run(rule, name="small", steps=7),
        rule=rule,
    )


def bash(script: Path, cwd: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script), *words],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fake_planner(folder: Path, body: str) -> str:
    """A command `planner` that notes its arguments; return the PATH that finds it."""
    folder.mkdir()
    path = folder / "planner"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_run_files_hold_the_run_and_settings_the_trainer_knows(tmp_path: Path) -> None:
    plan = two_runs()
    options = {"precision": "fp32", "micro_batch": "4", "compile": "true", "eval_steps": "10"}
    bundle = render_plan(plan, "torch+local", tmp_path / "jobs", options=options)
    files = bundle.rendered.files
    assert [path for path in files if "run-seed" in path] == [
        "big/run-seed0.json",
        "big/run-seed5.json",
        "small/run-seed0.json",
    ]
    job = read_job(str(tmp_path / "jobs" / "big" / "run-seed5.json"), None, {"micro_batch": 2})
    assert (job.run, job.family, job.plan_digest) == (plan.run("big"), "tiny", plan.digest)
    assert job.seed == 5
    wanted = {"data": "env:TRAIN_DATA_DIR", "seed": 5, "precision": "fp32", "compile": True}
    assert job.settings == Settings(**wanted, micro_batch=2, eval_steps=10)


def test_again_the_same_and_checked(tmp_path: Path) -> None:
    render_plan(two_runs(), "torch+local", tmp_path)
    assert render_plan(two_runs(), "torch+local", tmp_path).written.changed == ()
    assert [check.problems for check in check_bundle(tmp_path)] == [()] * 5
    path = tmp_path / "small" / "run-seed0.json"
    path.write_text(path.read_text().replace('"steps": 7', '"steps": 8'))
    problems = {check.name: check.problems for check in check_bundle(tmp_path)}
    assert problems["run files against the plan"] == (
        "small/run-seed0.json: run.digest: was changed after it was planned: its digest does not "
        "match; render it again",
    )


def test_settings_of_a_run_file_may_be_edited(tmp_path: Path) -> None:
    render_plan(tiny_plan(), "torch+local", tmp_path)
    (path,) = tmp_path.rglob("run-seed0.json")
    document = json.loads(path.read_text())
    document["settings"]["log_steps"] = 10
    path.write_text(json.dumps(document))
    assert read_job(str(path), None, {}).settings.log_steps == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"lr": 1.0}}, "settings.lr: no such setting; "),
        ({"settings": []}, "settings: got [], wanted a mapping"),
        ({"settings": {"keep": 0}}, "settings.keep: got 0, wanted greater than or equal to 1"),
        ({"extra": 1}, "extra: is unknown: was it written by another version?"),
        ({"family": 3}, "family: got 3, wanted text"),
        ({"run": {}}, "run.name: is missing"),
    ],
)
def test_wrong_run_file(tmp_path: Path, change: dict[str, object], message: str) -> None:
    text = render(tiny_plan(), "torch").files["tiny-20tpp/run-seed0.json"]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(text) | change))
    with pytest.raises(Exception, match=r"run\.json: ") as caught:
        read_job(str(path), None, {})
    assert message in str(caught.value)


def test_all_runs_start_small_ones_first_and_what_is_done_is_skipped(tmp_path: Path) -> None:
    render_plan(two_runs(), "torch+local", tmp_path / "jobs", options={"runs_dir": "out of here"})
    done = 'echo "$1|$(basename "$2")|$4|$5"; mkdir -p "$4/checkpoints"; '
    done += '[ "$(basename "$(dirname "$4")")" = big ] || touch "$4/checkpoints/step-00000007.pt"'
    path = fake_planner(tmp_path / "bin", done)
    script = tmp_path / "jobs" / "launch.sh"
    first = bash(script, tmp_path, "--keep=3", PATH=path)
    assert (first.returncode, first.stderr) == (0, "")
    lines = [line for line in first.stdout.splitlines() if "|" in line]
    assert [(line.split("|")[1], line.split("/")[-2]) for line in lines] == [
        ("run-seed0.json", "small"),
        ("run-seed0.json", "big"),
        ("run-seed5.json", "big"),
    ]
    assert all(line.split("|")[0] == "train" for line in lines)
    assert all(line.split("|")[2].startswith("out of here/tiny/") for line in lines)
    assert all(line.split("|")[3] == "--keep=3" for line in lines)
    again = bash(script, tmp_path, PATH=path)
    assert "small seed 0: done, nothing to start\n" in again.stdout
    assert again.stdout.count("|") == 6


def test_a_failure_stops_and_its_exit_code_comes_through(tmp_path: Path) -> None:
    render_plan(two_runs(), "torch+local", tmp_path / "jobs")
    path = fake_planner(tmp_path / "bin", "exit 130")
    stopped = bash(tmp_path / "jobs" / "launch.sh", tmp_path, PATH=path)
    assert stopped.returncode == 130
    assert stopped.stderr.endswith("stopped at small; start again to go on from there\n")


def test_names_are_literal(tmp_path: Path) -> None:
    plan = rename(tiny_plan(), family=NASTY, runs=[NASTY])
    options = {"data_dir": NASTY, "runs_dir": NASTY, "processes": "2"}
    bundle = render_plan(plan, "torch+local", tmp_path / "jobs", options=options)
    (path,) = (p for p in bundle.rendered.files if p.endswith("run-seed0.json"))
    file = load_run_file(bundle.rendered.files[path])
    assert file is not None
    assert (file.family, file.run.name, file.settings["data"]) == (NASTY, NASTY, NASTY)
    shown = bash(tmp_path / "jobs" / "launch.sh", tmp_path, PLANNER_DRY_RUN="1")
    assert (shown.returncode, shown.stderr) == (0, "")
    again = bash_words(shown.stdout)
    assert again[:5] == ["torchrun", "--standalone", "--nproc-per-node=2", "-m", "planner.cli.main"]
    assert again[6] == str(tmp_path / "jobs" / path)
    assert again[8].startswith(f"{NASTY}/")
    assert {p.name for p in tmp_path.iterdir()} == {"jobs"}


def bash_words(line: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line.strip()}"], capture_output=True, check=True
    )
    return done.stdout.decode().split("\0")[:-1]


def test_what_cannot_be_trained_is_refused() -> None:
    plan = tiny_plan(precision="fp16")
    with pytest.raises(CannotExpressError, match="got fp16, which needs loss scaling"):
        render(plan, "torch")
    assert render(plan, "torch", {"precision": "bf16"}).jobs
    with pytest.raises(CannotExpressError, match="a micro batch of 3 does not divide"):
        render(tiny_plan(), "torch", {"micro_batch": 3})
    with pytest.raises(OptionError, match="got 'fp8'"):
        render(tiny_plan(), "torch", {"precision": "fp8"})
    with pytest.raises(OptionError):
        render(tiny_plan(), "torch", {"data_dir": "a\0b"})


def test_experts_and_gates_are_no_obstacle() -> None:
    plan = tiny_plan(gated=True, activation="relu2", eps=1e-8, eps_mode="exact", clip=1.0)
    assert render(plan, "torch").warnings == ()
    odd = sealed(replace(plan, runs=(replace(plan.runs[0], precision="fp32"),)))
    assert render(odd, "torch").jobs
