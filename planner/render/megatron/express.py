"""Whether Megatron's muP comes to a plan's table, and one sentence of reason where it does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.render.errors import CannotExpressError
from planner.render.groups import NEGLIGIBLE_EPS, check_tied, row_of

if TYPE_CHECKING:
    from planner.plan.model import Run
    from planner.render.megatron.options import MegatronOptions

ACTIVATIONS = {(True, "silu"): "swiglu", (False, "relu2"): "squared-relu", (False, "gelu"): None}
"""Flag by gate and activation; GELU is what Megatron takes without one."""
POSITIONS = {"rope": "rope", "learned": "learned_absolute", "none": "none"}
NORMS = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}
_HIDDEN = ("attn_qkv", "attn_out", "ffn_in", "ffn_out")
_CLOSE = 1e-12


def check_run(run: Run, options: MegatronOptions) -> int:
    """Return the base width of a run that Megatron can train exactly as the plan says.

    Raises:
        CannotExpressError: With the reason, if it cannot.
    """
    _check_shape(run)
    _check_parallel(run, options)
    if run.warmup_steps >= run.steps:
        raise _refuse(run, "warmup_steps", "its warm-up has to end before the last step")
    _check_depth(run)
    base = _base_width(run)
    _check_table(run, base)
    return base


def _refuse(run: Run, field: str, reason: str) -> CannotExpressError:
    return CannotExpressError(f"megatron cannot run this: {reason}", field=f"{run.name}.{field}")


def _check_shape(run: Run) -> None:
    shape = run.model
    if shape.experts is not None:
        raise _refuse(run, "model.experts", "the plan does not state routing as it needs it")
    if (shape.gated, shape.activation) not in ACTIVATIONS:
        gate = "with" if shape.gated else "without"
        reason = f"it has no exact {shape.activation!r} {gate} a gate"
        raise _refuse(run, "model.activation", reason)
    if shape.position not in POSITIONS:
        reason = f"its positions are rotary, learned or none, not {shape.position!r}"
        raise _refuse(run, "model.position", reason)
    if shape.position == "rope" and shape.head_dim % 2:
        reason = "rotary position embedding wants an even head_dim"
        raise _refuse(run, "model.head_dim", reason)
    if shape.norm not in NORMS:
        raise _refuse(run, "model.norm", f"it has no norm {shape.norm!r}")
    if shape.norm == "layernorm" and not shape.biases:
        reason = "its layer norm has a bias, which a model without biases does not"
        raise _refuse(run, "model.norm", reason)
    if shape.n_heads % shape.n_kv_heads:
        raise _refuse(run, "model.n_kv_heads", "it wants key-value heads that divide the heads")
    if run.precision == "fp16":
        raise _refuse(run, "precision", "its loss scaling for fp16 skips updates")


def _check_parallel(run: Run, options: MegatronOptions) -> None:
    shape = run.model
    tensor, pipeline = options.tensor_parallel, options.pipeline_parallel
    divided = {
        "n_heads": shape.n_heads,
        "n_kv_heads": shape.n_kv_heads,
        "d_ffn": shape.d_ffn,
        "padded_vocab_size": shape.padded_vocab_size,
        "seq_len": shape.seq_len,
    }
    for name, value in divided.items():
        if value % tensor:
            raise CannotExpressError(
                f"run {run.name} has {name} {value}, which {tensor} processes do not divide",
                field="tensor_parallel",
            )
    if shape.n_layers % pipeline:
        raise CannotExpressError(
            f"run {run.name} has {shape.n_layers} layers, which {pipeline} processes do not divide",
            field="pipeline_parallel",
        )
    context = options.context_parallel
    if context > 1 and shape.seq_len % (2 * context):
        raise CannotExpressError(
            f"run {run.name} has sequences of {shape.seq_len}, which twice {context} processes do "
            "not divide",
            field="context_parallel",
        )


def _check_depth(run: Run) -> None:
    residual = row_of(run, "attn_out").forward_multiplier
    depth = run.multipliers.depth
    if not same(residual, 1.0) or not same(row_of(run, "ffn_out").forward_multiplier, 1.0):
        raise _refuse(
            run,
            "model.n_layers",
            f"the plan multiplies residual branches by {residual:.6g} (depth ratio {depth:.6g}), "
            "and its muP knows width only; wanted the base depth, or kind: mup",
        )


def _base_width(run: Run) -> int:
    """Return the width at which hidden matrices have the base learning rate."""
    ratio = row_of(run, "embedding").lr / row_of(run, "attn_qkv").lr
    base = round(run.model.d_model / ratio)
    if base < 1 or not math.isclose(run.model.d_model / base, ratio, rel_tol=_CLOSE):
        raise _refuse(
            run,
            "tensors",
            f"hidden matrices have 1/{ratio:.6g} of the base learning rate, and it divides by "
            "d_model over a whole base width",
        )
    return base


def _check_table(run: Run, base: int) -> None:
    """Refuse every row that Megatron's muP does not come to, the likeliest reasons first."""
    width = run.model.d_model / base
    embedding = row_of(run, "embedding")
    hidden = [row_of(run, name) for name in _HIDDEN]
    for row in hidden:
        if not same(row.weight_decay, embedding.weight_decay):
            raise _refuse(
                run,
                "tensors",
                f"the plan's weight decay is {row.weight_decay:.6g} for {row.tensor_class} and "
                f"{embedding.weight_decay:.6g} for embedding, and it has one for all; wanted "
                "decay: coupled",
            )
    if not same(hidden[3].lr, hidden[0].lr):
        raise _refuse(
            run,
            "model.d_ffn",
            f"the plan scales ffn_out by its own ratio {run.multipliers.ffn:.6g}, and it scales "
            f"all hidden matrices by that of the width, {width:.6g}; wanted d_ffn in the base "
            "shape's proportion to d_model",
        )
    std = embedding.init_std
    if std is None:
        raise _refuse(run, "tensors", "the plan has no init_std for embedding")
    small = ("norm", "final_norm", *(("bias",) if run.model.biases else ()))
    rules: dict[str, tuple[float | None, float, float]] = {
        "embedding": (std, embedding.lr, embedding.weight_decay),
        "unembedding": (std, embedding.lr, embedding.weight_decay),
        **{
            name: (std / math.sqrt(width), embedding.lr / width, embedding.weight_decay)
            for name in _HIDDEN
        },
        **dict.fromkeys(small, (None, embedding.lr, 0.0)),
    }
    for name, (init_std, lr, decay) in rules.items():
        row = row_of(run, name)
        for field, got, wanted in (
            ("init_std", init_std, row.init_std),
            ("lr", lr, row.lr),
            ("weight_decay", decay, row.weight_decay),
        ):
            if (got is None) != (wanted is None) or not same(got or 0.0, wanted or 0.0):
                raise _refuse(
                    run,
                    "tensors",
                    f"the plan's {field} of {name} is {wanted}, and its muP makes it {got}",
                )
        if name not in ("embedding", "unembedding") and not same(row.forward_multiplier, 1.0):
            raise _refuse(
                run,
                "tensors",
                f"the plan multiplies {name} by {row.forward_multiplier:.6g}, and it has no "
                "multiplier there",
            )
    if run.model.tied_embeddings:
        check_tied(run)
    _check_epsilon(run, width, small)


