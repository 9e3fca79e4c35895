"""Plan families of language models that train predictably at every size.

``planner`` compiles a declared family (sizes, budget, data, cluster) into a checked plan and
renders that plan for a training stack. The public names below are loaded on first use, so that
``import planner`` and the command ``planner --help`` stay fast.
"""

from __future__ import annotations

import importlib

from planner._version import __version__

# Public name -> the module that defines it. Nothing in this table is imported before it is used.
_EXPORTS: dict[str, str] = {}

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
