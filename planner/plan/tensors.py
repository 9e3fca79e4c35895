"""The plan's table of tensor classes at one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from planner.models.parametrization import tensor_values
from planner.plan.model import Tensor, TensorClass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from planner.models.parametrization import BaseValues, TensorRule


def tensor_table(
    rules: Mapping[str, TensorRule],
    base: BaseValues,
    *,
    weight_decay: float,
    eps: float,
    width: float,
    ffn: float,
    depth: float,
    tau: Callable[[float, float], float | None],
) -> tuple[Tensor, ...]:
    """Return a row for each tensor class.

    Args:
        rules: How each class scales (arXiv 2505.01618, Table 1).
        base: Values at the base shape; the learning rate is the peak's.
        weight_decay: Base weight decay.
        eps: Base Adam epsilon.
        width: m_N, model width over base width.
        ffn: m_F, feed-forward width over base feed-forward width.
        depth: m_L, depth over base depth.
        tau: AdamW timescale, as a part of the run, of a class's peak rate and weight decay.
    """
    rows = []
    for name, rule in rules.items():
        values = tensor_values(
            rule, base, weight_decay=weight_decay, eps=eps, width=width, ffn=ffn, depth=depth
        )
        rows.append(
            Tensor(
                tensor_class=cast("TensorClass", name),
                init_std=values.init_std,
                lr=values.lr,
                weight_decay=values.weight_decay,
                eps=values.eps,
                forward_multiplier=values.forward_multiplier,
                tau=tau(values.lr, values.weight_decay),
            )
        )
    return tuple(rows)