def _check_epsilon(run: Run, width: float, small: tuple[str, ...]) -> None:
    rows = [row_of(run, name) for name in ("embedding", *_HIDDEN, "unembedding", *small)]
    eps = run.optimizer.eps
    wanted = {row.tensor_class: epsilon(eps, width, row.tensor_class) for row in rows}
    if all(same(row.eps, wanted[row.tensor_class]) for row in rows):
        return
    largest = max(eps, *(row.eps for row in rows))
    if run.optimizer.eps_mode != "negligible" or largest > NEGLIGIBLE_EPS:
        odd = next(row for row in rows if not same(row.eps, wanted[row.tensor_class]))
        raise CannotExpressError(
            f"megatron divides Adam's epsilon by the width ratio on hidden matrices alone: that of "
            f"{odd.tensor_class} would be {wanted[odd.tensor_class]:.3g}, the plan says "
            f"{odd.eps:.3g}; declare eps_mode: negligible with an eps of at most "
            f"{NEGLIGIBLE_EPS:.0e}",
            field=f"{run.name}.optimizer.eps",
        )


def epsilon(base: float, width: float, tensor_class: str) -> float:
    """Return the epsilon that Megatron gives a tensor class."""
    return base / width if tensor_class in _HIDDEN else base


def same(left: float, right: float) -> bool:
    """Return whether two numbers of a table are the same but for rounding."""
    return math.isclose(left, right, rel_tol=_CLOSE)
