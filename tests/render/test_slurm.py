"""Rendered jobs under a real Slurm (make test-slurm): accepted, killed, requeued, finished."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from planner.compile import compile_plan
from planner.plan import Plan
from planner.render import check_bundle, render_plan
from planner.spec import parse_spec
from planner.train.corpus import Text, prepare

from .plans import make_plan, make_run, parametrization
from .slurm_cluster import Cluster, missing

pytestmark = pytest.mark.slurm

FAMILY = "it's $(touch pwned) a family"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    absent = missing()
    if absent or os.geteuid() != 0:
        pytest.fail(f"Slurm's daemons need root and these programs: {', '.join(absent) or 'all'}")
    env = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
    env |= {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # torchrun and python of the environment that runs the tests
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = Cluster(tmp_path_factory.mktemp("slurm"), env)
    try:
        found.start()
        yield found
    finally:
        found.stop()
    assert [daemon.args for daemon in found.daemons if daemon.poll() is None] == []
    assert found.processes() == {}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes with something to learn: the alphabet, over and over."""
    pytest.importorskip("torch", minversion="2.6")
    folder = tmp_path_factory.mktemp("some data")
    text = folder / "text"
    text.write_bytes(bytes(97 + number % 26 for number in range(40_000)))
    prepare([Text(text.name, text)], folder / "data", source="letters", validation=0.1)
    return folder / "data"


def wait(what: str, ready: Callable[[], Any], seconds: float = 600) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = ready()
        if found:
            return found
        time.sleep(0.3)
    pytest.fail(f"waited {seconds} s for {what}")


def segments(place: Path) -> list[tuple[dict[str, Any], list[int]]]:
    """Return, for each start of a run, the line that its log begins with, and its steps so far."""
    path = place / "log.jsonl"
    found: list[tuple[dict[str, Any], list[int]]] = []
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    for record in map(json.loads, whole.splitlines()):
        if "step" in record:
            found[-1][1].append(record["step"])
        else:
            found.append((record, []))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gpus": 2, "gpu_type": "h100", "exclusive": True, "time": "1:00:00", "mem": "0"},
        {"gpus": 2, "gpu_request": "gres", "partition": "other", "time": "30", "chain": "jobs"},
        {"gpus": 0, "processes": 2, "cpus_per_task": 2, "array_limit": 1, "requeue": False},
        {"sbatch": "--nice=100 --mail-type=NONE --comment=x", "grace": 300, "chain": "none"},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_slurm_accepts_every_script(
    cluster: Cluster, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.env[name])
    rule = parametrization()
    runs = [
        make_run(rule, name="small 1", seeds=(0, 1, 2)),
        make_run(rule, name="big", d_model=256, n_layers=8),
        make_run(rule, name="small 2", weight_decay=0.2),  # a setting of a sweep
    ]
    plan = make_plan(*runs, rule=rule, family=FAMILY)
    render_plan(plan, "torch+slurm", tmp_path / "jobs", options=options)
    checks = {check.name: check for check in check_bundle(tmp_path / "jobs")}
    asked = checks["sbatch --test-only"]
    assert (asked.skipped, asked.problems) == (None, ())
    done = cluster.run(tmp_path / "jobs" / "launch.sh", "--test-only", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count(" to start at ") == len(list((tmp_path / "jobs/slurm").iterdir()))
    assert cluster.queue() == {}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"partition": "none"}, "partition"),
        ({"gpus": 8}, "not available"),
        ({"gpu_type": "b300"}, "not available"),
        ({"constraint": "nowhere"}, "feature"),
    ],
)
def test_slurm_refuses_what_it_does_not_have(
    cluster: Cluster,
    tmp_path: Path,
    options: dict[str, Any],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.env[name])
    rule = parametrization()
    plan = make_plan(make_run(rule, name="a"), rule=rule)
    render_plan(plan, "torch+slurm", tmp_path / "jobs", options=options)
    checks = {check.name: check for check in check_bundle(tmp_path / "jobs")}
    (said,) = checks["sbatch --test-only"].problems
    assert said.startswith("slurm/a.sh: ")
    assert problem in said.lower()


