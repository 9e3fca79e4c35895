"""What lowering a run to a trainer comes to, and how a trainer says that it cannot run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from planner.plan.model import Run
from planner.render.errors import CannotExpressError
from planner.render.groups import Group


@dataclass(frozen=True, slots=True)
class Settings:
    """What a trainer's configuration says of a run.

    Attributes:
        model: Settings of the trainer's model, by the trainer's names.
        groups: The optimizer's groups.
        warnings: What the user should know.
    """

    model: dict[str, Any]
    groups: tuple[Group, ...]
    warnings: tuple[str, ...]


def refusal(trainer: str, run: Run) -> Callable[[str, str], NoReturn]:
    """Return what raises that a trainer cannot run a plan's run: ``refuse(field, reason)``."""

    def refuse(field: str, reason: str) -> NoReturn:
        raise CannotExpressError(
            f"{trainer} cannot run this: {reason}", field=f"{run.name}.{field}"
        )

    return refuse
