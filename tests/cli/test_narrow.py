"""Tables on a terminal: no line is wider than it, and what matters can be read whole."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.archive import Archive, list_runs
from planner.cli.archive_tables import print_runs
from planner.cli.columns import cut, fitted
from planner.cli.score_tables import print_scores
from planner.curves.score import score_archive
from tests.curves.made import archived, curve
from tests.curves.test_score_command import SIZES, drift

Shown = Callable[..., list[str]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Return the lines that a call prints to a terminal of some width, or to a pipe."""

    def show(width: int | None, call: Callable[[], None]) -> list[str]:
        stream = io.StringIO() if width is None else Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setenv("COLUMNS", str(width or 80))
            call()
        return stream.getvalue().splitlines()

    return show


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made: list[Any] = [
        curve(f"{n // 10**6}M-20tpp-base", params=n, noise=0.005, seed=i, final=3.5 - 0.2 * i)
        for i, n in enumerate(SIZES)
    ]
    made.append(curve("800M-20tpp-fault-seed10", params=8 * 10**8, noise=0.005, extra=drift))
    made.append(curve("400M-20tpp-young", params=SIZES[2], noise=0.005, until=0.02))
    return archived(made, tmp_path / "archive")


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120])
def test_the_reason_of_a_verdict_is_whole(archive: Archive, shown: Shown, width: int) -> None:
    scored = score_archive(archive)
    (sick,) = scored.deviating
    (cause, *_) = sick.causes
    reason = f"{cause.cause} ({cause.weight:.0%}): {cause.evidence}"
    wide = shown(None, lambda: print_scores(scored))
    assert any(line.endswith(f"deviating since {sick.since:.0%}  {reason}") for line in wide)
    lines = shown(width, lambda: print_scores(scored))
    table = lines[lines.index(next(line for line in lines if "verdict" in line)) : -1]
    assert max(map(len, table)) <= width
    assert reason in " ".join(" ".join(table).split())
    at = next(i for i, line in enumerate(table) if f"deviating since {sick.since:.0%}" in line)
    assert "fault-seed10" in table[at]
    # below its run, further to the right
    assert table[at + 1].startswith("      " + cause.cause.split()[0])
    if width >= 80:
        assert table[0].split() == wide[3].split()


def test_where_there_is_room_and_in_a_pipe_nothing_is_moved(archive: Archive, shown: Shown) -> None:
    scored = score_archive(archive)
    piped = shown(None, lambda: print_scores(scored))
    assert shown(400, lambda: print_scores(scored)) == piped
    runs = list_runs(archive)
    assert shown(400, lambda: print_runs(runs)) == shown(None, lambda: print_runs(runs))


@pytest.mark.parametrize("width", [40, 50, 60, 80, 95, 110, 122, 140])
@pytest.mark.parametrize("diverged", [None, 688])
def test_a_list_of_runs_fits(
    archive: Archive, shown: Shown, width: int, diverged: int | None
) -> None:
    runs = list_runs(archive)
    for run in runs:
        run |= {"run": "0123456789abcdef", "tokens": 248_000_000, "lr": 0.02}
        run |= {"diverged_step": diverged, "planned": {"run": run["name"], "by": "digest"}}
    lines = shown(width, lambda: print_runs(runs))
    assert max(map(len, lines)) <= width
    names = [run["name"] for run in runs]
    if width >= 80:
        assert all(name[-17:] in line for name, line in zip(names, lines[1:], strict=False))
    whole = shown(None, lambda: print_runs(runs))
    said = " ".join(lines[len(runs) + 1 :]).removeprefix("no room for: ")
    for header in (
        "run ",
        "name",
        "params",
        "tokens",
        "TPP",
        "tau",
        "lr",
        "last loss",
        "planned as",
    ):
        assert header in whole[0]
        assert (header in lines[0]) != (header.strip() in said)
    if width == 80 and diverged is None:
        assert lines[0].split() == ["name", "params", "TPP", "tau", "lr", "last", "loss", "logged"]
        assert lines[-1] == "no room for: run, tokens, last step, planned as; --json tells all"
        assert any(line.startswith("800M-20tpp-fault-seed10 ") for line in lines)


def test_the_footnotes_and_the_advice_are_broken_between_words(
    tmp_path: Path, shown: Shown
) -> None:
    made = [curve(f"f/{i}", seed=i, tau=0.1 * 2**i) for i in range(4)]
    scored = score_archive(archived(made, tmp_path / "archive"))
    piped = shown(None, lambda: print_scores(scored))
    lines = shown(70, lambda: print_scores(scored))
    assert any(line.startswith("  [1] 4 runs undecidable: ") for line in lines)
    assert max(map(len, lines)) <= 70 < max(map(len, piped))
    assert " ".join(lines).split() == " ".join(piped).split()


CELL = st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=9)


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=5), st.integers(1, 60))
def test_columns_fit_if_the_needed_ones_do(rows: list[tuple[str, ...]], room: int) -> None:
    table = [("name", "need", "a", "b"), *rows]
    kept, widths = fitted(table, room, name=0, spare=("b", "a"))
    whole = [max(map(len, column)) for column in zip(*table, strict=True)]
    assert kept in ([0, 1, 2, 3], [0, 1, 2], [0, 1])
    assert widths[1:] == [whole[i] for i in kept[1:]]
    if room > whole[1] + 2:
        assert sum(widths) + 2 * (len(widths) - 1) <= room
    if sum(whole) + 2 * 3 <= room:
        assert (kept, widths) == ([0, 1, 2, 3], whole)
    assert all(len(cut(row[0], widths[0])) <= widths[0] for row in table)
    assert fitted(table, None, name=0, spare=("b", "a")) == ([0, 1, 2, 3], whole)
