"""From Megatron's flags back to a plan's rows: what they really make it train.

This is `lower` the other way round, written from megatron-core 0.19's rules
(``core/transformer/transformer_config.py``, ``core/optimizer/__init__.py``,
``core/optimizer_param_scheduler.py``) and not from `lower`'s formulas, so that the two check each
other and an edited file can be compared with its plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.render.groups import NEGLIGIBLE_EPS, row_of
from planner.render.schedule import learning_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from planner.plan.model import Run

_VECTORS = ("embedding", "unembedding", "norm", "final_norm", "bias")


@dataclass(frozen=True, slots=True)
class Seen:
    """What Megatron does to a tensor class: std, peak learning rate, decay, epsilon."""

    init_std: float | None
    lr: float
    weight_decay: float
    eps: float


def read_back(flags: Mapping[str, Any], tensor_class: str) -> Seen:
    """Return what megatron-core 0.19 does to a class, residual outputs started as the script does.

    Raises:
        KeyError: If a flag is missing.
    """
    width = 1.0
    if flags.get("use-mup"):
        width = flags["hidden-size"] / flags.get("mup-base-hidden-size", flags["hidden-size"])
    vector = tensor_class in _VECTORS
    scale = 1.0 if vector else 1.0 / width
    flat = tensor_class in ("norm", "final_norm", "bias")
    std: float | None = float(flags["init-method-std"])
    if flat:
        std = None
    elif not vector:
        std = float(flags["init-method-std"]) / math.sqrt(width)
    return Seen(
        std,
        float(flags["lr"]) * scale,
        0.0 if flat else float(flags["weight-decay"]),
        float(flags["adam-eps"]) * scale,
    )


def multipliers(flags: Mapping[str, Any]) -> dict[str, float]:
    """Return what embeddings, logits and q.k are multiplied by."""
    head_dim = flags["kv-channels"]
    if not flags.get("use-mup"):
        return {"embedding": 1.0, "logits": 1.0, "attention": 1.0 / math.sqrt(head_dim)}
    width = flags["hidden-size"] / flags.get("mup-base-hidden-size", flags["hidden-size"])
    logits = float(flags.get("mup-output-mult", 1.0))
    base = float(flags.get("mup-base-head-dim", 1.0))
    return {
        "embedding": float(flags.get("mup-embedding-mult", 1.0)),
        "logits": 1.0 / width if logits == 1.0 else logits,
        "attention": math.sqrt(base) / head_dim ** float(flags.get("mup-attn-scale-power", 1.0)),
    }


def rate(flags: Mapping[str, Any], update: int) -> float:
    """Return the base learning rate that update number ``update`` (from 0) uses."""
    peak, floor = float(flags["lr"]), float(flags["min-lr"])
    warmup, end = flags["lr-warmup-iters"], flags["lr-decay-iters"]
    style = flags["lr-decay-style"]
    if warmup > 0 and update <= warmup:
        return float(peak * update / warmup)
    if style == "constant":
        return peak
    if update > end:
        return floor
    start = warmup
    if style == "WSD":
        start, style = end - flags["lr-wsd-decay-iters"], flags["lr-wsd-decay-style"]
    done = max(0.0, (update - start) / (end - start))
    shape = {"linear": 1.0 - done, "cosine": 0.5 * (math.cos(math.pi * done) + 1.0)}
    return float(floor + shape[style] * (peak - floor))


def compare(run: Run, flags: Mapping[str, Any], rel_tol: float = 1e-9) -> Iterator[str]:
    """Yield where flags depart from their run, one sentence each.

    Raises:
        KeyError: If a flag is missing, or names a way that is not known.
    """
    shape = run.model
    wanted: dict[str, object] = {
        "num-layers": shape.n_layers,
        "hidden-size": shape.d_model,
        "ffn-hidden-size": shape.d_ffn,
        "num-attention-heads": shape.n_heads,
        "kv-channels": shape.head_dim,
        "num-query-groups": None if shape.n_kv_heads == shape.n_heads else shape.n_kv_heads,
        "group-query-attention": True if shape.n_kv_heads != shape.n_heads else None,
        "seq-length": shape.seq_len,
        "max-position-embeddings": shape.seq_len,
        "padded-vocab-size": shape.padded_vocab_size,
        "train-iters": run.steps,
        "global-batch-size": run.batch.sequences,
        "adam-eps": run.optimizer.eps,
        "adam-beta1": run.optimizer.betas[0],
        "adam-beta2": run.optimizer.betas[1],
        "clip-grad": run.optimizer.grad_clip or 0.0,
        "attention-dropout": 0.0,
        "hidden-dropout": 0.0,
        "swiglu": True if shape.gated else None,
        "squared-relu": True if shape.activation == "relu2" else None,
        "no-bias-gelu-fusion": None if shape.gated else True,
        "disable-bias-linear": None if shape.biases else True,
        "untie-embeddings-and-output-weights": None if shape.tied_embeddings else True,
        "normalization": {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}.get(shape.norm),
        "position-embedding-type": {"learned": "learned_absolute"}.get(
            shape.position, shape.position
        ),
    }
    for name, value in wanted.items():
        if flags.get(name) != value:
            yield f"megatron: {name} is {flags.get(name)}, the plan says {value}"
    found = multipliers(flags)
    planned = {
        "embedding": row_of(run, "embedding").forward_multiplier,
        "logits": row_of(run, "unembedding").forward_multiplier,
        "attention": shape.attention_multiplier,
    }
    for name, number in found.items():
        if not math.isclose(number, planned[name], rel_tol=rel_tol):
            yield f"megatron: {name} is multiplied by {number}, the plan says {planned[name]}"
    for row in run.tensors:
        if row.tensor_class == "bias" and not shape.biases:
            continue
        seen = read_back(flags, row.tensor_class)
        pairs = [
            ("init_std", seen.init_std, row.init_std),
            ("lr", seen.lr, row.lr),
            ("weight_decay", seen.weight_decay, row.weight_decay),
        ]
        negligible = run.optimizer.eps_mode == "negligible"
        if not (negligible and seen.eps <= NEGLIGIBLE_EPS and row.eps <= NEGLIGIBLE_EPS):
            pairs.append(("eps", seen.eps, row.eps))
        for field, got, value in pairs:
            if (got is None) != (value is None) or not math.isclose(
                got or 0.0, value or 0.0, rel_tol=rel_tol
            ):
                yield (
                    f"megatron: {field} of {row.tensor_class} comes to {got}, the plan says {value}"
                )
    corners = (0, 1, run.warmup_steps, run.warmup_steps + 1, run.steps // 2, run.steps - 1)
    for update in (*corners, *range(0, run.steps, max(1, run.steps // 100))):
        if not 0 <= update < run.steps:
            continue
        got, value = rate(flags, update), learning_rate(run, update)
        if abs(got - value) > rel_tol * run.optimizer.base_peak_lr:
            yield f"megatron: update {update} has learning rate {got}, the plan says {value}"
            return
