"""A run's tensors as a target groups them: which row of the plan each group follows, and how.

Targets differ in what their forward pass multiplies. A group is told what that is; what the plan's
row asks for beyond it is folded into the weights by AdamW's symmetry (`planner.render.symmetry`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from planner.render.errors import CannotExpressError
from planner.render.symmetry import Values, fold, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.plan.model import Run, Tensor

NEGLIGIBLE_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters of a target's model that are trained alike.

    Attributes:
        name: The group's name.
        tensor_class: The plan's row that it follows.
        patterns: Globs on the target's parameter names that select it.
        values: What the weights that the target holds start with and are trained by.
        start: ``normal`` with ``values.init_std``, or ``constant``: all are ``start_at``.
        start_at: See `start`.
    """

    name: str
    tensor_class: str
    patterns: tuple[str, ...]
    values: Values
    start: Literal["normal", "constant"]
    start_at: float = 0.0


def row_of(run: Run, tensor_class: str) -> Tensor:
    """Return the plan's row of a class.

    Raises:
        CannotExpressError: If there is none.
    """
    try:
        return run.tensor(tensor_class)
    except KeyError:
        raise CannotExpressError(
            f"the plan has no row for {tensor_class}", field=f"{run.name}.tensors"
        ) from None


def make_group(
    run: Run,
    name: str,
    tensor_class: str,
    *patterns: str,
    native: float = 1.0,
    extra: float = 1.0,
    start_at: float | None = None,
) -> Group:
    """Return a group of weights, with what the target's forward pass does not multiply folded in.

    Args:
        run: The plan's run.
        name: Name of the group.
        tensor_class: The plan's row.
        patterns: Globs on parameter names.
        native: What the target's forward pass multiplies these weights by.
        extra: What the plan multiplies these weights by beyond the row's forward multiplier: the
            branch's multiplier for a bias, attention's for the query weights.
        start_at: What a norm's parameters start at; its weights are told from its biases by this.

    Raises:
        CannotExpressError: If the plan has no such row, or no std for random weights.
    """
    row = row_of(run, tensor_class)
    values = values_of(row)
    wanted = values.forward_multiplier * extra
    if not math.isclose(wanted, native, rel_tol=1e-15):
        values = fold(values, wanted / native)
    folded = Values(
        values.init_std, values.lr, values.weight_decay, values.eps, native, values.folded
    )
    if tensor_class in ("norm", "final_norm"):
        start_at = values.folded if start_at is None else start_at
        return Group(name, tensor_class, patterns, folded, "constant", start_at)
    if tensor_class == "bias":
        return Group(name, tensor_class, patterns, folded, "constant", 0.0)
    if values.init_std is None:
        raise CannotExpressError(
            f"the plan has no init_std for {tensor_class}, which starts at random",
            field=f"{run.name}.tensors",
        )
    return Group(name, tensor_class, patterns, folded, "normal")


def check_tied(run: Run, native: bool = True) -> None:
    """Check that a tied head is no more than the embedding with another forward multiplier.

    Args:
        run: A run with tied embeddings.
        native: Whether the target has a multiplier on embeddings and one on logits of its own.

    Raises:
        CannotExpressError: If the rows differ otherwise, or in the multiplier where the target has
            none: nothing can be folded into a table that is used twice.
    """
    head, embedding = row_of(run, "unembedding"), row_of(run, "embedding")
    for field in ("init_std", "lr", "weight_decay", "eps"):
        if getattr(head, field) != getattr(embedding, field):
            raise CannotExpressError(
                f"embeddings are tied but the plan's {field} is {getattr(embedding, field)} for "
                f"embedding and {getattr(head, field)} for unembedding",
                field=f"{run.name}.tensors",
            )
    if not native and head.forward_multiplier != embedding.forward_multiplier:
        raise CannotExpressError(
            f"embeddings are tied and the plan multiplies them by {embedding.forward_multiplier:g} "
            f"at the input and {head.forward_multiplier:g} at the output, which this target cannot "
            "do and nothing can be folded into one table that is used twice; wanted "
            "tied_embeddings: false",
            field=f"{run.name}.model.tied_embeddings",
        )


def one_epsilon(run: Run, groups: Sequence[Group], trainer: str) -> float:
    """Return the one epsilon of a target that has one for all tensors.

    Raises:
        CannotExpressError: If the groups need different ones that are not negligible.
    """
    wanted = {group.values.eps for group in groups}
    if len(wanted) == 1:
        return wanted.pop()
    largest = max(*wanted, run.optimizer.eps)
    if run.optimizer.eps_mode == "negligible" and largest <= NEGLIGIBLE_EPS:
        return run.optimizer.eps
    raise CannotExpressError(
        f"{trainer} has one Adam epsilon for all tensors and this plan needs {min(wanted):.3g} to "
        f"{largest:.3g}; declare eps_mode: negligible with an eps so small that all are at most "
        f"{NEGLIGIBLE_EPS:.0e}",
        field=f"{run.name}.optimizer.eps",
    )


def clipping_warning(run: Run, groups: Sequence[Group]) -> str | None:
    """Return what to warn of where gradients are clipped by a norm that sees folded factors."""
    folded = [group for group in groups if group.values.folded != 1.0]
    clip = run.optimizer.grad_clip
    if clip is None or not folded:
        return None
    factors = ", ".join(f"{group.name} {1.0 / group.values.folded:.4g}" for group in folded)
    return (
        f"run {run.name} clips gradients at global norm {clip:g}, and that norm sees the "
        "multipliers folded into weights: gradients are larger than with native multipliers by "
        f"{factors}"
    )
