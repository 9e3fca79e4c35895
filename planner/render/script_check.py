"""Checking bundles that are a script and a YAML file for each run (`planner.render.script`)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import PlannerError
from planner.render.check import Check
from planner.render.paths import slugs
from planner.render.schedule import pieces
from planner.render.script import SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from planner.plan.model import Plan, Run

_TIMEOUT = 600.0


def check_script(
    plan: Plan,
    files: Mapping[str, str],
    against_plan: Callable[[Run, dict[str, Any]], list[str]],
    package: str,
) -> tuple[Check, ...]:
    """Return what our own reading and the target's classes say about the files of a bundle.

    Args:
        plan: The bundle's plan.
        files: Its files.
        against_plan: What says where a parsed file departs from its run.
        package: The target's package, without which the script's own check is skipped.
    """
    folders = slugs([run.name for run in plan.runs], "runs")
    problems: list[str] = []
    configs: dict[str, list[str]] = {}
    for run in plan.runs:
        for seed in run.seeds:
            path = f"{folders[run.name]}/config-seed{seed}.yaml"
            if path not in files:
                problems.append(f"{path} is missing")
                continue
            configs.setdefault(f"{folders[run.name]}/{SCRIPT}", []).append(path)
            try:
                config = read_yaml(files[path])
                found = _common(run, seed, config) + against_plan(run, config)
            except PlannerError as error:
                found = [str(error)]
            except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
                found = [f"is not a configuration of this form: {error!r}"]
            problems += [f"{path}: {text}" for text in found]
    return (
        Check("parameters against the plan", tuple(problems)),
        _own_check(configs, files, package),
    )


def read_yaml(text: str) -> dict[str, Any]:
    """Return a configuration as PyYAML, which the scripts use, reads it.

    Raises:
        PlannerError: If it is not a mapping in YAML 1.1.
    """
    import warnings

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError, YAMLWarning

    yaml = YAML(typ="safe", pure=True)
    yaml.version = "1.1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", YAMLWarning)
            document = yaml.load(StringIO(text))
    except (YAMLError, YAMLWarning) as error:
        raise PlannerError(f"is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(document, dict):
        raise PlannerError("is not a configuration: wanted a mapping")
    return document


def _common(run: Run, seed: int, config: dict[str, Any]) -> list[str]:
    peak = run.optimizer.base_peak_lr
    schedule = [
        (piece["shape"], piece["start"] * peak, piece["end"] * peak, piece["steps"])
        for piece in config["schedule"]
    ]
    wanted = [(piece.shape, piece.start, piece.end, piece.steps) for piece in pieces(run)]
    same = len(schedule) == len(wanted) and all(
        a[0] == b[0] and a[3] == b[3] and _close(a[1], b[1], peak) and _close(a[2], b[2], peak)
        for a, b in zip(schedule, wanted, strict=True)
    )
    pairs = {
        "about.run_digest": (config["about"]["run_digest"], run.digest),
        "about.seed": (config["about"]["seed"], seed),
        "batch.sequences": (config["batch"]["sequences"], run.batch.sequences),
        "batch.seq_len": (config["batch"]["seq_len"], run.model.seq_len),
        "optimizer.betas": (tuple(config["optimizer"]["betas"]), run.optimizer.betas),
        "optimizer.grad_clip": (config["optimizer"]["grad_clip"], run.optimizer.grad_clip),
    }
    found = [
        f"{field} is {got}, the plan says {value}"
        for field, (got, value) in pairs.items()
        if got != value
    ]
    return found if same else [*found, "schedule is not the plan's"]


def _close(left: float, right: float, scale: float) -> bool:
    return abs(left - right) <= 1e-12 * scale


def _own_check(configs: Mapping[str, list[str]], files: Mapping[str, str], package: str) -> Check:
    """Run each run's own ``train.py --check`` in a process of its own."""
    name = f"{package}'s own classes"
    if not (_installed(package) and _installed("torch")):
        return Check(name, skipped=f"{package} is not installed")
    problems: list[str] = []
    by_text: dict[str, list[str]] = {}
    for script, paths in configs.items():
        if script not in files:
            problems.append(f"{script} is missing")
        else:
            by_text.setdefault(files[script], []).extend(paths)
    with tempfile.TemporaryDirectory(prefix="planner-check-") as folder:
        for number, (text, paths) in enumerate(by_text.items()):
            script_path = Path(folder) / f"check{number}.py"
            script_path.write_text(text, encoding="utf-8")
            for path in paths:
                place = Path(folder) / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(files[path], encoding="utf-8")
            command = [sys.executable, "-P", str(script_path), *paths, "--check"]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    check=False,
                    timeout=_TIMEOUT,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.TimeoutExpired:
                problems.append(f"gave no answer within {_TIMEOUT:.0f} seconds")
                continue
            said = done.stdout.decode(errors="replace").strip().splitlines()
            if done.returncode == 1 and said:
                problems += said
            elif done.returncode:
                last = done.stderr.decode(errors="replace").strip().splitlines()
                problems.append(f"could not run: {last[-1] if last else 'it said nothing'}")
    return Check(name, tuple(problems))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def compare_groups(
    run: Run, rows: Sequence[Mapping[str, Any]], native: Mapping[str, float], rel_tol: float = 1e-9
) -> list[str]:
    """Return where a file's groups depart from the plan's table, one sentence each.

    A tensor held as W = c * W' has c times the std and the learning rate and 1/c times the decay
    and epsilon of W'; c is what the plan multiplies W' by over what the target's model does.

    Args:
        run: The plan's run.
        rows: The file's groups.
        native: By group name: what the target's model multiplies it by, over what the plan
            multiplies it by, attention and branch included.
        rel_tol: Relative tolerance.
    """
    problems = []
    names = [row["name"] for row in rows]
    for name in native:
        if names.count(name) != 1:
            problems.append(f"tensors: {name} is there {names.count(name)} times, wanted once")
    for row in rows:
        if row["name"] not in native:
            problems.append(f"tensors: {row['name']} is not a group of this run")
            continue
        plan = run.tensor(row["class"])
        factor = 1.0 / native[row["name"]]
        std = row.get("init_std")
        pairs = {
            "init_std": (None if std is None else std / factor, plan.init_std),
            "lr": (row["lr"] / factor, plan.lr),
            "weight_decay": (row["weight_decay"] * factor, plan.weight_decay),
            "eps": (row["eps"] * factor, plan.eps),
        }
        for field, (got, wanted) in pairs.items():
            if got is None or wanted is None:
                same = got is wanted
            else:
                same = abs(got - wanted) <= rel_tol * max(abs(got), abs(wanted))
            if not same:
                problems.append(
                    f"tensors: {field} of {row['name']} is {got}, the plan says {wanted}"
                )
    return problems
