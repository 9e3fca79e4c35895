"""Plans into the files that start the runs.

``render_plan`` writes a bundle, ``render_files`` only computes it, ``preview_plan`` shows what
would change, ``check_bundle`` runs the strongest validators that this machine has. ``describe``
says what a target can express and which options it takes. Imports are lazy: Jinja and pydantic
load when something is rendered.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.render.bundle import Bundle, Rendered, render, render_files, render_plan
    from planner.render.check import Check, check_bundle
    from planner.render.description import describe
    from planner.render.preview import Preview, preview_plan
    from planner.render.target import find_target, target_names

_EXPORTS = {
    "Bundle": "bundle",
    "Check": "check",
    "Preview": "preview",
    "Rendered": "bundle",
    "check_bundle": "check",
    "describe": "description",
    "find_target": "target",
    "preview_plan": "preview",
    "render": "bundle",
    "render_files": "bundle",
    "render_plan": "bundle",
    "target_names": "target",
}

__all__ = [
    "Bundle",
    "Check",
    "Preview",
    "Rendered",
    "check_bundle",
    "describe",
    "find_target",
    "preview_plan",
    "render",
    "render_files",
    "render_plan",
    "target_names",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value
