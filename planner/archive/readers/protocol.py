"""What a reader is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from planner.archive.record import LoggedRun
from planner.archive.source import HEAD_BYTES, Source, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FIRST_LINE_BYTES = 1 << 20
_SHORT_BYTES = 4096  # six lines of most logs


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
    def utf8_head(self) -> bytes:
        """The first bytes as UTF-8, whatever the encoding of the text; for quick looks."""
        head = self.head
        return decode(head).encode() if head[:2] in (b"\xff\xfe", b"\xfe\xff") else head

    @cached_property
    def is_json(self) -> bool:
        """Whether the text may be JSON: it starts with a brace or a bracket."""
        return self.utf8_head[:200].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")

    @cached_property
    def first_lines(self) -> list[str]:
        """The first six whole lines, or the first part of a very long one."""
        start = self.utf8_head
        if b"\n" not in start and len(self.head) >= HEAD_BYTES:
            with self.source.open() as stream:
                start = stream.read(_FIRST_LINE_BYTES)
        short = start[:_SHORT_BYTES]
        parts = short.split(b"\n", 6)
        if len(parts) <= 6:
            parts = start.split(b"\n", 6)
        lines = decode(b"\n".join(parts[:6])).splitlines()
        # the last one may be cut, unless the file ends with it
        cut = len(parts) <= 6 and len(start) >= HEAD_BYTES and not start.endswith(b"\n")
        return lines[:-1] or lines if cut else lines

    @property
    def first_line_ends(self) -> bool:
        """Whether the first line has an end, in the part of it that `first_lines` shows."""
        lines = self.first_lines
        return len(lines) > 1 or len(lines[0].encode()) < _FIRST_LINE_BYTES if lines else True

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

    A reader that also reads another file tells by a method ``beside``, of the path of a local log,
    the path of that file or None: where it has changed, the log is read again.

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


@runtime_checkable
class SeveralReader(Reader, Protocol):
    """A reader of formats whose files are often small: it can read several of them at a time."""

    def read_several(self, logs: Sequence[Log]) -> list[list[LoggedRun] | None]:
        """Return what `read` does for each file; None for one that has to be read by itself."""
        ...
