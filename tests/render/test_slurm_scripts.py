"""The launcher slurm without Slurm: arrays, chain, options; sbatch and squeue are stand-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.plan import Plan
from planner.render import render, render_plan
from planner.render.errors import OptionError

from .plans import make_plan, make_run, parametrization, rename, tiny_plan

# Writes down what it is told; each submission gets the next number, printed with a cluster's name.
FAKE = f"""#!{sys.executable}
import json, os, pathlib, sys
log = pathlib.Path(os.environ["FAKE_LOG"])
calls = log.read_text().splitlines() if log.exists() else []
name = os.path.basename(sys.argv[0])
if name == "squeue":
    print(os.environ.get("FAKE_QUEUE", ""))
    sys.exit()
kept = {{key: os.environ.get(key) for key in ("PLANNER_BUNDLE", "PLANNER_RUNS_DIR")}}
with log.open("a") as file:
    print(json.dumps({{"argv": sys.argv[1:], "env": kept}}), file=file)
if "--parsable" in sys.argv:
    print(f"{{101 + len(calls)}};cluster")
"""


class Submit:
    """A rendered bundle whose launch.sh finds stand-ins for Slurm's commands."""

    def __init__(self, folder: Path, plan: Plan, **options: Any) -> None:
        self.folder, self.jobs = folder, folder / "jobs"
        chosen = {"data_dir": "/data", **options}
        self.files = render_plan(plan, "torch+slurm", self.jobs, options=chosen).rendered.files
        (folder / "bin").mkdir()
        for name in ("sbatch", "squeue"):
            program = folder / "bin" / name
            program.write_text(FAKE)
            program.chmod(0o755)

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.jobs / "launch.sh"), *words],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "LC_ALL": "C.UTF-8",
                "FAKE_LOG": str(self.folder / "log"),
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def two_sizes() -> Plan:
    rule = parametrization()
    big = make_run(rule, name="big-20tpp", d_model=256, seeds=(0, 5))
    return make_plan(big, make_run(rule, name="small-20tpp"), rule=rule)


def sweep() -> Plan:
    """Two settings of one size with two seeds each, and a larger size at two budgets."""
    rule = parametrization()
    runs = [
        make_run(rule, name="small-wd1", seeds=(0, 1)),
        make_run(rule, name="small-wd2", seeds=(0, 1), weight_decay=0.2),
        make_run(rule, name="big-20tpp", d_model=256),
        make_run(rule, name="big-80tpp", d_model=256, steps=400),
    ]
    return make_plan(*runs, rule=rule)


def headers(text: str) -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)


def test_larger_sizes_wait_for_smaller_ones(tmp_path: Path) -> None:
    submit = Submit(tmp_path, two_sizes())
    done = submit()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("small-20tpp: submitted as job 101\nbig-20tpp: submitted as job 102\n")
    small, big = submit.calls
    logs = f"--chdir={tmp_path}/runs/tiny/slurm"
    assert small["argv"] == ["--parsable", logs, f"{submit.jobs}/slurm/small-20tpp.sh"]
    assert big["argv"] == [
        "--parsable",
        logs,
        "--dependency=afterok:101",
        "--kill-on-invalid-dep=yes",
        f"{submit.jobs}/slurm/big-20tpp.sh",
    ]
    for call in submit.calls:
        assert call["env"] == {
            "PLANNER_BUNDLE": str(submit.jobs),
            "PLANNER_RUNS_DIR": f"{tmp_path}/runs",
        }


def test_settings_of_a_sweep_and_seeds_are_one_array(tmp_path: Path) -> None:
    submit = Submit(tmp_path, sweep(), array_limit=2)
    stages = sorted(path for path in submit.files if path.startswith("slurm/"))
    assert stages == [
        "slurm/big-20tpp.sh",
        "slurm/big-80tpp.sh",
        "slurm/small-wd1-and-1-more.sh",
    ]
    text = submit.files["slurm/small-wd1-and-1-more.sh"]
    assert "--array=0-3%2" in headers(text)
    assert "folders=(\n  small-wd1\n  small-wd1\n  small-wd2\n  small-wd2\n)\n" in text
    assert "seeds=(0 1 0 1)\n" in text
    assert submit().returncode == 0
    # Both budgets of the large size wait for the small one, and not for each other.
    waits = [word for call in submit.calls for word in call["argv"] if "dependency" in word]
    assert waits == ["--dependency=afterok:101", "--dependency=afterok:101"]


