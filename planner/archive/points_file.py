"""The points of a bucket: one file, written and read run by run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.archive.errors import ArchiveError
from planner.archive.schema import METADATA, points_schema
from planner.archive.tables import read_table, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

_CHUNK = 1 << 20  # points of a row group; a run is never split


@dataclass(slots=True)
class Stored:
    """A run as the archive keeps it.

    Attributes:
        row: Its row of the runs table; its ``series`` say which points are whose.
        steps: Steps of all its series, one after the other.
        tokens: Tokens, not-a-number where unknown; None if none is known.
        values: Values, not-a-number where missing.
        segments: Which start logged each; None if there was one.
    """

    row: dict[str, Any]
    steps: NDArray[np.int64]
    tokens: NDArray[np.float64] | None
    values: NDArray[np.float64]
    segments: NDArray[np.int32] | None


class HeldPoints:
    """What a bucket holds, run by run in the order in which it lies there."""

    def __init__(self, runs: Path, points: Path) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._file: Any = None
        self._name = str(points)
        table = read_table(runs)
        if table is None or not table.num_rows:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        for row in table.to_pylist():
            self.rows.setdefault(row["unit"], []).append(row)
        # Where each run starts follows from the order: units, then runs, then their points.
        self._at: dict[str, int] = {}
        at = 0
        for unit in self.rows:
            for row in self.rows[unit]:
                self._at[row["run"]] = at
                at += row["points"]
        try:
            self._file = pq.ParquetFile(points)
        except (pa.ArrowInvalid, OSError) as error:
            raise ArchiveError(f"is damaged: {short(error)}", file=self._name) from None
        if self._file.metadata.num_rows != at:
            raise ArchiveError(
                f"holds {self._file.metadata.num_rows:,} points, its runs say {at:,}",
                file=self._name,
            )
        self._group, self._start, self._stop = -1, 0, 0
        self._columns: tuple[Any, ...] = ()

    def runs(self, unit: str) -> Iterator[Stored]:
        """Yield the runs of a unit; units must be asked for in order."""
        for row in self.rows.get(unit, []):
            at = self._at[row["run"]]
            while at + row["points"] > self._stop or (self._group < 0 and row["points"]):
                self._next()
            part = slice(at - self._start, at - self._start + row["points"])
            steps, tokens, values, segments = (c[part] for c in self._columns)
            yield Stored(
                row,
                steps,
                tokens if np.isfinite(tokens).any() else None,
                values,
                segments if segments.any() else None,
            )

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _next(self) -> None:
        import pyarrow as pa

        self._group += 1
        try:
            table = self._file.read_row_group(
                self._group, ["step", "tokens", "value", "segment"], use_threads=False
            )
        except (pa.ArrowInvalid, OSError, IndexError) as error:
            raise ArchiveError(f"is damaged: {short(error)}", file=self._name) from None
        self._start, self._stop = self._stop, self._stop + table.num_rows
        self._columns = (
            table.column("step").to_numpy(),
            table.column("tokens").to_numpy().astype(np.float64),
            table.column("value").to_numpy(),
            table.column("segment").to_numpy(),
        )


class PointsWriter:
    """Writes points, as many whole runs at a time as make a row group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Stored] = []
        self._count = 0
        self._writer: Any = None

    def __enter__(self) -> PointsWriter:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(
            self._path,
            points_schema(),
            # zstd gains little for its time: values are noise, the others nearly nothing
            compression="lz4",
            use_dictionary=["run", "series"],
            column_encoding={
                "step": "DELTA_BINARY_PACKED",
                "tokens": "DELTA_BINARY_PACKED",
                "value": "BYTE_STREAM_SPLIT",
            },
            write_statistics=["step"],  # ids and names are in no order that helps a query
            store_schema=False,
        )
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                self._write()
        finally:
            self._writer.add_key_value_metadata(METADATA)
            self._writer.close()

    def add(self, stored: Stored) -> None:
        """Add a run."""
        self._waiting.append(stored)
        self._count += len(stored.steps)
        if self._count >= _CHUNK:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            table = _points(self._waiting)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
            self._waiting, self._count = [], 0


def _points(runs: list[Stored]) -> pa.Table:
    import pyarrow as pa

    names = sorted({series["name"] for stored in runs for series in stored.row["series"]})
    code = {name: i for i, name in enumerate(names)}
    series_codes, series_counts = [], []
    for stored in runs:
        for series in stored.row["series"]:
            series_codes.append(code[series["name"]])
            series_counts.append(series["points"])
    counts = [len(stored.steps) for stored in runs]
    total = sum(counts)
    tokens: Any = pa.nulls(total, pa.int64())
    if any(stored.tokens is not None for stored in runs):
        known = np.concatenate(
            [np.full(len(s.steps), np.nan) if s.tokens is None else s.tokens for s in runs]
        )
        missing = ~np.isfinite(known)
        tokens = pa.array(np.where(missing, 0, known).astype(np.int64), mask=missing)
    segments = np.zeros(total, np.int32)
    at = 0
    for stored, count in zip(runs, counts, strict=True):
        if stored.segments is not None:
            segments[at : at + count] = stored.segments
        at += count
    values = np.concatenate([stored.values for stored in runs])
    missing = np.isnan(values)
    return pa.Table.from_arrays(
        [
            _codes(range(len(runs)), counts, [stored.row["run"] for stored in runs]),
            _codes(series_codes, series_counts, names),
            pa.array(np.concatenate([stored.steps for stored in runs])),
            tokens,
            pa.array(values, mask=missing) if missing.any() else pa.array(values),
            pa.array(segments),
        ],
        schema=points_schema(),
    )


def _codes(codes: Sequence[int], counts: list[int], names: list[str]) -> pa.DictionaryArray:
    """Return each name as often as it counts, stored once."""
    import pyarrow as pa

    indices = np.repeat(np.asarray(codes, np.int32), counts)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()), safe=False)
