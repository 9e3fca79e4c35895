"""Runs that branch off another, with what was logged before the branch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.batches import Batch, Ragged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

_Points = tuple["NDArray[Any]", ...]  # steps, tokens, values, segments


def ancestors(
    links: Mapping[str, tuple[str | None, int | None]], runs: Iterable[str]
) -> frozenset[str]:
    """Return all runs that some runs branch off, themselves or by way of others."""
    found: set[str] = set()
    for run in runs:
        parent = links.get(run, (None, None))[0]
        while parent in links and parent is not None and parent not in found:
            found.add(parent)
            parent = links[parent][0]
    return frozenset(found)


def with_parents(
    batches: Iterable[Batch],
    links: Mapping[str, tuple[str | None, int | None]],
    above: Iterable[Batch],
) -> Iterator[Batch]:
    """Yield batches whose runs begin with what their parents logged.

    Args:
        batches: The runs.
        links: Run to its parent, and the step at which it branched off.
        above: All that any of the runs branches off; read first, and held in memory.
    """
    held = {
        (run, name): part
        for batch in above
        for name, ragged in batch.series.items()
        for run, part in zip(batch.runs, _parts(ragged), strict=True)
    }
    for batch in batches:
        if all(links.get(run, (None, None))[0] is None for run in batch.runs):
            yield batch
            continue
        series = {}
        for name, ragged in batch.series.items():
            pieces: list[list[_Points]] = []
            for run, own in zip(batch.runs, _parts(ragged), strict=True):
                pieces.append([*_before(run, name, own, links, held), own])
            series[name] = _joined(pieces)
        yield Batch(batch.runs, series)


def _before(
    run: str,
    series: str,
    own: _Points,
    links: Mapping[str, tuple[str | None, int | None]],
    held: Mapping[tuple[str, str], _Points],
) -> list[_Points]:
    """Return the parts of a series that the parents of a run logged, the earliest first."""
    found: list[_Points] = []
    first = int(own[0][0]) if len(own[0]) else None
    seen = {run}
    parent, until = links.get(run, (None, None))
    while parent is not None and parent in links and parent not in seen:
        seen.add(parent)
        part = held.get((parent, series))
        if part is not None:
            # a parent ends where the branch was taken, and where its child has points
            ends = [step for step in (until, first) if step is not None]
            count = np.searchsorted(part[0], min(ends)) if ends else len(part[0])
            if count:
                found.append(tuple(column[:count] for column in part))
                first = int(part[0][0])
        parent, until = links[parent]
    return found[::-1]


def _parts(ragged: Ragged) -> Iterator[_Points]:
    columns = (ragged.steps, ragged.tokens, ragged.values, ragged.segments)
    for start, end in pairwise(ragged.offsets.tolist()):
        yield tuple(column[start:end] for column in columns)


def _joined(runs: list[list[_Points]]) -> Ragged:
    offsets = np.zeros(len(runs) + 1, np.int64)
    np.cumsum([sum(len(piece[0]) for piece in pieces) for pieces in runs], out=offsets[1:])
    columns = [np.concatenate([piece[i] for pieces in runs for piece in pieces]) for i in range(4)]
    return Ragged(offsets, *columns)
