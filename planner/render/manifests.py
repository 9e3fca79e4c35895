"""Kubernetes manifests checked offline, by the Python packages that know their kinds.

``kubernetes-validate`` holds the schemas of the core kinds; ``kubeflow-trainer-api`` has pydantic
models of TrainJob and JobSet, which pass over keys that they do not know, so that those are looked
for here.
"""

from __future__ import annotations

import importlib
import importlib.util
import types
import typing
from typing import TYPE_CHECKING, Any

from planner.render.check import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

KUBERNETES = "1.34"
"""Version of Kubernetes whose schemas the core kinds are held to."""
_MODELS = {
    "trainer.kubeflow.org/v1alpha1/TrainJob": "TrainerV1alpha1TrainJob",
    "jobset.x-k8s.io/v1alpha2/JobSet": "JobsetV1alpha2JobSet",
}


def check_manifests(files: Mapping[str, str]) -> tuple[Check, ...]:
    """Return what each of the two packages says about a bundle's manifests."""
    problems: list[str] = []
    core: dict[str, Any] = {}
    custom: dict[str, Any] = {}
    for path, text in files.items():
        if not path.endswith(".yaml"):
            continue
        for number, document in enumerate(_documents(path, text, problems)):
            name = path if number == 0 else f"{path} document {number + 1}"
            (custom if _kind(document) in _MODELS else core)[name] = document
            core |= {f"{name} job {job}": each for job, each in _jobs(document)}
    return (
        Check("YAML of the manifests", tuple(problems)),
        _check("kubernetes-validate", "kubernetes_validate", core, _core_problems),
        _check("kubeflow-trainer-api", "kubeflow_trainer_api", custom, _custom_problems),
    )


def unknown_keys(model: Any, document: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of keys that a generated pydantic model does not have.

    Args:
        model: A model class, or the annotation of one of its fields.
        document: What is to be read by it.
        path: Where the document stands.
    """
    for part in _parts(model):
        fields = getattr(part, "model_fields", None)
        if fields is not None and "actual_instance" in fields:
            return  # one of several plain types, such as a quantity
        if fields is not None and isinstance(document, dict):
            known = {field.alias or name: field.annotation for name, field in fields.items()}
            for key, value in document.items():
                if key not in known:
                    yield f"{path}{key}"
                else:
                    yield from unknown_keys(known[key], value, f"{path}{key}.")
        elif typing.get_origin(part) is list and isinstance(document, list):
            for number, item in enumerate(document):
                yield from unknown_keys(typing.get_args(part)[0], item, f"{path}{number}.")
        elif typing.get_origin(part) is dict and isinstance(document, dict):
            for key, value in document.items():
                yield from unknown_keys(typing.get_args(part)[1], value, f"{path}{key}.")


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of an annotation, without None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Annotated:
        return _parts(typing.get_args(annotation)[0])
    return (annotation,)


def _kind(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    return f"{document.get('apiVersion')}/{document.get('kind')}"


def _jobs(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield the Jobs that a JobSet makes, which are of a core kind."""
    if _kind(document).endswith("/JobSet"):
        for each in document["spec"]["replicatedJobs"]:
            metadata = {"name": each["name"], **each["template"].get("metadata", {})}
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
            yield each["name"], {**job, "spec": each["template"]["spec"]}


def _documents(path: str, text: str, problems: list[str]) -> list[Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    try:
        return list(yaml.load_all(text))
    except YAMLError as error:
        problems.append(f"{path}: is not YAML: {' '.join(str(error).split())[:200]}")
        return []


def _check(
    name: str,
    module: str,
    documents: Mapping[str, Any],
    judge: Callable[[Any], Iterator[str]],
) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(name, skipped=f"the Python package {name} is not installed")
    found = [f"{path}: {problem}" for path, item in documents.items() for problem in judge(item)]
    return Check(name, tuple(found))


def _core_problems(document: Any) -> Iterator[str]:
    package = importlib.import_module("kubernetes_validate")
    try:
        package.validate(document, KUBERNETES, strict=True)
    except package.ValidationError as error:
        yield " ".join(str(error.message).split())[:300]
    except (package.SchemaNotFoundError, package.InvalidSchemaError) as error:
        yield f"is of no kind that Kubernetes {KUBERNETES} has: {error}"


def _custom_problems(document: Any) -> Iterator[str]:
    from pydantic import ValidationError

    models = importlib.import_module("kubeflow_trainer_api.models")
    model = getattr(models, _MODELS[_kind(document)])
    for key in unknown_keys(model, document):
        yield f"{key} is no field of {document['kind']}"
    try:
        model.from_dict(document)
    except ValidationError as error:
        first = error.errors()[0]
        yield f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