def tiny_family(tpp: float) -> Plan:
    spec = {
        "family": FAMILY,
        "tpp": tpp,
        "sizes": [
            {"name": "small", "d_model": 32, "n_layers": 2, "head_dim": 16},
            {"name": "large", "d_model": 48, "n_layers": 2, "head_dim": 16},
        ],
        "architecture": {"vocab_size": 256, "context": 16, "ffn_multiplier": 2},
        "parametrization": {"base_width": 16, "base_depth": 1},
        "timescale": {"value": 0.2},
        "batch": {"value": "8 sequences"},
        "seeds": [0, 1],
        "precision": "fp32",
    }
    return compile_plan(parse_spec(json.dumps(spec), "tiny.yaml"))


def places(root: Path, plan: Plan) -> dict[str, Path]:
    """Return where each run's seed 0 and 1 write."""
    found = {}
    for run in plan.runs:
        (family_folder,) = [path for path in root.iterdir() if path.name.startswith("it-s")]
        base = family_folder / run.digest.removeprefix("sha256:")[:12] / run.name
        found |= {f"{run.size} {seed}": base / f"seed{seed}" for seed in run.seeds}
    return found


def test_a_family_is_killed_requeued_resumed_and_finished(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    """Small size first: its node is lost, then one seed is told to stop and one preempted.

    Each job is two processes that meet by torchrun's rendezvous.
    """
    plan = tiny_family(tpp=2)
    small, large = plan.runs
    work = tmp_path / "a b'c $(touch pwned)"
    options = {"gpus": 0, "processes": 2, "cpus_per_task": 1, "checkpoint_steps": 25}
    render_plan(plan, "torch+slurm", work / "jobs", options={**options, "threads": 1})
    refused = cluster.run(work / "jobs" / "launch.sh", cwd=work)
    assert refused.returncode == 2
    assert "set TRAIN_DATA_DIR, which the trainer reads" in refused.stderr
    cluster.env["TRAIN_DATA_DIR"] = str(data)
    try:
        done = cluster.run(work / "jobs" / "launch.sh", cwd=work)
    finally:
        del cluster.env["TRAIN_DATA_DIR"]
    assert (done.returncode, done.stderr) == (0, "")
    first, second = (line.rpartition(" ")[2] for line in done.stdout.splitlines())
    again = cluster.run(
        "env", f"TRAIN_DATA_DIR={data}", work / "jobs" / "launch.sh", small.name, cwd=work
    )
    assert again.stdout == f"{small.name}: in the queue as job {first}\n"

    root = work / "runs"
    wait("the small runs' folder", lambda: [*root.glob("it-s*/*")])
    at = places(root, plan)

    def further(name: str, starts: int, steps: int) -> bool:
        """Whether a run is in its start of that number and that many steps into it."""
        found = segments(at[name])
        return len(found) == starts and len(found[-1][1]) >= steps

    both = ("small 0", "small 1")
    wait("both seeds to train", lambda: all(further(name, 1, 60) for name in both))
    # The node is lost: both start again, from a checkpoint of every 25 steps.
    cluster.lose_node()
    wait("both seeds to go on", lambda: all(further(name, 2, 10) for name in both))
    assert cluster.queue()[f"{second}_0"] == ("PENDING", "Dependency")
    # Seed 0 is told to stop as 120 seconds before its time is over, seed 1 is preempted.
    stopped = cluster.run("scancel", "--batch", "--signal=USR1", f"{first}_0")
    assert stopped.returncode == 0, stopped.stderr
    preempted = cluster.run("scontrol", "requeue", f"{first}_1")
    assert preempted.returncode == 0, preempted.stderr
    wait("a third start", lambda: all(len(segments(at[name])) == 3 for name in both))
    assert cluster.queue()[f"{second}_0"] == ("PENDING", "Dependency")
    wait("the large runs", lambda: further("large 0", 1, 1))
    assert (at["small 0"] / "done").exists()
    assert (at["small 1"] / "done").exists()
    wait("all runs", lambda: not cluster.queue())

    for name, place in at.items():
        run = small if name.startswith("small") else large
        starts = [start for start, _ in segments(place)]
        steps = {step for _, steps in segments(place) for step in steps}
        assert (place / "done").read_text() == f"{run.digest}\n"
        assert steps == {*range(1, run.steps + 1)}, name
        assert len(starts) == (3 if name in both else 1)
        assert all(start["run_digest"] == run.digest for start in starts)
        assert all(start["processes"] == 2 for start in starts)
        records = [*(place / "environment").glob("*.txt")]
        assert len(records) == len(starts)
        assert all(run.digest in record.read_text() for record in records)
    for name in both:
        (_, first_steps), (lost, second_steps), (told, third_steps) = segments(at[name])
        # From the last checkpoint, which may be of the very step that the node was lost at.
        assert lost["from_step"] <= first_steps[-1] <= lost["from_step"] + 25
        assert lost["from_step"] >= 50
        assert lost["from_step"] % 25 == 0
        assert second_steps[0] == lost["from_step"] + 1
        # Told to stop, it wrote a checkpoint there and then, and no step is done twice after that.
        assert told["from_step"] == second_steps[-1]
        assert third_steps == [*range(second_steps[-1] + 1, small.steps + 1)]
    outputs = "".join(path.read_text() for path in root.glob("*/slurm/*.out"))
    assert "requeued to go on from the last checkpoint" in outputs
    assert "stopped by USR1; start again to go on" in outputs

    again = cluster.run("env", f"TRAIN_DATA_DIR={data}", work / "jobs" / "launch.sh", cwd=work)
    assert again.stdout == "".join(
        f"{run.name}: done, nothing to submit\n" for run in (small, large)
    )
    assert {path.name for path in work.iterdir()} == {"jobs", "runs"}
    assert not (tmp_path / "pwned").exists()
    _check_archive(root, work, plan, cluster)


def _check_archive(root: Path, work: Path, plan: Plan, cluster: Cluster) -> None:
    """The archive finds every log where the jobs left it, and whose run it is."""
    planner = (sys.executable, "-P", "-m", "planner.cli.main")
    ingest = cluster.run(*planner, "ingest", root, "-o", work / "archive", "--json")
    assert (ingest.returncode, json.loads(ingest.stdout)["failed"]) == (0, [])
    shown = cluster.run(
        *(*planner, "runs", work / "archive", "--json"),
        *("--plan", work / "jobs" / "plan.json"),
    )
    runs = json.loads(shown.stdout)["runs"]
    assert sorted(run["run_digest"] for run in runs) == sorted(
        run.digest for run in plan.runs for _ in run.seeds
    )
    assert all(run["planned"]["by"] == "digest" for run in runs)


def test_what_waits_for_a_failed_job_leaves_the_queue(
    cluster: Cluster, tmp_path: Path, data: Path
) -> None:
    plan = tiny_family(tpp=0.5)
    render_plan(plan, "torch+slurm", tmp_path / "jobs", options={"gpus": 0, "data_dir": "/no/data"})
    done = cluster.run(tmp_path / "jobs" / "launch.sh", cwd=tmp_path)
    assert (done.returncode, done.stdout.count("submitted as job")) == (0, 2)
    wait("the queue to be empty", lambda: not cluster.queue())
    outputs = {path.name: path.read_text() for path in tmp_path.glob("runs/*/slurm/*.out")}
    assert len(outputs) == 2
    assert all("/no/data" in text for text in outputs.values())
    assert all(f".{plan.runs[0].name}." in name for name in outputs)
