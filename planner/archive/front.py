"""How an ingest starts: its workers load their libraries while this process does."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from planner.archive.discover import discover
from planner.archive.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.archive.rules import Mapping
    from planner.archive.source import Source

# Below this, another process would take longer to start than the work does.
SMALL_BYTES = 16 * 1024**2


class Progress(Protocol):
    """Told how far an ingest is."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Take note.

        Args:
            stage: What is being done.
            done: How many files are done with it.
            total: Of how many.
        """
        ...


@dataclass(slots=True)
class Report:
    """What an ingest did.

    Attributes:
        files: How many files were looked at.
        added: Names of runs that are new, sorted.
        replaced: Names of runs that were in the archive and were read again, sorted.
        unchanged: How many runs were there already.
        points: How many points were written.
        plans: How many plans were found, and are kept beside the runs.
        skipped: Name and reason of each file that is no log.
        failed: Name and reason of each file that should be one and could not be read.
    """

    files: int = 0
    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: int = 0
    points: int = 0
    plans: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every file that should be a log was read."""
        return not self.failed


def ingest(
    paths: Sequence[str | os.PathLike[str]],
    archive: str | os.PathLike[str],
    *,
    mapping: Mapping | None = None,
    policy: dict[str, str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Read logs into an archive, making it if need be.

    Args:
        paths: Files, folders, patterns and URLs.
        archive: The archive's folder.
        mapping: What the logs do not say by themselves.
        policy: How repairs are made, by name, such as ``{"duplicates": "first"}``; comes before
            what the mapping says. `planner.archive.Policy` has the names and values.
        workers: How many processes; with more than one, the caller's main module must be
            importable without side effects.
        progress: Called now and then.

    Returns:
        What was done; files that could not be read are in it, not raised.

    Raises:
        LogError: If a path does not exist.
        MappingError: If a policy has an unknown name or value.
        ArchiveError: If the archive cannot be opened or written.
    """
    found = discover(paths)
    with Pool(workers if _large(found.sources) else 1) as pool:
        pool.start(_load)
        from planner.archive.intake import take_in

        return take_in(found, archive, mapping, policy, pool, progress)


def _load(_: int) -> None:
    import planner.archive.intake  # noqa: F401


def _large(sources: list[Source]) -> bool:
    total = 0
    for source in sources:
        try:
            total += os.stat(source.path).st_size
        except (OSError, ValueError):
            continue
        if total > SMALL_BYTES:
            return True
    return False
