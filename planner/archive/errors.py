"""Errors of this room."""

from __future__ import annotations

from planner.errors import PlannerError


class ArchiveError(PlannerError):
    """A folder that is no archive, or one that this version cannot read or write."""


class LogError(PlannerError):
    """A log that cannot be read: why, in one sentence."""


class MappingError(PlannerError):
    """A mapping file that cannot be read, or that contradicts itself."""
