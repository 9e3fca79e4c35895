"""The launcher kubernetes: manifests read back, quoting, options, and its script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from planner.plan import Plan, load_run_file
from planner.render import render, render_plan
from planner.render.errors import CannotExpressError, OptionError
from planner.render.escape import to_yaml_block
from planner.render.manifests import check_manifests, unknown_keys
from planner.render.names import object_name, read_variables

from .plans import make_plan, make_run, parametrization, rename, tiny_plan

NEEDED = {"image": "registry/trainer:1", "env": "TRAIN_DATA_DIR=/data"}
EVERYTHING = {
    **NEEDED,
    "kind": "jobset",
    "queue": "team",
    "priority": "low.prio",
    "namespace": "train",
    "data_claim": "corpus",
    "secrets": "WANDB_API_KEY=wandb/api-key HF_TOKEN=hf.co/token",
    "cpu": "32",
    "memory": "512Gi",
    "shm": "64Gi",
    "service_account": "trainer",
    "nodes": 2,
    "gpus": 4,
}


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(StringIO(text))


def objects(plan: Plan, **options: Any) -> dict[str, Any]:
    """Return the manifests of a rendered bundle, read back, by path."""
    files = render(plan, "torch+kubernetes", {**NEEDED, **options}).files
    return {path: load(text) for path, text in files.items() if path.endswith(".yaml")}


def container(job: Any) -> Any:
    """Return the container of a JobSet."""
    (replicated,) = job["spec"]["replicatedJobs"]
    (only,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    return only


def test_a_trainjob() -> None:
    found = objects(tiny_plan(seeds=(0, 3)), nodes=2, gpus=4)
    assert list(found) == [
        "tiny-20tpp/files.yaml",
        "tiny-20tpp/seed0.yaml",
        "tiny-20tpp/seed3.yaml",
    ]
    job = found["tiny-20tpp/seed3.yaml"]
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert job["spec"]["runtimeRef"]["name"] == "torch-distributed"
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["command"] + trainer["args"] == [
        "bash",
        "/planner/bundle/tiny-20tpp/start.sh",
        "3",
    ]
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": 4}
    assert {"name": "PLANNER_RUNS_DIR", "value": "/runs"} in trainer["env"]
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["bundle", "runs"]
    assert "suspend" not in job["spec"]


def test_a_jobset_with_everything() -> None:
    found = objects(tiny_plan(), **EVERYTHING)
    job = found["tiny-20tpp/seed0.yaml"]
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert job["metadata"]["namespace"] == "train"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low.prio"
    assert job["spec"]["suspend"] is True
    (replicated,) = job["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    assert (spec["parallelism"], spec["completions"]) == (2, 2)
    assert spec["completionMode"] == "Indexed"
    only = container(job)
    env = {item["name"]: item for item in only["env"]}
    name = job["metadata"]["name"]
    assert env["PET_NNODES"]["value"] == "2"
    assert env["PET_NPROC_PER_NODE"]["value"] == "4"
    assert env["PET_MASTER_ADDR"]["value"] == f"{name}-node-0-0.{name}"
    assert env["WANDB_API_KEY"]["valueFrom"] == {
        "secretKeyRef": {"name": "wandb", "key": "api-key"}
    }
    assert env["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "hf.co"
    assert only["resources"]["requests"] == {
        "cpu": "32",
        "memory": "512Gi",
        "nvidia.com/gpu": 4,
    }
    mounts = {mount["mountPath"] for mount in only["volumeMounts"]}
    assert mounts == {"/planner/bundle", "/runs", "/data", "/dev/shm"}


def test_the_config_map_holds_what_a_node_reads() -> None:
    files = render(tiny_plan(seeds=(0, 3)), "torch+kubernetes", NEEDED).files
    config_map = load(files["tiny-20tpp/files.yaml"])
    job = load(files["tiny-20tpp/seed0.yaml"])
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    bundle = node["template"]["spec"]["template"]["spec"]["volumes"][0]["configMap"]
    assert bundle["name"] == config_map["metadata"]["name"]
    mounted = {item["path"]: config_map["data"][item["key"]] for item in bundle["items"]}
    assert mounted == {
        path: files[path]
        for path in (
            "tiny-20tpp/run-seed0.json",
            "tiny-20tpp/run-seed3.json",
            "tiny-20tpp/start.sh",
        )
    }


def test_no_name_repeats_and_all_are_labels() -> None:
    rule = parametrization()
    runs = [make_run(rule, name=name) for name in ("300M", "300m!", "é" * 80, "a.b-" * 20)]
    one, other = (
        objects(make_plan(*runs, rule=rule, family=family), kind=kind)
        for family, kind in (("f", "trainjob"), ("g", "jobset"))
    )
    names = [each["metadata"]["name"] for found in (one, other) for each in found.values()]
    assert len(set(names)) == len(names) == 16
    for name in names:
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name)
    jobs = [each for each in [*one.values(), *other.values()] if each["kind"] != "ConfigMap"]
    assert max(len(job["metadata"]["name"]) for job in jobs) <= 40


def test_object_names() -> None:
    assert object_name("300M-20tpp-seed0", "f", limit=40).startswith("r300m-20tpp-seed0-")
    assert len(object_name("a" * 90, "f", limit=40)) == 40
    assert object_name("a", "f", limit=40) != object_name("a", "g", limit=40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": ""}, "image: got ''"),
        ({"queue": "My Queue"}, "queue: got 'My Queue': wanted at most 63 small letters"),
        ({"namespace": "a.b"}, "namespace: got "),
        ({"runs_claim": ""}, "runs_claim: got ''"),
        ({"runtime": "Torch!"}, "runtime: got 'Torch!': wanted small letters, digits"),
        ({"memory": "much"}, "memory: got 'much'"),
        ({"cpu": "32 cores"}, "cpu: got '32 cores'"),
        ({"env": "A"}, "env: got 'A': 'A' is not NAME=VALUE"),
        ({"env": "A='b"}, 'env: got "A=\'b": a quote is not closed'),
        ({"env": "HF_TOKEN=abc"}, "HF_TOKEN is a secret by its name; wanted it in secrets"),
        ({"secrets": "A=b"}, "secrets: got 'A=b': 'A=b' is not NAME=SECRET/KEY"),
        ({"secrets": "A=sk-12345"}, "secrets: got "),
        ({"kind": "pytorchjob"}, "kind: got 'pytorchjob'"),
        ({"runs_dir": "runs"}, "runs_dir: got 'runs'"),
        ({"max_restarts": -1}, "max_restarts: got -1"),
    ],
)
def test_wrong_options_are_one_sentence(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        render_plan(
            tiny_plan(), "torch+kubernetes", tmp_path / "jobs", options={**NEEDED, **options}
        )
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "jobs").exists()


def test_what_is_missing_is_asked_for() -> None:
    with pytest.raises(OptionError, match=r"wanted --set image=\.\.\.: container image"):
        render(tiny_plan(), "torch+kubernetes", {})
    with pytest.raises(CannotExpressError, match="reads TRAIN_DATA_DIR; wanted its value"):
        render(tiny_plan(), "torch+kubernetes", {"image": "a"})
    assert render(tiny_plan(), "torch+kubernetes", {"image": "a", "data_dir": "/d"}).jobs


def test_files_too_large_for_a_config_map() -> None:
    plan = tiny_plan(seeds=tuple(range(200)))
    with pytest.raises(CannotExpressError, match="more than a ConfigMap holds"):
        render(plan, "torch+kubernetes", NEEDED)


@pytest.mark.parametrize(
    "text", ["", "a", "a\n", "a\n\n", " a\n", "\na", "a\tb\n", "a\r\nb", "# a\n", "a \n  b\n"]
)
def test_texts_come_back_from_a_block(text: str) -> None:
    assert load(f"a:\n  b: {to_yaml_block(text, 4)}\n  c: 1\n") == {"a": {"b": text, "c": 1}}


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(text=any_text, after=any_text)
def test_any_text_comes_back_from_a_block(text: str, after: str) -> None:
    source = f"a:\n  b: {to_yaml_block(text, 4)}\n  c: {to_yaml_block(after, 4)}\n"
    assert load(source) == {"a": {"b": text, "c": after}}
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(source) == {"a": {"b": text, "c": after}}


def test_a_script_is_a_block() -> None:
    assert to_yaml_block("a\n\nb\n", 2) == "|\n  a\n\n  b"


names = st.lists(
    st.one_of(
        st.sampled_from("'\"\\$`{}&/ ;#:-!%*?[]~<>|()=\n\t"),
        st.sampled_from(["$(id)", "$(PATH)", "- x", "yes", "{{ 7*7 }}"]),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    min_size=1,
    max_size=20,
).map("".join)


def expanded(text: str) -> str:
    """Return what a container sees: ``$$(X)`` is ``$(X)``; names that are not set stay."""
    return text.replace("$$(", "$(")


@settings(max_examples=60, deadline=None)
@given(names, names, names, names, st.sampled_from(["trainjob", "jobset"]))
def test_any_name_comes_back(family: str, run: str, image: str, data: str, kind: str) -> None:
    plan = rename(tiny_plan(), family=family, runs=[run])
    quoted = "'" + data.replace("'", "'\\''") + "'"
    options = {"image": image, "kind": kind, "env": f"TRAIN_DATA_DIR={quoted}", "data_dir": data}
    if data.startswith("env:"):
        options["data_dir"] = f"/{data}"
    files = render(plan, "torch+kubernetes", options).files
    assert read_variables(options["env"]) == {"TRAIN_DATA_DIR": data}
    (path,) = [path for path in files if path.endswith("seed0.yaml")]
    job = load(files[path])
    only = job["spec"]["trainer"] if kind == "trainjob" else container(job)
    assert only["image"] == image
    assert job["metadata"]["annotations"]["collapse-planner/family"] == family
    assert job["metadata"]["annotations"]["collapse-planner/run"] == run
    (value,) = [item["value"] for item in only["env"] if item["name"] == "TRAIN_DATA_DIR"]
    assert expanded(value) == data
    config_map = load(files[path.replace("seed0", "files")])
    (config,) = [text for key, text in config_map["data"].items() if key.endswith(".json")]
    file = load_run_file(config)
    assert file is not None
    assert (file.family, file.run.name) == (family, run)
    assert file.settings["data"] == options["data_dir"]


# The launch script, with a stand-in for kubectl.
FAKE = f"""#!{sys.executable}
import json, os, pathlib, sys
with open(os.environ["FAKE_LOG"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
if sys.argv[1] == "get":
    sys.exit(0 if "seed3" in sys.argv[-1] and os.environ.get("FAKE_THERE") else 1)
"""


def test_jobs_are_made_small_ones_first_and_once(tmp_path: Path) -> None:
    rule = parametrization()
    big = make_run(rule, name="big", d_model=256, seeds=(0, 3))
    plan = make_plan(big, make_run(rule, name="small"), rule=rule)
    render_plan(plan, "torch+kubernetes", tmp_path / "jobs", options=NEEDED)
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)

    def launch(*words: str, **env: str) -> tuple[int, list[list[str]], str]:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [str(tmp_path / "jobs" / "launch.sh"), *words],
            env={
                "PATH": f"{program.parent}:{os.environ['PATH']}",
                "FAKE_LOG": str(log),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        shown = [[*call[:-1], "/".join(call[-1].split("/")[-2:])] for call in calls]
        return done.returncode, shown, done.stdout + done.stderr

    code, calls, _ = launch()
    assert code == 0
    assert calls == [
        ["apply", "-f", "small/files.yaml"],
        ["get", "-f", "small/seed0.yaml"],
        ["create", "-f", "small/seed0.yaml"],
        ["apply", "-f", "big/files.yaml"],
        ["get", "-f", "big/seed0.yaml"],
        ["create", "-f", "big/seed0.yaml"],
        ["get", "-f", "big/seed3.yaml"],
        ["create", "-f", "big/seed3.yaml"],
    ]
    _, calls, said = launch("big", FAKE_THERE="1")
    assert ["create", "-f", "big/seed3.yaml"] not in calls
    assert "big seed 3: there already\n" in said
    code, calls, _ = launch("--dry-run", "small")
    assert [call[:2] for call in calls] == [["apply", "--dry-run=server"]] * 2
    code, calls, said = launch("--print")
    assert (code, calls, said.count("kubectl ")) == (0, [], 5)
    code, calls, said = launch("none")
    assert (code, calls) == (2, [])
    assert "there is no run none" in said


# What the checks find; they run where the packages are (make test-launchers).
@pytest.mark.launchers
@pytest.mark.parametrize("kind", ["trainjob", "jobset"])
@pytest.mark.parametrize("options", [NEEDED, EVERYTHING], ids=["needed", "everything"])
def test_the_packages_accept_every_manifest(kind: str, options: dict[str, Any]) -> None:
    plan = rename(tiny_plan(seeds=(0, 1)), family="a: b", runs=["$(x) 'y'\n"])
    files = render(plan, "torch+kubernetes", {**options, "kind": kind}).files
    checks = check_manifests(files)
    assert [(check.skipped, check.problems) for check in checks] == [(None, ())] * 3


@pytest.mark.launchers
@pytest.mark.parametrize(
    ("kind", "old", "new", "check", "problem"),
    [
        ("trainjob", "numNodes: 1", "numNodez: 1", 2, "spec.trainer.numNodez is no field"),
        ("trainjob", "numNodes: 1", "numNodes: one", 2, "valid integer"),
        ("trainjob", "numProcPerNode: 1", "numProcPerNode: auto", 2, "valid integer"),
        ("trainjob", "runtimeRef:", "runtimeReff:", 2, "spec.runtimeReff is no field of TrainJob"),
        (
            "trainjob",
            "mountPath: /pl",
            "mountpath: /pl",
            2,
            "0.volumeMounts.0.mountpath is",
        ),
        ("jobset", "maxRestarts:", "maxRestart:", 2, "spec.failurePolicy.maxRestart is no field"),
        ("jobset", "replicas: 1", "replicas: one", 2, "valid integer"),
        ("jobset", "backoffLimit: 0", "backOffLimit: 0", 2, "spec.backOffLimit is no field"),
        ("jobset", "backoffLimit: 0", "backOffLimit: 0", 1, "backOffLimit"),
        ("jobset", "containerPort: 29500", "containerPort: many", 1, "many"),
        ("jobset", "kind: ConfigMap", "kind: ConfigMapp", 1, "is of no kind"),
        ("jobset", "data:", "date:", 1, "date"),
        ("jobset", "spec:\n", "spec: [\n", 0, "is not YAML"),
    ],
)
def test_the_packages_refuse_what_is_wrong(
    kind: str, old: str, new: str, check: int, problem: str
) -> None:
    files = render(tiny_plan(), "torch+kubernetes", {**NEEDED, "kind": kind}).files
    broken = {path: text.replace(old, new) for path, text in files.items()}
    assert broken != files
    found = check_manifests(broken)[check]
    assert found.skipped is None
    assert any(problem in text for text in found.problems), found.problems


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    yaml, core, custom = check_manifests(render(tiny_plan(), "torch+kubernetes", NEEDED).files)
    assert (yaml.skipped, yaml.problems) == (None, ())
    assert core.skipped == "the Python package kubernetes-validate is not installed"
    assert custom.skipped == "the Python package kubeflow-trainer-api is not installed"


def test_unknown_keys_are_found_at_any_depth() -> None:
    from pydantic import BaseModel, Field

    class Inner(BaseModel):
        a_b: int | None = Field(None, alias="aB")

    class Outer(BaseModel):
        items: list[Inner] | None = None
        named: dict[str, Inner] | None = None
        labels: dict[str, str] | None = None

    document = {
        "items": [{"aB": 1}, {"ab": 2}],
        "named": {"x": {"aB": 1}, "y": {"z": 1}},
        "labels": {"any": "thing"},
        "more": 1,
    }
    assert list(unknown_keys(Outer, document)) == ["items.1.ab", "named.y.z", "more"]
