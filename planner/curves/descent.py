"""Branches begin with their parents' steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.curves.curve import RunFacts

Points = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
Column = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]
]  # offsets, steps, values, tokens


@dataclass(frozen=True, slots=True)
class Parents:
    """The runs that others branched off: lines of descent, and points by run and series."""

    lines: dict[str, list[tuple[str, int | None]]] = field(default_factory=dict)
    points: dict[tuple[str, str], Points] = field(default_factory=dict)

    def history(self, run: str, name: str, own: Points) -> Points:
        """Return points from the very start; a parent ends where its child begins or branched."""
        if run not in self.lines:
            return own
        parts = [own]
        first = int(own[0][0]) if own[0].size else None
        for parent, until in self.lines[run]:
            points = self.points.get((parent, name))
            if points is None:
                continue
            ends = [step for step in (until, first) if step is not None]
            if ends:
                count = int(np.searchsorted(points[0], min(ends)))
                points = points[0][:count], points[1][:count], points[2][:count]
            if points[0].size:
                first = int(points[0][0])
            parts.append(points)
        parts.reverse()
        steps, tokens, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        return steps, tokens, values


def read_parents(
    archive: Archive, facts: Mapping[str, RunFacts], wanted: Collection[str], names: list[str]
) -> Parents:
    """Read what branches began with.

    Args:
        archive: The archive.
        facts: Of each run, by id.
        wanted: Ids of the runs that may be branches.
        names: Series.

    Raises:
        ArchiveError: The archive is damaged.
    """
    lines: dict[str, list[tuple[str, int | None]]] = {}
    listed = None
    for run in wanted:
        if facts[run].parent is None:
            continue
        if listed is None:
            rows = archive.runs(["parent_run", "branch_step"]).to_pylist()
            listed = {row["run"]: (row["parent_run"], row["branch_step"]) for row in rows}
        line: list[tuple[str, int | None]] = []
        child = run
        while (parent := listed[child][0]) in listed and len(line) <= len(listed):
            line.append((parent, listed[child][1]))
            child = parent
        if line:
            lines[run] = line
    points: dict[tuple[str, str], Points] = {}
    needed = {parent for line in lines.values() for parent, _ in line}
    if needed:
        for read in archive.batches(names, runs=needed):
            for name in names:
                ragged = read.series[name]
                for i, run in enumerate(read.runs):
                    part = slice(ragged.offsets[i], ragged.offsets[i + 1])
                    points[run, name] = (
                        ragged.steps[part],
                        ragged.values[part],
                        ragged.tokens[part],
                    )
    return Parents(lines, points)


def part_of(column: Column, i: int) -> Points:
    """Return the points of one run."""
    part = slice(column[0][i], column[0][i + 1])
    return column[1][part], column[2][part], column[3][part]


def joined(runs: list[Points]) -> Column:
    """Return the points of some runs, one run after the other."""
    offsets = np.zeros(len(runs) + 1, np.int64)
    np.cumsum([run[0].size for run in runs], out=offsets[1:])
    if not runs:
        return offsets, np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    steps, values, tokens = (np.concatenate(column) for column in zip(*runs, strict=True))
    return offsets, steps, values, tokens
