"""Checking a bundle on disk with the strongest validators that this machine has."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import OutputError, PlannerError
from planner.render.bundle import PLAN_FILE
from planner.render.target import find_target
from planner.render.writer import MANIFEST, SCHEMA, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.plan.model import Plan


@dataclass(frozen=True, slots=True)
class Check:
    """What one validator said.

    Attributes:
        name: The validator, such as ``shellcheck``.
        problems: One sentence each; empty if it found none or did not run.
        skipped: Why it did not run, with what would make it; None if it did.
    """

    name: str
    problems: tuple[str, ...] = ()
    skipped: str | None = None


def check_bundle(folder: Path | str) -> tuple[Check, ...]:
    """Run every validator that can run here over a rendered bundle; nothing is changed.

    Checked are: the files against the manifest; the plan's digest; the trainer's files against the
    plan and with the trainer's own code where that is installed; the launcher's scripts.

    Raises:
        OutputError: If the folder holds no bundle.
        TargetError: If this version does not know the bundle's target.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    target = find_target(str(manifest.get("target")))
    hashes: dict[str, str] = manifest["files"]
    files = {}
    problems = []
    for path, expected in sorted(hashes.items()):
        try:
            files[path] = (folder / path).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            problems.append(f"{path} is missing or cannot be read")
            continue
        if sha256(files[path]) != expected:
            problems.append(f"{path} was edited after it was rendered")
    checks = [Check("manifest", tuple(problems))]
    plan, check = _read_plan(files)
    checks.append(check)
    if plan is not None:
        checks += target.trainer.check(plan, files)
    checks += target.launcher.check(files)
    return tuple(checks)


def check_scripts(files: Mapping[str, str]) -> tuple[Check, ...]:
    """Return what bash and shellcheck say about the bundle's shell scripts."""
    scripts = {path: text for path, text in files.items() if path.endswith(".sh")}
    return (
        _script_check("bash -n", ["bash", "-n"], scripts),
        _script_check("shellcheck", ["shellcheck", "--shell=bash", "--format=gcc", "-"], scripts),
    )


def _script_check(name: str, command: list[str], scripts: Mapping[str, str]) -> Check:
    program = shutil.which(command[0])
    if program is None:
        return Check(name, skipped=f"{command[0]} is not installed")
    problems = []
    for path, text in scripts.items():
        done = subprocess.run(
            [program, *command[1:]],
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            problems += [f"{path}: {line}" for line in said[:5]] or [f"{path}: refused"]
    return Check(name, tuple(problems))


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_bytes())
        known = document["schema"] == SCHEMA and isinstance(document["files"], dict)
    except FileNotFoundError:
        raise OutputError(f"holds no bundle: {MANIFEST} is missing", file=str(folder)) from None
    except OSError as error:
        raise OutputError(f"cannot be read: {error.strerror}", file=str(path)) from None
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise OutputError("is not a manifest of a bundle", file=str(path))
    return document  # type: ignore[no-any-return]


def _read_plan(files: Mapping[str, str]) -> tuple[Plan | None, Check]:
    from planner.plan import load_plan

    if PLAN_FILE not in files:
        return None, Check("plan", (f"{PLAN_FILE} is missing",))
    try:
        return load_plan(files[PLAN_FILE], PLAN_FILE), Check("plan")
    except PlannerError as error:
        return None, Check("plan", (str(error),))
