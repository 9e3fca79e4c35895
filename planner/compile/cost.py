"""What a run costs and what it should reach: FLOPs, memory, hours, predicted loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.compile.batch import cluster_memory
from planner.compile.draft import Draft, Note, law_note
from planner.laws.batch import batch_trade_off
from planner.laws.loss import predict_loss
from planner.models.architecture import count_params
from planner.models.flops import attended, exact_flops_per_token, paper_flops_per_token
from planner.plan.model import Experts, Flops, Memory, Predicted, Provenance
from planner.units import format_bytes

if TYPE_CHECKING:
    from planner.compile.draft import Context

LEVEL = 0.9


def count_experts(context: Context, draft: Draft) -> Draft:
    """Set what each expert sees: D k / E tokens, on the parameters of a model with one expert.

    arXiv 2509.25087 B.4: with one of E experts a token, the effective TPP is TPP / E.
    """
    architecture = context.architecture
    if architecture.experts is None:
        return draft
    tokens = draft.tokens(architecture.seq_len)
    each = tokens * architecture.top_k / architecture.experts
    with_one = count_params(replace(architecture, top_k=1), draft.size.shape).active
    experts = Experts(
        count=architecture.experts,
        top_k=architecture.top_k,
        tokens_per_expert=each,
        tpp_per_expert=each / with_one,
    )
    trail = {
        "model.experts.tokens_per_expert": Provenance(
            formula="tokens * top_k / count",
            inputs={"tokens": tokens, "top_k": experts.top_k, "count": experts.count},
        ),
        "model.experts.tpp_per_expert": Provenance(
            formula="tokens_per_expert / active_with_one_expert",
            inputs={"tokens_per_expert": each, "active_with_one_expert": with_one},
        ),
    }
    return draft.filled(trail, experts=experts)


def count_flops(context: Context, draft: Draft) -> Draft:
    """Set the training FLOPs by every rule, and by the plan's convention.

    Raises:
        SpecError: If the paper's rule is asked for and the architecture is not one it covers.
    """
    architecture, size = context.architecture, draft.size
    conventions = context.spec.conventions
    tokens = draft.tokens(architecture.seq_len)
    causal = conventions.attention == "causal"
    exact = exact_flops_per_token(architecture, size.shape, size.counts, causal=causal) * tokens
    per_token = paper_flops_per_token(architecture, size.shape, size.counts)
    paper = None if per_token is None else per_token * tokens
    n = size.counts.active if architecture.experts else size.n
    six_nd = 6.0 * n * tokens
    chosen = {"exact": exact, "paper": paper, "six_nd": six_nd}[conventions.flops]
    if chosen is None:
        raise context.declared.error(
            "conventions.flops",
            "the paper's rule covers untied, dense, non-gated blocks with plain multi-head "
            "attention only; wanted exact or six_nd",
        )
    rules = {
        "exact": Provenance(
            formula="tokens * (6 * active_matrices + 12 * n_layers * d_attn * pairs)",
            inputs={
                "tokens": tokens,
                "active_matrices": size.counts.active_matrices,
                "n_layers": size.shape.n_layers,
                "d_attn": size.shape.d_attn,
                "pairs": attended(architecture, causal=causal),
                "attention": conventions.attention,
            },
        ),
        "paper": Provenance(
            formula="tokens * (6 * N - 2 * V * d + 3 * L * (4 * S * d + 3 * S + 2 * d^2 + d))",
            inputs={
                "tokens": tokens,
                "N": size.counts.matrices,
                "V": architecture.padded_vocab_size,
                "d": size.shape.d_model,
                "L": size.shape.n_layers,
                "S": architecture.seq_len,
            },
        ),
        "six_nd": Provenance(formula="6 * N * tokens", inputs={"N": n, "tokens": tokens}),
    }
    if paper is None:
        rules["paper"] = Provenance(declared="the paper's rule does not cover this architecture")
    trail = {f"flops.{name}": origin for name, origin in rules.items()}
    trail["flops.total"] = replace(
        rules[conventions.flops], declared=f"convention {conventions.flops}"
    )
    flops = Flops(total=chosen, six_nd=six_nd, exact=exact, paper=paper)
    return draft.filled(trail, flops=flops)


def weigh_batch(context: Context, draft: Draft) -> Draft:
    """Set the optimal and the critical batch, and the least tokens and steps of the trade-off."""
    laws, seq_len = context.laws, context.architecture.seq_len
    tokens, batch = draft.tokens(seq_len), draft.batch_tokens(seq_len)
    optimal = laws.batch_optimal.at(tokens)
    trade = batch_trade_off(batch, tokens, laws.batch_critical)
    hyperbola: dict[str, float | int | str | None] = {
        "tokens": tokens,
        "batch.tokens": batch,
        **laws.batch_critical.constants,
    }
    trail = {
        "batch.optimal_tokens": Provenance(
            formula=laws.batch_optimal.formula,
            inputs={"tokens": tokens, **laws.batch_optimal.constants},
            law=laws.batch_optimal.name,
        ),
        "batch.critical_tokens": Provenance(
            formula="B_crit(D_min), with D_min from tokens = D_min (1 + batch.tokens / B_crit)",
            inputs=hyperbola,
            law=laws.batch_critical.name,
        ),
        "predicted.minimum_tokens": Provenance(
            formula="D_min: tokens = D_min (1 + batch.tokens / B_crit)",
            inputs=hyperbola,
            law=laws.batch_critical.name,
        ),
        "predicted.minimum_steps": Provenance(
            formula="S_min = D_min / B_crit: steps = S_min (1 + B_crit / batch.tokens)",
            inputs=hyperbola,
            law=laws.batch_critical.name,
        ),
    }
    notes: tuple[Note | None, ...] = (
        law_note(laws.batch_optimal, tokens=tokens),
        law_note(laws.batch_critical, tokens=trade.minimum_tokens),
    )
    if batch > trade.critical_batch:
        text = (
            f"the batch of {batch:,} tokens exceeds the critical batch of "
            f"{trade.critical_batch:,.0f}: the optimal tau moves there"
        )
        notes = (*notes, Note("batch:critical", text))
    predicted = Predicted(
        loss=None,
        low=None,
        high=None,
        level=LEVEL,
        minimum_tokens=trade.minimum_tokens,
        minimum_steps=trade.minimum_steps,
        device_hours=None,
        wall_hours=None,
        memory=None,
    )
    return draft.filled(
        trail,
        notes,
        optimal_batch=optimal,
        critical_batch=trade.critical_batch,
        predicted=predicted,
    )


def predict(context: Context, draft: Draft) -> Draft:
    """Set the predicted final loss, device-hours and memory, where they can be known."""
    law, tokens = context.laws.loss, draft.tokens(context.architecture.seq_len)
    params = draft.size.counts.total
    loss = predict_loss(law, params, tokens, LEVEL)
    notes: list[Note | None] = [law_note(law, params=params, tokens=tokens)]
    if context.architecture.experts:
        notes.append(
            Note("loss:experts", f"law {law.name!r} was fitted on dense models, not on experts")
        )
    hours = wall = None
    assert draft.flops is not None and draft.predicted is not None
    inputs: dict[str, float | int | str | None] = {
        "params": params,
        "tokens": tokens,
        **law.constants,
    }
    interval = Provenance(
        formula="loss / exp(z * sd(log loss)) to loss * exp(z * sd(log loss)), sd from the law's "
        "covariance and the scatter of runs about it",
        inputs={"level": LEVEL, "scatter": law.scatter},
        law=law.name,
    )
    trail = {
        "predicted.loss": Provenance(formula=law.formula, inputs=inputs, law=law.name),
        "predicted.low": interval,
        "predicted.high": interval,
        "predicted.device_hours": Provenance(
            formula="flops.total / (peak_flops * mfu * 3600); needs an accelerator and an mfu"
        ),
        "predicted.wall_hours": Provenance(formula="device_hours / devices"),
    }
    if context.accelerator is not None and context.mfu:
        hours = draft.flops.total / (context.accelerator.peak_flops * context.mfu * 3600)
        wall = hours / context.devices if context.devices else None
        trail["predicted.device_hours"] = Provenance(
            formula="flops.total / (peak_flops * mfu * 3600)",
            inputs={
                "flops.total": draft.flops.total,
                "accelerator": context.accelerator.name,
                "peak_flops": context.accelerator.peak_flops,
                "mfu": context.mfu,
            },
        )
        if context.devices:
            trail["predicted.wall_hours"] = Provenance(
                formula="device_hours / devices",
                inputs={"device_hours": hours, "devices": context.devices},
            )
    memory, memory_note = _memory(context, draft)
    counting = Provenance(
        formula="counted tensor by tensor: weights, gradients, AdamW moments, activations",
        inputs={"micro batch": draft.micro or 1},
    )
    parts = ("weights", "gradients", "optimizer", "activations", "total", "device")
    trail |= {f"predicted.memory.{part}": counting for part in parts}
    trail["predicted.memory"] = Provenance(formula="needs a cluster whose devices hold the weights")
    notes.append(memory_note)
    predicted = Predicted(
        loss=loss.loss,
        low=loss.low,
        high=loss.high,
        level=LEVEL,
        minimum_tokens=draft.predicted.minimum_tokens,
        minimum_steps=draft.predicted.minimum_steps,
        device_hours=hours,
        wall_hours=wall,
        memory=memory,
    )
    return draft.filled(trail, tuple(notes), predicted=predicted)


def _memory(context: Context, draft: Draft) -> tuple[Memory | None, Note | None]:
    cluster, accelerator = context.spec.cluster, context.accelerator
    if cluster is None or (accelerator is not None and accelerator.weights_external):
        return None, None
    needed = cluster_memory(context, cluster, draft.size.shape, draft.micro or 1)
    limit = accelerator.memory_bytes if accelerator is not None else None
    memory = Memory(
        weights=needed.weights,
        gradients=needed.gradients,
        optimizer=needed.optimizer,
        activations=needed.activations,
        total=needed.total,
        device=limit,
    )
    if accelerator is None or limit is None or needed.total <= limit:
        return memory, None
    return memory, Note(
        "memory",
        f"a device needs {format_bytes(needed.total)} at micro batch {draft.micro or 1}, "
        f"{accelerator.name} has {format_bytes(limit)}: shard, split or checkpoint more",
    )
