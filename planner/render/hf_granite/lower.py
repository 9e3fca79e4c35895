"""From a run of a plan to a Granite model: every multiplier of the plan has its own setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.render.groups import Group, check_tied, clipping_warning, make_group, row_of
from planner.render.settings import Settings, refusal

if TYPE_CHECKING:
    from planner.plan.model import Run

# The plan's activations by the names that Transformers has for them; Granite's are all gated.
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "relu": "relu", "relu2": "relu2"}
NORM_EPS = 1e-5
ROPE_BASE = 10_000.0
_LAYER = "model.layers.*"


def lower(run: Run) -> Settings:
    """Return Granite's settings for a run.

    Raises:
        CannotExpressError: If Granite cannot run exactly what the plan says, with the reason.
    """
    shape = run.model
    _check_shape(run)
    residual = row_of(run, "attn_out").forward_multiplier
    model: dict[str, Any] = {
        "vocab_size": shape.padded_vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ffn,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "hidden_act": _ACTIVATIONS[shape.activation],
        "max_position_embeddings": shape.seq_len,
        "attention_bias": shape.biases,
        "mlp_bias": shape.biases,
        "tie_word_embeddings": shape.tied_embeddings,
        "rms_norm_eps": NORM_EPS,
        "embedding_multiplier": row_of(run, "embedding").forward_multiplier,
        "residual_multiplier": residual,
        "attention_multiplier": shape.attention_multiplier,
        "logits_scaling": 1.0 / row_of(run, "unembedding").forward_multiplier,
    }
    if shape.n_heads * shape.head_dim != shape.d_model:
        model["head_dim"] = shape.head_dim
    groups = _groups(run, residual)
    warning = clipping_warning(run, groups)
    return Settings(model, groups, () if warning is None else (warning,))


def _check_shape(run: Run) -> None:
    shape = run.model

    refuse = refusal("hf-granite", run)

    if shape.experts is not None:
        refuse("model.experts", "Granite is dense; GraniteMoe is another model")
    if not shape.gated:
        refuse("model.gated", "its feed-forward is always gated")
    if shape.activation not in _ACTIVATIONS:
        refuse("model.activation", f"it has no activation {shape.activation!r}")
    if shape.position != "rope":
        refuse("model.position", f"its positions are rotary, not {shape.position!r}")
    if shape.norm != "rmsnorm":
        refuse("model.norm", f"its norm is rmsnorm, not {shape.norm!r}")
    if shape.head_dim % 2:
        refuse("model.head_dim", "rotary position embedding wants an even head_dim")
    if shape.n_heads % shape.n_kv_heads:
        refuse("model.n_kv_heads", "it wants key-value heads that divide the heads")
    if run.precision == "fp16":
        refuse("precision", "loss scaling for fp16 skips updates, which the plan counts")


def _groups(run: Run, residual: float) -> tuple[Group, ...]:
    shape = run.model
    embedding = row_of(run, "embedding").forward_multiplier
    head = row_of(run, "unembedding").forward_multiplier
    attention, mlp = f"{_LAYER}.self_attn", f"{_LAYER}.mlp"
    into = (f"{mlp}.gate_proj", f"{mlp}.up_proj")
    groups = [
        make_group(run, "embedding", "embedding", "model.embed_tokens.weight", native=embedding),
        make_group(run, "attn_qkv", "attn_qkv", f"{attention}.[qkv]_proj.weight"),
        make_group(run, "attn_out", "attn_out", f"{attention}.o_proj.weight", native=residual),
        make_group(run, "ffn_in", "ffn_in", *(f"{name}.weight" for name in into)),
        make_group(run, "ffn_out", "ffn_out", f"{mlp}.down_proj.weight", native=residual),
        make_group(run, "norm", "norm", f"{_LAYER}.*layernorm.weight"),
        make_group(run, "final_norm", "final_norm", "model.norm.weight"),
    ]
    if shape.tied_embeddings:
        check_tied(run)
    else:
        groups.append(make_group(run, "unembedding", "unembedding", "lm_head.weight", native=head))
    if shape.biases:

        def bias(owner: str, *patterns: str, native: float = 1.0) -> Group:
            branch = row_of(run, owner).forward_multiplier
            return make_group(run, f"{owner}_bias", "bias", *patterns, native=native, extra=branch)

        groups += [
            bias("attn_qkv", f"{attention}.[qkv]_proj.bias"),
            bias("attn_out", f"{attention}.o_proj.bias", native=residual),
            bias("ffn_in", *(f"{name}.bias" for name in into)),
            bias("ffn_out", f"{mlp}.down_proj.bias", native=residual),
        ]
    return tuple(groups)
