"""What the fitting room refuses."""

from __future__ import annotations

from planner.errors import PlannerError


class FitError(PlannerError):
    """The runs of an archive cannot give the law asked for."""
