"""The one backend that cerebras_pytorch allows a process to have."""

from __future__ import annotations

import tempfile
from functools import cache
from importlib import import_module
from typing import Any


@cache
def cpu_backend() -> Any:
    """Make the CPU backend, which writes its logs into a folder of its own, or return it again."""
    cstorch: Any = import_module("cerebras.pytorch")
    return cstorch.backend("CPU", artifact_dir=tempfile.mkdtemp(prefix="planner-backend-"))


def accept_grouped_queries(patch: Any) -> None:
    """Let the reference model run under PyTorch 2.4, whose attention has no ``enable_gqa`` yet."""
    functional: Any = import_module("torch.nn.functional")
    own = functional.scaled_dot_product_attention
    if "enable_gqa" in own.__doc__:
        return

    def attention(q: Any, k: Any, v: Any, *, enable_gqa: bool = False, **rest: Any) -> Any:
        if enable_gqa:
            times = q.shape[1] // k.shape[1]
            k, v = (part.repeat_interleave(times, dim=1) for part in (k, v))
        return own(q, k, v, **rest)

    patch.setattr(functional, "scaled_dot_product_attention", attention)
