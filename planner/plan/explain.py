"""Explaining a plan: where any number of a run came from, with formula, law and rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.errors import PlannerError, did_you_mean
from planner.models.parametrization import BASES, tensor_rules
from planner.plan.codec import to_json
from planner.plan.model import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.plan.model import LawUse, Plan, Run

PARAMETRIZATION_SOURCE = "arXiv 2505.01618 Table 1 (standard, muP and CompleteP)"
EXPERTS_SOURCE = "assumed: no source is known for experts and routers"
_TENSOR_FIELDS = (*BASES, "tau")


class ExplainError(PlannerError):
    """A run or field that the plan does not have."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one number of a run came from.

    Attributes:
        run: Name of the run.
        field: Dotted field.
        value: Its value in the plan.
        provenance: Formula with inputs, or the place of its declaration; exact value and rounding.
        law: The law used, with constants and source, if one was.
        source: Source of a formula that is no law.
    """

    run: str
    field: str
    value: Any
    provenance: Provenance
    law: LawUse | None = None
    source: str | None = None


def explain(plan: Plan, target: str) -> list[Explanation]:
    """Explain ``RUN.FIELD``; a field that holds others explains each of them.

    Args:
        plan: The plan.
        target: Such as ``300M-20tpp.steps``, ``300M-20tpp.tensors.attn_qkv.lr`` or
            ``300M-20tpp.batch``.

    Raises:
        ExplainError: If the plan has no such run or field, naming the nearest.
    """
    run, field = _split(plan, target)
    leaves = dict(run_fields(run))
    wanted = [name for name in leaves if name == field or name.startswith(f"{field}.")]
    if not wanted:
        known = set(leaves) | {name.split(".")[0] for name in leaves}
        raise ExplainError(
            f"run {run.name!r} has no such field; {did_you_mean(field, known)}", field=field
        )
    return [_explain_one(plan, run, name, leaves[name]) for name in wanted]


def run_fields(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield every value of a run as (dotted field, value), digest and audit aside."""
    document = to_json(run)
    for name in ("digest", "audit", "name"):
        del document[name]
    tensors = document.pop("tensors")
    yield from _leaves(document, "")
    for row in tensors:
        for name in _TENSOR_FIELDS:
            yield f"tensors.{row['class']}.{name}", row[name]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else key)
    else:
        yield place, value


def _split(plan: Plan, target: str) -> tuple[Run, str]:
    """Split RUN.FIELD; the run's own name may hold dots, as in 1.8B-20tpp."""
    names = sorted((run.name for run in plan.runs), key=len, reverse=True)
    for name in names:
        if target.startswith(f"{name}."):
            return plan.run(name), target[len(name) + 1 :]
    if target in names:
        raise ExplainError(f"got only a run, wanted RUN.FIELD, such as {target}.steps")
    got = target.rsplit(".", 1)[0]
    raise ExplainError(f"the plan has no run {got!r}; {did_you_mean(got, names)}")


def _explain_one(plan: Plan, run: Run, field: str, value: Any) -> Explanation:
    if field.startswith("tensors."):
        return _explain_tensor(plan, run, field, value)
    trail = plan.provenance[run.name].get(field)
    if trail is None:
        return Explanation(run.name, field, value, Provenance(declared="not recorded"))
    law = plan.laws.get(trail.law) if trail.law else None
    return Explanation(run.name, field, value, trail, law)


def _explain_tensor(plan: Plan, run: Run, field: str, value: Any) -> Explanation:
    """Explain a tensor's value by the parametrization's rule table, the same that computed it."""
    _, name, quantity = field.split(".")
    p = plan.parametrization
    ratios = run.multipliers
    bases: dict[str, float | int | str | None] = {
        "init_std": p.init_std,
        "base_lr": p.base_lr,
        "base_weight_decay": run.optimizer.base_weight_decay,
        "eps": run.optimizer.eps,
        "input_multiplier": p.input_multiplier,
        "output_multiplier": p.output_multiplier,
        "m_N": ratios.width,
        "m_F": ratios.ffn,
        "m_L": ratios.depth,
    }
    if quantity == "tau":
        row = run.tensor(name)
        formula = "batch.tokens / (lr * weight_decay * tokens)"
        if value is None:
            formula += "; nothing decays here"
        provenance = Provenance(
            formula=formula,
            inputs={
                "batch.tokens": run.batch.tokens,
                "lr": row.lr,
                "weight_decay": row.weight_decay,
                "tokens": run.tokens,
            },
        )
        return Explanation(run.name, field, value, provenance, source="arXiv 2509.25087 Eq. 2")
    rules = tensor_rules(
        p.kind,
        p.decay,
        p.depth_exponent,
        biases=run.model.biases,
        experts=run.model.experts is not None,
    )
    rule = rules[name]
    factor = getattr(rule, quantity)
    if factor is None:
        provenance = Provenance(declared="norms start at one, biases at zero")
        return Explanation(run.name, field, value, provenance)
    # epsilon scales with m_N in every class
    width_name = "m_N" if quantity == "eps" else rule.width_name
    formula = factor.formula(BASES[quantity], width_name)
    used = {key: item for key, item in bases.items() if key in formula.replace("^", " ").split()}
    provenance = Provenance(formula=formula, inputs=used)
    scaled_experts = run.model.experts is not None and name in ("router", "ffn_in", "ffn_out")
    source = EXPERTS_SOURCE if scaled_experts else PARAMETRIZATION_SOURCE
    return Explanation(run.name, field, value, provenance, source=source)
