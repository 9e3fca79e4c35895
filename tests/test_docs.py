"""The specs in the documentation and the examples compile."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planner.compile import compile_plan
from planner.spec import parse_spec, preset_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    if block.lstrip().startswith(("family:", "schema: planner.spec/1"))
]


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS)
def test_documented_spec_compiles(block: str) -> None:
    plan = compile_plan(parse_spec(block, "docs.yaml"))
    assert plan.runs


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_example_compiles(path: Path) -> None:
    plan = compile_plan(parse_spec(path.read_text(), path.name))
    assert plan.runs
    assert plan.ok


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_documented_and_compiles(name: str) -> None:
    assert name in (ROOT / "docs" / "spec.md").read_text()
    assert compile_plan(parse_spec(f"family: test\npreset: {name}\n")).runs
