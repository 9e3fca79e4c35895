"""What must stay cheap: importing the package pulls in nothing heavy, the kernel only NumPy."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

import planner

Run = Callable[..., "CompletedProcess[str]"]

HEAVY = ("numpy", "pydantic", "jinja2", "ruamel.yaml", "typer", "rich", "pyarrow", "torch")


@pytest.mark.parametrize(("module", "heavy"), [("planner", []), ("planner._core", ["numpy"])])
def test_import_is_light(run_python: Run, module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = run_python(code)
    assert (done.stdout, done.stderr) == (f"{heavy}\n", "")


def test_version() -> None:
    from importlib.metadata import version

    assert planner.__version__ == version("collapse-planner")


def test_public_names() -> None:
    assert sorted(planner.__all__) == sorted(set(planner.__all__))
    for name in planner.__all__:
        assert getattr(planner, name) is not None
        assert name in dir(planner)
    with pytest.raises(AttributeError, match="module 'planner' has no attribute 'nonsense'"):
        planner.nonsense  # noqa: B018
