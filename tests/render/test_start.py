"""`RUN/start.sh`, really run, with a stand-in for torchrun: what every torchrun launcher shares."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.plan import Plan
from planner.render import render, render_plan
from planner.render.errors import CannotExpressError, OptionError
from planner.render.target import Job
from planner.render.torchrun import Layout, TorchrunOptions, starts

from .plans import make_plan, make_run, parametrization, rename, tiny_plan

# Starts one worker as torchrun does: a child with torchrun's variables. The worker writes down what
# it is given, trains until told to stop if FAKE_WAIT is set, and leaves the last checkpoint.
FAKE = f"""#!{sys.executable}
import json, os, pathlib, signal, subprocess, sys, time
arguments = sys.argv[1:]
if "TORCHELASTIC_RUN_ID" not in os.environ:
    env = {{**os.environ, "TORCHELASTIC_RUN_ID": "1", "RANK": "0"}}
    sys.exit(subprocess.run([sys.argv[0], *arguments], env=env).returncode)
kept = {{name: value for name, value in os.environ.items() if name.startswith("PET_")}}
ignored = signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
with open(os.environ["FAKE_LOG"], "a") as file:
    print(json.dumps({{"argv": arguments, "env": kept, "usr1 ignored": ignored}}), file=file)
place = pathlib.Path(arguments[arguments.index("-o") + 1])
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
(place / "ready").touch()
while os.environ.get("FAKE_WAIT") and not told:
    time.sleep(0.02)
if told:
    time.sleep(0.2)
    (place / "saved").touch()
if os.environ.get("FAKE_FAIL") or (told and not os.environ.get("FAKE_FINISH")):
    sys.exit(130 if told else 1)
