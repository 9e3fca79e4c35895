"""Plan families of language models that train predictably at every size.

``planner`` compiles a declared family (sizes, budget, data, cluster) into a checked plan and
renders that plan for a training stack. The public names below are loaded on first use, so that
``import planner`` and the command ``planner --help`` stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from planner._version import __version__

if TYPE_CHECKING:
    from planner.compile import compile_plan as compile_plan
    from planner.errors import PlannerError as PlannerError
    from planner.plan import Plan as Plan
    from planner.plan import diff_plans as diff_plans
    from planner.plan import explain as explain
    from planner.plan import read_plan as read_plan
    from planner.plan import write_plan as write_plan
    from planner.render import check_bundle as check_bundle
    from planner.render import render_plan as render_plan
    from planner.spec import load_spec as load_spec
    from planner.spec import parse_spec as parse_spec

# Public name -> the module that defines it. Nothing in this table is imported before it is used.
_EXPORTS: dict[str, str] = {
    "Plan": "planner.plan",
    "PlannerError": "planner.errors",
    "check_bundle": "planner.render",
    "compile_plan": "planner.compile",
    "diff_plans": "planner.plan",
    "explain": "planner.plan",
    "load_spec": "planner.spec",
    "parse_spec": "planner.spec",
    "read_plan": "planner.plan",
    "render_plan": "planner.render",
    "write_plan": "planner.plan",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use."""
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
