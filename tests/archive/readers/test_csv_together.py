"""Files that are read together are what they are when each is read by itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from planner.archive import ingest, list_runs
from planner.archive.errors import LogError
from planner.archive.readers import reader_named
from planner.archive.readers.csv_table import CsvReader
from planner.archive.readers.csv_together import sheets
from planner.archive.readers.protocol import Log
from planner.archive.record import LoggedRun
from planner.archive.source import Source
from planner.archive.store import Archive

from ..logs import csv_log, tree

CELLS = st.one_of(
    st.integers(-5, 10**20).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(["", "", "null", "None", "nan", "-inf", "text", "true", "2024-01-01", '"1"']),
    st.sampled_from([" 1", "0x1", "1e3", "1_000", "\x00", "é", '"a\nb"', "1.0", "-0.0"]),
    st.sampled_from(["2,5", "0,0123", "1,234", "1,234.5", '"2,5"', '"1,234"', "1.234,5", "a,b"]),
)
NAMES = st.sampled_from(["step,loss", "step,loss,lr", "step;loss", "step,loss,loss", "a,b"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    header = draw(NAMES)
    delimiter = ";" if ";" in header else ","
    width = header.count(delimiter) + 1
    rows = []
    for i in range(draw(st.integers(0, 6))):
        plain = draw(st.booleans())
        cells = [str(i)] + [f"{i}.5" if plain else draw(CELLS) for _ in range(width - 1)]
        if draw(st.integers(0, 9)) == 0:
            cells.append("1")
        rows.append(delimiter.join(cells))
    end = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n"]))
    last = draw(st.sampled_from(["", end]))
    return header + end + end.join(rows) + last


def alike(a: LoggedRun, b: LoggedRun) -> bool:
    if (a.config, a.notes, len(a.tables)) != (b.config, b.notes, len(b.tables)):
        return False
    for x, y in zip(a.tables, b.tables, strict=True):
        if x.columns.keys() != y.columns.keys() or x.appended != y.appended:
            return False
        pairs = [(x.steps, y.steps), (x.tokens, y.tokens)]
        for name, column in x.columns.items():
            other = y.columns[name]
            pairs += [(column.values, other.values), (column.present, other.present)]
            if column.present is not None and other.present is not None:
                # what stands where nothing was logged is never looked at
                pairs[-2] = (column.values[column.present], other.values[other.present])
        for p, q in pairs:
            if (p is None) != (q is None):
                return False
            if p is not None and q is not None and p.tobytes() != q.tobytes():
                return False
    return True


@given(st.lists(texts(), min_size=1, max_size=6))
@example(["step,loss\n0,\n1,\n", "step,loss\n0,1\n1,2\n"])
@example(["step,loss\n0,1\n\n1,2\n", "step,loss\n0,1,2\n1,2\n"])
@example(["step,loss\n0,1\n1,", "step,loss\n0,1\n1,2"])
@example(["step,loss,note\n0,1,\n1,2,\n", "step,loss,note\n0,1,3\n1,2,3\n"])
def test_together_or_alone_is_the_same(contents: list[str]) -> None:
    reader = CsvReader()
    with tempfile.TemporaryDirectory() as folder:
        logs = []
        for i, text in enumerate(contents):
            path = Path(folder) / f"{i}.csv"
            path.write_bytes(text.encode())
            logs.append(Log(Source(str(path), path.name)))
        for log, found in zip(logs, reader.read_several(logs), strict=True):
            if found is None:
                continue
            try:
                [run] = reader.read(log)
            except LogError as error:
                raise AssertionError(f"alone: {error}") from None
            assert alike(found[0], run), (found, run)


def test_plain_files_are_read_together(tmp_path: Path) -> None:
    paths = [csv_log(tmp_path / f"{i}.csv", steps=3 + i, seed=i) for i in range(5)]
    paths.append(tmp_path / "text.csv")
    paths[-1].write_text("step;note\n0;good\n1;bad\n")
    found = sheets([Log(Source(str(path), path.name)) for path in paths])
    assert [sheet is not None for sheet in found] == [True] * 5 + [False]
    first = found[0]
    assert first is not None
    assert first.table.num_rows == 3
    numbers = first.numbers("step")
    assert numbers is not None
    assert np.array_equal(numbers[0], [0, 10, 20])


def test_an_archive_is_the_same_either_way(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for i in range(30):
        csv_log(logs / f"run{i}.csv", steps=1 + i, seed=i)
    (logs / "bad.csv").write_text("step,lr,loss\n0,a,b\n1,c,d\n")
    (logs / "part.csv").write_text("step,lr,loss\n0,,1.5\n1,,2.5\n")
    ingest([logs], tmp_path / "together")
    assert hasattr(reader_named("csv"), "read_several")
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(CsvReader, "read_several")
        ingest([logs], tmp_path / "alone")
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")
    assert len(list_runs(Archive(tmp_path / "together"))) == 31
