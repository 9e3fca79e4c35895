"""The log of a run: JSON lines, only ever added to.

The first line says what is trained and has no step; each start of a restarted run adds such a line
with its ``segment`` and ``from_step``. Every other line has ``step`` (updates done), ``tokens``
(tokens seen) and numbers. A number that is not finite is ``null``.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from typing import TYPE_CHECKING, Any, TextIO

from planner.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOG = "log.jsonl"
SCHEMA = "planner.log/1"


class Log:
    """An open log; each line is flushed as it is written.

    Args:
        path: The file; a last line that was cut short by a crash is removed.
        identity: What the starts that it already holds must agree with.

    Raises:
        OutputError: If it cannot be opened, another process writes it, or it is of another run.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any] | None = None) -> None:
        self.path = path
        try:
            self._stream = open(path, "a", encoding="utf-8")  # noqa: SIM115
            if not _locked(self._stream):
                self._stream.close()
                raise OutputError(
                    "another process writes it: this run is being trained", file=str(path)
                )
            _drop_torn_line(path)
            starts = _starts(path)
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror}", file=str(path)) from None
        self.segment = len(starts)
        for start in starts:
            for key, value in (identity or {}).items():
                if start and start.get(key) != value:
                    self._stream.close()
                    raise OutputError(
                        f"is of another run: its {key} is {start.get(key)!r}, not {value!r}; "
                        "choose another output folder",
                        file=str(path),
                    )

    def start(self, about: Mapping[str, Any], from_step: int) -> None:
        """Write the line of a start."""
        head = {"schema": SCHEMA, "segment": self.segment, "from_step": from_step}
        self._write({**head, **about})

    def line(self, step: int, tokens: int, values: Mapping[str, float]) -> None:
        """Write one step's numbers."""
        self._write({"step": step, "tokens": tokens, **values})

    def sync(self) -> None:
        """Have the lines on the disk: a checkpoint must not outlast those of its steps."""
        try:
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror}", file=str(self.path)) from None

    def close(self) -> None:
        """Close the file."""
        try:
            self._stream.close()
        except OSError as error:  # what could not be written is tried once more
            raise OutputError(f"cannot be written: {error.strerror}", file=str(self.path)) from None

    def _write(self, record: Mapping[str, Any]) -> None:
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        try:
            text = json.dumps(finite, ensure_ascii=False, allow_nan=False)
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror}", file=str(self.path)) from None


def _locked(stream: TextIO) -> bool:
    """Take the file for as long as it is open; True, too, where the file system has no locks."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _drop_torn_line(path: Path) -> None:
    with open(path, "r+b") as stream:
        size = stream.seek(0, 2)
        keep = size
        while keep:
            start = max(0, keep - 4096)
            stream.seek(start)
            at = stream.read(keep - start).rfind(b"\n")
            if at >= 0:
                keep = start + at + 1
                break
            keep = start
        if keep != size:
            stream.truncate(keep)


def _starts(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the starts, {} for one that was damaged."""
    found: list[dict[str, Any]] = []
    with open(path, "rb") as stream:
        for line in stream:
            if line.startswith(b'{"schema"'):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    found.append({})
    return found
