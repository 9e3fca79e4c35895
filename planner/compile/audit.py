"""The audit: asked, achieved, their difference, and whether that is within tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.compile.weight_decay import HIDDEN
from planner.plan.model import AuditEntry, Budget

if TYPE_CHECKING:
    from planner.compile.draft import Context, Draft

# Choices of this project, not facts: how far rounding may move a number before it needs a look.
TPP_TOLERANCE = 0.005
BATCH_TOLERANCE = 0.1
PARAMS_TOLERANCE = 0.05
TAU_TOLERANCE = 1e-12
SHORTFALL_TOLERANCE = 0.04


def entry(field: str, asked: float, achieved: float, tolerance: float) -> AuditEntry:
    """Return the audit line of one number."""
    relative = achieved / asked - 1
    return AuditEntry(
        field=field,
        asked=float(asked),
        achieved=float(achieved),
        relative=relative,
        tolerance=tolerance,
        ok=abs(relative) <= tolerance,
    )


def audit_run(context: Context, draft: Draft) -> tuple[AuditEntry, ...]:
    """Return the audit of one run: TPP, batch, tau, and the size's label where it has one."""
    tokens = draft.tokens(context.architecture.seq_len)
    lines = [
        entry("tpp", draft.tpp_asked, tokens / draft.size.n, TPP_TOLERANCE),
        entry("batch.sequences", draft.batch_asked, draft.batch_sequences, BATCH_TOLERANCE),
    ]
    if draft.tau_asked is not None:
        hidden = next(row for row in draft.tensors if row.tensor_class == HIDDEN)
        assert hidden.tau is not None
        lines.append(entry("optimizer.tau", draft.tau_asked, hidden.tau, TAU_TOLERANCE))
    if draft.size.asked_params is not None:
        lines.append(entry("params", draft.size.asked_params, draft.size.n, PARAMS_TOLERANCE))
    return tuple(lines)


def audit_budget(budget: Budget, *, automatic: bool) -> AuditEntry:
    """Return the audit of the budget: never exceeded, and filled if the sizes were free."""
    relative = budget.spent / budget.flops - 1
    tolerance = SHORTFALL_TOLERANCE if automatic else 1.0
    return AuditEntry(
        field="budget.flops",
        asked=budget.flops,
        achieved=budget.spent,
        relative=relative,
        tolerance=tolerance,
        ok=-tolerance <= relative <= 0,
    )
