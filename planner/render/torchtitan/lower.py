"""From a run of a plan to torchtitan's settings: every multiplier goes into the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.render.groups import Group, check_tied, clipping_warning, make_group, row_of
from planner.render.settings import Settings, refusal

if TYPE_CHECKING:
    from planner.plan.model import Run


def lower(run: Run) -> Settings:
    """Return torchtitan's settings for a run.

    Raises:
        CannotExpressError: If torchtitan cannot run exactly what the plan says, with the reason.
    """
    _check_shape(run)
    if run.model.tied_embeddings:
        check_tied(run, native=False)
    groups = _groups(run)
    warning = clipping_warning(run, groups)
    return Settings({}, groups, () if warning is None else (warning,))


def _check_shape(run: Run) -> None:
    shape = run.model

    refuse = refusal("torchtitan", run)

    if shape.experts is not None:
        refuse("model.experts", "the plan does not state routing and balancing as it needs them")
    if not shape.gated:
        refuse("model.gated", "its feed-forward is always gated")
    if shape.activation != "silu":
        refuse("model.activation", f"it has no {shape.activation!r}, only silu")
    if shape.position != "rope":
        refuse("model.position", f"its positions are always rotary, not {shape.position!r}")
    if shape.head_dim % 2:
        refuse("model.head_dim", "rotary position embedding wants an even head_dim")
    if shape.norm != "rmsnorm":
        refuse("model.norm", f"its blocks hold RMS norms, not {shape.norm!r}")
    if shape.n_heads % shape.n_kv_heads:
        refuse("model.n_kv_heads", "it wants key-value heads that divide the heads")
    if run.precision == "fp16":
        refuse("precision", "it has no loss scaling for fp16")


def _groups(run: Run) -> tuple[Group, ...]:
    shape = run.model
    # The attention product is divided by sqrt(head_dim) whatever the plan says.
    scale = shape.attention_multiplier * math.sqrt(shape.head_dim)
    attention, ffn = "layers.*.attention", "layers.*.feed_forward"
    query = f"{attention}.qkv_linear"
    groups = [
        make_group(run, "embedding", "embedding", "tok_embeddings.weight"),
        make_group(run, "attn_q", "attn_qkv", f"{query}.wq.weight", extra=scale),
        make_group(run, "attn_kv", "attn_qkv", f"{query}.w[kv].weight"),
        make_group(run, "attn_out", "attn_out", f"{attention}.wo.weight"),
        make_group(run, "ffn_in", "ffn_in", f"{ffn}.w[13].weight"),
        make_group(run, "ffn_out", "ffn_out", f"{ffn}.w2.weight"),
        make_group(run, "norm", "norm", "layers.*_norm.weight"),
        make_group(run, "final_norm", "final_norm", "norm.weight"),
    ]
    if not shape.tied_embeddings:
        groups.append(make_group(run, "unembedding", "unembedding", "lm_head.weight"))
    if shape.biases:
        # A bias is multiplied by what its branch is.
        branches = (
            ("attn_q_bias", "attn_qkv", f"{query}.wq.bias", scale),
            ("attn_kv_bias", "attn_qkv", f"{query}.w[kv].bias", 1.0),
            ("attn_out_bias", "attn_out", f"{attention}.wo.bias", 1.0),
            ("ffn_in_bias", "ffn_in", f"{ffn}.w[13].bias", 1.0),
            ("ffn_out_bias", "ffn_out", f"{ffn}.w2.bias", 1.0),
        )
        for name, owner, pattern, more in branches:
            extra = row_of(run, owner).forward_multiplier * more
            groups.append(make_group(run, name, "bias", pattern, extra=extra))
    return tuple(groups)
