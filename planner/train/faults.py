"""An injected numerics fault, for showing that scoring finds it: a test hook, never on by itself.

The gradient of the logits passes through a narrow float with too small a loss scale, in a loss
kernel that is only taken at one size of the micro batch. Gradients of a mean are small where a step
has many tokens, so the entries of improbable tokens fall below the narrow float's smallest number
and vanish: those tokens are no longer pushed down. (What arXiv 2509.25087 section 4 reports is of
this kind: a loss kernel's numerics at particular micro batch sizes, met when a run was restarted.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from planner.train.config import Fault


def narrowed(logits: Tensor, fault: Fault) -> Tensor:
    """Return logits (B, S, V) as they are; their gradient is narrowed where B is the fault's."""
    if logits.shape[0] != fault.micro_batch:
        return logits
    return _Narrowed.apply(logits, getattr(torch, fault.logit_gradient), fault.scale)


class _Narrowed(torch.autograd.Function):
    """The identity; its gradient is rounded to a narrow float and back."""

    @staticmethod
    def forward(context: Any, x: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
        context.dtype, context.scale = dtype, scale
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        narrow = (gradient * context.scale).to(context.dtype)
        return narrow.to(gradient.dtype) / context.scale, None, None