(place / "checkpoints").mkdir(exist_ok=True)
(place / "checkpoints" / "step-00000100.pt").touch()
"""


class Bundle:
    """A rendered bundle, and its scripts run where torchrun is the stand-in."""

    def __init__(self, folder: Path, plan: Plan, **options: Any) -> None:
        self.folder, self.plan, self.jobs = folder, plan, folder / "jobs"
        chosen = {"data_dir": "/data", **options}
        self.rendered = render_plan(plan, "torch+slurm", self.jobs, options=chosen).rendered
        program = folder / "bin" / "torchrun"
        program.parent.mkdir()
        program.write_text(FAKE)
        program.chmod(0o755)
        # Listing the installed packages would take most of the tests' time.
        python = folder / "bin" / "python"
        python.write_text("#!/bin/sh\necho Python 3\n")
        python.chmod(0o755)
        self.env = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "FAKE_LOG": str(folder / "log"),
        }

    def start(self, *words: str, run: int = 0, **env: str) -> subprocess.Popen[str]:
        folder = self.rendered.jobs[run].folder
        return subprocess.Popen(
            ["bash", str(self.jobs / folder / "start.sh"), *words],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, **env: str) -> tuple[int, str, str]:
        started = self.start(*words, **env)
        out, err = started.communicate(timeout=60)
        return started.returncode, out, err

    @property
    def calls(self) -> list[dict[str, Any]]:
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def place(self, seed: int = 0, root: str = "runs") -> Path:
        (found,) = (self.folder / root).glob(f"*/*/*/seed{seed}")
        return found


def until_ready(bundle: Bundle) -> None:
    """Wait until the worker of seed 0 trains."""
    deadline = time.monotonic() + 30
    while not [*(bundle.folder / "runs").glob("*/*/*/seed0/ready")]:
        assert time.monotonic() < deadline, "the worker does not start"
        time.sleep(0.01)


def test_a_seed_trains_once_and_leaves_its_marks(tmp_path: Path) -> None:
    plan = tiny_plan(seeds=(0, 7))
    bundle = Bundle(tmp_path, plan)
    code, out, err = bundle("7", "--keep=3")
    assert (code, err) == (0, "")
    assert out.startswith("tiny-20tpp seed 7: runs/tiny/")
    place = bundle.place(7)
    (call,) = bundle.calls
    config = bundle.jobs / "tiny-20tpp" / "run-seed7.json"
    wanted = [
        "-m",
        "planner.cli.main",
        "train",
        str(config),
        "-o",
        f"{place.relative_to(tmp_path)}",
    ]
    assert call["argv"] == [*wanted, "--keep=3"]
    assert call["env"] == {
        "PET_MAX_RESTARTS": "0",
        "PET_SIGNALS_TO_HANDLE": "SIGINT,SIGHUP,SIGQUIT",
    }
    assert (place / "done").read_text() == f"{plan.runs[0].digest}\n"
    assert (place / "environment" / "run-seed7.json").read_bytes() == config.read_bytes()
    (record,) = (place / "environment").glob("*.txt")
    for value in (plan.digest, plan.runs[0].digest, "seed 7", "torchrun ", "Python 3"):
        assert value in record.read_text()
    again = bundle("7")
    assert again == (0, "tiny-20tpp seed 7: done, nothing to start\n", "")
    assert len(bundle.calls) == 1


@pytest.mark.parametrize("mark", ["done", "checkpoints/step-00000100.pt"])
def test_either_mark_of_being_done_is_enough(tmp_path: Path, mark: str) -> None:
    bundle = Bundle(tmp_path, tiny_plan())
    assert bundle("0")[0] == 0
    for other in {"done", "checkpoints/step-00000100.pt"} - {mark}:
        (bundle.place() / other).unlink()
    assert "nothing to start" in bundle("0")[1]


def test_only_the_first_node_writes_the_records(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, tiny_plan())
    assert bundle("0", PET_NODE_RANK="1") == (0, "", "")
    assert {path.name for path in bundle.place().iterdir()} == {"checkpoints", "ready"}


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_lets_the_worker_write_a_checkpoint(
    tmp_path: Path, number: signal.Signals
) -> None:
    bundle = Bundle(tmp_path, tiny_plan())
    started = bundle.start("0", FAKE_WAIT="1")
    until_ready(bundle)
    started.send_signal(number)
    _, err = started.communicate(timeout=30)
    assert started.returncode == 75
    assert f"stopped by {number.name.removeprefix('SIG')}; start again to go on" in err
    assert (bundle.place() / "saved").exists()
    assert not (bundle.place() / "done").exists()
    assert bundle.calls[0]["usr1 ignored"]
    assert bundle("0")[0] == 0
    assert (bundle.place() / "done").exists()


def test_a_worker_that_finishes_when_told_to_stop_is_done(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, tiny_plan())
    started = bundle.start("0", FAKE_WAIT="1", FAKE_FINISH="1")
    until_ready(bundle)
    started.send_signal(signal.SIGUSR1)
    started.communicate(timeout=30)
    assert started.returncode == 0
    assert (bundle.place() / "done").exists()


def test_a_failure_comes_through(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, tiny_plan())
    assert bundle("0", FAKE_FAIL="1")[0] == 1
    assert not (bundle.place() / "done").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_two_starts_at_once(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, tiny_plan())
    started = bundle.start("0", FAKE_WAIT="1")
    until_ready(bundle)
    code, _, err = bundle("0")
    assert (code, err) == (1, "tiny-20tpp seed 0: already running\n")
    started.terminate()
    started.communicate(timeout=30)


def test_wrong_words_and_missing_variables(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, tiny_plan(seeds=(0, 7)), data_dir="env:MY_DATA")
    for words in ((), ("3",), ("$(touch pwned)",)):
        code, _, err = bundle(*words)
        assert code == 2
        assert "wanted one of: 0 7" in err
    code, _, err = bundle("0")
    assert code == 2
    assert "set MY_DATA, which the trainer reads" in err
    assert bundle("0", MY_DATA="/data")[0] == 0
    assert not (tmp_path / "pwned").exists()


def test_the_root_and_torchrun_can_be_replaced(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, tiny_plan())
    command = f"{sys.executable} {tmp_path / 'bin' / 'torchrun'}"
    # The stand-in starts itself again by its name, so it has to be a program still.
    code, _, err = bundle("0", PLANNER_RUNS_DIR=f"{tmp_path}/other place", PLANNER_TORCHRUN=command)
    assert code == 0, err
    assert (bundle.place(root="other place") / "done").exists()


printable = st.text(
    st.one_of(
        st.sampled_from("'\"\\$`{}&/ ;#:-!%*?[]~<>|()=\n\t"),
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=printable, run=printable, root=printable, data=printable)
def test_any_name_reaches_the_trainer_literally(
    tmp_path_factory: pytest.TempPathFactory, name: str, run: str, root: str, data: str
) -> None:
    tmp_path = tmp_path_factory.mktemp("names")
    root = root.replace("/", "_").lstrip("-.") or "x"
    data = f"/{data}"
    plan = rename(tiny_plan(), family=name, runs=[run])
    bundle = Bundle(tmp_path, plan, runs_dir=root, data_dir=data)
    code, out, err = bundle("0")
    assert (code, err) == (0, "")
    (call,) = bundle.calls
    assert call["argv"][-1].startswith(f"{root}/")
    settings_ = json.loads(Path(call["argv"][3]).read_text(encoding="utf-8"))["settings"]
    assert settings_["data"] == data
    assert out.startswith(f"{run} seed 0: {root}/")
    assert {path.name for path in tmp_path.iterdir()} == {"jobs", "bin", "log", root}


@pytest.mark.parametrize(
    ("planned", "options", "layout"),
    [
        (None, {}, Layout(1, 1, 1)),
        (4, {}, Layout(1, 4, 4)),
        (32, {}, Layout(4, 8, 8)),
        (32, {"gpus": 4}, Layout(8, 4, 4)),
        (32, {"nodes": 16}, Layout(16, 2, 2)),
        (32, {"nodes": 1, "gpus": 8}, Layout(1, 8, 8)),
        (None, {"gpus": 0}, Layout(1, 0, 1)),
        (None, {"gpus": 0, "processes": 4}, Layout(1, 0, 4)),
        (None, {"nodes": 2, "gpus": 8, "processes": 1}, Layout(2, 8, 1)),
    ],
)
def test_machines(planned: int | None, options: dict[str, Any], layout: Layout) -> None:
    plan = tiny_plan(sequences=64)
    run = plan.runs[0]
    run = replace(run, batch=replace(run.batch, data_parallel=planned))
    rendered = render(make_plan(run, rule=plan.parametrization), "torch+slurm", options)
    text = rendered.files["slurm/tiny-20tpp.sh"]
    assert f"#SBATCH --nodes={layout.nodes}\n" in text
    assert f"PET_NPROC_PER_NODE={layout.processes}\n" in text
    assert (f"#SBATCH --gpus-per-node={layout.gpus}\n" in text) == (layout.gpus > 0)


def test_machines_that_do_not_divide_the_batch(tmp_path: Path) -> None:
    with pytest.raises(CannotExpressError, match=r"8 sequences a step, which 3 replicas \(1 nodes"):
        render_plan(tiny_plan(), "torch", tmp_path / "jobs", options={"gpus": 3})
    assert not (tmp_path / "jobs").exists()


def test_the_estimate_says_what_it_assumes() -> None:
    plan = tiny_plan()
    text = render(plan, "torch", {"accelerator": "H100", "mfu": "0.4", "gpus": 4}).files
    # 6 N D over 989.4 TFLOP/s at 40 %, an hour having 3600 s
    hours = plan.runs[0].flops.total / (9.894e14 * 0.4 * 3600)
    wanted = f"about {hours:.3g} H100 hours, {hours / 4:.3g} hours on 4, at an assumed MFU of 40 %"
    assert wanted in text["slurm/tiny-20tpp.sh"]
    assert wanted in text["tiny-20tpp/start.sh"]
    assert "`H100` at an MFU of 0.4" in text["README.md"]
    silent = render(plan, "torch").files
    assert "not estimated" in silent["README.md"]
    with pytest.raises(OptionError, match="did you mean 'H100'"):
        render(plan, "torch", {"accelerator": "H10", "mfu": 0.4})


def test_the_estimate_of_a_compiled_plan() -> None:
    from planner.compile import compile_plan
    from planner.spec import parse_spec

    spec = """
