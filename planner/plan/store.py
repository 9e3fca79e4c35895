"""Plan files: read whole and checked, written whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from planner.documents import read_bytes
from planner.errors import OutputError, PlanFileError, SpecError
from planner.plan.codec import dump_plan, load_plan

if TYPE_CHECKING:
    from planner.plan.model import Plan

_MAX_BYTES = 256 * 1024 * 1024


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan file; ``-`` is standard input.

    Raises:
        PlanFileError: If it cannot be read, is no plan, or was edited.
    """
    name = os.fspath(path)
    if name == "-":
        return load_plan(sys.stdin.buffer.read(), "<stdin>")
    try:
        data = read_bytes(name, _MAX_BYTES)
    except SpecError as error:
        raise PlanFileError(error.message, file=error.file) from None
    return load_plan(data, name)


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

    Raises:
        OutputError: If the file system refuses.
    """
    name = os.fspath(path)
    target = Path(os.path.realpath(name))
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except (OSError, ValueError) as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot be written: {reason}", file=name) from None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _refuse_edited(name: str, text: str) -> None:
    try:
        if not Path(name).exists():
            return
        present = read_bytes(name, _MAX_BYTES)
        if present == text.encode():
            return
        load_plan(present, name)
    except SpecError as error:
        raise OutputError(f"{error.message}; nothing was written", file=name) from None
    except (PlanFileError, OSError, ValueError):
        raise OutputError(
            "exists and is not a plan as this program wrote it; nothing was written "
            "(overwrite with --force)",
            file=name,
        ) from None
