"""The launcher skypilot: tasks read back, quoting, options, and its script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from planner.render import render, render_plan
from planner.render.errors import CannotExpressError, OptionError
from planner.render.skypilot import check_tasks

from .plans import make_plan, make_run, parametrization, rename, tiny_plan

NEEDED = {"env": "TRAIN_DATA_DIR=/data"}
EVERYTHING = {
    **NEEDED,
    "bucket": "s3://my-runs",
    "mode": "MOUNT",
    "data": "gs://corpus",
    "infra": "aws/us-east-1",
    "use_spot": True,
    "max_restarts": 5,
    "disk_size": 512,
    "image": "docker:registry/trainer:1",
    "setup": "pip install a\npip install 'b c'",
    "nodes": 2,
    "gpus": 4,
    "gpu_type": "H200",
}


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(StringIO(text))


def task(options: dict[str, Any], **changes: Any) -> Any:
    files = render(tiny_plan(**changes), "torch+skypilot", options).files
    return load(files["tiny-20tpp/seed0.yaml"])


def test_a_task() -> None:
    found = task(NEEDED)
    assert found["workdir"] == "."
    assert found["num_nodes"] == 1
    assert found["resources"]["accelerators"] == "H100:1"
    assert found["envs"] == {"TRAIN_DATA_DIR": "/data", "PLANNER_RUNS_DIR": "/runs"}
    assert "file_mounts" not in found
    assert found["run"].endswith("bash tiny-20tpp/start.sh 0\n")


def test_a_task_with_everything() -> None:
    found = task({**EVERYTHING, "secrets": "WANDB_API_KEY HF_TOKEN"})
    assert found["resources"] == {
        "accelerators": "H200:4",
        "infra": "aws/us-east-1",
        "image_id": "docker:registry/trainer:1",
        "disk_size": 512,
        "use_spot": True,
        "job_recovery": {"max_restarts_on_errors": 5},
    }
    assert found["file_mounts"] == {
        "/runs": {"source": "s3://my-runs", "mode": "MOUNT"},
        "/data": {"source": "gs://corpus", "mode": "MOUNT"},
    }
    assert found["secrets"] == {"WANDB_API_KEY": None, "HF_TOKEN": None}
    assert found["setup"] == EVERYTHING["setup"]
    assert found["num_nodes"] == 2


def test_the_run_tells_torchrun_where_the_nodes_meet(tmp_path: Path) -> None:
    found = task({**EVERYTHING})
    (tmp_path / "tiny-20tpp").mkdir()
    show = 'printf "%s " "$1" "$PET_NNODES" "$PET_NODE_RANK" "$PET_NPROC_PER_NODE"\n'
    show += 'printf "%s" "$PET_MASTER_ADDR:$PET_MASTER_PORT"\n'
    (tmp_path / "tiny-20tpp" / "start.sh").write_text(show)
    env = {
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    }
    done = subprocess.run(
        ["bash", "-c", found["run"]],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0 2 1 4 10.0.0.1:29500"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket": "my bucket"}, "bucket: got 'my bucket'"),
        ({"data": "corpus"}, "data: got 'corpus'"),
        ({"infra": "$HOME"}, "infra: got '$HOME'"),
        ({"mode": "COPY"}, "mode: got 'COPY'"),
        ({"gpu_type": "H100:8"}, "gpu_type: got 'H100:8'"),
        ({"env": "HF_TOKEN=abc"}, "HF_TOKEN is a secret by its name; wanted it in secrets"),
        ({"secrets": "A=b"}, "secrets: got 'A=b': 'A=b' cannot be the name"),
        ({"env": "1=2"}, "env: got '1=2'"),
        ({"disk_size": 0}, "disk_size: got 0"),
        ({"runs_dir": "runs"}, "runs_dir: got 'runs'"),
    ],
)
def test_wrong_options_are_one_sentence(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        render_plan(tiny_plan(), "torch+skypilot", tmp_path / "jobs", options={**NEEDED, **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "jobs").exists()


def test_a_variable_without_a_value_is_asked_for() -> None:
    with pytest.raises(CannotExpressError, match="reads TRAIN_DATA_DIR"):
        render(tiny_plan(), "torch+skypilot", {})


names = st.lists(
    st.one_of(
        st.sampled_from("'\"\\$`{}&/ ;#:-!%*?[]~<>|()=\n\t"),
        st.sampled_from(["$(id)", "${HOME}", "- x", "yes", "{{ 7*7 }}"]),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    min_size=1,
    max_size=20,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(family=names, run=names, data=names, setup=names)
def test_any_name_comes_back(family: str, run: str, data: str, setup: str) -> None:
    plan = rename(tiny_plan(), family=family, runs=[run])
    quoted = "'" + data.replace("'", "'\\''") + "'"
    options = {"env": f"TRAIN_DATA_DIR={quoted}", "setup": setup, "image": data}
    files = render(plan, "torch+skypilot", options).files
    (path,) = [path for path in files if path.endswith("seed0.yaml")]
    found = load(files[path])
    assert found["envs"]["TRAIN_DATA_DIR"] == data
    assert found["resources"]["image_id"] == data
    assert found["setup"] == setup
    assert found["run"].splitlines()[-1] == f"bash {path.partition('/')[0]}/start.sh 0"


FAKE = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1:3] == ["jobs", "queue"]:
    print(os.environ.get("FAKE_QUEUE", ""))
else:
    with open(os.environ["FAKE_LOG"], "a") as file:
        print(json.dumps([os.getcwd(), *sys.argv[1:]]), file=file)
"""


