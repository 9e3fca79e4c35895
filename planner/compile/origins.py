"""Where the numbers come from that no pass computes: declared, by default, or copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.plan.model import Provenance

if TYPE_CHECKING:
    from planner.compile.draft import Context, Draft

# field of a run -> field of the spec
_DECLARED = {
    "model.gated": "architecture.gated",
    "model.vocab_size": "architecture.vocab_size",
    "model.seq_len": "architecture.context",
    "model.activation": "architecture.activation",
    "model.position": "architecture.position",
    "model.norm": "architecture.norm",
    "model.biases": "architecture.biases",
    "model.tied_embeddings": "architecture.tied_embeddings",
    "model.experts": "architecture.experts",
    "model.experts.count": "architecture.experts.count",
    "model.experts.top_k": "architecture.experts.top_k",
    "batch.micro": "cluster.micro_batch",
    "optimizer.betas": "optimizer.betas",
    "optimizer.eps": "optimizer.eps",
    "optimizer.eps_mode": "optimizer.eps_mode",
    "optimizer.grad_clip": "optimizer.grad_clip",
    "schedule.kind": "schedule.kind",
    "schedule.final_lr_fraction": "schedule.final_lr_fraction",
    "schedule.decay_fraction": "schedule.decay_fraction",
    "seeds": "seeds",
    "precision": "precision",
}
# field of a run -> where a value comes from that is declared nowhere
_ASSUMED = {
    "optimizer.betas": "assumed: arXiv 2509.25087 B.1",
    "optimizer.eps": "assumed: arXiv 2509.25087 B.1",
}


def record_declared(context: Context, draft: Draft) -> Draft:
    """Add the trail of everything that is declared, left to a default, or follows from the shape.

    What a size's own declaration or a later pass records goes before this.
    """
    trail = {
        field: origin_of(context, place, _ASSUMED.get(field, "default"))
        for field, place in _DECLARED.items()
    }
    return draft.filled({**trail, **_derived(context, draft), **draft.trail})


def origin_of(context: Context, place: str, otherwise: str = "default") -> Provenance:
    """Return where a field of the spec was declared, and whether the preset only assumes it."""
    origin = context.declared.origin(place)
    if origin is None:
        return Provenance(declared=otherwise)
    reason = context.declared.assumed.get(place)
    return Provenance(declared=f"{origin} (assumed: {reason})" if reason else str(origin))


def _derived(context: Context, draft: Draft) -> dict[str, Provenance]:
    """Return formulas of what follows from the shape and the base shape alone."""
    spec, base, shape = context.spec, context.base, draft.size.shape
    standard = spec.parametrization.kind == "standard"
    heads = "1 / sqrt(head_dim)" if standard else "1 / head_dim"
    ffn = Provenance(
        formula="ffn_multiplier * d_model",
        inputs={"ffn_multiplier": str(spec.architecture.ffn_multiplier), "d_model": shape.d_model},
        exact=float(spec.architecture.ffn_multiplier * shape.d_model),
        rounding=(
            "down to a whole number"
            if spec.architecture.ffn_multiple == 1
            else f"to the nearest multiple of {spec.architecture.ffn_multiple}"
        ),
    )
    width = "1: the standard parametrization does not scale"
    cluster = ("batch.data_parallel", "batch.accumulation", "batch.micro")
    no_cluster = dict.fromkeys(cluster, Provenance(declared="needs a cluster in the spec"))
    return {
        **({} if spec.cluster else no_cluster),
        "size": Provenance(declared=str(context.declared.origin("sizes"))),
        "model.n_heads": Provenance(
            formula="d_model / head_dim",
            inputs={"d_model": shape.d_model, "head_dim": shape.head_dim},
        ),
        "model.n_kv_heads": Provenance(
            formula="n_heads / kv_groups",
            inputs={"n_heads": shape.n_heads, "kv_groups": spec.architecture.kv_groups or 1},
        ),
        "model.head_dim": (
            Provenance(declared=str(context.declared.origin("architecture.head_dim")))
            if spec.architecture.head_dim
            else Provenance(
                formula="64 below a width of 1024, 128 from there, or the next power of 2 below"
            )
        ),
        "model.d_ffn": ffn,
        "model.padded_vocab_size": Provenance(
            formula="vocab_size, up to a multiple of vocab_multiple",
            inputs={
                "vocab_size": spec.architecture.vocab_size,
                "vocab_multiple": spec.architecture.vocab_multiple,
            },
        ),
        "model.attention_multiplier": Provenance(
            formula=heads, inputs={"head_dim": shape.head_dim}
        ),
        "multipliers.width": Provenance(
            formula=width if standard else "d_model / base_width",
            inputs={"d_model": shape.d_model, "base_width": base.width},
        ),
        "multipliers.ffn": Provenance(
            formula=width if standard else "d_ffn / base_ffn_width",
            inputs={"d_ffn": shape.d_ffn, "base_ffn_width": float(base.ffn_width)},
        ),
        "multipliers.depth": Provenance(
            formula=(
                "n_layers / base_depth"
                if spec.parametrization.kind == "completep"
                else "1: only CompleteP scales with depth"
            ),
            inputs={"n_layers": shape.n_layers, "base_depth": base.depth},
        ),
        "predicted.level": Provenance(declared="coverage of the predicted interval"),
    }