family: a
preset: llama-like
tpp: 20
sizes: [{params: 100M}]
cluster: {devices: 16, accelerator: H100, mfu: 40%}
"""
    plan = compile_plan(parse_spec(spec))
    files = render(plan, "torch").files
    run = plan.runs[0]
    assert run.predicted.device_hours is not None
    hours = run.predicted.device_hours
    wanted = (
        f"about {hours:.3g} H100 hours, {hours / 16:.3g} hours on 16, at an assumed MFU of 40 %"
    )
    assert wanted in files[f"slurm/{run.name}.sh"]
    assert "--nodes=2\n" in files[f"slurm/{run.name}.sh"]


def test_a_job_that_torchrun_does_not_start() -> None:
    from planner.render.engine import Engine
    from planner.render.target import Context, Output

    plan = tiny_plan()
    context = Context(plan, "x+slurm", Engine(), {"tiny-20tpp": "tiny-20tpp"}, "0")
    job = context.job(
        plan.runs[0], 0, config="c", finished="f", commands={"fit": ("x",)}, program="x"
    )
    with pytest.raises(CannotExpressError, match="is not one that torchrun starts"):
        starts(context, Output({}, (job,)), TorchrunOptions())


@pytest.mark.parametrize("field", ["reads", "variables"])
def test_names_of_variables_cannot_be_code(field: str) -> None:
    value: Any = ("A; touch b",) if field == "reads" else {"A; touch b": "c"}
    with pytest.raises(ValueError, match="cannot be the name of an environment variable"):
        Job("r", "r", 0, 1, "c", "o", "f", {}, "p", **{field: value})


def test_words_and_variables_of_a_trainer(tmp_path: Path) -> None:
    """What other trainers use: a script in the bundle, variables made of slots."""
    from planner.render.scripts import bash_words
    from planner.render.target import Slot

    words = bash_words(["it's", Slot.CONFIG, (Slot.BUNDLE, "/a b.py"), ("--x=", Slot.OUTPUT)])
    script = f"config='c d' bundle=/b output=$'o\\n'\nprintf '%s\\0' {words}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.split("\0")[:-1] == ["it's", "c d", "/b/a b.py", "--x=o\n"]


def test_several_runs_start_small_ones_first() -> None:
    rule = parametrization()
    big = make_run(rule, name="big", d_model=256)
    plan = make_plan(big, make_run(rule, name="small"), rule=rule)
    readme = render(plan, "torch").files["README.md"]
    assert readme.index("`slurm/small.sh`") < readme.index("`slurm/big.sh`")
