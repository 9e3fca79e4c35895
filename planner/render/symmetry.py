"""AdamW's exact symmetry: a fixed forward multiplier and the weights it multiplies.

A layer that computes ``f * W`` and one that computes ``(f/c) * W'`` with ``W' = c * W`` train alike
under AdamW if ``W'`` starts with c times the standard deviation and has c times the learning rate,
1/c times epsilon and 1/c times the weight decay: gradients of W' are 1/c as large, Adam's ratio
does not see that, every update is c times as large as W's, and learning rate times decay stays.

The symmetry does not hold under clipping by the global gradient norm, which sees the factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.plan.model import Tensor


@dataclass(frozen=True, slots=True)
class Values:
    """What a trainer is told about one class of tensors.

    Attributes:
        init_std: Standard deviation at initialization; None where it is not random.
        lr: Peak learning rate of this class.
        weight_decay: Decoupled decay that AdamW multiplies by the class's learning rate.
        eps: AdamW's epsilon.
        forward_multiplier: What the forward pass multiplies the layer by.
        folded: The factor that was folded into the weights; 1 if nothing was.
    """

    init_std: float | None
    lr: float
    weight_decay: float
    eps: float
    forward_multiplier: float
    folded: float = 1.0


def values_of(row: Tensor) -> Values:
    """Return a plan's row as the values of a trainer that has every multiplier natively."""
    return Values(row.init_std, row.lr, row.weight_decay, row.eps, row.forward_multiplier)


def fold(values: Values, factor: float) -> Values:
    """Move ``factor`` from the forward multiplier into the weights, exactly.

    Args:
        values: What to rewrite.
        factor: The factor c > 0 that the weights take on; `values.forward_multiplier` folds it all.

    Raises:
        ValueError: If the factor is not positive.
    """
    if not factor > 0:
        raise ValueError(f"got factor {factor}, wanted a positive one")
    return Values(
        init_std=None if values.init_std is None else values.init_std * factor,
        lr=values.lr * factor,
        weight_decay=values.weight_decay / factor,
        eps=values.eps / factor,
        forward_multiplier=values.forward_multiplier / factor,
        folded=values.folded * factor,
    )
