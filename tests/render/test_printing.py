"""``./launch.sh --print`` of every target shows what would be started and starts nothing."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from planner.render import render_plan, target_names

from .plans import make_plan, make_run, parametrization, tiny_plan
from .test_megatron import LLAMA

if TYPE_CHECKING:
    from pathlib import Path

NEEDED: dict[str, dict[str, str]] = {
    "kubernetes": {"image": "trainer:1", "env": "TRAIN_DATA_DIR=/data MEGATRON_LM_DIR=/m"},
    "skypilot": {"env": "TRAIN_DATA_DIR=/data MEGATRON_LM_DIR=/m"},
}
# Trainers that take no other model.
LLAMA_ONLY = ("hf-granite", "megatron", "olmo-core", "torchtitan")
# Each of these notes that it was called, and fails.
PROGRAMS = ("sbatch", "squeue", "kubectl", "sky", "planner", "python", "torchrun", "cszoo")
FIRST_WORD = {
    "slurm": {"sbatch"},
    "kubernetes": {"kubectl"},
    "skypilot": {"sky"},
    "local": {"planner", "python", "torchrun"},
    "cs3": {"cszoo", "python"},
}


class Bundle:
    """A rendered bundle of three jobs, to be started where no command may be."""

    def __init__(self, target: str, folder: Path) -> None:
        self.folder, self.jobs, self.log = folder, folder / "jobs", folder / "called"
        launcher = target.partition("+")[2]
        plan = tiny_plan(seeds=(0, 1, 4))
        if target.partition("+")[0] in LLAMA_ONLY:
            rule = parametrization("mup", "coupled")
            plan = make_plan(make_run(rule, **LLAMA, seeds=(0, 1, 4)), rule=rule)
        render_plan(plan, target, self.jobs, options=NEEDED.get(launcher, {}))
        (folder / "bin").mkdir()
        for name in PROGRAMS:
            path = folder / "bin" / name
            path.write_text(f'#!/bin/sh\necho {name} "$@" >>"$CALLED"\nexit 9\n')
            path.chmod(0o755)

    def paths(self) -> list[str]:
        return sorted(str(path) for path in self.folder.rglob("*"))

    def start(self, *words: str, script: Path | None = None, **env: str) -> list[str]:
        """Return the lines shown by a start that may call nothing and leave nothing behind."""
        before = self.paths()
        done = subprocess.run(
            ["bash", str(script or self.jobs / "launch.sh"), *words],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "CALLED": str(self.log),
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        called = self.log.read_text() if self.log.exists() else ""
        assert (done.returncode, done.stderr, called) == (0, "", "")
        assert self.paths() == before
        return done.stdout.splitlines()


@pytest.mark.parametrize("target", target_names())
def test_print_shows_the_commands_and_starts_nothing(target: str, tmp_path: Path) -> None:
    bundle = Bundle(target, tmp_path)
    lines = bundle.start("--print")
    launcher = target.partition("+")[2]
    assert lines
    assert {line.split()[0] for line in lines} <= FIRST_WORD[launcher]
    assert not any("--print" in line for line in lines)
    if launcher != "slurm":  # One array holds all seeds there.
        assert len(lines) == (4 if launcher == "kubernetes" else 3)


@pytest.mark.parametrize("target", [name for name in target_names() if name.endswith("+local")])
def test_the_local_launcher_knows_the_variable_too(target: str, tmp_path: Path) -> None:
    bundle = Bundle(target, tmp_path)
    shown = bundle.start("--print", "--keep=3")
    assert all(line.split()[-1] == "--keep=3" for line in shown)
    assert bundle.start("--keep=3", PLANNER_DRY_RUN="1") == shown
    (of_run,) = bundle.jobs.glob("*/launch.sh")
    assert bundle.start("--print", "--keep=3", script=of_run) == shown


@pytest.mark.parametrize("target", [name for name in target_names() if name.endswith("+cs3")])
def test_the_cerebras_launcher_knows_the_mode_too(target: str, tmp_path: Path) -> None:
    bundle = Bundle(target, tmp_path)
    shown = bundle.start("--print", "--backend", "CPU")
    assert all(line.split()[-2:] == ["--backend", "CPU"] for line in shown)
    assert bundle.start("print", "--backend", "CPU") == shown
    (of_run,) = bundle.jobs.glob("*/launch.sh")
    assert bundle.start("--print", "--backend", "CPU", script=of_run) == shown
