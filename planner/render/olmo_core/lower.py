"""From a run of a plan to OLMo-core's settings: what it cannot multiply goes into the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from planner.render.groups import Group, check_tied, clipping_warning, make_group, row_of
from planner.render.settings import Settings, refusal

if TYPE_CHECKING:
    from planner.plan.model import Run

_NORMS = {"rmsnorm": "rms", "layernorm": "default"}


def lower(run: Run) -> Settings:
    """Return OLMo-core's settings for a run.

    Raises:
        CannotExpressError: If OLMo-core cannot run exactly what the plan says, with the reason.
    """
    _check_shape(run)
    shape = run.model
    embedding = row_of(run, "embedding").forward_multiplier
    if shape.tied_embeddings:
        # The one table holds the head's multiplier; the embedding's is what is left.
        check_tied(run)
        embedding /= row_of(run, "unembedding").forward_multiplier
    model: dict[str, Any] = {
        "embed_scale": embedding,
        "attention_residual_alpha": row_of(run, "attn_out").forward_multiplier,
        "feed_forward_residual_alpha": row_of(run, "ffn_out").forward_multiplier,
        "norm": _NORMS[shape.norm],
        "norm_bias": shape.biases and shape.norm == "layernorm",
    }
    groups = _groups(run, model)
    warning = clipping_warning(run, groups)
    return Settings(model, groups, () if warning is None else (warning,))


def _check_shape(run: Run) -> None:
    shape = run.model

    refuse = refusal("olmo-core", run)

    if shape.experts is not None:
        refuse("model.experts", "the plan does not state routing and balancing as it needs them")
    if not shape.gated:
        refuse("model.gated", "its feed-forward is always gated")
    if shape.activation != "silu":
        refuse("model.activation", f"it has no exact {shape.activation!r}, only silu")
    if shape.position not in ("rope", "none"):
        refuse("model.position", f"its positions are rotary or none, not {shape.position!r}")
    if shape.position == "rope" and shape.head_dim % 2:
        refuse("model.head_dim", "rotary position embedding wants an even head_dim")
    if shape.norm not in _NORMS:
        refuse("model.norm", f"it has no norm {shape.norm!r}")
    if shape.n_heads % shape.n_kv_heads:
        refuse("model.n_kv_heads", "it wants key-value heads that divide the heads")
    if run.precision == "fp16":
        refuse("precision", "it has no loss scaling for fp16")


def _groups(run: Run, model: dict[str, Any]) -> tuple[Group, ...]:
    shape = run.model
    # The attention product is divided by sqrt(head_dim) whatever the plan says.
    scale = shape.attention_multiplier * math.sqrt(shape.head_dim)
    attention, ffn = "blocks.*.attention", "blocks.*.feed_forward"
    alphas = (model["attention_residual_alpha"], model["feed_forward_residual_alpha"])
    groups = [
        make_group(run, "embedding", "embedding", "embeddings.weight", native=model["embed_scale"]),
        make_group(run, "attn_q", "attn_qkv", f"{attention}.w_q.weight", extra=scale),
        make_group(run, "attn_kv", "attn_qkv", f"{attention}.w_[kv].weight"),
        make_group(run, "attn_out", "attn_out", f"{attention}.w_out.weight", native=alphas[0]),
        make_group(run, "ffn_in", "ffn_in", f"{ffn}.w[13].weight"),
        make_group(run, "ffn_out", "ffn_out", f"{ffn}.w2.weight", native=alphas[1]),
        make_group(run, "norm", "norm", "blocks.*_norm.weight"),
        make_group(run, "final_norm", "final_norm", "lm_head.norm.weight"),
    ]
    if not shape.tied_embeddings:
        groups.append(make_group(run, "unembedding", "unembedding", "lm_head.w_out.weight"))
    if model["norm_bias"]:
        groups += [
            make_group(run, "norm_bias", "norm", "blocks.*_norm.bias", start_at=0.0),
            make_group(run, "final_norm_bias", "final_norm", "lm_head.norm.bias", start_at=0.0),
        ]
    if shape.biases:
        into, out = row_of(run, "attn_qkv"), row_of(run, "ffn_in")
        first, second = into.forward_multiplier, out.forward_multiplier
        groups += [
            make_group(run, "attn_q_bias", "bias", f"{attention}.w_q.bias", extra=first * scale),
            make_group(run, "attn_kv_bias", "bias", f"{attention}.w_[kv].bias", extra=first),
            make_group(
                run,
                "attn_out_bias",
                "bias",
                f"{attention}.w_out.bias",
                native=alphas[0],
                extra=row_of(run, "attn_out").forward_multiplier,
            ),
            make_group(run, "ffn_in_bias", "bias", f"{ffn}.w[13].bias", extra=second),
            make_group(
                run,
                "ffn_out_bias",
                "bias",
                f"{ffn}.w2.bias",
                native=alphas[1],
                extra=row_of(run, "ffn_out").forward_multiplier,
            ),
        ]
    return tuple(groups)
