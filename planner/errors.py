"""Named errors: one clear sentence each, with the file, line and field it is about.

Every error a user can cause is a `PlannerError`; the command line prints it without a traceback
and exits with its `exit_code` (2 for bad input, 3 for a missing optional part).
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PlannerError(Exception):
    """Base of all errors that a user can cause or repair.

    Args:
        message: One sentence saying what was got and what was wanted.
        file: Name of the file the error is about, if any.
        line: One-based line in that file.
        field: Dotted path of the field, such as ``architecture.head_dim``.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.field = field

    def __str__(self) -> str:
        """Return ``file:line: field: message``, leaving out what is unknown."""
        where = self.file or ""
        if self.file and self.line is not None:
            where += f":{self.line}"
        return ": ".join(part for part in (where, self.field, self.message) if part)


class UnitError(PlannerError, ValueError):
    """A quantity that cannot be read: not a number, or in the wrong unit."""


class SpecError(PlannerError):
    """A spec that cannot be read or whose declarations contradict each other."""


class SpecErrors(SpecError):
    """Several independent errors found in one spec.

    Args:
        errors: The errors in order of their place in the file; at least one.
    """

    def __init__(self, errors: list[SpecError]) -> None:
        first = errors[0]
        super().__init__(first.message, file=first.file, line=first.line, field=first.field)
        self.errors = errors

    def __str__(self) -> str:
        """Return one line for each error, at most ten."""
        lines = [str(error) for error in self.errors[:10]]
        if len(self.errors) > 10:
            lines.append(f"... and {len(self.errors) - 10} more")
        return "\n".join(lines)


class PlanFileError(PlannerError):
    """A plan file that cannot be read, or whose digest does not match what it holds."""


class LawError(PlannerError):
    """An unknown law, or a law asked for something that it does not state."""


class OutputError(PlannerError):
    """An output that would overwrite what somebody edited, or that cannot be written."""


class MissingExtraError(PlannerError):
    """An optional part that is not installed."""

    exit_code = 3


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that offers the nearest known name, or all of them.

    Args:
        got: What the user wrote.
        known: The names that would have been accepted.
    """
    names = sorted(known)
    near = get_close_matches(got, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "wanted one of: " + ", ".join(names)
