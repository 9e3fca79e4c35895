"""What a reader is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from planner.archive.record import LoggedRun
from planner.archive.source import Source, decode

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Log:
    """A source, and what the mapping file says about its fields.

    Attributes:
        source: The file.
        fields: Canonical field (``step``, ``tokens`` or a series' name) to the log's own name.
    """

    source: Source
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> bytes:
        """The first bytes, decompressed."""
        return self.source.head

    @cached_property
    def head_lines(self) -> list[str]:
        """The first whole lines of text, or the first part of a very long one."""
        text = decode(self.head)
        lines = text.splitlines()
        return lines[:-1] if len(lines) > 1 and not text.endswith("\n") else lines


@runtime_checkable
class Reader(Protocol):
    """Reads one log format.

    A package adds its own by an entry point of the group ``planner.readers`` that names an
    instance of such a class.

    Attributes:
        name: Short name, recorded with every run that it read.
        version: Raised when the same bytes are read differently, so that they are read again.
    """

    name: str
    version: int

    def recognizes(self, log: Log) -> bool:
        """Return whether the head of the file is this format; never by its name."""
        ...

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the runs in a file.

        Raises:
            LogError: If it cannot be read.
        """
        ...