@pytest.mark.parametrize(
    ("chain", "waits"),
    [
        ("sizes", [None, "101", "101"]),
        ("jobs", [None, "101", "102"]),
        ("none", [None, None, None]),
    ],
)
def test_chains(tmp_path: Path, chain: str, waits: list[str | None]) -> None:
    submit = Submit(tmp_path, sweep(), chain=chain)
    assert submit().returncode == 0
    found = []
    for call in submit.calls:
        given = [word for word in call["argv"] if word.startswith("--dependency=afterok:")]
        found.append(given[0].rpartition(":")[2] if given else None)
    assert found == waits


def test_what_is_done_or_in_the_queue_is_not_submitted_again(tmp_path: Path) -> None:
    plan = two_sizes()
    submit = Submit(tmp_path, plan)
    queued = submit(FAKE_QUEUE="77\n77")
    assert queued.stdout.splitlines() == [
        "small-20tpp: in the queue as job 77",
        "big-20tpp: in the queue as job 77",
    ]
    assert submit.calls == []
    digest = plan.run("small-20tpp").digest.removeprefix("sha256:")[:12]
    place = tmp_path / "runs" / "tiny" / digest / "small-20tpp" / "seed0"
    place.mkdir(parents=True)
    (place / "done").touch()
    done = submit()
    assert done.stdout.splitlines() == [
        "small-20tpp: done, nothing to submit",
        "big-20tpp: submitted as job 101",
    ]
    assert not any("dependency" in word for word in submit.calls[0]["argv"])


def test_one_of_two_seeds_done_is_not_done(tmp_path: Path) -> None:
    plan = two_sizes()
    submit = Submit(tmp_path, plan)
    digest = plan.run("big-20tpp").digest.removeprefix("sha256:")[:12]
    place = tmp_path / "runs" / "tiny" / digest / "big-20tpp" / "seed5"
    (place / "checkpoints").mkdir(parents=True)
    (place / "checkpoints" / "step-00000100.pt").touch()
    assert "big-20tpp: submitted as job 101" in submit("big-20tpp").stdout


def test_some_runs_only(tmp_path: Path) -> None:
    submit = Submit(tmp_path, two_sizes())
    assert submit("big-20tpp").stdout == "big-20tpp: submitted as job 101\n"
    wrong = submit("bi")
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("there is no run bi; wanted one of: small-20tpp big-20tpp \n")
    assert len(submit.calls) == 1


def test_printing_submits_nothing(tmp_path: Path) -> None:
    submit = Submit(tmp_path, two_sizes())
    shown = submit("--print")
    assert shown.stdout.splitlines()[1].split() == [
        "sbatch",
        "--parsable",
        f"--chdir={tmp_path}/runs/tiny/slurm",
        "--dependency=afterok:small-20tpp",
        "--kill-on-invalid-dep=yes",
        f"{submit.jobs}/slurm/big-20tpp.sh",
    ]
    assert submit.calls == []
    assert not (tmp_path / "runs").exists()


def test_a_variable_that_the_trainer_reads_is_asked_for(tmp_path: Path) -> None:
    submit = Submit(tmp_path, two_sizes(), data_dir="env:MY_DATA")
    done = submit()
    assert (done.returncode, submit.calls) == (2, [])
    assert "set MY_DATA" in done.stderr
    assert submit("--test-only").returncode == 0
    assert submit(MY_DATA="/data").returncode == 0


