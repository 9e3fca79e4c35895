"""Small files of one format read several at a time: most of the time goes into each call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.archive.readers import reader_named
from planner.archive.readers.protocol import Log, SeveralReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.archive.assemble import Group
    from planner.archive.record import LoggedRun
    from planner.archive.survey import Surveyed

_SMALL = 256 * 1024
_TOGETHER = 512 * 1024  # bytes: what is read ahead lies in memory
_FILES = 64


class Ahead:
    """What the readers return for some files, several read when the first is asked for.

    Args:
        groups: The files, in the order in which they will be asked for.
    """

    def __init__(self, groups: Iterable[Group]) -> None:
        self._parts: dict[str, list[Surveyed]] = {}
        self._read: dict[str, list[LoggedRun]] = {}
        part: list[Surveyed] = []
        size = 0
        for group in groups:
            for item in group.files:
                if item.size > _SMALL or not isinstance(reader_named(item.reader), SeveralReader):
                    continue
                alike = part and (part[0].reader, part[0].applied.fields) == (
                    item.reader,
                    item.applied.fields,
                )
                if not alike or len(part) == _FILES or size + item.size > _TOGETHER:
                    part, size = [], 0
                part.append(item)
                size += item.size
                self._parts[item.source.path] = part

    def take(self, item: Surveyed) -> list[LoggedRun] | None:
        """Return what the reader returns for a file; None if it is to be read by itself."""
        path = item.source.path
        part = self._parts.get(path, ())
        if len(part) > 1:
            for each in part:
                del self._parts[each.source.path]
            self._read = _read(part)
        return self._read.pop(path, None)


def _read(part: Iterable[Surveyed]) -> dict[str, list[LoggedRun]]:
    logs = [Log(item.source.fresh(), dict(item.applied.fields)) for item in part]
    reader = reader_named(next(iter(part)).reader)
    assert isinstance(reader, SeveralReader)
    try:
        found = reader.read_several(logs)
    except Exception:  # one hostile file: each is read by itself, and the one is named
        return {}
    return {
        log.source.path: runs for log, runs in zip(logs, found, strict=True) if runs is not None
    }
