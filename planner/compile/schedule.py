"""Learning rate and schedule: base peak rate, whole warmup steps, decay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.compile.origins import origin_of
from planner.plan.model import Provenance

if TYPE_CHECKING:
    from planner.compile.draft import Context, Draft

# the cooldown that Tissue et al., arXiv 2408.11029, recommend is the last 10 to 20 %
_WSD_DECAY = 0.2
_FINAL = {"linear": 0.1, "cosine": 0.1, "wsd": 0.0, "linear-to-zero": 0.0, "constant": 1.0}


def set_learning_rate(context: Context, draft: Draft) -> Draft:
    """Record where the base peak rate comes from; it is the same for every size."""
    origin = origin_of(
        context, "parametrization.base_lr", "assumed: the proxy of arXiv 2509.25087 Table 5"
    )
    return draft.filled({"optimizer.base_peak_lr": origin})


def set_schedule(context: Context, draft: Draft) -> Draft:
    """Set warmup steps, the final rate and how much of the run decays.

    Raises:
        SpecError: If warmup and cooldown of a WSD schedule overlap.
    """
    schedule, batch = context.spec.schedule, draft.batch_tokens(context.architecture.seq_len)
    warmup = schedule.warmup
    limits: dict[str, float] = {}
    inputs: dict[str, float | int | str | None] = {}
    if warmup.fraction is not None:
        limits["warmup.fraction * steps"] = warmup.fraction * draft.steps
        inputs |= {"warmup.fraction": warmup.fraction, "steps": draft.steps}
    if warmup.tokens is not None:
        limits["warmup.tokens / batch.tokens"] = warmup.tokens / batch
        inputs |= {"warmup.tokens": warmup.tokens, "batch.tokens": batch}
    exact = min(limits.values())
    steps = min(round(exact), draft.steps - 1)
    if steps == 0 and exact > 0 and draft.steps > 1:
        steps = 1
    final = schedule.final_lr_fraction
    if final is None:
        final = _FINAL[schedule.kind]
    decay = {"wsd": schedule.decay_fraction or _WSD_DECAY, "constant": 0.0}.get(schedule.kind, 1.0)
    if schedule.kind == "wsd" and steps + decay * draft.steps > draft.steps + 0.5:
        raise context.declared.error(
            "schedule",
            f"warmup of {steps} steps and a decay of {decay:g} of {draft.steps} steps overlap "
            f"(size {draft.size.name})",
        )
    trail = {
        "warmup_steps": Provenance(
            formula="min(" + ", ".join(limits) + ")" if len(limits) > 1 else next(iter(limits)),
            inputs=inputs,
            declared=str(context.declared.origin("schedule") or "default: 10 % of the steps"),
            exact=exact,
            rounding="to the nearest whole step, at least one",
        ),
        "schedule.warmup_fraction": Provenance(
            formula="warmup_steps / steps",
            inputs={"warmup_steps": steps, "steps": draft.steps},
        ),
    }
    return draft.filled(trail, warmup_steps=steps, final_lr_fraction=final, decay_fraction=decay)
