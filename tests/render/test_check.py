"""`check_bundle`: what it finds, and that it says what did not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import OutputError
from planner.render import check_bundle, render_plan
from planner.render.check import Check

from .plans import tiny_plan


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PLANNER_MODELZOO_SRC", raising=False)
    render_plan(tiny_plan(biases=True, seeds=(0, 1)), "modelzoo", tmp_path / "jobs")
    return tmp_path / "jobs"


def checks(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in check_bundle(folder)}


def test_a_fresh_bundle_has_no_problems(jobs: Path) -> None:
    found = checks(jobs)
    assert [check.problems for check in found.values() if check.problems] == []
    for name in ("manifest", "plan", "parameters against the plan", "bash -n"):
        assert found[name].skipped is None
    assert "PLANNER_MODELZOO_SRC" in (found["ModelZoo's validator"].skipped or "")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("max_steps: 100", "max_steps: 90", "max_steps is 90, the plan says 100"),
        ("hidden_size: 128", "hidden_size: 64", "hidden_size is 64"),
        ("batch_size: 8", "batch_size: 16", "batch_size is 16"),
        ("seed: 0", "seed: 5", "seed is 5"),
        ("embeddings_scale: 9.17", "embeddings_scale: 10.0", "embedding multiplier is 10"),
        ("std: 0.12261", "std: 0.2", "init std of"),
        ("weight_decay: 0.1\n", "weight_decay: 0.01\n", "weight decay of"),
        ("end_learning_rate: 0.0162", "end_learning_rate: 0.02", "learning rate of"),
        ("weight_decay: 0.1\n", "weight_decay: 1e-1\n", "not YAML as ModelZoo reads it"),
        ("trainer:", "trainer: [", "is not YAML"),
        ("model:", "modle:", "not a parameter file of this form"),
    ],
)
def test_an_edit_that_departs_from_the_plan_is_named(
    jobs: Path, old: str, new: str, problem: str
) -> None:
    path = jobs / "tiny-20tpp" / "params-seed0.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    found = checks(jobs)
    assert found["manifest"].problems == (
        "tiny-20tpp/params-seed0.yaml was edited after it was rendered",
    )
    problems = found["parameters against the plan"].problems
    assert problems
    assert all(text.startswith("tiny-20tpp/params-seed0.yaml: ") for text in problems)
    assert any(problem in text for text in problems)


def test_missing_files_are_named(jobs: Path) -> None:
    (jobs / "tiny-20tpp" / "params-seed1.yaml").unlink()
    found = checks(jobs)
    assert "params-seed1.yaml is missing" in found["manifest"].problems[0]
    assert "params-seed1.yaml is missing" in found["parameters against the plan"].problems[0]
    (jobs / "plan.json").unlink()
    assert checks(jobs)["plan"].problems == ("plan.json is missing",)


def test_a_changed_plan_is_named(jobs: Path) -> None:
    path = jobs / "plan.json"
    path.write_text(path.read_text().replace('"steps": 100', '"steps": 99'))
    assert "digest" in checks(jobs)["plan"].problems[0]


def test_a_broken_script_is_named(jobs: Path) -> None:
    (jobs / "launch.sh").write_text("if\n")
    assert checks(jobs)["bash -n"].problems[0].startswith("launch.sh: ")


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no bundle"):
        check_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="not a manifest"):
        check_bundle(tmp_path)


def test_a_source_folder_that_is_not_modelzoo(
    jobs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANNER_MODELZOO_SRC", str(tmp_path))
    assert "has no cerebras/modelzoo" in checks(jobs)["ModelZoo's validator"].problems[0]
