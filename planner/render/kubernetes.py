"""The launcher ``kubernetes``: Kubeflow TrainJobs or JobSets, with the bundle in ConfigMaps.

Each run has ``files.yaml``, a ConfigMap of what its nodes read, and one job for each seed. Kueue's
queue is a label. Whatever a cluster has of its own (image, claims, secrets) is an option by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from planner.render.check import Check, check_scripts
from planner.render.errors import CannotExpressError
from planner.render.names import (
    check_label,
    check_subdomain,
    object_name,
    read_variables,
    split_words,
)
from planner.render.paths import short, slug
from planner.render.target import VARIABLE, Context, Job, Output
from planner.render.torchrun import (
    Start,
    TorchrunOptions,
    files_by_run,
    readme,
    start_scripts,
    starts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The API server refuses ConfigMaps above one mebibyte; some of that is names and keys.
MAX_CONFIG_MAP = 1_000_000
# Pods of a JobSet are NAME-node-0-INDEX-SUFFIX and have to be labels of 63 characters.
MAX_NAME = 40


class KubernetesOptions(TorchrunOptions):
    """Options of the launcher ``kubernetes``."""

    image: str = Field(min_length=1, description="container image with the trainer and torchrun")
    kind: Literal["trainjob", "jobset"] = Field(
        "trainjob", description="Kubeflow Trainer's TrainJob v1alpha1, or a plain JobSet v1alpha2"
    )
    runs_dir: str = Field(
        "/runs", pattern="^/", description="where the volume that all runs write to is mounted"
    )
    runs_claim: str = Field("runs", description="PersistentVolumeClaim of that volume")
    data_claim: str | None = Field(None, description="PersistentVolumeClaim of the training data")
    data_mount: str = Field("/data", pattern="^/", description="where that is mounted, read only")
    namespace: str | None = Field(None, description="namespace; default kubectl's")
    queue: str | None = Field(None, description="Kueue's LocalQueue; jobs are made suspended")
    priority: str | None = Field(None, description="Kueue's WorkloadPriorityClass")
    runtime: str = Field("torch-distributed", description="ClusterTrainingRuntime of TrainJobs")
    service_account: str | None = Field(None, description="service account of the pods")
    gpu_resource: str = Field("nvidia.com/gpu", description="resource that GPUs are asked for by")
    cpu: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?m?$", description="CPUs of a node, such as 32 or 500m"
    )
    memory: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?([KMGTPE]i?)?$", description="memory of a node, such as 512Gi"
    )
    shm: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?([KMGTPE]i?)?$", description="size of /dev/shm, such as 64Gi"
    )
    env: str = Field("", description="variables of the job, as NAME=VALUE words")
    secrets: str = Field(
        "", description="variables from secrets, as NAME=SECRET/KEY words; no values are rendered"
    )
    max_restarts: int = Field(10, ge=0, description="restarts of a JobSet before it has failed")
    grace: int = Field(120, ge=1, description="seconds that a pod may take to write a checkpoint")

    @field_validator("namespace", "queue", "runs_claim", "data_claim")
    @classmethod
    def _label(cls, value: str | None) -> str | None:
        return check_label(value)

    @field_validator("priority", "runtime", "service_account")
    @classmethod
    def _subdomain(cls, value: str | None) -> str | None:
        return check_subdomain(value)

    @field_validator("env")
    @classmethod
    def _variables(cls, value: str) -> str:
        read_variables(value)
        return value

    @field_validator("secrets")
    @classmethod
    def _secrets(cls, value: str) -> str:
        read_secrets(value)
        return value

    @field_validator("image", "data_mount", "gpu_resource")
    @classmethod
    def _no_nul_here(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("cannot hold a NUL character")
        return value


def read_secrets(text: str) -> dict[str, tuple[str, str]]:
    """Return the secret's name and key by variable, from ``NAME=SECRET/KEY`` words.

    Raises:
        ValueError: If it is not such words.
    """
    found = {}
    for word in split_words(text):
        name, _, source = word.partition("=")
        secret, slash, key = source.partition("/")
        plain = key.replace("-", "").replace(".", "").replace("_", "")
        if not VARIABLE.match(name) or not slash or not (plain.isascii() and plain.isalnum()):
            raise ValueError(f"{word!r} is not NAME=SECRET/KEY")
        check_subdomain(secret)
        found[name] = (secret, key)
    return found


@dataclass(frozen=True, slots=True)
class Seed:
    """One job: its seed, the path of its manifest, and the name of its object."""

    seed: int
    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a ConfigMap: its key, its path in the bundle, its text."""

    key: str
    path: str
    text: str


