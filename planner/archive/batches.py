"""Points of many runs in bulk: ragged arrays, each file read once, in the order stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.archive.errors import ArchiveError
from planner.archive.tables import short

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

POINTS_PER_BATCH = 1_000_000
_COLUMNS = ("step", "tokens", "value", "segment")


@dataclass(frozen=True, slots=True)
class Ragged:
    """One series of R runs, one after the other.

    Attributes:
        offsets: ``R + 1`` positions: run ``i`` has the points ``offsets[i]:offsets[i + 1]``, none
            if it did not log the series.
        steps: Steps, rising within a run.
        tokens: Training tokens seen, not-a-number where unknown.
        values: Values, not-a-number where missing.
        segments: Which start of its run logged each point.
    """

    offsets: NDArray[np.int64]
    steps: NDArray[np.int64]
    tokens: NDArray[np.float64]
    values: NDArray[np.float64]
    segments: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some runs with the series asked for.

    Attributes:
        runs: Ids of the runs; each has at least one point.
        series: Name of each series asked for to its points.
    """

    runs: list[str]
    series: dict[str, Ragged]


def read_batches(
    files: Sequence[Path], series: Sequence[str], runs: Collection[str] | None, most: int
) -> Iterator[Batch]:
    """Yield the points of some series; `planner.archive.Archive.batches` says how."""
    names = list(dict.fromkeys(series))
    waiting = _Waiting(names)
    for file in files:
        for group in _row_groups(file, names, runs):
            for run, parts in group:
                if waiting.points >= most and run != waiting.runs[-1]:
                    yield waiting.batch()
                    waiting = _Waiting(names)
                waiting.add(run, parts)
    if waiting.runs:
        yield waiting.batch()


_Points = tuple[NDArray[Any], ...]  # steps, tokens, values, segments
_Group = list[tuple[str, list[tuple[str, _Points]]]]


@dataclass(slots=True)
class _Waiting:
    """Runs that are to become a batch."""

    names: list[str]
    runs: list[str] = field(default_factory=list)
    parts: dict[str, list[_Points]] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)
    points: int = 0

    def __post_init__(self) -> None:
        for name in self.names:
            self.parts[name], self.counts[name] = [], []

    def add(self, run: str, parts: list[tuple[str, _Points]]) -> None:
        """Add points of a run; a run that the last row group ended in goes on."""
        if not self.runs or self.runs[-1] != run:
            self.runs.append(run)
            for name in self.names:
                self.counts[name].append(0)
        for name, points in parts:
            self.parts[name].append(points)
            self.counts[name][-1] += len(points[0])
            self.points += len(points[0])

    def batch(self) -> Batch:
        """Return the batch."""
        return Batch(self.runs, {name: self._ragged(name) for name in self.names})

    def _ragged(self, name: str) -> Ragged:
        offsets = np.zeros(len(self.runs) + 1, np.int64)
        np.cumsum(self.counts[name], out=offsets[1:])
        parts = self.parts.pop(name)
        kinds = (np.int64, np.float64, np.float64, np.int32)
        joined = [
            np.concatenate([part[i] for part in parts]) if parts else np.zeros(0, kind)
            for i, kind in enumerate(kinds)
        ]
        return Ragged(offsets, *joined)


def _row_groups(file: Path, names: list[str], runs: Collection[str] | None) -> Iterator[_Group]:
    """Yield the runs of each row group that holds any of the series, each with its series."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # open while it is read: a file that is replaced meanwhile stays whole
        with pa.OSFile(str(file)) as stream:
            parquet = pq.ParquetFile(stream, read_dictionary=["run", "series"])
            for number in range(parquet.num_row_groups):
                ids = parquet.read_row_group(number, ["run", "series"])
                spans = list(_spans(ids, names, runs))
                if spans:
                    table = parquet.read_row_group(number, list(_COLUMNS))
                    yield _grouped(spans, table)
    except FileNotFoundError:
        return
    except (pa.ArrowInvalid, OSError) as error:
        raise ArchiveError(f"is damaged: {short(error)}", file=str(file)) from None


def _spans(
    ids: pa.Table, names: list[str], runs: Collection[str] | None
) -> Iterator[tuple[str, str, int, int]]:
    """Yield run, series, start and end of each stretch of rows that is asked for."""
    if not ids.num_rows:
        return
    (run_codes, run_names), (codes, known) = _codes(ids.column("run")), _codes(ids.column("series"))
    wanted = set(names)
    starts = np.flatnonzero((run_codes[1:] != run_codes[:-1]) | (codes[1:] != codes[:-1])) + 1
    edges = [0, *starts.tolist(), ids.num_rows]
    heads = np.asarray(edges[:-1])
    for i, (run, series) in enumerate(
        zip(run_codes[heads].tolist(), codes[heads].tolist(), strict=True)
    ):
        name = known[series]
        if name in wanted and (runs is None or run_names[run] in runs):
            yield run_names[run], name, edges[i], edges[i + 1]


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str]]:
    array = column.unify_dictionaries().combine_chunks()
    return array.indices.to_numpy(), array.dictionary.to_pylist()


def _grouped(spans: list[tuple[str, str, int, int]], table: pa.Table) -> _Group:
    # copies of what is asked for: views would keep all series of a run in memory
    counts = [end - start for _, _, start, end in spans]
    first = np.repeat([start for _, _, start, _ in spans], counts)
    ends = np.cumsum(counts)
    rows = first + np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    columns = (
        table.column("step").to_numpy()[rows],
        _filled(table.column("tokens"))[rows],
        _filled(table.column("value"))[rows],
        table.column("segment").to_numpy()[rows],
    )
    group: _Group = []
    for (run, series, _, _), end, count in zip(spans, ends.tolist(), counts, strict=True):
        if not group or group[-1][0] != run:
            group.append((run, []))
        points = tuple(column[end - count : end] for column in columns)
        group[-1][1].append((series, points))
    return group


def _filled(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return numbers, not-a-number where null."""
    if column.null_count == len(column):
        return np.full(len(column), np.nan)
    return np.asarray(column.to_numpy(), np.float64)
