"""The archive on disk: what its two tables hold.

``runs`` has one row a run, ``points`` one row a logged value. Both are Parquet files that any
program can read; the version stands in their metadata and in ``archive.json``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pyarrow as pa

SCHEMA = "planner.archive/1"
METADATA = {"planner.archive": SCHEMA}


@cache
def points_schema() -> Any:
    """Return the Arrow schema of the points."""
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            pa.field("run", text, nullable=False),
            pa.field("series", text, nullable=False),
            pa.field("step", pa.int64(), nullable=False),
            pa.field("tokens", pa.int64()),
            pa.field("value", pa.float64()),
            pa.field("segment", pa.int32(), nullable=False),
        ],
    )


@cache
def series_type() -> Any:
    """Return the Arrow type of a run's summary of one series."""
    return pa.struct(
        [
            ("name", pa.string()),
            ("logged_as", pa.string()),
            ("source", pa.string()),
            ("unit", pa.string()),
            ("points", pa.int64()),
            ("nonfinite", pa.int64()),
            ("duplicates", pa.int64()),
            ("superseded", pa.int64()),
            ("first_step", pa.int64()),
            ("last_step", pa.int64()),
            ("first", pa.float64()),
            ("last", pa.float64()),
            ("decimals", pa.int32()),
            ("window", pa.int64()),
        ]
    )


@cache
def runs_schema() -> Any:
    """Return the Arrow schema of the runs."""
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    texts = pa.list_(text)
    return pa.schema(
        [
            pa.field("run", text, nullable=False),
            pa.field("name", text, nullable=False),
            ("params", whole),
            ("tokens", whole),
            ("batch_tokens", whole),
            ("seq_len", whole),
            ("total_steps", whole),
            ("warmup_steps", whole),
            ("lr", real),
            ("min_lr", real),
            ("weight_decay", real),
            ("beta1", real),
            ("beta2", real),
            ("eps", real),
            ("optimizer", text),
            ("schedule", text),
            ("tpp", real),
            ("tau", real),
            ("seed", whole),
            ("tokenizer", text),
            ("run_digest", text),
            ("parent_run", text),
            ("branch_step", whole),
            ("resumed_from", text),
            ("metric", text),
            ("final", real),
            ("diverged_step", whole),
            ("points", whole),
            ("first_step", whole),
            ("last_step", whole),
            ("every", real),
            ("boundaries", pa.list_(whole)),
            ("series", pa.list_(series_type())),
            ("unknown", texts),
            ("notes", texts),
            ("sources", texts),
            ("readers", texts),
            ("policy", text),
            ("origins", text),
            ("config", text),
            pa.field("unit", text, nullable=False),
            pa.field("settings", text, nullable=False),
            ("content", texts),
            ("sizes", pa.list_(whole)),
        ],
    )
