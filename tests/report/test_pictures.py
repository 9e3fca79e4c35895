"""Pictures show the document, are the same bytes each time, and need matplotlib only when drawn."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from planner.errors import MissingExtraError, OutputError, UnitError
from planner.report import check_picture, draw

WIDTHS = [{"d_model": 32 * factor, "n_layers": 2, "factor": factor} for factor in (1, 2)]
DEPTHS = [{"d_model": 32, "n_layers": 2 * factor, "factor": factor} for factor in (1, 2)]
AFTER = {"embedding": 1.0, "added": 0.3, "hidden": 1.1, "logits": None}
COORDINATES: dict[str, Any] = {
    "parametrization": "mup",
    "steps": 10,
    "tolerance": 0.2,
    "spread": {"width": 0.05, "depth": None},
    "promised": ["width"],
    "points": [
        {"axis": axis, **shape, "after": AFTER, "loss": 2.0}
        for axis, shapes in (("width", WIDTHS), ("depth", DEPTHS))
        for shape in shapes
    ],
}
TRANSFER: dict[str, Any] = {
    "parametrization": "completep",
    "steps": 200,
    "spread": None,
    "rates": [
        {"factor": factor, "d_model": 32 * factor, "lr": lr, "loss": loss}
        for factor, losses in ((1, (2.0, 1.9, 2.1)), (2, (1.8, 1.7, None)))
        for lr, loss in zip((0.01, 0.02, 0.04), losses, strict=True)
    ],
    "best": [
        {"factor": 1, "d_model": 32, "lr": 0.018, "loss": 1.9},
        {"factor": 2, "d_model": 64, "lr": None, "loss": 1.7},
    ],
}
TIMES = [0.05, 0.2, 0.4, 0.6, 0.8, 1.0]
RUNS = (
    (100_000_000, "healthy", None, 1.0, TIMES[2:]),
    (400_000_000, "deviating", 0.6, 1.1, TIMES[2:]),
    (400_000_000, "deviating", None, 90.0, []),
    (None, "undecidable", None, 1.0, []),
)
FAMILY: dict[str, Any] = {
    "metric": "train/loss",
    "left_out": {},
    "bands": [
        {
            "label": label,
            "fraction": TIMES[1:],
            "curve": [1.2, 1.15, 1.1, 1.05, 1.0],
            "noise": [0.01] * 5,
            "allowed": [float("nan"), 0.02, 0.02, 0.02, 0.02],
            "runs": [
                {
                    "name": f"{label}-{i}",
                    "params": params,
                    "verdict": verdict,
                    "since": since,
                    "fraction": TIMES,
                    "normalized": [1.5, 1.2, 1.15, 1.1, 1.05, last],
                    "judged": judged,
                    "residual": [0.01 * i for _ in judged],
                    "allowed": [0.02 for _ in judged],
                }
                for i, (params, verdict, since, last, judged) in enumerate(RUNS)
            ],
        }
        for label in ("a", "b", "c", "d")
    ],
}
DOCUMENTS = {"coordinates": COORDINATES, "transfer": TRANSFER, "family": FAMILY}


@pytest.fixture
def matplotlib() -> Any:
    return pytest.importorskip("matplotlib", minversion="3.8")


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_document_gives_the_same_bytes(
    tmp_path: Path, matplotlib: Any, kind: str, suffix: str
) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / "deeper" / f"two{suffix}"
    for path in (one, two):
        draw(kind, DOCUMENTS[kind], str(path))
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_bytes()) > 4000


def test_a_picture_says_what_the_document_says(tmp_path: Path, matplotlib: Any) -> None:
    draw("coordinates", COORDINATES, str(tmp_path / "c.svg"))
    text = (tmp_path / "c.svg").read_text()
    for said in ("coordinate check, mup", "width: within 5%", "depth: diverged, not promised"):
        assert said in text
    for name in AFTER:
        assert f">{name}<" in text
    draw("transfer", TRANSFER, str(tmp_path / "t.svg"))
    text = (tmp_path / "t.svg").read_text()
    assert "completep: best learning rate not known at all widths" in text
    assert "loss after 200 updates, nats a token" in text
    draw("transfer", {**TRANSFER, "spread": 1.2345}, str(tmp_path / "t.svg"))
    assert "best learning rate within a factor of 1.23" in (tmp_path / "t.svg").read_text()


def test_lines_are_where_the_numbers_are(matplotlib: Any) -> None:
    from planner.report.checks import coordinate_figure, transfer_figure

    (axes,) = transfer_figure(TRANSFER).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["32"].get_xdata().tolist() == [0.01, 0.02, 0.04]
    assert lines["32"].get_ydata().tolist() == [2.0, 1.9, 2.1]
    marked = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert marked == [0.018]
    width, depth = coordinate_figure(COORDINATES).axes
    assert {tuple(line.get_xdata()) for line in width.lines} == {(32, 64)}
    assert {tuple(line.get_xdata()) for line in depth.lines} == {(2, 4)}


def test_a_familys_picture(matplotlib: Any) -> None:
    from planner.report.family import family_figure

    figure = family_figure(FAMILY)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "", "", ""]
    curves, residuals = figure.axes[0], figure.axes[3]
    assert [text.get_text() for text in curves.get_legend().get_texts()] == [
        "a-1, since 60%",
        "a-2",
    ]
    for axes in (curves, residuals):
        marks = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert marks[0].get_xdata()[0] == 0.6
    # the run that blew up does not flatten the others
    assert 1.2 < curves.get_ylim()[1] < 3.0
    assert [1.0] * 4 in [list(line.get_ydata()) for line in residuals.lines]  # percent
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:3] == ["unknown", "100M", "400M"]


def test_residuals_of_a_run_that_diverged_do_not_flatten_the_others(matplotlib: Any) -> None:
    from planner.report.family import family_figure

    band = FAMILY["bands"][0]

    def reach(residual: float, diverged: bool) -> tuple[float, float]:
        run = {**band["runs"][1], "residual": [0.0, 0.0, 0.01, residual], "diverged": diverged}
        both = {**band, "runs": [band["runs"][0], run]}
        axes = family_figure({**FAMILY, "bands": [both]}).axes[1]
        assert [0.0, 0.0, 1.0, 100 * residual] in [list(line.get_ydata()) for line in axes.lines]
        low, high = axes.get_ylim()
        return float(low), float(high)

    assert reach(0.5, True) == pytest.approx((-6.3, 6.3))  # thrice the healthy range of 2 %
    assert reach(0.04, True) == pytest.approx((-4.2, 4.2))
    assert reach(0.01, True) == pytest.approx((-2.1, 2.1))
    assert reach(0.5, False)[1] > 50.0


def test_many_called_runs_are_named_in_part(matplotlib: Any) -> None:
    from planner.report.family import family_figure

    band = FAMILY["bands"][0]
    called = [{**band["runs"][1], "name": f"r{i}"} for i in range(9)]
    figure = family_figure({**FAMILY, "bands": [{**band, "runs": called}]})
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == [*(f"r{i}, since 60%" for i in range(3)), "r3, since 60% (and 5 more)"]


def test_a_name_that_is_no_pictures_is_refused_before_any_work() -> None:
    with pytest.raises(UnitError, match=r"got 'x\.jpeg', wanted a name that ends in \.png"):
        check_picture("x.jpeg")


def test_without_matplotlib_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "collapse-planner\[plots\]"') as stop:
        check_picture("x.png")
    assert stop.value.exit_code == 3


def test_a_picture_that_cannot_be_written(tmp_path: Path, matplotlib: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw("transfer", TRANSFER, str(tmp_path / "file" / "x.png"))


def test_importing_the_room_does_not_import_matplotlib(run_python: Any) -> None:
    code = "import sys, planner.report; print('matplotlib' in sys.modules)"
    assert run_python(code).stdout.strip() == "False"
