"""Run files and settings: what is read is checked, whatever it holds. Needs no PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import PlannerError
from planner.plan import RunFile, dump_run_file, write_plan
from planner.train.config import read_job
from planner.train.data import open_data
from planner.train.errors import TrainError, memory_errors

from .families import SMALL, family, only

PLAN = family()
TEXT = dump_run_file(RunFile(PLAN.family, PLAN.digest, {"seed": 1, "keep": 3}, only(PLAN)))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


def read(folder: Path, text: bytes) -> None:
    """Read a run file; the only errors are the project's own."""
    path = folder / "run.json"
    path.write_bytes(text)
    try:
        job = read_job(str(path), None, {"log_steps": 2})
    except PlannerError as error:
        named = error.file == str(path)
    else:
        named = (job.run, job.settings.log_steps) == (only(PLAN), 2)
    assert named


@given(st.integers(0, len(TEXT) - 1), st.binary(max_size=4))
def test_any_edit_is_seen_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: int, new: bytes
) -> None:
    text = TEXT.encode()
    read(tmp_path_factory.getbasetemp(), text[:place] + new + text[place + len(new) :])


@given(st.sampled_from(["family", "plan", "run", "settings", "more"]), VALUES)
def test_any_field_may_hold_anything(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    document = json.loads(TEXT) | {field: value}
    read(tmp_path_factory.getbasetemp(), json.dumps(document).encode())


@given(st.sampled_from(["seed", "data", "keep", "compile", "device", "stop_after"]), VALUES)
def test_any_setting_may_hold_anything(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    document = json.loads(TEXT) | {"settings": {field: value}}
    read(tmp_path_factory.getbasetemp(), json.dumps(document).encode())


@given(VALUES)
def test_any_description_of_data(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "data.json").write_text(json.dumps(value))
    with pytest.raises(PlannerError):
        open_data(folder)


def test_what_is_given_goes_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(TEXT)
    job = read_job(str(path), "small-1tpp", {"seed": None, "keep": 5})
    assert (job.seed, job.data_seed, job.settings.keep) == (1, 1, 5)
    with pytest.raises(PlannerError, match="holds run 'small-1tpp', not 'large'"):
        read_job(str(path), "large", {})


def test_precision_and_seed_come_from_the_plan(tmp_path: Path) -> None:
    for precision in ("bf16", "fp16"):
        plan = family({**SMALL, "name": precision}, precision=precision, seeds=[4, 2])
        write_plan(plan, tmp_path / f"{precision}.json")
    job = read_job(str(tmp_path / "bf16.json"), None, {})
    assert (job.precision, job.seed) == ("bf16", 4)
    half = read_job(str(tmp_path / "fp16.json"), None, {})
    with pytest.raises(PlannerError, match=r"precision: got fp16, .*; wanted bf16 or fp32"):
        _ = half.precision
    assert read_job(str(tmp_path / "fp16.json"), None, {"precision": "fp32"}).precision == "fp32"


@pytest.mark.parametrize(
    "error",
    [
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_what_does_not_fit_in_memory_is_bad_input(error: RuntimeError) -> None:
    with (
        pytest.raises(TrainError, match="run a does not fit in memory; try b"),
        memory_errors("run a", "try b"),
    ):
        raise error


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), memory_errors("run a", "try b"):
        raise RuntimeError("shapes differ")
