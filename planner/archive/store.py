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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.archive.batches import POINTS_PER_BATCH, read_batches
from planner.archive.branches import ancestors, with_parents
from planner.archive.errors import ArchiveError
from planner.archive.points_file import HeldPoints, PointsWriter, Stored
from planner.archive.schema import SCHEMA, points_schema, runs_schema
from planner.archive.tables import commit, filled, flush, read_table, short, write_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import pyarrow as pa

    from planner.archive.batches import Batch
    from planner.plan import Plan

BUCKETS = 64
_MARK = "archive.json"
_PARTS = ("points", "runs")  # in the order in which they are moved into place
_PLANS = "plans"
_WORK = ".work"


def bucket_of(unit: str) -> int:
    """Return the bucket of what was read from one set of files, by its id."""
    return int(unit[:2], 16) % BUCKETS


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is an archive, of whatever version."""
    return (Path(path) / _MARK).is_file()


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
                commit(temporary, folder / _MARK)
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
        tables = [t for t in (read_table(f, names) for f in self._files("runs")) if t is not None]
        tables = [filled(table, schema) for table in tables]
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
            raise ArchiveError(f"is damaged: {short(error)}", file=str(self.path)) from None

    def batches(
        self,
        series: Sequence[str],
        *,
        runs: Collection[str] | None = None,
        parents: bool = False,
        points_per_batch: int = POINTS_PER_BATCH,
    ) -> Iterator[Batch]:
        """Yield the points of some series of many runs as ragged arrays.

        Every file is read once, in the order in which the runs lie there, which is not that of
        their names; a run is never split. Memory holds a batch and about a million points more.

        Args:
            series: Names of the series, such as ``["train/loss", "lr"]``. Runs that logged none of
                them are left out.
            runs: Ids of the runs; all if None.
            parents: Whether a run that branches off another has, before its own points, those of
                its parents, as in `history`. Memory then also holds the series of all parents.
            points_per_batch: A batch ends with the run that brings it to so many points.

        Raises:
            ArchiveError: If a file of the archive is damaged.
            ValueError: If ``points_per_batch`` is not positive, or ``series`` is one name.
        """
        if isinstance(series, str):
            raise ValueError(f"got the name {series!r}, wanted a list of names")
        if points_per_batch < 1:
            raise ValueError(f"got points_per_batch {points_per_batch}, wanted at least 1")
        chosen = None if runs is None else frozenset(runs)
        found = read_batches(self._point_files(chosen), series, chosen, points_per_batch)
        if not parents:
            return found
        links = self._links()
        above = ancestors(links, links if chosen is None else chosen)
        read = read_batches(self._point_files(above), series, above, points_per_batch)
        return with_parents(found, links, read)

    def _links(self) -> dict[str, tuple[str | None, int | None]]:
        """Return the parent and the branch step of each run."""
        listed = self._runs(["parent_run", "branch_step"])
        names = ("run", "parent_run", "branch_step")
        columns = [listed.column(name).to_pylist() for name in names]
        return {run: (parent, step) for run, parent, step in zip(*columns, strict=True)}

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
                reason = error.strerror or short(error)
                raise ArchiveError(f"cannot be written: {reason}", file=str(self.path)) from None

    def link(self, bucket: int, parents: Mapping[str, tuple[str | None, int | None]]) -> None:
        """Set the parent and branch step of some runs of a bucket.

        Raises:
            ArchiveError: If the bucket is damaged or cannot be written.
        """
        with self.locked(bucket):
            self._settle(bucket)
            table = read_table(self._file("runs", bucket))
            if table is None:
                return
            rows = table.to_pylist()
            for row in rows:
                if row["run"] in parents:
                    row["parent_run"], row["branch_step"] = parents[row["run"]]
            temporary = self._temporary("runs", bucket)
            write_runs(rows, temporary)
            commit(temporary, self._file("runs", bucket))

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
        held = HeldPoints(self._file("runs", bucket), self._file("points", bucket))
        rows: list[dict[str, Any]] = []
        with PointsWriter(self._temporary("points", bucket)) as out:
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
        # the disk writes the points while the runs are made: waiting for it takes long
        with ThreadPoolExecutor(1) as waiter:
            flushed = waiter.submit(flush, self._temporary("points", bucket))
            write_runs(rows, self._temporary("runs", bucket))
            flush(self._temporary("runs", bucket))
            flushed.result()
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


def _by_id(runs: list[Stored]) -> list[Stored]:
    return sorted(runs, key=lambda stored: stored.row["run"])
