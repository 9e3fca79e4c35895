"""Named errors: one clear sentence each, with the file, line and field it is about.

Every error a user can cause is a `PlannerError`; the command line prints it without a traceback
and exits with its `exit_code` (2 for bad input, 3 for a missing optional part).
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_PART = 500  # characters of a file name, field or message


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
        return ": ".join(_one_line(part) for part in (where, self.field, self.message) if part)


class UnitError(PlannerError, ValueError):
    """A quantity that cannot be read: not a number, or in the wrong unit."""


class SpecError(PlannerError):
    """A spec that cannot be read or whose declarations contradict each other."""


class SpecErrors(SpecError):
    """Several independent errors found in one spec.

    Args:
        errors: The errors in order of their place in the file; at least one.
        more: How many others there are that are not told.
    """

    def __init__(self, errors: list[SpecError], more: int = 0) -> None:
        first = errors[0]
        super().__init__(first.message, file=first.file, line=first.line, field=first.field)
        self.errors = errors
        self.more = more

    def __str__(self) -> str:
        """Return one line for each error."""
        lines = [str(error) for error in self.errors]
        if self.more:
            lines.append(f"... and {self.more} more")
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


def _one_line(text: str) -> str:
    """Return text that a terminal shows as it is: line breaks and control characters escaped."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= _MAX_PART else text[: _MAX_PART - 3] + "..."


def nearest(got: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelled most like ``got``, if any comes near."""
    if len(got) > _MAX_PART:
        return None
    # the case of a name is what people forget
    by_lower = {name.lower(): name for name in sorted(known)}
    near = get_close_matches(got.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that offers the nearest known name, or all of them.

    Args:
        got: What the user wrote.
        known: The names that would have been accepted.
    """
    names = sorted(known)
    near = nearest(got, names)
    if near is not None:
        return f"did you mean {near!r}?"
    return "wanted one of: " + ", ".join(names)
