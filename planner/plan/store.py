"""Plan files: read whole and checked, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from planner.documents import read_bytes, read_stdin
from planner.errors import OutputError, PlanFileError, SpecError
from planner.plan.codec import MAX_BYTES, dump_plan, load_plan

if TYPE_CHECKING:
    from planner.plan.model import Plan


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan file; ``-`` is standard input.

    Raises:
        PlanFileError: If it cannot be read, is no plan, or was edited.
    """
    name = os.fspath(path)
    try:
        data = read_stdin(MAX_BYTES) if name == "-" else read_bytes(name, MAX_BYTES)
    except SpecError as error:
        raise PlanFileError(error.message, file=error.file) from None
    return load_plan(data, "<stdin>" if name == "-" else name)


def write_plan(plan: Plan, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a plan file, replacing only what this program wrote and nobody edited.

    Raises:
        OutputError: If the file exists and is not an unedited plan, or cannot be written.
    """
    name, text = os.fspath(path), dump_plan(plan)
    if not force:
        _refuse_edited(name, text)
    write_text(name, text)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all: beside it first, then moved over it.

    A device or a named pipe (``/dev/stdout``) is written to as it is.

    Raises:
        OutputError: If the file system refuses.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all, as `write_text` does.

    Raises:
        OutputError: If the file system refuses.
    """
    name = os.fspath(path)
    if not name:
        raise OutputError("got an empty file name")
    try:
        if _is_stream(name):
            with open(name, "wb", opener=_open_stream) as stream:
                os.set_blocking(stream.fileno(), True)
                stream.write(data)
        else:
            _replace(Path(os.path.realpath(name)), data)
    except FileExistsError:
        raise OutputError("cannot be written: it lies in a file, not a folder", file=name) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot be written: {reason}", file=name) from None


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:  # also when interrupted
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_stream(name: str) -> bool:
    """Return whether a path is a device, a pipe or a socket: nothing to replace."""
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _open_stream(name: str, _: int) -> int:
    # a pipe that nobody reads would hold up an ordinary open for ever
    return os.open(name, os.O_WRONLY | os.O_NONBLOCK)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _refuse_edited(name: str, text: str) -> None:
    if not os.path.exists(name) or _is_stream(name):
        return
    try:
        present = read_bytes(name, MAX_BYTES)
        if present != text.encode():
            load_plan(present, name)
    except SpecError as error:
        raise OutputError(f"{error.message}; nothing was written", file=name) from None
    except PlanFileError:
        raise OutputError(
            "exists and is not a plan as this program wrote it; nothing was written "
            "(overwrite with --force)",
            file=name,
        ) from None
