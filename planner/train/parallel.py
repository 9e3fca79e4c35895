"""One process or many: who this one is, how the model is spread, what is summed.

torchrun's environment (``WORLD_SIZE`` and its kin) decides. DDP keeps whole weights everywhere and
averages gradients; FSDP2 shards weights, gradients and optimizer. Both train on the same global
batch as one process.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from planner.train.errors import TrainError
from planner.units import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.train.config import Settings
    from planner.train.model import Transformer

Parallel = Literal["none", "ddp", "fsdp"]


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among all of them."""

    rank: int
    count: int
    device: torch.device
    parallel: Parallel

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


@contextlib.contextmanager
def workers(settings: Settings) -> Iterator[Workers]:
    """Join the process group that torchrun started, if any, and leave it at the end.

    Raises:
        TrainError: If a GPU is asked for and there is none, or none for each process; sharding in
            a single process; or torchrun's environment is not whole.
    """
    count = _from_environment("WORLD_SIZE", 1)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise TrainError("got cuda, but PyTorch sees no GPU here", field="--device")
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    device = None
    if cuda:
        device = _own_gpu(_from_environment("LOCAL_RANK", 0), torch.cuda.device_count())
        torch.cuda.set_device(device)
    device = device or torch.device("cpu")
    if count == 1:
        if settings.parallel == "fsdp":
            raise TrainError(
                "sharding needs several processes; start with torchrun", field="--parallel"
            )
        yield Workers(0, 1, device, "none")
        return
    kind: Parallel = "fsdp" if settings.parallel == "fsdp" else "ddp"
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise TrainError(
                f"WORLD_SIZE is {count}, but {name} is not set; start with torchrun, or unset it",
                field="environment",
            )
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), count, device, kind)
    finally:
        dist.destroy_process_group()


def _own_gpu(local_rank: int, there: int) -> torch.device:
    if local_rank >= there:
        raise TrainError(
            f"got LOCAL_RANK={local_rank}, but this machine has {count_of(there, 'GPU')}; wanted "
            "as many processes (torchrun's --nproc-per-node)",
            field="environment",
        )
    return torch.device("cuda", local_rank)


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise TrainError(f"got {name}={text!r}, wanted a whole number", field="environment")
    return int(text)


def spread(model: Transformer, who: Workers) -> nn.Module:
    """Return the module to call: the model itself, wrapped by DDP, or sharded block by block."""
    if who.parallel == "ddp":
        ids = [who.device.index] if who.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)
    if who.parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(who.device.type, (who.count,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


@contextlib.contextmanager
def synchronized(model: nn.Module, who: Workers, last: bool) -> Iterator[None]:
    """Let gradients be exchanged only by the last micro batch of a step."""
    if who.parallel == "ddp" and not last:
        with model.no_sync():
            yield
        return
    if who.parallel == "fsdp":
        model.set_requires_gradient_sync(last)
    yield


def total(value: Tensor, who: Workers) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if who.count > 1:
        dist.all_reduce(value)
    return value


def barrier(who: Workers) -> None:
    """Wait for all processes."""
    if who.count > 1:
        dist.barrier()


def agree(what: str, value: object, who: Workers) -> None:
    """Check that all processes have the same of something.

    Raises:
        TrainError: If they do not.
    """
    if who.count == 1:
        return
    found: list[object] = [None] * who.count
    dist.all_gather_object(found, value)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise TrainError(
                f"{what}: process 0 has {found[0]}, process {rank} has {other}; "
                "all machines need the same files"
            )


def whole(value: Tensor) -> Tensor:
    """Return a tensor with its shards gathered; all processes must call it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def local(value: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, or the tensor itself."""
    return value.to_local() if hasattr(value, "to_local") else value


def fill(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        moved = source.to(device=target.device, dtype=target.dtype)
        source = distribute_tensor(moved, target.device_mesh, target.placements)
    target.copy_(source)
