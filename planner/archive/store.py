"""The archive's folder: written whole or not at all, the same bytes in whatever order.

Runs are spread over 64 buckets by what they were read from. A bucket is a pair of files that
depends on nothing but the runs in it, so a rerun after an interruption ends with the bytes of an
undisturbed one. Both files are first written elsewhere; a note that they are complete makes the
change: whoever opens the archive next carries out what the note announces.
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

from planner.archive.batches import POINTS_PER_BATCH, read_batches
from planner.archive.errors import ArchiveError
from planner.archive.schema import METADATA, SCHEMA, points_schema, runs_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import pyarrow as pa

    from planner.archive.batches import Batch
    from planner.plan import Plan

BUCKETS = 64
_MARK = "archive.json"
_PARTS = ("points", "runs")  # in the order in which they are moved into place
_CHUNK = 1 << 20  # points of a row group; a run is never split
_COLUMNS = ("run", "series", "step", "tokens", "value", "segment")
_PLANS = "plans"
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
    """Return the bucket of what was read from one set of files, by its id."""
    return int(unit[:2], 16) % BUCKETS


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
        self._recover()

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Archive:
        """Open an archive, making an empty one of a folder that is not there or empty.

        Raises:
            ArchiveError: If the folder holds something else, or cannot be written.
        """
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made = (folder / _MARK).exists()
            if not made:
                ours = {*_PARTS, _PLANS, _MARK}
                if any(e.name not in ours and e.name[0] != "." for e in folder.iterdir()):
                    raise ArchiveError(
                        "is a folder of other files, wanted an archive", file=str(path)
                    )
            for part in (*_PARTS, _WORK):
                (folder / part).mkdir(exist_ok=True)
            if not made:
                text = json.dumps({"schema": SCHEMA, "buckets": BUCKETS}) + "\n"
                temporary = folder / _WORK / f"{_MARK}.{os.getpid()}"
                temporary.write_text(text)
                _commit(temporary, folder / _MARK)
            for left in (folder / _WORK).glob(f"{_MARK}.*"):
                if not _alive(left.suffix[1:]):
                    left.unlink(missing_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError("is a file, wanted a folder", file=str(path)) from None
        except OSError as error:
            raise ArchiveError(f"cannot be written: {error.strerror}", file=str(path)) from None
        return cls(folder)

    def runs(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the runs, sorted by name.

        Args:
            columns: Which columns; all if None.

        Raises:
            ArchiveError: If a file of the archive is damaged.
        """
        import pyarrow.compute as pc

        table = self._runs(columns)
        return table.take(pc.sort_indices(table, [("name", "ascending"), ("run", "ascending")]))

    def rows(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the runs as `runs` does, each a dict by column, sorted by name."""
        rows: list[dict[str, Any]] = self._runs(columns).to_pylist()
        rows.sort(key=lambda row: (row["name"], row["run"]))
        return rows

    def _runs(self, columns: Sequence[str] | None) -> pa.Table:
        import pyarrow as pa

        schema = runs_schema()
        names = [n for n in schema.names if columns is None or n in {*columns, "run", "name"}]
        schema = pa.schema([schema.field(name) for name in names])
        tables = [t for t in (_read(f, names) for f in self._files("runs")) if t is not None]
        tables = [_filled(table, schema) for table in tables]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def points(
        self, runs: Sequence[str] | None = None, series: Sequence[str] | None = None
    ) -> pa.Table:
        """Return points in long form, run by run; each series in order of its steps.

        Args:
            runs: Ids of the runs; all if None.
            series: Names of the series; all if None.

        Raises:
            ArchiveError: If a file of the archive is damaged.
        """
        import pyarrow as pa
        import pyarrow.dataset as dataset

        listed = self.runs(["run", "unit"])
        chosen = dict(
            zip(listed.column("run").to_pylist(), listed.column("unit").to_pylist(), strict=True)
        )
        if runs is not None:
            asked = set(runs)
            chosen = {run: unit for run, unit in chosen.items() if run in asked}
        files = sorted({str(self._file("points", bucket_of(unit))) for unit in chosen.values()})
        if not files:
            return points_schema().empty_table()
        condition = dataset.field("run").isin(pa.array(sorted(chosen), pa.string()))
        if series is not None:
            condition &= dataset.field("series").isin(pa.array(list(series), pa.string()))
        try:
            return dataset.dataset(files, points_schema()).to_table(filter=condition)
        except (pa.ArrowInvalid, OSError) as error:
            raise ArchiveError(f"is damaged: {_short(error)}", file=str(self.path)) from None

    def batches(
        self,
        series: Sequence[str],
        *,
        runs: Collection[str] | None = None,
        points_per_batch: int = POINTS_PER_BATCH,
    ) -> Iterator[Batch]:
        """Yield the points of some series of many runs as ragged arrays.

        Every file is read once, in the order in which the runs lie there, which is not that of
        their names; a run is never split. Memory holds a batch and about a million points more.

        Args:
            series: Names of the series, such as ``["train/loss", "lr"]``. Runs that logged none of
                them are left out.
            runs: Ids of the runs; all if None.
            points_per_batch: A batch ends with the run that brings it to so many points.

        Raises:
            ArchiveError: If a file of the archive is damaged.
            ValueError: If ``points_per_batch`` is not positive.
        """
        if points_per_batch < 1:
            raise ValueError(f"got points_per_batch {points_per_batch}, wanted at least 1")
        chosen = None if runs is None else frozenset(runs)
        return read_batches(self._point_files(chosen), series, chosen, points_per_batch)

    def _point_files(self, runs: Collection[str] | None) -> list[Path]:
        """Return the files that hold the points of some runs."""
        if runs is None:
            return self._files("points")
        listed = self._runs(["run", "unit"])
        pairs = zip(
            listed.column("run").to_pylist(), listed.column("unit").to_pylist(), strict=True
        )
        buckets = {bucket_of(unit) for run, unit in pairs if run in runs}
        return [self._file("points", bucket) for bucket in sorted(buckets)]

    def history(self, run: str, series: str) -> pa.Table:
        """Return the points of one series from the very start: those of its parents, then its own.

        Of a parent these are the steps before the branch; the column ``run`` tells whose they are.

        Args:
            run: Id of the run.
            series: Name of the series.

        Raises:
            ArchiveError: If there is no such run, or a file of the archive is damaged.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        listed = self.runs(["parent_run", "branch_step"]).to_pylist()
        rows = {row["run"]: row for row in listed}
        if run not in rows:
            raise ArchiveError(f"holds no run {run!r}", file=str(self.path))
        line: list[tuple[str, int | None]] = [(run, None)]
        while (parent := rows[line[-1][0]]["parent_run"]) in rows and len(line) <= len(rows):
            line.append((parent, rows[line[-1][0]]["branch_step"]))
        table = self.points([name for name, _ in line], [series])
        parts = []
        first: int | None = None
        for name, until in line:
            part = table.filter(pc.equal(table.column("run"), name))
            # a parent ends where the branch was taken, and where its child has points
            ends = [step for step in (until, first) if step is not None]
            if ends:
                part = part.filter(pc.less(part.column("step"), min(ends)))
            if part.num_rows:
                first = part.column("step")[0].as_py()
            parts.append(part)
        return pa.concat_tables(reversed(parts))

    def plans(self) -> list[Plan]:
        """Return the plans that are kept beside the runs, in order of their digests.

        Raises:
            PlanFileError: If one was edited.
        """
        folder = self.path / _PLANS
        if not folder.is_dir():
            return []
        from planner.plan import read_plan

        return [read_plan(file) for file in sorted(folder.glob("*.json"))]

    def keep_plan(self, plan: Plan) -> None:
        """Keep a plan beside the runs, so that they are matched to it.

        Raises:
            OutputError: If it cannot be written.
        """
        from planner.plan import write_plan

        (self.path / _PLANS).mkdir(exist_ok=True)
        name = plan.digest.removeprefix("sha256:")
        write_plan(plan, self.path / _PLANS / f"{name}.json")

    def update(
        self,
        bucket: int,
        units: Mapping[str, Callable[[list[dict[str, Any]]], list[Stored] | None]],
    ) -> None:
        """Put what was read into a bucket, in place of what it held of the same units.

        Both what is there and what is new pass through memory run by run.

        Args:
            bucket: Number of the bucket.
            units: Unit to what returns its runs, given the rows that the archive has of it; None
                leaves these as they are.

        Raises:
            ArchiveError: If the bucket is damaged or cannot be written.
        """
        with self.locked(bucket):
            self._settle(bucket)
            try:
                self._rewrite(bucket, units)
            except OSError as error:
                reason = error.strerror or _short(error)
                raise ArchiveError(f"cannot be written: {reason}", file=str(self.path)) from None

    def link(self, bucket: int, parents: Mapping[str, tuple[str | None, int | None]]) -> None:
        """Set the parent and branch step of some runs of a bucket.

        Raises:
            ArchiveError: If the bucket is damaged or cannot be written.
        """
        with self.locked(bucket):
            self._settle(bucket)
            table = _read(self._file("runs", bucket))
            if table is None:
                return
            rows = table.to_pylist()
            for row in rows:
                if row["run"] in parents:
                    row["parent_run"], row["branch_step"] = parents[row["run"]]
            temporary = self._temporary("runs", bucket)
            _write_runs(rows, temporary)
            _commit(temporary, self._file("runs", bucket))

    @contextmanager
    def locked(self, bucket: int) -> Iterator[None]:
        """Keep every other process out of a bucket; a lock dies with the process that holds it."""
        try:
            stream = open(self.path / _WORK / "lock", "ab")  # noqa: SIM115
        except OSError as error:
            raise ArchiveError(
                f"cannot be written: {error.strerror}", file=str(self.path)
            ) from None
        with stream:
            fcntl.lockf(stream, fcntl.LOCK_EX, 1, bucket)
            yield

    def _files(self, part: str) -> list[Path]:
        try:
            return sorted(f for f in (self.path / part).iterdir() if f.suffix == ".parquet")
        except FileNotFoundError:
            return []

    def _file(self, part: str, bucket: int) -> Path:
        return self.path / part / f"{bucket:02x}.parquet"

    def _temporary(self, part: str, bucket: int) -> Path:
        return self.path / _WORK / f"{part}-{bucket:02x}"

    def _rewrite(
        self,
        bucket: int,
        units: Mapping[str, Callable[[list[dict[str, Any]]], list[Stored] | None]],
    ) -> None:
        held = _Held(self._file("runs", bucket), self._file("points", bucket))
        rows: list[dict[str, Any]] = []
        with _Points(self._temporary("points", bucket)) as out:
            for unit in sorted({*held.rows, *units}):
                old = held.rows.get(unit, [])
                new = units[unit](old) if unit in units else None
                runs = held.runs(unit) if new is None else iter(_by_id(new))
                for stored in runs:
                    out.add(stored)
                    rows.append(stored.row)
            changed = bool(rows)
        held.close()
        if not changed:
            self._temporary("points", bucket).unlink()
            return
        _write_runs(rows, self._temporary("runs", bucket))
        for part in _PARTS:
            _flush(self._temporary(part, bucket))
        self._temporary("commit", bucket).touch()
        self._settle(bucket)

    def _settle(self, bucket: int) -> None:
        """Carry out a change that is complete; drop one that is not. The lock is held."""
        note = self._temporary("commit", bucket)
        if note.exists():
            for part in _PARTS:
                temporary = self._temporary(part, bucket)
                if temporary.exists():
                    os.replace(temporary, self._file(part, bucket))
            note.unlink()
        else:
            for part in _PARTS:
                self._temporary(part, bucket).unlink(missing_ok=True)

    def _recover(self) -> None:
        """Settle what interrupted ingests left, unless somebody is at it or we may not write."""
        try:
            left = sorted(
                {entry.name[-2:] for entry in (self.path / _WORK).glob("*-[0-9a-f][0-9a-f]")}
            )
            for code in left:
                with open(self.path / _WORK / "lock", "ab") as stream:
                    fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(code, 16))
                    self._settle(int(code, 16))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EROFS, errno.EPERM):
                raise ArchiveError(
                    f"cannot be read: {error.strerror}", file=str(self.path)
                ) from None


