"""From a URL to the files that it names, under the names that local files would have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.archive.source import Source
from planner.archive.urls import find_urls

if TYPE_CHECKING:
    from collections.abc import Iterator


def remote(url: str) -> Iterator[tuple[Source, bool]]:
    """Yield the files that a URL names, and whether it named the very file.

    Raises:
        LogError: If there is none, or the file system cannot be reached.
        MissingExtraError: If fsspec is not installed.
    """
    found, root = find_urls(url)
    folder = root.rstrip("/").rpartition("/")[2]
    for path in found:
        inside = path[len(root) :].lstrip("/")
        if any(part.startswith(".") for part in inside.split("/")):
            continue
        yield Source(path, f"{folder}/{inside}" if folder else inside), found == [path]
