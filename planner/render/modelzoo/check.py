"""Validators of ModelZoo parameter files, from our own to ModelZoo's."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import PlannerError
from planner.render.check import Check
from planner.render.modelzoo.readback import compare, names_of, read_back
from planner.render.paths import slugs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.plan.model import Plan, Run

SOURCE_VARIABLE = "PLANNER_MODELZOO_SRC"
_TIMEOUT = 600.0


def check_files(plan: Plan, files: Mapping[str, str]) -> tuple[Check, ...]:
    """Return what each validator says about the parameter files of a bundle."""
    folders = slugs([run.name for run in plan.runs], "runs")
    problems: list[str] = []
    parsed: dict[str, dict[str, Any]] = {}
    for run in plan.runs:
        for seed in run.seeds:
            path = f"{folders[run.name]}/params-seed{seed}.yaml"
            if path not in files:
                problems.append(f"{path} is missing")
                continue
            try:
                parsed[path] = _parse(files[path])
                problems += [f"{path}: {text}" for text in _against_plan(run, seed, parsed[path])]
            except PlannerError as error:
                problems.append(f"{path}: {error}")
    return (
        Check("parameters against the plan", tuple(problems)),
        _check_wheel(parsed),
        _check_modelzoo(parsed),
    )


def _parse(text: str) -> dict[str, Any]:
    import warnings

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError, YAMLWarning

    yaml = YAML(typ="safe", pure=True)
    yaml.version = "1.1"  # ModelZoo's reader follows YAML 1.1.
    try:
        with warnings.catch_warnings():
            # Such as a number that YAML 1.1 takes for text.
            warnings.simplefilter("error", YAMLWarning)
            document = yaml.load(StringIO(text))
    except (YAMLError, YAMLWarning) as error:
        reason = " ".join(str(error).split())[:200]
        raise PlannerError(f"is not YAML as ModelZoo reads it: {reason}") from None
    if not isinstance(document, dict):
        raise PlannerError("is not a parameter file: wanted a mapping")
    return document


def _against_plan(run: Run, seed: int, params: dict[str, Any]) -> list[str]:
    """Return where a parsed file departs from its run."""
    problems = compare(run, read_back(params, names_of(run)))
    init, model = params["trainer"]["init"], run.model
    wanted = {
        "trainer.init.seed": (init.get("seed"), seed),
        "trainer.init.loop.max_steps": (init.get("loop", {}).get("max_steps"), run.steps),
        "trainer.fit.train_dataloader.batch_size": (
            params["trainer"].get("fit", {}).get("train_dataloader", {}).get("batch_size"),
            run.batch.sequences,
        ),
    }
    for key, value in (
        ("hidden_size", model.d_model),
        ("num_hidden_layers", model.n_layers),
        ("num_heads", model.n_heads),
        ("filter_size", model.d_ffn),
        ("vocab_size", model.padded_vocab_size),
        ("max_position_embeddings", model.seq_len),
        ("share_embedding_weights", model.tied_embeddings),
    ):
        wanted[f"trainer.init.model.{key}"] = (init["model"].get(key), value)
    return problems + [
        f"{field} is {got}, the plan says {value}"
        for field, (got, value) in wanted.items()
        if got != value
    ]


def _check_wheel(parsed: Mapping[str, dict[str, Any]]) -> Check:
    """Build optimizer, schedulers and cluster configuration with cerebras_pytorch's own classes."""
    name = "cerebras_pytorch classes"
    if not _installed("cerebras.pytorch"):
        return Check(
            name, skipped="cerebras_pytorch is not installed (pip install cerebras-pytorch)"
        )
    return _probe(name, ["wheel"], parsed)


def _check_modelzoo(parsed: Mapping[str, dict[str, Any]]) -> Check:
    """Run ModelZoo's own validator of parameter files."""
    name = "ModelZoo's validator"
    source = os.environ.get(SOURCE_VARIABLE)
    if not source:
        return Check(name, skipped=f"{SOURCE_VARIABLE} does not name ModelZoo's src folder")
    if not (Path(source) / "cerebras" / "modelzoo").is_dir():
        return Check(name, (f"{SOURCE_VARIABLE}: {source!r} has no cerebras/modelzoo in it",))
    if not _installed("cerebras.pytorch"):
        return Check(name, skipped="it needs cerebras_pytorch, which is not installed")
    return _probe(name, ["modelzoo", str(Path(source).resolve())], parsed)


def _probe(name: str, arguments: list[str], parsed: Mapping[str, dict[str, Any]]) -> Check:
    """Run `planner.render.modelzoo.probe` in a process of its own, in a folder of its own.

    Both packages keep global state (one backend for a process) and write logs where they are.
    """
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py")), *arguments]
    with tempfile.TemporaryDirectory(prefix="planner-check-") as folder:
        try:
            done = subprocess.run(
                command,
                input=json.dumps(dict(parsed)).encode(),
                capture_output=True,
                check=False,
                timeout=_TIMEOUT,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return Check(name, (f"gave no answer within {_TIMEOUT:.0f} seconds",))
    answer = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not answer:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return Check(name, (f"could not run: {said[-1] if said else 'it said nothing'}",))
    return Check(name, tuple(json.loads(answer[-1])))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
