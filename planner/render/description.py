"""What a target can express and which options it takes, as plain JSON values."""

from __future__ import annotations

from typing import Any

from planner.render.target import find_target


def describe(name: str) -> dict[str, Any]:
    """Return a target's contract and options.

    Returns:
        ``{"target", "version", "summary", "launcher": {"name", "summary", "default"},
        "capabilities": [{"feature", "how", "note"}],
        "options": [{"name", "of", "default", "help"}]}``; an option without a default has to be
        given, and its default is ``...``.

    Raises:
        TargetError: If there is no such target.
    """
    target = find_target(name)
    contract = target.trainer.contract
    return {
        "target": target.name,
        "version": contract.version,
        "summary": contract.summary,
        "launcher": {
            "name": target.launcher.name,
            "summary": target.launcher.summary,
            "default": target.launcher.name == target.trainer.launchers[0],
        },
        "capabilities": [
            {"feature": item.feature, "how": item.how, "note": item.note}
            for item in contract.capabilities
        ],
        "options": [
            {
                "name": option,
                "of": part.name,
                "default": "..." if field.is_required() else field.get_default(),
                "help": field.description or "",
            }
            for part in (target.trainer, target.launcher)
            for option, field in part.options.model_fields.items()
        ],
    }
