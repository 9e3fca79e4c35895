"""What the curve room refuses."""

from __future__ import annotations

from planner.errors import PlannerError


class CurveError(PlannerError):
    """A curve, a metric or a reference cannot be used as asked."""
