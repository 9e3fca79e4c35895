"""Runs as JSON lines are those that `list_runs` returns; a diverged run says so."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from planner.archive import Archive, ingest, list_runs, read_mapping
from planner.archive.errors import ArchiveError
from planner.archive.json_lines import json_lines
from planner.archive.listing import run_lines
from planner.cli.main import app

from .logs import archived, by_name, csv_log, write

TEXT = st.none() | st.text(st.characters(codec="utf-8"), max_size=5)
WHOLE = st.none() | st.integers(-(2**63), 2**63 - 1)
REAL = st.none() | st.floats(allow_nan=False, allow_infinity=False)
ITEM = st.fixed_dictionaries({"name": TEXT, "last": REAL, "points": WHOLE})
ROW = st.fixed_dictionaries(
    {
        "text": TEXT,
        "whole": WHOLE,
        "real": REAL,
        "texts": st.none() | st.lists(TEXT, max_size=3),
        "items": st.none() | st.lists(ITEM, max_size=3),
    }
)
KIND = pa.schema(
    [
        ("text", pa.string()),
        ("whole", pa.int64()),
        ("real", pa.float64()),
        ("texts", pa.list_(pa.string())),
        (
            "items",
            pa.list_(
                pa.struct([("name", pa.string()), ("last", pa.float64()), ("points", pa.int64())])
            ),
        ),
    ]
)


@given(st.lists(ROW, max_size=6), st.integers(0, 2))
def test_json_lines_are_what_json_writes(rows: list[dict[str, object]], first: int) -> None:
    table = pa.Table.from_pylist(rows, KIND).slice(first)
    lines = [json.loads("{" + line + "}") for line in json_lines(table)]
    assert lines == rows[first:]
    again = [json.dumps(row["real"]) for row in lines]
    assert again == [json.dumps(row["real"]) for row in rows[first:]]  # 1.0 is not 1


def test_not_finite_is_null() -> None:
    table = pa.table({"a": [float("nan"), float("inf"), 1.0]})
    assert list(json_lines(table)) == ['"a": null', '"a": null', '"a": 1.0']


def test_runs_as_lines(tmp_path: Path) -> None:
    for i in range(4):
        csv_log(tmp_path / "logs" / f'run "{i}"\\é.csv', steps=3 + i, seed=i)
    write(tmp_path / "logs" / "p.jsonl", '{"n_params": 5, "a": "b\\"c"}\n{"step": 1, "loss": 2}\n')
    archive, _ = archived(tmp_path, tmp_path / "logs")
    for options in ({}, {"sort": "-final"}, {"limit": 2}, {"where": ["final>3"]}):
        found = [json.loads(line) for line in run_lines(archive, **options)]
        assert found == list_runs(archive, **options)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("condition", "got"), [("tpp>20%", "'20%'"), ("tau<x", "'x'"), ("params>=2e18T", "'2e18T'")]
)
def test_what_is_no_number_is_told_what_one_looks_like(
    tmp_path: Path, condition: str, got: str
) -> None:
    csv_log(tmp_path / "logs" / "run.csv", steps=3, seed=0)
    archive, _ = archived(tmp_path, tmp_path / "logs")
    with pytest.raises(ArchiveError) as refused:
        list_runs(archive, where=[condition])
    wanted = "wanted a number such as 8 or 0.2, or a whole count of at most 1e18 such as '375M'"
    assert str(refused.value) == f"in the condition {condition!r}: got {got}, {wanted}"
    assert list_runs(archive, where=["points>0.5"])


def test_a_diverged_run_has_no_final_loss(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "healthy.csv", "step,loss\n0,5\n10,nan\n20,3\n")
    write(logs / "diverged.csv", "step,loss\n0,5\n10,4\n20,nan\n30,inf\n")
    write(logs / "never.csv", "step,loss\n5,nan\n10,nan\n")
    archive, _ = archived(tmp_path, logs)
    runs = by_name(archive)
    assert (runs["healthy"]["final"], runs["healthy"]["diverged_step"]) == (3, None)
    assert (runs["diverged"]["final"], runs["diverged"]["diverged_step"]) == (None, 20)
    assert (runs["never"]["final"], runs["never"]["diverged_step"]) == (None, 5)
    shown = CliRunner().invoke(app, ["runs", str(archive.path)]).output
    assert [line.split()[1] for line in shown.splitlines() if "diverged at step 20" in line] == [
        "diverged"
    ]
    document = CliRunner().invoke(app, ["runs", str(archive.path), "--json"]).stdout
    by = {run["name"]: run for run in json.loads(document)["runs"]}
    assert (by["diverged"]["final"], by["diverged"]["diverged_step"]) == (None, 20)
    looked = CliRunner().invoke(app, ["inspect", str(logs)]).output
    assert "diverged: train/loss is not finite from step 20 on" in looked


def test_what_is_logged_says_whether_the_last_loss_is_final(tmp_path: Path) -> None:
    rules = ["schema: planner.mapping/1", "files:"]
    for name, last, total in (("whole", 100, 100), ("young", 20, 100), ("unknown", 50, None)):
        rows = [{"step": s, "loss": 5.0 - s / 100} for s in range(10, last + 1, 10)]
        log = tmp_path / "logs" / f"{name}.jsonl"
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if total is not None:
            rules.append(f'  - match: "*{name}.jsonl"\n    constants: {{total_steps: {total}}}')
    (tmp_path / "map.yaml").write_text("\n".join(rules) + "\n")
    mapping = read_mapping(str(tmp_path / "map.yaml"))
    ingest([str(tmp_path / "logs")], tmp_path / "archive", mapping=mapping)
    archive = Archive(tmp_path / "archive")
    wanted = {"whole": 1.0, "young": 0.2, "unknown": None}
    assert {r["name"]: r["logged"] for r in list_runs(archive)} == wanted
    assert {r["name"]: r["logged"] for r in map(json.loads, run_lines(archive))} == wanted
