"""The compiler: from a declared spec to a plan, by a list of small passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.compile.audit import audit_budget, audit_run
from planner.compile.bands import choose_bands
from planner.compile.batch import choose_batch, split_batch
from planner.compile.budget import automatic_sizes
from planner.compile.context import betas_and_eps, build_context
from planner.compile.cost import count_experts, count_flops, predict, weigh_batch
from planner.compile.draft import Context, Draft, SizePlan
from planner.compile.origins import record_declared
from planner.compile.schedule import set_learning_rate, set_schedule
from planner.compile.sizes import listed_sizes
from planner.compile.tokens import ask_tokens, round_steps
from planner.compile.weight_decay import HIDDEN, ask_timescale, solve_weight_decay
from planner.models.parametrization import attention_multiplier
from planner.plan.codec import sealed
from planner.plan.model import (
    Batch,
    Budget,
    Conventions,
    Data,
    LawUse,
    Model,
    Multipliers,
    Optimizer,
    Parametrization,
    Params,
    Plan,
    Run,
    Schedule,
)
from planner.units import format_count, format_flops

if TYPE_CHECKING:
    from collections.abc import Callable

    from planner.spec.load import Declared

# Order is the design: everything that rounds comes before weight decay, which is solved for what
# will really run; cost only looks.
PASSES: tuple[Callable[[Context, Draft], Draft], ...] = (
    ask_tokens,
    choose_batch,
    split_batch,
    round_steps,
    set_learning_rate,
    set_schedule,
    ask_timescale,
    solve_weight_decay,
    weigh_batch,
    count_experts,
    count_flops,
    predict,
)


def compile_plan(declared: Declared) -> Plan:
    """Compile a declared family into a plan.

    Args:
        declared: A spec with the places of its values, from `planner.spec.load_spec`.

    Returns:
        The plan, with digests; its runs band by band, sizes in order.

    Raises:
        SpecError: If the declarations contradict each other, naming the field and its line.
    """
    context = build_context(declared)
    bands, band_origin, band_warnings = choose_bands(declared, context.laws.compression)
    automatic = declared.spec.sizes.listed is None
    sizes = (
        automatic_sizes(context, bands)
        if automatic
        else listed_sizes(declared, context.architecture, context.params_convention)
    )
    drafts = []
    for tpp in bands:
        for size in sizes:
            draft = Draft(
                size, tpp, trail={"tpp asked": band_origin, **size.trail}, notes=size.notes
            )
            draft = record_declared(context, draft)
            for run_pass in PASSES:
                draft = run_pass(context, draft)
            drafts.append(draft)
    budget = _budget(context, sizes, drafts)
    names = _run_names(drafts)
    runs = tuple(_run(context, name, draft) for name, draft in zip(names, drafts, strict=True))
    plan = Plan(
        family=declared.spec.family,
        digest="",
        parametrization=_parametrization(context),
        conventions=Conventions(
            params=context.params_convention,  # type: ignore[arg-type]
            flops=declared.spec.conventions.flops,
            attention=declared.spec.conventions.attention,
        ),
        data=Data(declared.spec.data.unique_tokens, declared.spec.data.tokenizer),
        laws=_laws(context),
        budget=budget,
        audit=() if budget is None else (audit_budget(budget, automatic=automatic),),
        warnings=_warnings(
            context, (*band_warnings, *_unused_values(context, bands)), runs, drafts
        ),
        runs=runs,
        provenance={name: draft.trail for name, draft in zip(names, drafts, strict=True)},
    )
    return sealed(plan)


def _run_names(drafts: list[Draft]) -> list[str]:
    names = [f"{draft.size.name}-{draft.tpp_asked:.4g}tpp" for draft in drafts]
    if len(set(names)) < len(names):
        names = [f"{draft.size.name}-{draft.tpp_asked!r}tpp" for draft in drafts]
    return names


def _budget(context: Context, sizes: list[SizePlan], drafts: list[Draft]) -> Budget | None:
    compute = context.spec.compute
    if compute is None:
        return None
    largest = max(sizes, key=lambda size: size.n)
    spent = sum(
        draft.flops.total
        for draft in drafts
        if draft.flops is not None and (compute.covers == "family" or draft.size is largest)
    ) * len(context.spec.seeds)
    flops = compute.total_flops
    if spent > flops:
        what = "the family" if compute.covers == "family" else f"size {largest.name}"
        raise context.declared.error(
            "compute",
            f"{what} needs {format_flops(spent)} FLOPs, the budget is {format_flops(flops)}: "
            "raise it, lower tpp, or leave out sizes, bands or seeds",
        )
    return Budget(flops=flops, covers=compute.covers, spent=spent, shortfall=1 - spent / flops)


def _parametrization(context: Context) -> Parametrization:
    base = context.base
    return Parametrization(
        kind=context.spec.parametrization.kind,
        decay=context.decay,  # type: ignore[arg-type]
        base_width=base.width,
        base_ffn_width=float(base.ffn_width),
        base_depth=base.depth,
        depth_exponent=float(base.depth_exponent),
        base_lr=float(base.lr),
        init_std=float(base.init_std),
        input_multiplier=float(base.input_multiplier),
        output_multiplier=float(base.output_multiplier),
    )


def _laws(context: Context) -> dict[str, LawUse]:
    laws = context.laws
    used = (
        laws.tau,
        laws.batch,
        laws.tau_optimal,
        laws.batch_optimal,
        laws.batch_critical,
        laws.loss,
        laws.compression,
    )
    return {
        law.name: LawUse(
            name=law.name,
            formula=law.formula,
            constants=law.constants,
            source=law.source,
            confidence=law.confidence,
            fitted_range=law.fitted_range,
        )
        for law in used
        if law is not None
    }


def _run(context: Context, name: str, draft: Draft) -> Run:
    spec, architecture, shape = context.spec, context.architecture, draft.size.shape
    seq_len = architecture.seq_len
    tokens, batch_tokens = draft.tokens(seq_len), draft.batch_tokens(seq_len)
    (beta1, beta2), eps = betas_and_eps(context.declared)
    tau = next(row.tau for row in draft.tensors if row.tensor_class == HIDDEN)
    assert draft.flops is not None and draft.predicted is not None
    return Run(
        name=name,
        size=draft.size.name,
        tpp=tokens / draft.size.n,
        digest="",
        model=Model(
            d_model=shape.d_model,
            n_layers=shape.n_layers,
            n_heads=shape.n_heads,
            n_kv_heads=shape.n_kv_heads,
            head_dim=shape.head_dim,
            d_ffn=shape.d_ffn,
            gated=architecture.gated,
            vocab_size=architecture.vocab_size,
            padded_vocab_size=architecture.padded_vocab_size,
            seq_len=seq_len,
            activation=architecture.activation,
            position=architecture.position,
            norm=architecture.norm,
            biases=architecture.biases,
            tied_embeddings=architecture.tied_embeddings,
            experts=draft.experts,
            attention_multiplier=attention_multiplier(spec.parametrization.kind, shape.head_dim),
        ),
        params=Params(
            total=draft.size.counts.total,
            non_embedding=draft.size.counts.non_embedding,
            active=draft.size.counts.active,
        ),
        multipliers=Multipliers(
            width=draft.width_ratio, ffn=draft.ffn_ratio, depth=draft.depth_ratio
        ),
        tokens=tokens,
        steps=draft.steps,
        warmup_steps=draft.warmup_steps,
        batch=Batch(
            sequences=draft.batch_sequences,
            tokens=batch_tokens,
            optimal_tokens=draft.optimal_batch,
            critical_tokens=draft.critical_batch,
            micro=draft.micro,
            data_parallel=draft.data_parallel,
            accumulation=draft.accumulation,
        ),
        optimizer=Optimizer(
            base_peak_lr=float(context.base.lr),
            base_weight_decay=float(draft.weight_decay),
            betas=(float(beta1), float(beta2)),
            eps=float(eps),
            eps_mode=spec.optimizer.eps_mode,
            grad_clip=spec.optimizer.grad_clip,
            tau=tau,
            tau_optimal=draft.tau_optimal,
        ),
        schedule=Schedule(
            kind=spec.schedule.kind,
            warmup_fraction=draft.warmup_steps / draft.steps,
            final_lr_fraction=float(draft.final_lr_fraction),
            decay_fraction=float(draft.decay_fraction),
        ),
        seeds=spec.seeds,
        precision=spec.precision,
        tensors=draft.tensors,
        flops=draft.flops,
        predicted=draft.predicted,
        audit=audit_run(context, draft),
    )


def _unused_values(context: Context, bands: list[float]) -> tuple[str, ...]:
    """Return a warning if tau is declared for a TPP that is no band; a preset may list more."""
    origin = context.declared.origin("timescale.values")
    declared = context.spec.timescale.values
    if not declared or origin is None or origin.preset is not None:
        return ()
    unused = [key for key in declared if float(key) not in bands]
    if not unused:
        return ()
    return (f"timescale.values: {', '.join(unused)} TPP is no band, so its tau is not used",)


def _warnings(
    context: Context, first: tuple[str, ...], runs: tuple[Run, ...], drafts: list[Draft]
) -> tuple[str, ...]:
    """Return the plan's warnings: family-wide ones, then the runs' notes, each told once."""
    warnings = [*context.warnings, *first]
    by_key: dict[str, list[tuple[str, str]]] = {}
    for run, draft in zip(runs, drafts, strict=True):
        seen = set()
        for note in draft.notes:
            if note.key not in seen:
                seen.add(note.key)
                by_key.setdefault(note.key, []).append((run.name, note.text))
        for line in run.audit:
            if not line.ok:
                by_key.setdefault(f"audit:{line.field}", []).append(
                    (run.name, f"{line.field} missed what was asked by {line.relative:+.1%}")
                )
    for told in by_key.values():
        name, text = told[0]
        more = f" and {len(told) - 1} more runs" if len(told) > 2 else ""
        if len(told) == 2:
            more = f" and {told[1][0]}"
        warnings.append(f"{text} ({name}{more})")
    unique = context.spec.data.unique_tokens
    if unique is not None:
        over = [run for run in runs if run.tokens > unique]
        if over:
            worst = max(run.tokens for run in over)
            warnings.append(
                f"{len(over)} of {len(runs)} runs need more than one epoch of "
                f"{format_count(unique)} unique tokens (up to {worst / unique:.2f}): "
                "collapse assumes one"
            )
    return tuple(warnings)
