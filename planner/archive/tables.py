"""Tables on disk: the runs of a bucket, and what all files of the archive share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.errors import ArchiveError
from planner.archive.schema import METADATA, runs_schema

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """Return a Parquet file's table, None if there is no such file.

    Raises:
        ArchiveError: If it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # A file that is replaced while it is read stays whole: it is open. Not as a Python file:
        # Arrow's threads might let go of it while the interpreter exits, which aborts the process.
        with pa.OSFile(str(path)) as stream:
            return pq.ParquetFile(stream).read(columns, use_threads=False)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArchiveError(f"is damaged: {short(error)}", file=str(path)) from None


def filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
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


def write_runs(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows of the runs table."""
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


def short(error: Exception) -> str:
    """Return the start of an error's message, on one line."""
    return " ".join(str(error).split())[:120]


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def commit(temporary: Path, target: Path) -> None:
    """Put a file in place of another, when it is on the disk."""
    flush(temporary)
    os.replace(temporary, target)
