"""The package installs and works beside what cerebras-pytorch pins (make test-cerebras)."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import requires, version
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]

pytestmark = pytest.mark.cerebras


def test_its_pins_are_installed(project_root: Path) -> None:
    """The lower bounds of this package really admit the pins: pip did not move them."""
    wanted = (project_root / ".ci" / "constraints-cerebras.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", wanted, re.MULTILINE))
    theirs = " ".join(requires("cerebras-pytorch") or [])
    pins |= re.findall(r"\b(numpy) ?\(?==([\w.]+)", theirs)
    assert pins["numpy"] == "1.25.0"
    assert {name: version(name) for name in pins} == pins
    bounds = dict(re.findall(r"([\w.-]+)>=([\d.]+)", " ".join(requires("collapse-planner") or [])))
    for name in set(bounds) & set(pins):
        assert (pins[name] + ".").startswith(bounds[name] + "."), f"not the lower bound of {name}"


def test_both_work_in_one_process(run_python: Run) -> None:
    code = """
import numpy as np
import cerebras.pytorch as cstorch
from planner import _core
mean, n_finite, status = _core.ragged_mean(np.array([1.0, np.nan, 3.0]), np.array([0, 3]))
assert (mean[0], n_finite[0], status[0]) == (2.0, 2, _core.STATUS_OK)
assert cstorch.optim.AdamW
print("ok")
"""
    done = run_python(code, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok"


def test_the_command_plans_and_renders(
    run_planner: Run, project_root: Path, tmp_path: Path
) -> None:
    for args in (
        ("--help",),
        ("--version",),
        ("plan", project_root / "examples" / "celerity.yaml", "-o", "plan.json"),
        ("render", "plan.json", "--target", "modelzoo", "-o", "jobs"),
    ):
        done = run_planner(*args, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert any((tmp_path / "jobs").rglob("*.yaml"))
