"""From what a user names to files: folders are walked, patterns expanded, loops seen."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from planner.archive.errors import LogError
from planner.archive.remote import remote
from planner.archive.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(slots=True)
class Found:
    """Files, and places that could not be looked into.

    Attributes:
        sources: In order of their names.
        named: Paths of files that the user named one by one.
        failed: Name and reason of each place that could not be read.
    """

    sources: list[Source] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    failed: list[tuple[str, str]] = field(default_factory=list)


def discover(paths: Sequence[str | os.PathLike[str]]) -> Found:
    """Return the files that some paths, folders, patterns and URLs name.

    Names start with the folder that was named, so that they are the same wherever it lies. Hidden
    files, and archives of this program, are left out.

    Raises:
        LogError: If a path does not exist or a pattern matches nothing.
        MissingExtraError: If a URL is named and fsspec, or its protocol's package, is missing.
    """
    found = Found()
    seen: set[str] = set()
    for given in paths:
        text = os.fspath(given)
        if not text:
            raise LogError("got an empty path")
        if "://" in text:
            for source, named in remote(text):
                if source.path not in seen:
                    seen.add(source.path)
                    found.sources.append(source)
                    if named:
                        found.named.add(source.path)
            continue
        if os.path.lexists(text):
            matches = [text]
        else:
            matches = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []
            if not matches:
                raise LogError("no such file or folder, and no file matches it", file=text)
        for match in matches:
            for source, real, named in _walk(match, found):
                if real in seen:
                    continue
                seen.add(real)
                found.sources.append(source)
                if named and len(matches) == 1:
                    found.named.add(source.path)
    found.sources.sort(key=lambda source: source.name)
    return found


def _walk(root: str, found: Found) -> Iterator[tuple[Source, str, bool]]:
    """Yield each file, its path without links, and whether it was named itself."""
    absolute = os.path.abspath(root)
    if not os.path.isdir(absolute):
        parent, name = os.path.split(absolute)
        source = Source(absolute, _posix(os.path.join(os.path.basename(parent), name)))
        yield source, os.path.realpath(absolute), True
        return
    base = os.path.dirname(absolute.rstrip("/"))
    # a link may lead back up: each folder is looked into once
    visited: set[tuple[int, int]] = set()
    stack = [absolute]
    while stack:
        folder = stack.pop()
        name = _posix(os.path.relpath(folder, base))
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in visited:
                continue
            visited.add((info.st_dev, info.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            found.failed.append((name, f"cannot be read: {error.strerror}"))
            continue
        if any(entry.name == "archive.json" for entry in entries) and _is_archive(folder):
            continue
        real = os.path.realpath(folder)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError as error:
                found.failed.append((f"{name}/{entry.name}", f"cannot be read: {error.strerror}"))
                continue
            if is_folder:
                stack.append(entry.path)
            else:
                # what a link leads to is looked up, which takes long, for links only
                path = os.path.realpath(entry.path) if entry.is_symlink() else ""
                yield (
                    Source(entry.path, f"{name}/{_printable(entry.name)}"),
                    path or os.path.join(real, entry.name),
                    False,
                )


def _is_archive(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "archive.json"), "rb") as stream:
            return b"planner.archive/" in stream.read(200)
    except OSError:
        return False


def _posix(path: str) -> str:
    return _printable(PurePath(path).as_posix())


def _printable(name: str) -> str:
    """Return a name without what is no text: a file's name is any bytes."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()
