"""What the readers of W&B's exports share: whose names are settings, and whose are results."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any

from planner.archive.names import LOGGER_NAMES, STEP_NAMES, TOKEN_NAMES, canonical
from planner.archive.readers.jsonl import flatten, number, parse_json, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# W&B's own counter counts calls of its logger; where the trainer logs its step too, that counts.
CALL_COUNTER = "_step"
OWN_STEPS = (
    "train/global_step",
    "trainer/global_step",
    *(name for name in STEP_NAMES if name not in (CALL_COUNTER, "Step")),
)
_MAX_LITERAL = 256 * 1024
_MAX_DEPTH = 20


def is_result(name: str) -> bool:
    """Return whether a summary's entry is something measured, rather than a setting or a fact."""
    plain = name.rpartition("/")[2]
    if plain in STEP_NAMES or plain in TOKEN_NAMES or name in TOKEN_NAMES:
        return True
    if plain.lower() in LOGGER_NAMES or name.startswith("_"):
        return True
    ours = canonical(name)
    return ours in ("lr", "grad_norm") or ours.startswith(("train/", "eval/"))


def unwrap(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as flat names; W&B's own files wrap each value with a description."""
    plain = {}
    for key, value in config.items():
        if key.startswith("_wandb") or key == "wandb_version":
            continue
        if isinstance(value, dict) and "value" in value and set(value) <= {"value", "desc"}:
            value = value["value"]
        plain[key] = value
    return dict(flatten(plain))


def last_step(summary: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the name and the value of the last step in a summary."""
    for name in (*OWN_STEPS, CALL_COUNTER):
        if name in summary:
            step = whole(summary[name])
            if step is not None and step >= 0:
                return name, step
    return None


def results(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a summary that were measured, by their own names."""
    found = {}
    for name, value in summary.items():
        plain = name.rpartition("/")[2]
        if plain in STEP_NAMES or plain.lower() in LOGGER_NAMES or name.startswith("_"):
            continue
        value = number(value)
        if value is not None and not math.isnan(value):
            found[name] = value
    return found


def mapping(value: Any) -> dict[str, Any] | None:
    """Return a dictionary, also one written as JSON or as Python prints it; None if it is none."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return None
    if len(value) > _MAX_LITERAL:
        return None
    try:
        found = parse_json(value)
    except ValueError:
        try:
            found = _literal(ast.parse(value.strip(), mode="eval").body, 0)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return found if isinstance(found, dict) else None


def _literal(node: ast.expr, depth: int) -> Any:
    """Return the value of a literal, also of the ``nan`` and ``inf`` that Python prints."""
    if depth > _MAX_DEPTH:
        raise ValueError
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in ("nan", "inf"):
        return float(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, depth + 1)
        if isinstance(value, (int, float)):
            return -value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {
            key.value: _literal(value, depth + 1)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and isinstance(key.value, str)
        }
    return None


def unique_labels(names: Iterable[str]) -> list[str]:
    """Return a label for each run: its name, numbered where several have the same."""
    taken: set[str] = set()
    labels = []
    for name in names:
        label, count = name, 1
        while label in taken:
            count += 1
            label = f"{name}-{count}"
        taken.add(label)
        labels.append(label)
    return labels
