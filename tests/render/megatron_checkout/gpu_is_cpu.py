"""Have everything that Megatron asks for on a GPU made on the CPU; its mathematics stay."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode


class OnCpu(TorchFunctionMode):
    """Functions of PyTorch with the CPU where the GPU is named."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1:
            return func(*args).replace("torch.", "torch.cuda.")  # Megatron asserts it
        return func(*args, **kwargs)


class Idle:
    """A stream or an event that never has to be waited for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@contextlib.contextmanager
def gpu_is_cpu() -> Iterator[None]:
    """Run what is inside as if the CPU were the one GPU."""
    from megatron.core import tensor_parallel
    from megatron.core.tensor_parallel.random import CudaRNGStatesTracker, get_cuda_rng_tracker

    def seed(*_: Any, **__: Any) -> None:
        # There has to be some state that a checkpoint can hold; dropout, which draws from it, is 0.
        get_cuda_rng_tracker().states_["model-parallel-rng"] = torch.get_rng_state()

    none, zero = (lambda *_, **__: None), (lambda *_, **__: 0)
    eager = torch.compiler.set_stance("force_eager")
    with pytest.MonkeyPatch.context() as patch, OnCpu(), eager:
        cuda = {
            "current_device": lambda: torch.device("cpu"),
            "device_count": lambda: 1,
            "set_device": none,
            "synchronize": none,
            "empty_cache": none,
            "get_rng_state": lambda *_: torch.get_rng_state(),
            "set_rng_state": none,
            "memory_allocated": zero,
            "max_memory_allocated": zero,
            "memory_reserved": zero,
            "max_memory_reserved": zero,
            "memory_stats": lambda *_: defaultdict(int),
            "Stream": Idle,
            "Event": Idle,
            "current_stream": Idle,
            "stream": lambda *_: contextlib.nullcontext(),
        }
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(CudaRNGStatesTracker, "fork", lambda *_, **__: contextlib.nullcontext())
        patch.setattr(tensor_parallel, "model_parallel_cuda_manual_seed", seed)
        yield
