"""The one backend that cerebras_pytorch allows a process to have."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


@cache
def cpu_backend() -> Any:
    """Make the CPU backend, which writes its logs where the process is, or return it again."""
    cstorch: Any = import_module("cerebras.pytorch")
    return cstorch.backend("CPU")
