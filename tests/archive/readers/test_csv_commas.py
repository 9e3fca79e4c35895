"""Commas in the cells of CSV files: decimal ones, those between thousands, and what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.archive import inspect

from ..logs import archived, by_name, curve, write


def losses(tmp_path: Path, text: str) -> tuple[list[float | None], list[str]]:
    archive, report = archived(tmp_path, write(tmp_path / "logs" / "d.csv", text))
    assert report.ok, report.failed
    run = by_name(archive)["d"]
    return curve(archive, run["run"], "train/loss")[1], run["notes"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("step;loss;lr\n10;2,5;0,0123\n20;2,4;0,0122\n", [2.5, 2.4]),
        ("step\tloss\n10\t2,5\n20\t2\n", [2.5, 2]),
        ("step;loss\n10;-,5e1\n20;0,125\n", [-5, 0.125]),
        # one clear cell anywhere tells how the whole file is written
        ("step;loss;lr\n10;1,234;0,01\n20;2,345;0,01\n", [1.234, 2.345]),
        ("step;loss\n10;1,234\n20;2,345.5\n", [1234, 2345.5]),
        ("step;loss;note\n10;1,234;,\n20;2,345;x\n", [1234, 2345]),
        ('step,loss\n10,"1,234.5"\n20,"12,345,678"\n', [1234.5, 12345678]),
    ],
)
def test_what_a_comma_means(text: str, values: list[float], tmp_path: Path) -> None:
    assert losses(tmp_path, text) == (values, [])


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    text = 'step,loss,note\n10,2.5,x\n\n20,"2,4",x\n30,2.3,y\n40,bad,z\n50,2.1,z\n'
    values, notes = losses(tmp_path, text)
    assert values == [2.5, 2.3, 2.1]
    assert notes == [
        "logs/d.csv:4: column 'loss' says '2,4', which is no number; a decimal comma is read only "
        "where cells are separated by ; or tab; 2 such cells left out"
    ]


def test_a_column_of_decimal_commas_between_commas_is_refused(tmp_path: Path) -> None:
    values, notes = losses(tmp_path, 'step,loss,lr\n10,2.5,"0,01"\n20,2.4,"0,02"\n')
    assert values == [2.5, 2.4]
    assert notes == [
        "logs/d.csv:2: column 'lr' says '0,01', which is no number; a decimal comma is read only "
        "where cells are separated by ; or tab; the column left out"
    ]
    log = write(tmp_path / "logs" / "e.csv", 'step,loss\n10,"2,5"\n20,"2,4"\n')
    [(name, reason)] = inspect([log]).failed
    assert name == "logs/e.csv"
    assert reason.startswith("holds no points; logs/e.csv:2: column 'loss' says '2,5'")


def test_points_between_thousands_are_refused_not_guessed(tmp_path: Path) -> None:
    text = "step;loss\n10;2,5\n20;1.234,5\n30;2,25\n"
    values, notes = losses(tmp_path, text)
    assert values == [2.5, 2.25]
    assert "logs/d.csv:3: column 'loss' says '1.234,5', which is no number" in notes[0]
