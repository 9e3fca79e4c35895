"""What each file is, before it is read: a log and whose, or why it is left out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from planner.archive.errors import LogError, MappingError
from planner.archive.names import printable
from planner.archive.readers import choose, reader_named
from planner.archive.readers.csv_table import header
from planner.archive.readers.protocol import Log
from planner.archive.rules import Applied
from planner.archive.sidecar import (
    FILE_SIDECAR,
    FOLDER_SIDECAR,
    Beside,
    Sidecar,
    is_sidecar,
    seems_sidecar,
)
from planner.archive.source import HEAD_BYTES, Source, foreign, is_text
from planner.units import format_bytes

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Reader
    from planner.archive.rules import Mapping

_TOO_DEEP = 100
_SHOWN = 8  # columns
_UNKNOWN = "is text of no known log format"
_PLAN = re.compile(rb'\s*\{\s*"schema":\s*"planner\.plan/')
# What an empty file must be called to be missed: lock files and markers are empty, too.
_LOG_NAME = re.compile(
    r"(\.(csv|tsv|jsonl?|ndjson|log)(\.(gz|zst))?|tfevents[^/]*)$", re.IGNORECASE
)
_JSON_LINES = re.compile(r"\.(jsonl|ndjson)(\.(gz|zst))?$", re.IGNORECASE)

Status = Literal["log", "beside", "plan", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One file, looked at.

    Attributes:
        source: The file.
        status: ``log``; ``beside`` if it describes a log; ``plan``; ``skipped`` if it is no log;
            ``failed`` if it is one, or should be, that cannot be read.
        reason: Why it is skipped or failed.
        reader: Name of its reader.
        version: The reader's version.
        digest: SHA-256 of the decompressed bytes.
        size: How many decompressed bytes there are.
        applied: What the mapping file says about it.
        sidecar: What lies beside it.
    """

    source: Source
    status: Status
    reason: str = ""
    reader: str = ""
    version: int = 0
    digest: str = ""
    size: int = 0
    applied: Applied = field(default_factory=Applied)
    sidecar: Sidecar = field(default_factory=Sidecar)


def survey(
    source: Source, mapping: Mapping, named: bool = False, beside: Beside | None = None
) -> Surveyed:
    """Look at a file; every problem with it becomes its reason.

    Args:
        source: The file.
        mapping: The mapping file's rules.
        named: Whether the user named this very file, so that it should be a log.
        beside: Reads what lies beside logs; one for all files that are looked at together.
    """
    try:
        return _survey(source, mapping, named, beside or Beside())
    except (LogError, MappingError) as error:
        reason = str(error) if error.file else error.message
    except Exception as error:  # a hostile file must not stop the others
        reason = f"cannot be read: {unexpected(error)}"
    return Surveyed(source, "failed", reason)


def _survey(source: Source, mapping: Mapping, named: bool, beside: Beside) -> Surveyed:
    applied = mapping.apply(source.name)
    if applied.ignore:
        return Surveyed(source, "skipped", "the mapping file says to ignore it")
    if is_sidecar(source.name.rpartition("/")[2]):
        return Surveyed(source, "beside", "describes the runs beside it")
    head = source.head
    if _PLAN.match(head):
        return Surveyed(source, "plan", "is a plan")
    if not head:
        due = named or _LOG_NAME.search(source.name)
        return Surveyed(source, "failed" if due else "skipped", "is empty")
    reader = _reader(Log(source, dict(applied.fields)), applied)
    if reader is None:
        status, reason = _why_not(head, source.name)
        if reason == _UNKNOWN:
            reason = _nearly(Log(source, dict(applied.fields))) or reason
        return Surveyed(source, "failed" if named else status, reason)
    digest, size = source.digest()
    sidecar = beside.read(source, reader)
    source = source.fresh()  # what was read of it would fill the memory
    return Surveyed(source, "log", "", reader.name, reader.version, digest, size, applied, sidecar)


def _reader(log: Log, applied: Applied) -> Reader | None:
    if applied.reader is not None:
        return reader_named(applied.reader)
    return choose(log)


def _why_not(head: bytes, name: str) -> tuple[Status, str]:
    """Return whether a file that no reader knows is harmless, and what it is."""
    if seems_sidecar(name.rpartition("/")[2]):
        return "failed", f"is not read: a sidecar is called {FOLDER_SIDECAR} or LOG{FILE_SIDECAR}"
    kind = foreign(head)
    if kind is not None:
        return "skipped", f"is {kind}, not a log"
    if not is_text(head):
        return "failed", "is neither text nor a known log format"
    if head.lstrip()[:1] in (b"{", b"[") and _depth(head) > _TOO_DEEP:
        return "failed", "is JSON nested too deep"
    if len(head) >= HEAD_BYTES and b"\n" not in head and _JSON_LINES.search(name):
        return "failed", f"its first line is longer than {format_bytes(HEAD_BYTES)}"
    return "skipped", _UNKNOWN


def _nearly(log: Log) -> str | None:
    """Return what keeps a text from being a table or JSON lines; None if it is like neither."""
    columns = header(log)
    if columns is not None:
        shown = ", ".join(printable(name, 40) for name in columns[0][:_SHOWN])
        more = len(columns[0]) - _SHOWN
        shown += f" and {more} more" if more > 0 else ""
        return f"is a table none of whose columns is known to count steps: {shown}"
    first, *others = [line for line in log.first_lines if line.strip()] or [""]
    if first.startswith("#") and any("," in line or ";" in line for line in others):
        return f"starts with a line that is no header of a table: {printable(first, 40)!r}"
    if others and not first.startswith("{") and all(line.startswith("{") for line in others):
        return f"starts with a line that is no JSON object: {printable(first, 40)!r}"
    return None


def _depth(data: bytes) -> int:
    """Return how deep brackets nest, those in strings included: a bound is all that is wanted."""
    deepest = depth = 0
    for byte in data:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def unexpected(error: BaseException) -> str:
    """Return one line about an error that no reader foresaw."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
