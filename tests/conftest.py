"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

LAUNCHER_PACKAGES = ("kubernetes_validate", "kubeflow_trainer_api", "sky")

_CI = os.environ.get("CI", "") not in ("", "0", "false")

# What `make test-trainers` installs.
TRAINERS = ("transformers", "olmo_core", "torchtitan")

RunPlanner = Callable[..., "subprocess.CompletedProcess[str]"]

# Machines are shared: how long an example takes says nothing about the code. In CI the examples are
# the same each time, so that a change is judged by what it changes.
settings.register_profile(
    "planner",
    deadline=None,
    derandomize=_CI,
    database=None if _CI else settings.default.database,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("planner")


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def pytest_report_header() -> list[str]:
    """Say which package is tested: the wheel in the environment, or the source tree."""
    spec = importlib.util.find_spec("planner")
    return [f"planner: {spec.origin if spec else 'not installed'}"]


def _cerebras_installed() -> bool:
    try:
        return importlib.util.find_spec("cerebras.pytorch") is not None
    except ModuleNotFoundError:
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs something that is not here, unless the environment says it must be."""
    reasons = {}
    if not _cerebras_installed() and not _flag("PLANNER_REQUIRE_CEREBRAS"):
        reasons["cerebras"] = "cerebras_pytorch is not installed (make test-cerebras)"
    if not _flag("PLANNER_REQUIRE_SLURM"):
        reasons["slurm"] = "it starts Slurm's daemons (make test-slurm)"
    if not _flag("PLANNER_REQUIRE_LAUNCHERS"):
        absent = [name for name in LAUNCHER_PACKAGES if importlib.util.find_spec(name) is None]
        if absent:
            reasons["launchers"] = f"{', '.join(absent)} not installed (make test-launchers)"
    if not os.environ.get("PLANNER_MODELZOO_SRC"):
        reasons["modelzoo"] = (
            "PLANNER_MODELZOO_SRC does not name the src folder of a ModelZoo checkout"
        )
    if not _flag("PLANNER_REQUIRE_TRAINERS"):
        missing = [name for name in TRAINERS if importlib.util.find_spec(name) is None]
        if missing:
            reasons["trainers"] = f"{', '.join(missing)}: not installed (make test-trainers)"
    if not _flag("PLANNER_REQUIRE_MEGATRON") and importlib.util.find_spec("megatron") is None:
        reasons["megatron"] = "megatron-core is not installed (make test-megatron)"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The source tree: examples, templates, csrc."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared data: PLANNER_DATA, or ../shared/data beside the project.

    Absent data skips the test, or fails it when PLANNER_REQUIRE_DATA=1.
    """
    folder = Path(os.environ.get("PLANNER_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        if _flag("PLANNER_REQUIRE_DATA"):
            pytest.fail(f"PLANNER_REQUIRE_DATA is set, but there is no shared data at {folder}.")
        pytest.skip(f"no shared data at {folder}")
    return folder


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment that does not depend on who runs the tests."""
    keep = ("PATH", "HOME", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env |= {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "COLUMNS": "100", "NO_COLOR": "1"}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
    return env | dict(extra or {})


@pytest.fixture(scope="session")
def run_planner(tmp_path_factory: pytest.TempPathFactory) -> RunPlanner:
    """Run the installed command: run_planner(*args, cwd=..., env=..., input=..., timeout=...)."""
    command = Path(sys.executable).parent / "planner"
    elsewhere = tmp_path_factory.mktemp("cwd")

    def run(
        *args: str | os.PathLike[str],
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        if not command.exists():
            pytest.fail(f"the command is not installed: {command} does not exist.")
        return subprocess.run(
            [command, *args],
            cwd=cwd or elsewhere,
            env=clean_env(env),
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def run_python(tmp_path_factory: pytest.TempPathFactory) -> RunPlanner:
    """Run code in a fresh interpreter, outside the source tree: run_python(code, env=...)."""
    elsewhere = tmp_path_factory.mktemp("cwd")

    def run(
        code: str, *args: str, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-c", code, *args],
            cwd=elsewhere,
            env=clean_env(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )

    return run
