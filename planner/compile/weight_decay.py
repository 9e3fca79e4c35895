"""Weight decay, solved last: the lambda at which the run that will really run has the asked tau."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from planner.compile.context import betas_and_eps
from planner.compile.draft import Note, law_note
from planner.laws.timescale import timescale, weight_decay_for
from planner.models.parametrization import Decay, tensor_rules
from planner.plan.model import Provenance
from planner.plan.tensors import tensor_table

if TYPE_CHECKING:
    from planner.compile.draft import Context, Draft
    from planner.plan.model import Tensor

# the hidden matrices whose product of rate and decay tau is stated for
HIDDEN = "attn_qkv"


def ask_timescale(context: Context, draft: Draft) -> Draft:
    """Set the timescale asked for, and the published optimum beside it."""
    spec, laws, tpp = context.spec.timescale, context.laws, draft.tpp_asked
    optimal = laws.tau_optimal.at(tpp)
    trail = {
        "optimizer.tau_optimal": Provenance(
            formula=laws.tau_optimal.formula,
            inputs={"tpp": tpp, **laws.tau_optimal.constants},
            law=laws.tau_optimal.name,
        )
    }
    notes: tuple[Note | None, ...] = (law_note(laws.tau_optimal, tpp=tpp),)
    if spec.weight_decay is not None:
        return draft.filled(trail, notes, tau_asked=None, tau_optimal=optimal)
    by_band = {float(key): value for key, value in (spec.values or {}).items()}
    declared = spec.value if spec.value is not None else by_band.get(tpp)
    if declared is not None:
        asked = declared
        trail["optimizer.tau"] = Provenance(declared=str(context.declared.origin("timescale")))
    elif spec.values is not None and spec.law is None:
        raise context.declared.error(
            "timescale.values", f"gives no tau for {tpp:g} TPP; add it, or name a law for the rest"
        )
    else:
        law = laws.tau
        assert law is not None
        asked = law.at(tpp)
        notes = (*notes, law_note(law, tpp=tpp))
        trail["optimizer.tau"] = Provenance(
            formula=law.formula, inputs={"tpp": tpp, **law.constants}, law=law.name
        )
    return draft.filled(trail, notes, tau_asked=asked, tau_optimal=optimal)


def solve_weight_decay(context: Context, draft: Draft) -> Draft:
    """Solve lambda for the rounded batch and tokens, and fill the tensor table.

    coupled: lambda = B m_N / (eta tau D); independent: lambda = B / (eta tau D), both times
    m_L^(1 - alpha) under CompleteP with an exponent other than 1.
    """
    spec, base, shape = context.spec, context.base, draft.size.shape
    kind, seq_len = spec.parametrization.kind, context.architecture.seq_len
    standard = kind == "standard"
    width = 1.0 if standard else shape.d_model / base.width
    ffn = 1.0 if standard else shape.d_ffn / base.ffn_width
    depth = shape.n_layers / base.depth if kind == "completep" else 1.0
    batch, tokens = draft.batch_tokens(seq_len), draft.tokens(seq_len)
    rules = tensor_rules(
        kind,
        cast("Decay", context.decay),
        base.depth_exponent,
        biases=context.architecture.biases,
        experts=context.architecture.experts is not None,
    )
    _, eps = betas_and_eps(context.declared)
    hidden = rules[HIDDEN]
    hidden_lr = base.lr * hidden.lr.value(width, depth)
    decay_factor = hidden.weight_decay.value(width, depth)
    width_factor = "" if context.decay == "independent" or standard else " * m_N"
    depth_factor = (
        f" * m_L^{1 - base.depth_exponent:.15g}"
        if kind == "completep" and base.depth_exponent != 1
        else ""
    )
    numerator = f"batch.tokens{width_factor}{depth_factor}"
    inputs: dict[str, float | int | str | None] = {
        "batch.tokens": batch,
        "base_peak_lr": base.lr,
        "tokens": tokens,
        "m_N": width,
        "m_L": depth,
    }
    trail: dict[str, Provenance] = {}
    if draft.tau_asked is None:
        weight_decay = spec.timescale.weight_decay
        assert weight_decay is not None
        origin = str(context.declared.origin("timescale"))
        trail["optimizer.base_weight_decay"] = Provenance(declared=origin)
        trail["optimizer.tau"] = Provenance(
            formula=f"{numerator} / (base_peak_lr * base_weight_decay * tokens)",
            inputs={**inputs, "base_weight_decay": weight_decay},
        )
    else:
        try:
            weight_decay = weight_decay_for(draft.tau_asked, batch, hidden_lr, tokens)
            weight_decay /= decay_factor
        except ZeroDivisionError:
            weight_decay = math.inf
        trail["optimizer.base_weight_decay"] = Provenance(
            formula=f"{numerator} / (base_peak_lr * tau * tokens)",
            inputs={**inputs, "tau": draft.tau_asked},
            rounding="none: solved after all rounding, so that tau is exact",
        )
    rows = tensor_table(
        rules,
        base,
        weight_decay=weight_decay,
        eps=eps,
        width=width,
        ffn=ffn,
        depth=depth,
        tau=lambda lr, decay: timescale(batch, lr, decay, tokens),
    )
    if not all(math.isfinite(number) for row in rows for number in _numbers(row)):
        raise context.declared.error(
            "parametrization",
            f"size {draft.size.name}: a base_lr of {base.lr:g} (weight decay {weight_decay:g}) "
            "gives rates or decays too large or too small to be numbers",
        )
    return draft.filled(
        trail,
        weight_decay=weight_decay,
        tensors=rows,
        width_ratio=width,
        ffn_ratio=ffn,
        depth_ratio=depth,
    )


def _numbers(row: Tensor) -> list[float]:
    """Return what a trainer gets; a decaying hidden matrix has a timescale."""
    numbers = [row.lr, row.weight_decay, row.eps, row.forward_multiplier, row.init_std or 0.0]
    return [*numbers, row.tau or (math.nan if row.weight_decay > 0 else 0.0)]