def test_jobs_are_launched_small_ones_first_and_once(tmp_path: Path) -> None:
    rule = parametrization()
    big = make_run(rule, name="big", d_model=256, seeds=(0, 3))
    plan = make_plan(big, make_run(rule, name="small"), rule=rule)
    jobs = tmp_path / "some jobs"
    render_plan(plan, "torch+skypilot", jobs, options={**NEEDED, "secrets": "WANDB_API_KEY"})
    program = tmp_path / "bin" / "sky"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)

    def launch(*words: str, **env: str) -> tuple[int, list[list[str]], str]:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        path = f"{program.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [str(jobs / "launch.sh"), *words],
            env={"PATH": path, "FAKE_LOG": str(log), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return done.returncode, calls, done.stdout + done.stderr

    code, calls, said = launch()
    assert (code, said) == (0, "")
    assert [call[-1] for call in calls] == ["small/seed0.yaml", "big/seed0.yaml", "big/seed3.yaml"]
    assert {call[0] for call in calls} == {str(jobs)}
    name = calls[0][calls[0].index("--name") + 1]
    assert name.startswith("small-seed0-")
    assert calls[0][1:3] == ["jobs", "launch"]
    assert calls[0][-3:-1] == ["--secret", "WANDB_API_KEY"]
    _, calls, said = launch(FAKE_QUEUE=f"1  -  {name}  RUNNING")
    assert [call[-1] for call in calls] == ["big/seed0.yaml", "big/seed3.yaml"]
    assert said == "small/seed0.yaml: in the queue already\n"
    code, calls, said = launch("--print", "small")
    assert (code, calls, said.count("sky jobs launch")) == (0, [], 1)
    code, _, said = launch("none")
    assert code == 2
    assert "there is no run none" in said


def test_clusters_of_their_own() -> None:
    files = render(tiny_plan(), "torch+skypilot", {**NEEDED, "managed": False}).files
    assert "sky launch --yes --detach-run --down --cluster" in files["launch.sh"]


@pytest.mark.launchers
@pytest.mark.parametrize(
    "options",
    [
        NEEDED,
        EVERYTHING,
        {**NEEDED, "secrets": "A B", "bucket": "plain-name"},
        {**NEEDED, "gpus": 0},
    ],
    ids=["needed", "everything", "secrets", "cpu"],
)
def test_skypilot_reads_every_task(options: dict[str, Any]) -> None:
    plan = rename(tiny_plan(seeds=(0, 1)), family="a: b", runs=["$(x) 'y'\n"])
    check = check_tasks(render(plan, "torch+skypilot", options).files)
    assert (check.skipped, check.problems) == (None, ())


@pytest.mark.launchers
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("num_nodes: 1", "num_nodez: 1", "num_nodez"),
        ("num_nodes: 1", "num_nodes: one", "one"),
        ("use_spot: false", "use_spott: false", "use_spott"),
        ("job_recovery:", "job_recoverie:", "job_recoverie"),
        ("envs:", "envs: [", ""),
    ],
)
def test_skypilot_refuses_what_is_wrong(old: str, new: str, problem: str) -> None:
    files = render(tiny_plan(), "torch+skypilot", NEEDED).files
    path = "tiny-20tpp/seed0.yaml"
    assert old in files[path]
    check = check_tasks({path: files[path].replace(old, new, 1)})
    (said,) = check.problems
    assert said.startswith(f"{path}: ")
    assert problem in said


def test_skypilot_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert check_tasks({}).skipped == "the Python package skypilot is not installed"
