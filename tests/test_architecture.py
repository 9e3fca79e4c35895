"""Rooms import downwards only: a module of ``planner`` uses its own room and the ones below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "planner"

# From the ground up. A room may import itself and any room before it in this list.
ROOMS = (
    "errors",
    "units",
    "documents",
    "_core",
    "kernel",
    "laws",
    "models",
    "spec",
    "plan",
    "compile",
    "render",
    "archive",
    "curves",
    "fitting",
    "train",
    "report",
    "cli",
)
# Modules beside the rooms: what may import them, and what they may import, is not ordered.
OUTSIDE = ("_version",)
# Names of the package itself that any room may use.
ROOT_NAMES = ("__version__",)


def imported_names(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import in a module, also inside functions."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            first = node.args[0]
            if (
                name in ("import_module", "__import__")
                and isinstance(first, ast.Constant)
                and isinstance(first.value, str)
            ):
                yield node.lineno, first.value


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Say, one sentence each, which imports of a module go against the order."""
    parts = module.split(".")
    if len(parts) == 1:
        return []  # the package's own __init__ may name any room: it loads them lazily
    room = "cli" if parts[1] == "__main__" else parts[1]
    if room in OUTSIDE:
        return []
    if room not in ROOMS:
        return [f"{module}: room {room!r} is not in the order of this test; add it there."]
    found = []
    for line, name in imported_names(ast.parse(source), module, is_package):
        target = name.split(".")
        if target[0] != "planner":
            continue
        if len(target) == 1:
            found.append(f"{module}:{line}: imports the whole package; name the room.")
        elif target[1] in OUTSIDE or target[1] in ROOT_NAMES:
            continue
        elif target[1] not in ROOMS:
            found.append(f"{module}:{line}: {name} is not in a room; import it from its module.")
        elif ROOMS.index(target[1]) > ROOMS.index(room):
            found.append(f"{module}:{line}: {room} must not import {target[1]} ({name}).")
    return found


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    parts = ("planner", *path.relative_to(PACKAGE).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    assert violations(path.read_text(encoding="utf-8"), module, is_package) == []


def test_there_are_modules() -> None:
    assert len(modules()) > 5


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("planner.laws.loss", False, "from planner.compile import passes"),
        ("planner.laws.loss", False, "import planner.cli.main"),
        ("planner.laws.loss", False, "def f():\n    from planner import render"),
        ("planner.laws.loss", False, "from ..spec import model"),
        ("planner.laws.loss", False, "from .. import spec"),
        ("planner.laws", True, "from ..spec import model"),
        ("planner.laws.loss", False, "import importlib\nimportlib.import_module('planner.plan')"),
        ("planner.units", False, "import planner._core"),
        ("planner.cli.main", False, "from planner import Plan"),
        ("planner.cli.main", False, "import planner"),
        ("planner.attic", False, ""),
    ],
)
def test_the_check_sees_a_violation(module: str, is_package: bool, source: str) -> None:
    assert len(violations(source, module, is_package)) == 1


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("planner.laws", True, "from .loss import Loss\nfrom planner.units import parse"),
        ("planner.laws.loss", False, "from . import law\nfrom ..errors import PlannerError"),
        ("planner.cli.main", False, "from planner import __version__, compile\nimport numpy"),
        ("planner.__main__", False, "from planner.cli.main import main"),
        ("planner", True, "from planner.cli import main"),
    ],
)
def test_the_check_passes_what_is_right(module: str, is_package: bool, source: str) -> None:
    assert violations(source, module, is_package) == []
