"""Tokens and steps: D = TPP x N, then whole steps of the batch that will run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.plan.model import Provenance

if TYPE_CHECKING:
    from planner.compile.draft import Context, Draft

MAX_TOKENS = 2.0**63


def ask_tokens(context: Context, draft: Draft) -> Draft:
    """Set the tokens that the TPP asks for, before any rounding.

    Raises:
        SpecError: If they are more than trainers count.
    """
    tokens = draft.tpp_asked * draft.size.n
    if tokens >= MAX_TOKENS:
        raise context.declared.error(
            "tpp",
            f"size {draft.size.name} at {draft.tpp_asked:g} TPP trains on {tokens:.4g} tokens, "
            "more than 64 bits count",
        )
    return draft.filled({}, tokens_asked=tokens)


def round_steps(context: Context, draft: Draft) -> Draft:
    """Set the whole number of steps nearest to the tokens asked for.

    Raises:
        SpecError: If that is not even one step.
    """
    batch = draft.batch_tokens(context.architecture.seq_len)
    exact = draft.tokens_asked / batch
    steps = round(exact)
    if steps < 1:
        raise context.declared.error(
            "batch",
            f"size {draft.size.name} at {draft.tpp_asked:g} TPP trains on "
            f"{draft.tokens_asked:,.0f} tokens, less than one batch of {batch:,}",
        )
    n = f"N_{context.params_convention}"
    asked = draft.trail.get("tpp asked", Provenance())
    trail = {
        "steps": Provenance(
            formula=f"tpp * {n} / batch.tokens",
            inputs={"tpp": draft.tpp_asked, n: draft.size.n, "batch.tokens": batch},
            exact=exact,
            rounding="to the nearest whole step",
        ),
        "tokens": Provenance(
            formula="steps * batch.tokens",
            inputs={"steps": steps, "batch.tokens": batch},
            exact=draft.tokens_asked,
            rounding="to whole steps",
        ),
        "tpp": Provenance(
            formula=f"tokens / {n}",
            inputs={"tokens": steps * batch, n: draft.size.n},
            law=asked.law,
            declared=f"{asked.declared}: {asked.formula}" if asked.formula else asked.declared,
            exact=draft.tpp_asked,
            rounding="to whole steps",
        ),
    }
    return draft.filled(trail, steps=steps)