def _alive(process: str) -> bool:
    """Return whether a process of this machine lives; what cannot be told counts as alive."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        return True
    return True


def _check(path: Path) -> None:
    try:
        data = (path / _MARK).read_bytes()[:1000]
    except (FileNotFoundError, NotADirectoryError):
        what = "is no archive" if path.exists() else "no such archive"
        raise ArchiveError(f"{what}; planner ingest makes one", file=str(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArchiveError(f"cannot be read: {reason}", file=str(path)) from None
    try:
        mark = json.loads(data)
        schema = mark["schema"]
    except (ValueError, TypeError, KeyError):
        raise ArchiveError("is damaged", file=str(path / _MARK)) from None
    if schema != SCHEMA or mark.get("buckets") != BUCKETS:
        raise ArchiveError(f"is of schema {schema!r}, wanted {SCHEMA}", file=str(path)) from None


class _Held:
    """What a bucket holds, run by run in the order in which it lies there."""

    def __init__(self, runs: Path, points: Path) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._file: Any = None
        self._name = str(points)
        table = _read(runs)
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
            raise ArchiveError(f"is damaged: {_short(error)}", file=self._name) from None
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
            raise ArchiveError(f"is damaged: {_short(error)}", file=self._name) from None
        self._start, self._stop = self._stop, self._stop + table.num_rows
        self._columns = (
            table.column("step").to_numpy(),
            table.column("tokens").to_numpy().astype(np.float64),
            table.column("value").to_numpy(),
            table.column("segment").to_numpy(),
        )


class _Points:
    """Writes points, as many whole runs at a time as make a row group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Stored] = []
        self._count = 0
        self._writer: Any = None

    def __enter__(self) -> _Points:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(
            self._path,
            points_schema(),
            # values are mostly noise: there zstd gains little for its time
            compression={name: "lz4" if name == "value" else "zstd" for name in _COLUMNS},
            use_dictionary=["run", "series"],
            column_encoding={
                "step": "DELTA_BINARY_PACKED",
                "tokens": "DELTA_BINARY_PACKED",
                "value": "BYTE_STREAM_SPLIT",
                "segment": "DELTA_BINARY_PACKED",
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


def _write_runs(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = runs_schema()
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=False,  # few rows, most of them different
        write_statistics=False,
        store_schema=False,
    ) as writer:
        columns = [_column([row.get(field.name) for row in rows], field.type) for field in schema]
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        writer.add_key_value_metadata(METADATA)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an array; of lists of records field by field, which is faster."""
    import pyarrow as pa

    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)) or None in values:
        return pa.array(values, kind)
    fields = list(kind.value_type)
    flat = [item for value in values for item in value]
    records = pa.StructArray.from_arrays(
        [pa.array([item.get(f.name) for item in flat], f.type) for f in fields], fields=fields
    )
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), records, type=kind)


def _by_id(runs: list[Stored]) -> list[Stored]:
    return sorted(runs, key=lambda stored: stored.row["run"])


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
        raise ArchiveError(f"is damaged: {_short(error)}", file=str(path)) from None


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with all columns of a schema; those that an older one lacks are null."""
    import pyarrow as pa

    have = set(table.column_names)
    return pa.table(
        [
            table.column(field.name) if field.name in have else pa.nulls(table.num_rows, field.type)
            for field in schema
        ],
        names=schema.names,
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _flush(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def _commit(temporary: Path, target: Path) -> None:
    _flush(temporary)
    os.replace(temporary, target)
