"""Tables of one run a row, and the arithmetic that says what their columns are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.archive import LogError, read_mapping
from planner.archive.expressions import evaluate
from planner.archive.readers import Log
from planner.archive.readers.run_table import RunTableReader

from ..logs import archived, by_name, write

MakeLog = Callable[..., Log]
COLUMNS = {
    "a": np.asarray([2.0, 3]),
    "b_1": np.asarray([5.0, 7]),
    "two words": np.asarray([11.0, 0]),
}
NUMBERS = st.floats(0, 1e6).map(repr) | st.integers(0, 10**6).map(str)


def formulas() -> st.SearchStrategy[tuple[str, str]]:
    """An expression, and the same for Python."""
    leaves = st.one_of(
        NUMBERS.map(lambda n: (n, n)),
        st.sampled_from([("a", "a"), ("{a}", "a"), ("b_1", "b_1"), ("{two words}", "w")]),
    )

    def grown(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        both = st.tuples(inner, st.sampled_from("+-*/"), inner)
        return st.one_of(
            both.map(lambda x: (f"{x[0][0]}{x[1]} {x[2][0]}", f"{x[0][1]}{x[1]} {x[2][1]}")),
            inner.map(lambda x: (f"({x[0]} )", f"({x[1]})")),
            inner.map(lambda x: (f"-{x[0]}", f"-{x[1]}")),
        )

    return st.recursive(leaves, grown, max_leaves=8)


@given(formulas())
def test_expressions_are_what_python_computes(formula: tuple[str, str]) -> None:
    text, python = formula
    names = {"a": COLUMNS["a"], "b_1": COLUMNS["b_1"], "w": COLUMNS["two words"]}
    with np.errstate(all="ignore"):
        # numbers as arrays: Python's own division by zero raises
        code = compile(python, "", "eval")
        try:
            expected = eval(code, {}, names)
        except ZeroDivisionError:
            return
    found = evaluate(text, COLUMNS, COLUMNS.__getitem__)
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted a number or a column at its end"),
        ("a +", "wanted a number or a column at its end"),
        ("a b_1", "did not expect 'b_1'"),
        ("(a", "wanted a closing parenthesis"),
        ("a)", "did not expect ')'"),
        ("a ** 2", "wanted a number or a column, got '*'"),
        ("c", "no column is called 'c'; wanted one of: a, b_1, two words"),
        ("{two word}", "did you mean 'two words'?"),
        ("a; b_1", "cannot read '; b_1'"),
        ("__import__('os')", "no column is called '__import__'"),
        ("(" * 30 + "a", "nests deeper than 20 parentheses"),
        ("a" * 501, "is longer than 500 characters"),
    ],
)
def test_wrong_expressions(text: str, message: str) -> None:
    with pytest.raises(LogError) as caught:
        evaluate(text, COLUMNS, COLUMNS.__getitem__)
    assert message in caught.value.message


TABLE = (
    "id,N,C,batch,loss,val,note\nx,1e6,6e15,8,3.5,3.6,first\nx,2000000.4,,8,nan,,\ny,3e6,1,8,2,2\n"
)
FIELDS = {
    "name": "id",
    "params": "N",
    "tokens": "C / (6 * N)",
    "batch_tokens": "batch * 1000",
    "train/loss": "loss",
    "eval/c4/loss": "val",
}


def test_a_run_for_each_row(make_log: MakeLog) -> None:
    first, second, third = RunTableReader().read(make_log(TABLE, FIELDS))
    assert [run.label for run in (first, second, third)] == ["x", "x-2", "y"]
    facts = {"params": 10**6, "tokens": 10**9, "batch_tokens": 8000}
    assert first.config == {**facts, "C": "6e15", "batch": "8", "note": "first"}
    [table] = first.tables
    assert table.steps.tolist() == [125000]
    assert table.tokens is not None
    assert table.tokens.tolist() == [1e9]
    assert {n: c.values.tolist() for n, c in table.columns.items()} == {"loss": [3.5], "val": [3.6]}
    assert "tokens" not in second.config
    assert second.config["params"] == 2000000
    assert second.tables[0].steps.tolist() == [1]
    assert any("no step" in note for note in second.notes)
    present = [column.present for column in second.tables[0].columns.values()]
    assert [p is not None and not p.any() for p in present] == [True, True]
    assert third.config["tokens"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "names no series"),
        ({"params": "N"}, "names no series"),
        ({"train/loss": "loss", "params": "M"}, "no column is called 'M'"),
        ({"train/loss": "loss", "name": "run"}, "takes the name from 'run'"),
        ({"train/loss": "loss", "optimizer": "opt"}, "takes optimizer from 'opt'"),
        ({"train/loss": "loss", "tau": "val"}, "can only be declared as a constant"),
    ],
)
def test_what_a_mapping_gets_wrong(fields: dict[str, str], message: str, make_log: MakeLog) -> None:
    with pytest.raises(LogError, match=message):
        RunTableReader().read(make_log(TABLE, fields))


@given(st.text(st.sampled_from("id,N,C\nbatch loss val 01.e-;\t\"'x\x00é{}"), max_size=200))
def test_whatever_a_table_holds(make_log: MakeLog, text: str) -> None:
    for content in (text, "id,N,C,batch,loss,val\n" + text):
        try:
            runs = RunTableReader().read(make_log(content, FIELDS))
        except LogError:
            continue
        assert len({run.label for run in runs}) == len(runs)
        for run in runs:
            assert len(run.tables[0].steps) == 1


def test_it_is_never_chosen_by_itself(make_log: MakeLog) -> None:
    assert not RunTableReader().recognizes(make_log(TABLE, FIELDS))


def test_into_the_archive(tmp_path: Path) -> None:
    log = write(tmp_path / "logs" / "table.csv", TABLE)
    columns = "".join(f"      {name}: '{text}'\n" for name, text in FIELDS.items())
    rules = write(
        tmp_path / "m.yaml",
        "schema: planner.mapping/1\nfiles:\n"
        f"  - match: table.csv\n    reader: run-table\n    columns:\n{columns}",
    )
    archive, report = archived(tmp_path, log, mapping=read_mapping(rules))
    runs = by_name(archive)
    # the second row has no value
    assert (report.ok, set(runs)) == (True, {"table/x", "table/y"})
    run = runs["table/x"]
    assert (run["params"], run["tokens"], run["tpp"], run["final"]) == (10**6, 10**9, 1000, 3.5)
    assert [(s["name"], s["logged_as"]) for s in run["series"]] == [
        ("eval/c4/loss", "val"),
        ("train/loss", "loss"),
    ]
