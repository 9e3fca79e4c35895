"""AdamW with one parameter group for each tensor class, as the plan's table says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from planner.render.symmetry import Values, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from planner.plan.model import Run
    from planner.train.model import Transformer


def table_values(model: Transformer, run: Run) -> dict[str, Values]:
    """Return the plan's values of every parameter, by the parameter's name."""
    rows: dict[str, Values] = {row.tensor_class: values_of(row) for row in run.tensors}
    return {name: rows[tensor_class] for name, tensor_class, _ in model.tensors()}


def make_optimizer(
    tensors: Iterable[tuple[str, str, nn.Parameter]],
    values: Mapping[str, Values],
    betas: tuple[float, float],
) -> torch.optim.AdamW:
    """Return AdamW over parameters given as (name, tensor class, parameter).

    Parameters of one class with the same values share a group, which also holds the class as
    ``tensor_class`` and its peak learning rate as ``peak_lr``. Epsilon is added after bias
    correction, as PyTorch does.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, tensor_class, parameter in tensors:
        v = values[name]
        key = (tensor_class, v.lr, v.weight_decay, v.eps)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "tensor_class": tensor_class,
                "lr": v.lr,
                "peak_lr": v.lr,
                "weight_decay": v.weight_decay,
                "eps": v.eps,
            },
        )
        group["params"].append(parameter)
    return torch.optim.AdamW(list(groups.values()), betas=betas, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
