"""What lies beside a log and describes its run."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.archive.readers.jsonl import flatten, parse_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from planner.archive.readers.protocol import Reader
    from planner.archive.source import Source

FOLDER_SIDECAR = "planner-run.yaml"
FILE_SIDECAR = ".planner.yaml"
_JSON_SIDECARS = ("hparams.json", "config.json", "args.json")
_MAX_SIDECAR = 1 << 20

# As people also spell the two names above.
_NEARLY = re.compile(r"(^planner[-_. ]?run\.ya?ml|[-_.]planner([-_.]run)?\.ya?ml)$", re.IGNORECASE)

_Declared = tuple[tuple[str, Any], ...]
_Said = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]


@dataclass(frozen=True)
class Sidecar:
    """What lies beside a log.

    Attributes:
        declared: Facts from YAML sidecars, which a person wrote for this.
        said: Configurations from JSON files, by file name.
        digest: SHA-256 of what the log's reader reads beside it, empty if it reads nothing.
    """

    declared: _Declared = ()
    said: _Said = ()
    digest: str = ""


_NOTHING = Sidecar()  # one object: it is sent from process to process with every file


def is_sidecar(name: str) -> bool:
    """Return whether a file's name says that it describes a run and holds no points."""
    return name == FOLDER_SIDECAR or name.endswith(FILE_SIDECAR) or name in _JSON_SIDECARS


def seems_sidecar(name: str) -> bool:
    """Return whether a file's name is nearly that of a sidecar, so that nobody reads it."""
    return _NEARLY.search(name) is not None and not is_sidecar(name)


def why_unread(path: str, logs: Collection[str]) -> str | None:
    """Return why a sidecar that a person wrote describes no log; None if it does, or is no such.

    Args:
        path: Where it lies.
        logs: Paths of all logs.
    """
    folder, name = os.path.split(path)
    if name == FOLDER_SIDECAR and not any(os.path.dirname(log) == folder for log in logs):
        return "describes the logs of its folder, in which there are none"
    log = path.removesuffix(FILE_SIDECAR)
    if name != FOLDER_SIDECAR and log != path and log not in logs:
        return f"describes {os.path.basename(log)}, which is no log beside it"
    return None


class Beside:
    """Reads what lies beside logs; what a folder says is read once.

    It remembers, so it must not outlive the looking at some files.
    """

    def __init__(self) -> None:
        self._folders: dict[str, tuple[_Declared, _Said]] = {}

    def read(self, source: Source, reader: Reader) -> Sidecar:
        """Return what lies beside a log.

        Raises:
            MappingError: If a YAML sidecar is wrong.
        """
        folder = os.path.dirname(source.path)
        if folder not in self._folders:
            self._folders[folder] = _folder(folder)
        declared, said = self._folders[folder]
        own = source.path + FILE_SIDECAR
        if os.path.isfile(own):
            declared = tuple((dict(declared) | _constants(own)).items())
        digest = "" if source.is_remote else _digest(getattr(reader, "beside", None), source.path)
        return Sidecar(declared, said, digest) if declared or said or digest else _NOTHING


def _folder(folder: str) -> tuple[_Declared, _Said]:
    """Return what the sidecars of a folder declare and say."""
    whole = os.path.join(folder, FOLDER_SIDECAR)
    declared = _constants(whole) if os.path.isfile(whole) else {}
    said = []
    for name in _JSON_SIDECARS:
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) > _MAX_SIDECAR:
            continue
        try:
            with open(path, encoding="utf-8-sig") as stream:
                value = parse_json(stream.read())
        except (OSError, ValueError):
            continue  # somebody else's file: it says nothing here
        if isinstance(value, dict):
            said.append((name, tuple(flatten(value))))
    return tuple(declared.items()), tuple(said)


def _constants(path: str) -> dict[str, Any]:
    from planner.archive.mapping import read_constants

    return read_constants(path)


def _digest(beside: Any, path: str) -> str:
    """Return the digest of the file that a reader reads beside a log."""
    file = None if beside is None else beside(path)
    if file is None:
        return ""
    try:
        with open(file, "rb") as stream:
            return hashlib.sha256(stream.read(_MAX_SIDECAR)).hexdigest()
    except OSError:
        return ""
