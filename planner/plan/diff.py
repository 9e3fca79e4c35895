"""What differs between two plans, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.plan.codec import to_json
from planner.plan.explain import run_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.plan.model import Plan

_FAMILY_FIELDS = ("family", "parametrization", "conventions", "data", "budget")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        run: Name of the run, None for the family.
        field: Dotted field; ``run`` where a whole run was added or removed.
        before: Value in the first plan, None if it has none.
        after: Value in the second.
        relative: after/before - 1 for numbers, else None.
    """

    run: str | None
    field: str
    before: Any
    after: Any
    relative: float | None


def diff_plans(before: Plan, after: Plan) -> list[Change]:
    """Return the differences, the family's first, then run by run in the order of the plans.

    Digests, audits, warnings and provenance are left out: they follow from the rest. Of a law its
    constants are compared.
    """
    changes = list(_compare(None, _family(before), _family(after)))
    runs_before = {run.name: run for run in before.runs}
    runs_after = {run.name: run for run in after.runs}
    for name in dict.fromkeys((*runs_before, *runs_after)):
        old, new = runs_before.get(name), runs_after.get(name)
        if old is None or new is None:
            changes.append(Change(name, "run", old and old.digest, new and new.digest, None))
            continue
        changes.extend(_compare(name, dict(run_fields(old)), dict(run_fields(new))))
    return changes


def _family(plan: Plan) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in _FAMILY_FIELDS:
        value = to_json(getattr(plan, name))
        if isinstance(value, dict):
            fields |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            fields[name] = value
    for name, law in plan.laws.items():
        fields |= {f"laws.{name}.{key}": value for key, value in law.constants.items()}
    return fields


def _compare(run: str | None, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for field in dict.fromkeys((*before, *after)):
        old, new = before.get(field), after.get(field)
        if old == new:
            continue
        relative = None
        if _is_number(old) and _is_number(new) and old:
            relative = new / old - 1
        yield Change(run, field, old, new, relative)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
