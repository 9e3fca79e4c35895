"""From a run of a plan to Megatron's flags, and what those come to by tensor class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from planner.render.groups import Group, make_group, row_of
from planner.render.megatron.express import (
    ACTIVATIONS,
    NORMS,
    POSITIONS,
    check_run,
    epsilon,
    same,
)
from planner.render.schedule import pieces
from planner.render.settings import Settings
from planner.render.symmetry import Values

if TYPE_CHECKING:
    from planner.plan.model import Run
    from planner.render.megatron.options import MegatronOptions

NORM_EPS = 1e-5
ROPE_BASE = 10_000


def lower(run: Run, options: MegatronOptions) -> Settings:
    """Return Megatron's flags for a run.

    Raises:
        CannotExpressError: If Megatron cannot run exactly what the plan says, with the reason.
    """
    base = check_run(run, options)
    flags = _shape_flags(run) | _scale_flags(run, base) | _schedule_flags(run)
    return Settings(flags, _groups(run, base), ())


def _shape_flags(run: Run) -> dict[str, Any]:
    shape = run.model
    activation = ACTIVATIONS[shape.gated, shape.activation]
    flags: dict[str, Any] = {
        "num-layers": shape.n_layers,
        "hidden-size": shape.d_model,
        "ffn-hidden-size": shape.d_ffn,
        "num-attention-heads": shape.n_heads,
        "kv-channels": shape.head_dim,
    }
    if shape.n_kv_heads != shape.n_heads:
        flags |= {"group-query-attention": True, "num-query-groups": shape.n_kv_heads}
    flags |= {
        "seq-length": shape.seq_len,
        "max-position-embeddings": shape.seq_len,
        "position-embedding-type": POSITIONS[shape.position],
    }
    if shape.position == "rope":
        flags |= {"rotary-base": ROPE_BASE, "rotary-percent": 1.0}
    flags |= {"normalization": NORMS[shape.norm], "norm-epsilon": NORM_EPS}
    if activation is not None:
        flags[activation] = True
    if not shape.gated:
        flags["no-bias-gelu-fusion"] = True
    if not shape.biases:
        flags["disable-bias-linear"] = True
    if not shape.tied_embeddings:
        flags["untie-embeddings-and-output-weights"] = True
    return flags | {
        "tokenizer-type": "NullTokenizer",
        "vocab-size": shape.vocab_size,
        "padded-vocab-size": shape.padded_vocab_size,
        "attention-dropout": 0.0,
        "hidden-dropout": 0.0,
    }


def _scale_flags(run: Run, base: int) -> dict[str, Any]:
    shape = run.model
    embedding = row_of(run, "embedding").forward_multiplier
    logits = row_of(run, "unembedding").forward_multiplier
    width = shape.d_model / base
    flags: dict[str, Any] = {"init-method-std": row_of(run, "embedding").init_std}
    plain = same(shape.attention_multiplier, 1.0 / math.sqrt(shape.head_dim))
    if base == shape.d_model and plain and embedding == logits == 1.0:
        return flags
    flags |= {"use-mup": True, "mup-base-hidden-size": base, "mup-embedding-mult": embedding}
    if logits == 1.0 and width != 1.0:
        logits = math.nextafter(1.0, 2.0)  # 1.0 itself counts as not given and becomes 1/m_N
    flags["mup-output-mult"] = logits
    # q.k is multiplied by sqrt(base head dim) / head_dim ** power.
    flags["mup-attn-scale-power"] = 0.5 if plain else 1.0
    if not plain and not same(shape.attention_multiplier, 1.0 / shape.head_dim):
        flags["mup-base-head-dim"] = (shape.attention_multiplier * shape.head_dim) ** 2
    return flags


def _schedule_flags(run: Run) -> dict[str, Any]:
    found = pieces(run)
    warmup = run.warmup_steps
    after = found[1:] if warmup else found
    decay = next((piece for piece in after if piece.shape != "constant"), None)
    hold = any(piece.shape == "constant" for piece in after)
    style = "constant" if decay is None else "WSD" if hold else decay.shape
    optimizer = run.optimizer
    flags: dict[str, Any] = {
        "optimizer": "adam",
        "lr": optimizer.base_peak_lr,
        "min-lr": 0.0 if decay is None else decay.end,
        "lr-decay-style": style,
        "lr-warmup-iters": warmup,
        "lr-decay-iters": run.steps,
    }
    if decay is not None and hold:
        flags |= {"lr-wsd-decay-iters": decay.steps, "lr-wsd-decay-style": decay.shape}
    return flags | {
        "weight-decay": optimizer.base_weight_decay,
        "adam-beta1": optimizer.betas[0],
        "adam-beta2": optimizer.betas[1],
        "adam-eps": optimizer.eps,
        "clip-grad": optimizer.grad_clip or 0.0,
        "train-iters": run.steps,
        "global-batch-size": run.batch.sequences,
    }


def _groups(run: Run, base: int) -> tuple[Group, ...]:
    """Return what the flags come to, by the names that Megatron's own layers give parameters."""
    shape = run.model
    width = shape.d_model / base
    attention, mlp = "decoder.layers.*.self_attention", "decoder.layers.*.mlp"
    norms = ("decoder.layers.*layernorm", "decoder.final_layernorm")
    embedding = row_of(run, "embedding").forward_multiplier
    head = row_of(run, "unembedding").forward_multiplier

    def group(name: str, tensor_class: str, *patterns: str, **more: Any) -> Group:
        made = make_group(run, name, tensor_class, *patterns, **more)
        given = made.values
        eps = epsilon(run.optimizer.eps, width, tensor_class)
        values = Values(
            given.init_std,
            given.lr,
            given.weight_decay,
            eps,
            given.forward_multiplier,
            given.folded,
        )
        return Group(name, tensor_class, patterns, values, made.start, made.start_at)

    tables = ["embedding.word_embeddings.weight"]
    if shape.position == "learned":
        tables.append("embedding.position_embeddings.weight")
    groups = [
        group("embedding", "embedding", *tables, native=embedding),
        group("attn_qkv", "attn_qkv", f"{attention}.linear_qkv.weight"),
        group("attn_out", "attn_out", f"{attention}.linear_proj.weight"),
        group("ffn_in", "ffn_in", f"{mlp}.linear_fc1.weight"),
        group("ffn_out", "ffn_out", f"{mlp}.linear_fc2.weight"),
        group("norm", "norm", f"{norms[0]}.weight"),
        group("final_norm", "final_norm", f"{norms[1]}.weight"),
    ]
    if not shape.tied_embeddings:
        groups.append(group("unembedding", "unembedding", "output_layer.weight", native=head))
    if shape.norm == "layernorm":
        groups += [
            group("norm_bias", "norm", f"{norms[0]}.bias", start_at=0.0),
            group("final_norm_bias", "final_norm", f"{norms[1]}.bias", start_at=0.0),
        ]
    if shape.biases:
        layers = [f"{attention}.linear_qkv", f"{attention}.linear_proj"]
        layers += [f"{mlp}.linear_fc1", f"{mlp}.linear_fc2"]
        groups.append(group("bias", "bias", *(f"{layer}.bias" for layer in layers)))
    return tuple(groups)
