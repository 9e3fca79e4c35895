"""The launch scripts, really run, with a stand-in for ModelZoo's command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.plan import Plan
from planner.render import render_plan

from .plans import make_plan, make_run, parametrization, rename, tiny_plan

# Writes down its arguments; trains if told to "fit" by leaving the last checkpoint.
FAKE = f"""#!{sys.executable}
import json, os, pathlib, sys
log = pathlib.Path(os.environ["FAKE_LOG"])
with log.open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if os.environ.get("FAKE_FAIL"):
    sys.exit(3)
if sys.argv[1] == "fit" and "--compile_only" not in sys.argv:
    place = pathlib.Path(sys.argv[sys.argv.index("--model_dir") + 1])
    (place / "checkpoint_100.mdl").write_text("")
"""


class Launch:
    """A rendered bundle and a folder to run it in."""

    def __init__(self, tmp_path: Path, plan: Plan, **options: Any) -> None:
        self.folder = tmp_path
        self.jobs = tmp_path / "jobs"
        render_plan(plan, "modelzoo", self.jobs, options=options)
        program = tmp_path / "bin" / "cszoo"
        program.parent.mkdir(exist_ok=True)
        program.write_text(FAKE)
        program.chmod(0o755)
        # Listing the installed packages would take most of the tests' time.
        python = tmp_path / "bin" / "python"
        python.write_text("#!/bin/sh\necho Python 3\n")
        python.chmod(0o755)
        self.log = tmp_path / "log"

    def __call__(self, *arguments: str, script: str = "launch.sh", **env: str) -> Any:
        path = os.environ["PATH"]
        done = subprocess.run(
            [str(self.jobs / script), *arguments],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{path}",
                "FAKE_LOG": str(self.log),
                "HOME": str(self.folder),
                "LC_ALL": "C.UTF-8",
                "TRAIN_DATA_DIR": str(self.folder),
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done

    @property
    def calls(self) -> list[list[str]]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def family(**changes: Any) -> Plan:
    rule = parametrization()
    small = make_run(rule, name="small", d_model=64, **changes)
    large = make_run(rule, name="large", d_model=128, seeds=(3, 7), **changes)
    return make_plan(large, small, rule=rule, family="fam")


def test_small_sizes_first_then_nothing_is_left_to_do(tmp_path: Path) -> None:
    launch = Launch(tmp_path, family())
    done = launch()
    assert done.returncode == 0, done.stderr
    configs = [call[1] for call in launch.calls]
    assert [Path(config).parts[-3:-1] for config in configs] == [
        ("small", "seed0"),
        ("large", "seed3"),
        ("large", "seed7"),
    ]
    for call in launch.calls:
        assert call[0] == "fit"
        assert call[2:] == ["--target_device", "CSX", "--model_dir", str(Path(call[1]).parent)]
    again = launch()
    assert again.returncode == 0
    assert again.stdout.count("done, nothing to start") == 3
    assert len(launch.calls) == 3


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    plan = tiny_plan()
    launch = Launch(tmp_path, plan)
    assert launch().returncode == 0
    short = plan.runs[0].digest.removeprefix("sha256:")[:12]
    place = tmp_path / "runs" / "tiny" / short / "tiny-20tpp" / "seed0"
    assert (place / "done").read_text().strip() == plan.runs[0].digest
    assert f"data_dir: '{tmp_path}'" in (place / "params.yaml").read_text()
    (record,) = (place / "environment").iterdir()
    assert plan.runs[0].digest in record.read_text()
    assert "TRAIN_DATA_DIR" not in record.read_text()


@pytest.mark.parametrize("marker", ["done", "checkpoint_100.mdl"])
def test_either_mark_of_being_done_is_enough(tmp_path: Path, marker: str) -> None:
    launch = Launch(tmp_path, tiny_plan())
    assert launch().returncode == 0
    (place,) = (tmp_path / "runs").glob("*/*/*/seed0")
    for name in {"done", "checkpoint_100.mdl"} - {marker}:
        (place / name).unlink()
    assert launch().returncode == 0
    assert len(launch.calls) == 1


def test_an_interrupted_run_starts_the_same_command_again(tmp_path: Path) -> None:
    launch = Launch(tmp_path, family())
    failed = launch(FAKE_FAIL="1")
    assert failed.returncode == 3
    assert "stopped at small" in failed.stderr
    assert len(launch.calls) == 1
    assert launch().returncode == 0
    assert launch.calls[0] == launch.calls[1]
    assert len(launch.calls) == 4


def test_modes(tmp_path: Path) -> None:
    launch = Launch(tmp_path, tiny_plan())
    assert launch("validate").returncode == 0
    assert launch("compile").returncode == 0
    (validate, compile_) = launch.calls
    assert validate[:2] == ["config", "validate"]
    assert compile_[0] == "fit"
    assert "--compile_only" in compile_
    assert compile_[-1].endswith("/seed0/compile")
    printed = launch("print")
    assert printed.returncode == 0
    assert printed.stdout.startswith("cszoo fit ")
    assert len(launch.calls) == 2
    wrong = launch("go")
    assert wrong.returncode == 2
    assert "unknown mode" in wrong.stderr
    assert len(launch.calls) == 2


def test_arguments_go_to_the_program(tmp_path: Path) -> None:
    launch = Launch(tmp_path, tiny_plan())
    odd = "a b'c\"$(id)"
    assert launch("fit", "--job_labels", odd).returncode == 0
    assert launch.calls[0][-2:] == ["--job_labels", odd]


def test_the_program_and_the_root_can_be_replaced(tmp_path: Path) -> None:
    launch = Launch(tmp_path, tiny_plan())
    other = tmp_path / "other place"
    program = f"{sys.executable} {tmp_path / 'bin' / 'cszoo'}"
    done = launch("fit", PLANNER_RUNS_DIR=str(other), PLANNER_PROGRAM=program)
    assert done.returncode == 0, done.stderr
    assert list(other.glob("tiny/*/tiny-20tpp/seed0/done"))


def test_data_that_was_not_named(tmp_path: Path) -> None:
    launch = Launch(tmp_path, tiny_plan())
    done = launch(TRAIN_DATA_DIR="")
    assert done.returncode != 0
    assert "set TRAIN_DATA_DIR" in done.stderr
    assert launch.calls == []
    for break_ in "\n\t\x7f\x85\u2028\u2029":
        for locale in ("C", "C.UTF-8"):
            done = launch(TRAIN_DATA_DIR=f"a{break_}b", LC_ALL=locale)
            assert done.returncode == 2
            assert "control character" in done.stderr
    assert launch.calls == []


def test_a_missing_program_is_an_error(tmp_path: Path) -> None:
    launch = Launch(tmp_path, tiny_plan())
    (tmp_path / "bin" / "cszoo").unlink()
    done = launch()
    assert done.returncode != 0
    assert "cszoo" in done.stderr
    assert not list((tmp_path / "runs").glob("**/done"))


def test_two_starts_at_once(tmp_path: Path) -> None:
    if shutil.which("flock") is None:
        pytest.skip("flock is not installed")
    launch = Launch(tmp_path, tiny_plan())
    short = tiny_plan().runs[0].digest.removeprefix("sha256:")[:12]
    place = tmp_path / "runs" / "tiny" / short / "tiny-20tpp" / "seed0"
    place.mkdir(parents=True)
    with subprocess.Popen(
        ["flock", str(place / "lock"), "-c", "echo held; read -r line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        done = launch()
        holder.stdin.write(b"\n")
        holder.stdin.close()
        holder.wait(timeout=10)
    assert done.returncode != 0
    assert "already running" in done.stderr
    assert launch.calls == []
    assert launch().returncode == 0


def load(text: str) -> Any:
    from planner.render.modelzoo.check import _parse

    return _parse(text)


printable = st.text(
    st.one_of(
        st.sampled_from("'\"\\$`{}&/ ;#:-!%*?[]~<>|()="),
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=printable, name=printable, run=printable, root=printable)
def test_any_name_reaches_the_program_literally(
    tmp_path_factory: pytest.TempPathFactory, data: str, name: str, run: str, root: str
) -> None:
    """Family, run, folders: nothing is expanded, split or executed on the way."""
    tmp_path = tmp_path_factory.mktemp("names")
    plan = rename(tiny_plan(), family=name, runs=[run])
    root = root.replace("/", "_").lstrip("-.") or "x"
    launch = Launch(tmp_path, plan, runs_dir=root)
    done = launch(TRAIN_DATA_DIR=data)
    assert done.returncode == 0, done.stderr
    (call,) = launch.calls
    assert call[1].startswith(f"{root}/")
    config = load((tmp_path / call[1]).read_text(encoding="utf-8"))
    assert config["trainer"]["fit"]["train_dataloader"]["data_dir"] == data
    assert done.stdout.startswith(run)
    entries = {path.name for path in tmp_path.iterdir()}
    assert entries <= {"jobs", "bin", "log", root}


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    for number, options in enumerate(({}, {"data_dir": "/data", "runs_dir": "it's $(here)"})):
        jobs = tmp_path / str(number)
        render_plan(rename(family(), family="it's"), "modelzoo", jobs, options=options)
        scripts = sorted(map(str, jobs.rglob("*.sh")))
        done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
