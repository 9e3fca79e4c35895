"""From a run of a plan to the script's settings: every row is taken as it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.render.groups import NEGLIGIBLE_EPS, Group, check_tied, make_group, row_of
from planner.render.settings import refusal

if TYPE_CHECKING:
    from planner.plan.model import Run

_KNOWN = {
    "activation": ("relu2", "relu", "gelu", "silu"),
    "position": ("alibi", "rope", "learned", "none"),
    "norm": ("layernorm", "rmsnorm"),
}
_SHAPE = (
    "d_model",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "d_ffn",
    "gated",
    "seq_len",
    "activation",
    "position",
    "norm",
    "biases",
    "tied_embeddings",
    "attention_multiplier",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the script's configuration says of a run.

    Attributes:
        model: The model's shape, vocabulary padded, and what it multiplies q.k by.
        multipliers: What the forward pass multiplies each tensor class by.
        groups: The optimizer's groups.
        warnings: What the user should know.
    """

    model: dict[str, Any]
    multipliers: dict[str, float]
    groups: tuple[Group, ...]
    warnings: tuple[str, ...]


def lower(run: Run, backend: str, precision: str) -> Settings:
    """Return the script's settings for a run.

    Args:
        run: The plan's run.
        backend: ``CSX`` or ``CPU``.
        precision: ``bf16`` or ``fp32``, the plan's or what replaces it.

    Raises:
        CannotExpressError: If the script cannot run exactly what the plan says, with the reason.
    """
    _check_shape(run, backend, precision)
    names = ["embedding", "attn_qkv", "attn_out", "ffn_in", "ffn_out", "norm", "final_norm"]
    names += ["unembedding"] + ["bias"] * run.model.biases
    return Settings(
        model_of(run),
        {name: row_of(run, name).forward_multiplier for name in names},
        _groups(run),
        _warnings(run),
    )


def model_of(run: Run) -> dict[str, Any]:
    """Return the shape of a run's model by the script's names, which are the plan's."""
    model = {name: getattr(run.model, name) for name in _SHAPE}
    return {**model, "vocab_size": run.model.padded_vocab_size}


def _check_shape(run: Run, backend: str, precision: str) -> None:
    shape = run.model

    refuse = refusal("cstorch", run)

    if shape.experts is not None:
        refuse("model.experts", "the script's model is dense")
    for field, names in _KNOWN.items():
        got = getattr(shape, field)
        if got not in names:
            refuse(f"model.{field}", f"its model has no {field} {got!r}")
    if shape.position == "rope" and shape.head_dim % 2:
        refuse("model.head_dim", "rotary position embedding wants an even head_dim")
    if shape.n_heads % shape.n_kv_heads:
        refuse("model.n_kv_heads", "it wants key-value heads that divide the heads")
    if precision == "fp16":
        refuse("precision", "loss scaling for fp16 skips updates, which the plan counts")
    if precision == "fp32" and backend == "CSX":
        refuse(
            "precision",
            "CSX turns mixed precision on whatever is asked; wanted bf16, or backend=CPU",
        )


def _groups(run: Run) -> tuple[Group, ...]:
    shape = run.model

    def group(tensor_class: str, *patterns: str) -> Group:
        native = row_of(run, tensor_class).forward_multiplier
        return make_group(run, tensor_class, tensor_class, *patterns, native=native)

    def norm_bias(tensor_class: str, pattern: str) -> Group:
        native = row_of(run, tensor_class).forward_multiplier
        name = f"{tensor_class}_bias"
        return make_group(run, name, tensor_class, pattern, native=native, start_at=0.0)

    attention, ffn = "blocks.*.attention", "blocks.*.ffn"
    positions = ("embedding.positions",) if shape.position == "learned" else ()
    gate = (f"{ffn}.gate.weight",) if shape.gated else ()
    groups = [
        group("embedding", "embedding.weight", *positions),
        group("attn_qkv", f"{attention}.[qkv].weight"),
        group("attn_out", f"{attention}.out.weight"),
        group("ffn_in", f"{ffn}.inner.weight", *gate),
        group("ffn_out", f"{ffn}.out.weight"),
        group("norm", "blocks.*_norm.weight"),
        group("final_norm", "norm.weight"),
    ]
    if shape.tied_embeddings:
        check_tied(run)
    else:
        groups.append(group("unembedding", "unembedding.weight"))
    if shape.biases:
        if shape.norm == "layernorm":
            groups += [
                norm_bias("norm", "blocks.*_norm.bias"),
                norm_bias("final_norm", "norm.bias"),
            ]
        groups.append(group("bias", f"{attention}.*.bias", f"{ffn}.*.bias"))
    return tuple(groups)


def _warnings(run: Run) -> tuple[str, ...]:
    largest = max(row.eps for row in run.tensors)
    if largest <= NEGLIGIBLE_EPS:
        return ()
    first = 1.0 / math.sqrt(1.0 - run.optimizer.betas[1])
    return (
        f"run {run.name} has an Adam epsilon of up to {largest:.3g}, and cerebras_pytorch adds it "
        f"before bias correction, where PyTorch adds it after: it counts {first:.3g} times as much "
        "in the first update and as planned only after some 1/(1 - beta2) of them",
    )
