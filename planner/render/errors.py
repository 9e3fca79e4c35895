"""What can go wrong while rendering; all of it is `planner.errors.PlannerError`."""

from __future__ import annotations

from planner.errors import PlannerError


class TargetError(PlannerError):
    """An unknown target, or a trainer with a launcher that cannot start it."""


class CannotExpressError(PlannerError):
    """A target that cannot run what the plan says, with the reason. It never approximates."""


class OptionError(PlannerError):
    """A render option that the target does not have, or a value that it does not take."""


class TemplateError(PlannerError):
    """A template that cannot be found, parsed or filled in; `file` and `line` say where."""
