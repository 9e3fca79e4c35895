"""Templates: overriding, errors with template and line, and what may not be printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.render import render_files
from planner.render.engine import Engine, template_folder
from planner.render.errors import TemplateError

from .plans import tiny_plan


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "modelzoo/params.yaml.j2") -> Path:
        path = tmp_path / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return tmp_path / "templates"

    return write


def test_the_shipped_templates_are_found() -> None:
    assert (template_folder() / "modelzoo" / "params.yaml.j2").is_file()


def test_a_user_overrides_one_template_by_name(write: Any) -> None:
    folder = write("seed: {{ seed }}\nrun: {{ run.name | yaml }}\n")
    files = render_files(tiny_plan(), "modelzoo", templates=folder)
    assert files["tiny-20tpp/params-seed0.yaml"] == 'seed: 0\nrun: "tiny-20tpp"\n'
    assert files["launch.sh"] == render_files(tiny_plan(), "modelzoo")["launch.sh"]


def test_a_changed_template_is_seen(write: Any) -> None:
    for text in ("a: 1\n", "a: 2\n"):
        files = render_files(tiny_plan(), "modelzoo", templates=write(text))
        assert files["tiny-20tpp/params-seed0.yaml"] == text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("ok\n{{ nothing }}\n", 2, "'nothing' is undefined"),
        ("ok\n\n{{ run.no_such_field | yaml }}\n", 3, "no_such_field"),
        ("{% if seed %}\n", 1, "Unexpected end of template"),
        ("a\n{{ seed | no_filter }}\n", 2, "no_filter"),
        ("a\n{{ run.name }}\n", 2, "printed without one of the filters"),
        ("a\n{{ run.optimizer.eps }}\n", 2, "printed without one of the filters"),
        ("a\n{{ run.model.biases }}\n", 2, "printed without one of the filters"),
        ("a\n{{ run.name ~ seed }}\n", 2, "printed without one of the filters"),
        ("a\n{{ 1 / 0 }}\n", 2, "division by zero"),
        ("a\n{{ run.__class__.__mro__ | comment }}\n", 2, "unsafe"),
        ("a\n{% for i in range(10**9) %}{% endfor %}\n", 2, "Range too big"),
    ],
)
def test_errors_name_template_and_line(write: Any, text: str, line: int, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render_files(tiny_plan(), "modelzoo", templates=write(text))
    error = caught.value
    assert error.exit_code == 2
    assert error.file is not None
    assert error.file.endswith("modelzoo/params.yaml.j2")
    assert error.line == line
    assert message in str(error)
    assert "\n" not in str(error)


def test_a_missing_include_is_named(write: Any) -> None:
    with pytest.raises(TemplateError, match=r"no_such\.j2"):
        render_files(tiny_plan(), "modelzoo", templates=write("{% include 'no_such.j2' %}\n"))


def test_a_missing_template_is_named() -> None:
    with pytest.raises(TemplateError, match=r"no/such\.j2"):
        Engine().render("no/such.j2", {})


def test_a_template_cannot_climb_out_of_its_folder(write: Any) -> None:
    folder = write("{% include '../secret' %}\n")
    (folder.parent / "secret").write_text("secret")
    with pytest.raises(TemplateError):
        render_files(tiny_plan(), "modelzoo", templates=folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="no template folder"):
        render_files(tiny_plan(), "modelzoo", templates=tmp_path / "none")


def test_a_template_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "modelzoo" / "params.yaml.j2"
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TemplateError, match=r"params\.yaml\.j2"):
        render_files(tiny_plan(), "modelzoo", templates=tmp_path)