def test_headers() -> None:
    options = {
        "partition": "gpu",
        "account": "acct",
        "qos": "high",
        "constraint": "a100|h100",
        "reservation": "r1",
        "time": "1-12:00:00",
        "nodes": 2,
        "gpus": 4,
        "gpu_type": "h100",
        "exclusive": True,
        "cpus_per_task": 48,
        "mem": "0",
        "grace": 300,
        "requeue": False,
        "sbatch": "--nice=100  --mail-type=END",
    }
    found = headers(render(tiny_plan(), "torch", options).files["slurm/tiny-20tpp.sh"])
    job = found.pop(0)
    assert re.fullmatch(r"--job-name=tiny\.tiny-20tpp\.[0-9a-f]{12}", job)
    assert found == [
        "--account=acct",
        "--partition=gpu",
        "--qos=high",
        "--constraint=a100|h100",
        "--reservation=r1",
        "--time=1-12:00:00",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=h100:4",
        "--cpus-per-task=48",
        "--mem=0",
        "--exclusive",
        "--output=%x-%j.out",
        "--open-mode=append",
        "--no-requeue",
        "--signal=B:USR1@300",
        "--nice=100",
        "--mail-type=END",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partition": "a b"}, "partition: got 'a b': wanted letters, digits and punctuation"),
        ({"account": "x\n#SBATCH --wrap"}, "account: got 'x"),
        ({"qos": "it's"}, "qos: got "),
        ({"time": "soon"}, "time: got 'soon': wanted minutes, hours:minutes:seconds or"),
        ({"time": "1:00:00\n"}, "time: got "),
        ({"time": "10 min"}, "time: got "),
        ({"mem": "lots"}, "mem: got 'lots': wanted a number with K, M, G or T"),
        ({"grace": 0}, "grace: got 0: "),
        ({"grace": "120s"}, "grace: got '120s': "),
        ({"gpus": -1}, "gpus: got -1: "),
        ({"nodes": 0}, "nodes: got 0: "),
        ({"sbatch": "--nice 100"}, "sbatch: got '--nice 100': '100' is not an option"),
        ({"sbatch": "--wrap=$(id)"}, "sbatch: got "),
        ({"sbatch": "--array=0-9"}, "--array is set by the launcher itself"),
        ({"chain": "yes"}, "chain: got 'yes': "),
        ({"mfu": 2}, "mfu: got 2: "),
        ({"activate": "a\0b"}, "activate: got "),
        ({"partitoin": "a"}, "partitoin: torch+slurm has no such option; did you mean 'partition'"),
    ],
)
def test_wrong_options_are_one_sentence(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        render_plan(tiny_plan(), "torch", tmp_path / "jobs", options=options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "jobs").exists()


def test_a_run_called_slurm_does_not_meet_the_scripts() -> None:
    files = render(rename(tiny_plan(), runs=["slurm"]), "torch").files
    (folder,) = {path.split("/")[0] for path in files if path.endswith("start.sh")}
    assert re.fullmatch(r"slurm-[0-9a-f]{8}", folder)


words = st.text(
    st.one_of(
        st.sampled_from("'\"\\$`{}&/ ;#:-!%*?[]~<>|()=\n\t"),
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=words, run=words, root=words, activate=words)
def test_names_are_literal(
    tmp_path_factory: pytest.TempPathFactory, name: str, run: str, root: str, activate: str
) -> None:
    """Folders reach sbatch as one word; no name ends a comment or becomes a header."""
    tmp_path = tmp_path_factory.mktemp("names")
    root = root.replace("/", "_").lstrip("-.") or "x"
    plan = rename(tiny_plan(), family=name, runs=[run])
    submit = Submit(tmp_path, plan, runs_dir=root, activate=activate)
    done = submit()
    assert (done.returncode, done.stderr) == (0, "")
    (call,) = submit.calls
    (chdir,) = [word for word in call["argv"] if word.startswith("--chdir=")]
    assert chdir.startswith(f"--chdir={tmp_path}/{root}/")
    assert call["env"]["PLANNER_RUNS_DIR"] == f"{tmp_path}/{root}"
    (path,) = [path for path in submit.files if path.startswith("slurm/")]
    text = submit.files[path]
    assert len(headers(text)) == 8
    source = text[text.index("source ") :].partition("\nset -u\n")[0].removeprefix("source ")
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {source}"], capture_output=True, check=True
    )
    assert shown.stdout.decode() == f"{activate}\0"
    assert {path.name for path in tmp_path.iterdir()} == {"jobs", "bin", "log", root}
