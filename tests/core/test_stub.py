"""The stub says what the compiled module offers: the same names and the same parameters."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from planner import _core

STUB = Path(__file__).resolve().parents[2] / "planner" / "_core.pyi"


def declared() -> dict[str, list[str] | None]:
    """Name -> parameters of a function, or None for a constant."""
    names: dict[str, list[str] | None] = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            names[node.name] = [argument.arg for argument in arguments]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = None
    return names


def test_same_names() -> None:
    assert set(declared()) == {name for name in dir(_core) if not name.startswith("_")}


def test_same_parameters() -> None:
    for name, parameters in declared().items():
        value = getattr(_core, name)
        if parameters is None:
            assert isinstance(value, int)
            continue
        assert inspect.isroutine(value)
        signature = re.match(rf"{name}\((.*?)\) ->", value.__doc__ or "")
        assert signature, value.__doc__
        assert re.findall(r"(\w+): ", signature[1]) == parameters
