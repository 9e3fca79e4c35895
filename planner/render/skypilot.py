"""The launcher ``skypilot``: a task for each run and seed, managed or on a cluster of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from planner.render.check import Check, check_scripts
from planner.render.kubernetes import check_variables
from planner.render.names import object_name, read_variables, split_words
from planner.render.target import VARIABLE, Context, Output
from planner.render.torchrun import TorchrunOptions, readme, start_scripts, starts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SkyPilotOptions(TorchrunOptions):
    """Options of the launcher ``skypilot``."""

    gpu_type: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="SkyPilot's name of the GPU, such as H100; default the plan's accelerator",
    )
    runs_dir: str = Field(
        "/runs", pattern="^/", description="where all runs write; the bucket is mounted there"
    )
    bucket: str | None = Field(
        None,
        pattern=r"^([a-z0-9]+://)?[a-zA-Z0-9][a-zA-Z0-9._/-]*$",
        description="bucket for the runs: a name, or s3://..., gs://...; kept when machines go",
    )
    mode: Literal["MOUNT", "MOUNT_CACHED"] = Field(
        "MOUNT_CACHED", description="how the bucket is mounted"
    )
    data: str | None = Field(
        None,
        pattern=r"^[a-z0-9]+://[a-zA-Z0-9][a-zA-Z0-9._/-]*$",
        description="bucket of the training data, such as s3://...",
    )
    data_mount: str = Field("/data", pattern="^/[^\\x00]*$", description="where that is mounted")
    infra: str | None = Field(
        None, pattern=r"^[A-Za-z0-9*._/-]+$", description="where, such as aws/us-east-1 or k8s"
    )
    use_spot: bool = Field(False, description="spot machines; managed jobs start again elsewhere")
    max_restarts: int = Field(3, ge=0, description="restarts of a managed job after a failure")
    disk_size: int | None = Field(None, ge=1, description="GB of a machine's disk")
    image: str | None = Field(None, min_length=1, description="image of the machines")
    setup: str = Field(
        'pip install "collapse-planner[train]"',
        description="bash that prepares a machine once",
    )
    env: str = Field("", description="variables of the job, as NAME=VALUE words")
    secrets: str = Field(
        "", description="names of secret variables, whose values sky takes from its --secret"
    )
    managed: bool = Field(
        True, description="launch.sh starts managed jobs; false starts clusters of their own"
    )

    @field_validator("env")
    @classmethod
    def _variables(cls, value: str) -> str:
        read_variables(value)
        return value

    @field_validator("secrets")
    @classmethod
    def _names(cls, value: str) -> str:
        for name in split_words(value):
            if not VARIABLE.match(name):
                raise ValueError(f"{name!r} cannot be the name of an environment variable")
        return value

    @field_validator("setup", "image")
    @classmethod
    def _no_nul_here(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("cannot hold a NUL character")
        return value


class SkyPilot:
    """Renders ``RUN/seedK.yaml`` and ``launch.sh``."""

    name = "skypilot"
    summary = "SkyPilot tasks on any cloud: managed jobs that go on after a spot machine is lost"
    options = SkyPilotOptions

    def render(self, context: Context, output: Output, options: SkyPilotOptions) -> dict[str, str]:
        """Return the tasks, the script that launches them, and the README's part.

        Raises:
            CannotExpressError: If a job does not fit under torchrun, or a variable that the trainer
                reads is not given.
            OptionError: If the accelerator is unknown.
            TemplateError: If a template fails.
        """
        found = starts(context, output, options)
        files = start_scripts(context, found, options)
        variables = {**read_variables(options.env), "PLANNER_RUNS_DIR": options.runs_dir}
        names = {}
        for start in found:
            check_variables(start, variables)
            gpu = options.gpu_type or options.accelerator or (start.cost and start.cost.accelerator)
            for job in start.jobs:
                path = f"{job.folder}/seed{job.seed}.yaml"
                names[path] = object_name(
                    f"{job.folder}-seed{job.seed}",
                    context.plan.family,
                    start.run.digest,
                    limit=63,
                )
                values = {
                    **context.common(),
                    "options": options,
                    "start": start,
                    "seed": job.seed,
                    "name": names[path],
                    "gpu": gpu or "H100",
                    "variables": variables,
                    "secrets": split_words(options.secrets),
                }
                files[path] = context.engine.render("skypilot/task.yaml.j2", values)
        more = {
            "names": names,
            "folders": [start.folder for start in found],
            "secrets": split_words(options.secrets),
        }
        shared = {**context.common(), "options": options, **more}
        files["launch.sh"] = context.engine.render("skypilot/launch.sh.j2", shared)
        files["README.md"] = readme(context, "skypilot", found, options, more)
        return files

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash, shellcheck and SkyPilot's own reader of tasks say."""
        return (*check_scripts(files), check_tasks(files))


# In a process of its own: SkyPilot takes seconds to import and writes into the home folder.
_READ_TASKS = """
import json, pathlib, sys
import sky, yaml
problems = []
for path, text in json.load(sys.stdin).items():
    try:
        config = yaml.safe_load(text)
        secrets = config.get("secrets") if isinstance(config, dict) else None
        if secrets:
            given = [(name, "given at launch") for name in secrets]
            sky.Task.from_yaml_config(config, secrets_overrides=given)
        else:
            pathlib.Path("task.yaml").write_text(text, encoding="utf-8")
            sky.Task.from_yaml("task.yaml")
    except Exception as error:
        problems.append(path + ": " + " ".join(str(error).split())[:300])
print("\\nproblems " + json.dumps(problems))
"""


def check_tasks(files: Mapping[str, str]) -> Check:
    """Return what ``sky.Task`` says about the tasks of a bundle, offline."""
    name = "SkyPilot's Task"
    if importlib.util.find_spec("sky") is None:
        return Check(name, skipped="the Python package skypilot is not installed")
    tasks = {path: text for path, text in files.items() if path.endswith(".yaml")}
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", _READ_TASKS],
            input=json.dumps(tasks),
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
            env={"HOME": home, "PATH": "/usr/bin:/bin", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
            timeout=600,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("problems ")]
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["no answer"]
        return Check(name, (f"SkyPilot cannot be run: {said[-1]}",))
    return Check(name, tuple(json.loads(lines[-1].removeprefix("problems "))))
