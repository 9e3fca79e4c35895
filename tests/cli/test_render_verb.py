"""`planner render` and `planner targets`: what they print, what they leave, and their errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SPEC = """
family: tiny
tpp: 1
sizes:
  - {name: small, d_model: 32, n_layers: 1, head_dim: 16}
  - {name: large, d_model: 64, n_layers: 2, head_dim: 16}
architecture: {vocab_size: 256, context: 16, ffn_multiplier: 2}
parametrization: {base_width: 32, base_depth: 1}
timescale: {value: 0.2}
batch: {value: 8 sequences}
"""
SLURM = ("render", "plan.json", "--target", "torch", "-o", "jobs")


@pytest.fixture
def plan(command: Callable, tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    assert command("plan", "tiny.yaml", "-o", "plan.json").code == 0
    return "plan.json"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_default_launcher_is_slurm_and_checks_say_what_ran(
    command: Callable, plan: str, tmp_path: Path
) -> None:
    done = command(*SLURM, "--check")
    assert done.code == 0
    assert done.out.startswith("torch+slurm: 2 jobs, ")
    assert "check run files against the plan: 0 problems\n" in done.out
    assert "check sbatch --test-only: " in done.out
    assert (tmp_path / "jobs" / "slurm" / "small-1tpp.sh").exists()


def test_a_dry_run_shows_the_diff_and_changes_nothing(
    command: Callable, plan: str, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs"
    new = command(*SLURM, "--dry-run")
    assert (new.code, jobs.exists()) == (0, False)
    files = json.loads(command(*SLURM, "--json").out)["files"]
    assert new.out.count("--- /dev/null\n") == len(files)
    assert command(*SLURM, "--dry-run").out == ""
    before = contents(jobs)
    changed = command(*SLURM, "--dry-run", "--set", "partition=gpu", "--set", "chain=none")
    assert changed.code == 0
    assert "--- a/slurm/small-1tpp.sh\n+++ b/slurm/small-1tpp.sh\n" in changed.out
    assert changed.out.count("\n+#SBATCH --partition=gpu\n") == 2
    assert contents(jobs) == before
    document = json.loads(command(*SLURM, "--dry-run", "--json", "--set", "partition=gpu").out)
    assert document["schema"] == "planner.render/1"
    assert sorted(document["diff"]) == sorted(document["changed"])
    assert document["refused"] is None


def test_a_dry_run_shows_what_would_go_and_what_is_in_the_way(
    command: Callable, plan: str, tmp_path: Path
) -> None:
    command(*SLURM)
    script = tmp_path / "jobs" / "launch.sh"
    script.write_text(script.read_text() + "# mine\n")
    before = contents(tmp_path / "jobs")
    done = command(*SLURM, "--dry-run")
    assert done.code == 2
    assert "\n-# mine\n" in done.out
    assert "launch.sh was edited" in done.err
    forced = command(*SLURM, "--dry-run", "--force")
    assert (forced.code, forced.out) == (0, done.out)
    gone = command(*SLURM, "--dry-run", "--force", "--set", "runs_dir=x", "--target", "torch+local")
    assert "--- a/slurm/small-1tpp.sh\n+++ /dev/null\n" in gone.out
    assert contents(tmp_path / "jobs") == before
    refused = command(*SLURM)
    assert (refused.code, refused.out) == (2, "")
    assert contents(tmp_path / "jobs") == before
    assert command(*SLURM, "--force").code == 0
    assert "# mine" not in script.read_text()


def test_a_dash_prints_every_file(command: Callable, plan: str, tmp_path: Path) -> None:
    command(*SLURM)
    words = ("render", plan, "--target", "torch+slurm", "-o", "-")
    printed = command(*words)
    files = {
        path: text.decode()
        for path, text in contents(tmp_path / "jobs").items()
        if path != "manifest.json"
    }
    wanted = "\n".join(f"==> {path} <==\n{text}" for path, text in sorted(files.items()))
    assert (printed.code, printed.out) == (0, wanted)
    document = json.loads(command(*words, "--json").out)
    assert (document["target"], document["files"]) == ("torch+slurm", files)
    assert not (tmp_path / "-").exists()
    assert command(*words, "--check").code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--target", "torch+slurmm"), "target: unknown launcher 'slurmm'; did you mean 'slurm'?"),
        (("--target", "torhc"), "target: unknown trainer 'torhc'; did you mean 'torch'?"),
        (
            ("--target", "modelzoo+slurm"),
            "target: launcher 'slurm' cannot start 'modelzoo'; it starts with: cs3",
        ),
        (
            ("--target", "torch+kubernetes"),
            "image: wanted --set image=...: container image with the trainer and torchrun",
        ),
        (("--target", "torch", "--set", "nodes=0"), "nodes: got '0': "),
        (("--target", "torch", "--set", "gpus=3"), "nodes: run small-1tpp has 8 sequences a step"),
        (("--target", "torch", "--set", "time=tomorrow"), "time: got 'tomorrow': wanted minutes"),
        (("--target", "torch", "--set", "time"), "--set: got 'time', wanted NAME=VALUE"),
        (("--target", "torch", "--templates", "none"), "templates: there is no template folder"),
        (
            ("--target", "torch+skypilot", "--set", "data_dir=/d", "--set", "infra=$(id)"),
            "infra: got '$(id)': ",
        ),
    ],
)
@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
def test_errors_are_one_sentence_and_leave_nothing(
    command: Callable,
    plan: str,
    tmp_path: Path,
    words: tuple[str, ...],
    message: str,
    extra: tuple[str, ...],
) -> None:
    done = command("render", plan, "-o", "jobs", *words, *extra)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml", "plan.json"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ no_such_name | sh }}", "'no_such_name' is undefined"),
        ("{{ start.__class__ | comment }}", "unsafe"),
        ("{{ start.run.name }}", "printed without one of the filters"),
        ("{% include '../../secret' %}", "there is no template"),
        ("{% if %}", "cannot read the template"),
    ],
)
def test_a_wrong_template_of_ones_own(
    command: Callable, plan: str, tmp_path: Path, text: str, message: str
) -> None:
    template = tmp_path / "own" / "torchrun" / "start.sh.j2"
    template.parent.mkdir(parents=True)
    template.write_text(f"#!/bin/sh\n{text}\n")
    done = command(*SLURM, "--templates", "own")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "jobs").exists()


def test_a_template_of_ones_own_replaces_the_shipped_one(
    command: Callable, plan: str, tmp_path: Path
) -> None:
    template = tmp_path / "own" / "torchrun" / "start.sh.j2"
    template.parent.mkdir(parents=True)
    template.write_text("#!/bin/sh\necho {{ start.run.name | sh }}\n")
    assert command(*SLURM, "--templates", "own").code == 0
    assert (tmp_path / "jobs/small-1tpp/start.sh").read_text() == "#!/bin/sh\necho small-1tpp\n"


def test_targets_show_the_launchers(command: Callable) -> None:
    shown = command("targets")
    assert shown.code == 0
    for launcher in ("slurm", "kubernetes", "skypilot", "local"):
        assert f"torch+{launcher} " in shown.out
    targets = json.loads(command("targets", "--json").out)["targets"]
    trainers = {target["target"].partition("+")[0] for target in targets}
    assert shown.out.count("(default)") == len(trainers)
    one = command("targets", "torch+kubernetes")
    assert "container image with the trainer and torchrun" in one.out
    document = json.loads(command("targets", "torch+slurm", "--json").out)["targets"][0]
    assert document["launcher"]["name"] == "slurm"
    assert document["launcher"]["default"] is True
    assert {"partition", "time", "chain", "grace"} <= {item["name"] for item in document["options"]}