class Kubernetes:
    """Renders ``RUN/files.yaml``, ``RUN/seedK.yaml`` and ``launch.sh``."""

    name = "kubernetes"
    summary = "Kubeflow TrainJob v1alpha1 or JobSet v1alpha2, with an optional Kueue queue"
    options = KubernetesOptions

    def render(
        self, context: Context, output: Output, options: KubernetesOptions
    ) -> dict[str, str]:
        """Return the manifests, the script that makes them, and the README's part.

        Raises:
            CannotExpressError: If a job does not fit under torchrun, a variable that the trainer
                reads is not given, or a run's files are too large.
            OptionError: If the accelerator is unknown.
            TemplateError: If a template fails.
        """
        found = starts(context, output, options)
        scripts = start_scripts(context, found, options)
        variables = {
            **read_variables(options.env),
            "PLANNER_RUNS_DIR": options.runs_dir,
        }
        read = files_by_run(found, output)
        files = {}
        seeds: dict[str, list[Seed]] = {}
        for start in found:
            check_variables(start, variables)
            digest = short(start.run.digest)
            config_map = object_name(
                f"{start.folder}-files", context.plan.family, start.run.digest, limit=63
            )
            script = f"{start.folder}/start.sh"
            entries = _entries(start, {**read[start.folder], script: scripts[script]})
            values = {
                **context.common(),
                "options": options,
                "start": start,
                "config_map": config_map,
                "entries": entries,
                "variables": variables,
                "secrets": read_secrets(options.secrets),
                "labels": {
                    "app.kubernetes.io/managed-by": "collapse-planner",
                    "collapse-planner/family": slug(context.plan.family),
                    "collapse-planner/run": start.folder,
                    "collapse-planner/run-digest": digest,
                },
                "plan_digest": short(context.plan.digest),
            }
            files[script] = scripts[script]
            files[f"{start.folder}/files.yaml"] = context.engine.render(
                "kubernetes/files.yaml.j2", values
            )
            for job in start.jobs:
                seed = _seed(context, start, job)
                files[seed.path] = context.engine.render(
                    f"kubernetes/{options.kind}.yaml.j2", {**values, "seed": seed}
                )
                seeds.setdefault(start.folder, []).append(seed)
        more = {"seeds": seeds, "root": options.runs_dir}
        shared = {**context.common(), "options": options, **more}
        files["launch.sh"] = context.engine.render("kubernetes/launch.sh.j2", shared)
        files["README.md"] = readme(context, "kubernetes", found, options, more)
        return files

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash, shellcheck and the Python packages that know the kinds say."""
        from planner.render.manifests import check_manifests

        return (*check_scripts(files), *check_manifests(files))


def check_variables(start: Start, variables: Mapping[str, str]) -> None:
    """Refuse a run whose trainer reads a variable that nobody sets.

    Raises:
        CannotExpressError: With the variable's name.
    """
    for name in start.jobs[0].reads:
        if name not in variables:
            raise CannotExpressError(
                f"the trainer of run {start.run.name} reads {name}; "
                f"wanted its value, as --set env={name}=/data",
                field="env",
            )


def _entries(start: Start, files: Mapping[str, str]) -> list[Entry]:
    """Return a run's files with keys that a ConfigMap takes.

    Raises:
        CannotExpressError: If they are more than one ConfigMap may hold.
    """
    size = sum(len(text.encode()) for text in files.values())
    if size > MAX_CONFIG_MAP:
        raise CannotExpressError(
            f"the files of run {start.run.name} are {size} bytes, more than a ConfigMap holds"
        )
    return [
        Entry(f"f{number}-{path.rpartition('/')[2]}", path, files[path])
        for number, path in enumerate(sorted(files))
    ]


def _seed(context: Context, start: Start, job: Job) -> Seed:
    name = object_name(
        f"{job.folder}-seed{job.seed}", context.plan.family, start.run.digest, limit=MAX_NAME
    )
    return Seed(job.seed, f"{job.folder}/seed{job.seed}.yaml", name)
