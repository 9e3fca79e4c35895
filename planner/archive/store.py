"""The archive's folder: written whole or not at all, the same bytes in whatever order.

Runs are spread over 256 buckets by the digest of what they were read from. A bucket is a pair of
files that depends on nothing but the runs in it, so a rerun after an interruption ends with the
bytes of an undisturbed one. Points are moved into place before the runs that own them: a run that
is listed is whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.archive.errors import ArchiveError
from planner.archive.schema import SCHEMA, points_schema, runs_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

BUCKETS = 256
_MARK = "archive.json"
_ROW_GROUP = 1 << 20
_WORK = ".work"


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


def bucket_of(unit: str) -> int:
    """Return the bucket of what was read from one set of files, by its digest."""
    return int(unit[:2], 16)


class Archive:
    """A folder of runs.

    Args:
        path: The folder.

    Raises:
        ArchiveError: If it is no archive, or one of another version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _check(self.path)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Archive:
        """Open an archive, making an empty one of a folder that is not there or empty.

        Raises:
            ArchiveError: If the folder holds something else, or cannot be written.
        """
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / _MARK).exists():
                if any(not entry.name.startswith(".") for entry in folder.iterdir()):
                    raise ArchiveError("is a folder of other files, wanted an archive", file=str(path))
                text = json.dumps({"schema": SCHEMA, "buckets": BUCKETS}) + "\n"
                _replace(folder / _MARK, folder / f".{_MARK}", text.encode())
            for part in ("runs", "points", _WORK):
                (folder / part).mkdir(exist_ok=True)
        except FileExistsError:
            raise ArchiveError("is a file, wanted a folder", file=str(path)) from None
        except OSError as error:
            raise ArchiveError(f"cannot be written: {error.strerror}", file=str(path)) from None
        return cls(folder)

    def runs(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the runs, sorted by name.

        Args:
            columns: Which columns; all if None.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = None if columns is None else sorted({*columns, "run", "name"})
        tables = [t for t in map(lambda f: _read(f, wanted), self._files("runs")) if t is not None]
        schema = runs_schema()
        if wanted is not None:
            schema = pa.schema([schema.field(name) for name in wanted], schema.metadata)
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        return table.take(pc.sort_indices(table, [("name", "ascending"), ("run", "ascending")]))

    def points(
        self, runs: Sequence[str] | None = None, series: Sequence[str] | None = None
    ) -> pa.Table:
        """Return points in long form, run by run.

        Args:
            runs: Ids of the runs; all if None.
            series: Names of the series; all if None.
        """
        import pyarrow as pa
        import pyarrow.dataset as dataset

        listed = self.runs(["run", "unit"])
        chosen = dict(
            zip(listed.column("run").to_pylist(), listed.column("unit").to_pylist(), strict=True)
        )
        if runs is not None:
            chosen = {run: unit for run, unit in chosen.items() if run in set(runs)}
        files = sorted({str(self._file("points", bucket_of(unit))) for unit in chosen.values()})
        if not files:
            return points_schema().empty_table()
        condition = dataset.field("run").isin(pa.array(sorted(chosen), pa.string()))
        if series is not None:
            condition &= dataset.field("series").isin(pa.array(list(series), pa.string()))
        return dataset.dataset(files, points_schema()).to_table(filter=condition)

    def _files(self, part: str) -> list[Path]:
        try:
            return sorted(f for f in (self.path / part).iterdir() if f.suffix == ".parquet")
        except FileNotFoundError:
            return []

    def _file(self, part: str, bucket: int) -> Path:
        return self.path / part / f"{bucket:02x}.parquet"

    @contextmanager
    def locked(self, bucket: int) -> Iterator[None]:
        """Keep every other process out of a bucket; a lock dies with the process that holds it."""
        with open(self.path / _WORK / "lock", "ab") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX, 1, bucket)
            yield

    def load(self, bucket: int) -> list[Stored]:
        """Return the runs of a bucket, with their points."""
        runs = _read(self._file("runs", bucket))
        if runs is None or not runs.num_rows:
            return []
        points = _read(self._file("points", bucket), ["run", "step", "tokens", "value", "segment"])
        if points is None:
            raise ArchiveError("lacks the points of its runs", file=str(self.path))
        steps = points.column("step").to_numpy()
        values = points.column("value").to_numpy()
        tokens = points.column("tokens").to_numpy().astype(np.float64)
        segments = points.column("segment").to_numpy()
        # points may already hold runs that are not listed: an ingest was stopped between the two
        places = _places(points.column("run").combine_chunks())
        result = []
        for row in runs.to_pylist():
            start, stop = places.get(row["run"], (0, 0))
            if stop - start != row["points"]:
                raise ArchiveError(f"lacks points of run {row['run']}", file=str(self.path))
            part = slice(start, stop)
            known = tokens[part]
            starts = segments[part]
            result.append(
                Stored(
                    row,
                    steps[part],
                    known if np.isfinite(known).any() else None,
                    values[part],
                    starts if starts.any() else None,
                )
            )
        return result

    def save(self, bucket: int, runs: list[Stored]) -> None:
        """Write a bucket, in place of what it held; the caller holds its lock."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        runs = sorted(runs, key=lambda stored: (stored.row["unit"], stored.row["run"]))
        points_file, runs_file = self._file("points", bucket), self._file("runs", bucket)
        work = self.path / _WORK
        try:
            if not runs:
                runs_file.unlink(missing_ok=True)
                points_file.unlink(missing_ok=True)
                return
            temporary = work / f"points-{bucket:02x}"
            pq.write_table(
                _points(runs),
                temporary,
                row_group_size=_ROW_GROUP,
                compression="zstd",
                compression_level=1,
                use_dictionary=["run", "series"],
                column_encoding={
                    "step": "DELTA_BINARY_PACKED",
                    "tokens": "DELTA_BINARY_PACKED",
                    "value": "BYTE_STREAM_SPLIT",
                    "segment": "DELTA_BINARY_PACKED",
                },
                write_statistics=["run", "series", "step"],
                store_schema=False,
            )
            _commit(temporary, points_file)
            self._save_runs(pa.Table.from_pylist([s.row for s in runs], runs_schema()), bucket)
        except OSError as error:
            raise ArchiveError(
                f"cannot be written: {error.strerror or error}", file=str(self.path)
            ) from None

    def _save_runs(self, table: pa.Table, bucket: int) -> None:
        import pyarrow.parquet as pq

        temporary = self.path / _WORK / f"runs-{bucket:02x}"
        pq.write_table(
            table, temporary, compression="zstd", write_statistics=False, store_schema=False
        )
        _commit(temporary, self._file("runs", bucket))

    def link(self, bucket: int, parents: dict[str, tuple[str | None, int | None]]) -> None:
        """Set the parent and branch step of some runs of a bucket; the caller holds its lock."""
        import pyarrow as pa

        table = _read(self._file("runs", bucket))
        if table is None:
            return
        rows = table.to_pylist()
        for row in rows:
            if row["run"] in parents:
                row["parent_run"], row["branch_step"] = parents[row["run"]]
        self._save_runs(pa.Table.from_pylist(rows, runs_schema()), bucket)

    def sweep(self) -> None:
        """Remove what an interrupted ingest left half written, unless it is being written now."""
        for left in (self.path / _WORK).iterdir():
            kind, dash, bucket = left.name.partition("-")
            if not dash or kind not in ("points", "runs"):
                continue
            with open(self.path / _WORK / "lock", "ab") as stream:
                try:
                    fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(bucket, 16))
                except OSError as error:
                    if error.errno in (errno.EACCES, errno.EAGAIN):
                        continue
                    raise
                left.unlink(missing_ok=True)


def _check(path: Path) -> None:
    try:
        data = (path / _MARK).read_bytes()[:1000]
    except (FileNotFoundError, NotADirectoryError):
        what = "is no archive" if path.exists() else "no such archive"
        raise ArchiveError(f"{what}; planner ingest makes one", file=str(path)) from None
    except OSError as error:
        raise ArchiveError(f"cannot be read: {error.strerror}", file=str(path)) from None
    try:
        mark = json.loads(data)
        schema = mark["schema"]
    except (ValueError, TypeError, KeyError):
        raise ArchiveError("is damaged", file=str(path / _MARK)) from None
    if schema != SCHEMA or mark.get("buckets") != BUCKETS:
        raise ArchiveError(f"is of schema {schema!r}, wanted {SCHEMA}", file=str(path)) from None


def _places(runs: Any) -> dict[str, tuple[int, int]]:
    """Return where the points of each run start and stop; they lie together."""
    encoded = runs if hasattr(runs, "dictionary") else runs.dictionary_encode()
    codes = encoded.indices.to_numpy()
    edges = np.flatnonzero(np.diff(codes)) + 1
    starts = np.concatenate(([0], edges)) if len(codes) else edges
    stops = np.concatenate((edges, [len(codes)]))
    names = encoded.dictionary.to_pylist()
    return {
        names[codes[a]]: (int(a), int(b)) for a, b in zip(starts, stops, strict=False) if b > a
    }


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
    return pa.table(
        [
            pa.DictionaryArray.from_arrays(
                np.repeat(np.arange(len(runs), dtype=np.int32), counts),
                pa.array([stored.row["run"] for stored in runs], pa.string()),
            ),
            pa.DictionaryArray.from_arrays(
                np.repeat(np.asarray(series_codes, np.int32), series_counts),
                pa.array(names, pa.string()),
            ),
            np.concatenate([stored.steps for stored in runs]),
            tokens,
            pa.array(values, mask=missing) if missing.any() else pa.array(values),
            segments,
        ],
        schema=points_schema(),
    )


def _read(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # a file that is replaced while it is read stays whole: it is open
        with open(path, "rb") as stream:
            return pq.ParquetFile(stream).read(columns, use_threads=False)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ArchiveError(f"is damaged: {reason}", file=str(path)) from None


def _commit(temporary: Path, target: Path) -> None:
    with open(temporary, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, target)


def _replace(target: Path, temporary: Path, data: bytes) -> None:
    temporary.write_bytes(data)
    _commit(temporary, target)
