"""Records the family: trains every run of PROTOCOL.md with `planner train`.

python record.py list                 every run, its size, its estimated cost
python record.py run WORK             train what is not trained yet; a killed start goes on; may be
                                      started once for each core
python record.py collect WORK         copy finished logs to runs/ and write MANIFEST.json

WORK holds the data folder, run files, checkpoints and logs, and is not part of the example. Needs
the extra `train` and this file inside a clean clone: the commit goes into the manifest.
"""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import hashlib
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from planner.compile import compile_plan
from planner.plan import Plan, Run
from planner.plan.runfile import RunFile, dump_run_file
from planner.spec import load_spec, parse_spec

HERE = Path(__file__).resolve().parent
LOW, HIGH = 5, 20  # tokens per parameter of the two bands
SEEDS = (24, 12, 8, 4, 2)  # runs behind the curve of each size
CONSTANT_SIZES = 3  # of which the plan is also run with another schedule
SWEEP_TPP, SWEEP_SEEDS = (5, 20, 80, 320), range(200, 208)
SWEEP_TAUS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
SWEEP_RATES = (0.5, 1.0)  # times the base learning rate
FAULT_SIZE, FAULT_FROM, FAULT_SCALE = 3, 0.6, 1.6
DIVERGED_RATE = 400.0
# What one core of the recording machine did in the pilots: seconds a start, an update, operations
# a second.
START_SECONDS, UPDATE_SECONDS, OPERATIONS = 5.0, 0.005, 5e10


@dataclasses.dataclass(frozen=True)
class Task:
    """One run to record: a run of a plan, and the settings of each of its starts."""

    name: str
    group: str
    plan: Plan
    run: Run
    starts: tuple[dict[str, Any], ...]

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds."""
        operations = 6 * self.run.params.total * self.run.tokens
        return START_SECONDS + self.run.steps * UPDATE_SECONDS + operations / OPERATIONS


def compiled(**changes: Any) -> Plan:
    """Compile family.yaml with some of its sections changed.

    The sections that a spec declares over a preset field by field are changed so here, too.
    """
    if not changes:
        return compile_plan(load_spec(HERE / "family.yaml"))
    spec = YAML(typ="safe").load(HERE / "family.yaml")
    for section, value in changes.items():
        by_field = section in ("parametrization", "schedule")
        spec[section] = {**spec[section], **value} if by_field else value
    return compile_plan(parse_spec(json.dumps(spec), "family.yaml"))


def mismatched() -> Plan:
    """Compile the family as people do: weight decay and batch of the middle size for all."""
    middle = compiled(tpp=[HIGH]).runs[2]
    return compiled(
        family="tiny-family-fixed",
        tpp=[HIGH],
        timescale={"weight_decay": middle.optimizer.base_weight_decay},
        batch=f"{middle.batch.sequences} sequences",
    )


def constant_rate() -> Plan:
    """Compile the family with another schedule: a constant learning rate after the warm-up."""
    return compiled(family="tiny-family-constant", tpp=[HIGH], schedule={"kind": "constant"})


def tasks() -> list[Task]:
    """Return every run, the longest first: the last ones to finish should be short."""
    return sorted([*curves(), *sick(), *sweep()], key=lambda task: -task.seconds)


def band(plan: Plan, tpp: float) -> list[Run]:
    """Return a plan's runs at a TPP, by size."""
    return [run for run in plan.runs if run.name.endswith(f"-{tpp:g}tpp")]


def curves() -> Iterator[Task]:
    """Yield the runs whose curves are averaged over seeds."""
    family, fixed, constant = compiled(), mismatched(), constant_rate()
    for group, plan, tpp, label in (
        ("matched", family, HIGH, ""),
        ("matched", family, LOW, ""),
        ("mismatched", fixed, HIGH, "-fixed"),
        ("constant", constant, HIGH, "-constant"),
    ):
        runs = band(plan, tpp)[: CONSTANT_SIZES if group == "constant" else None]
        for run, count in zip(runs, SEEDS, strict=False):
            for seed in range(count):
                name = f"{run.name}{label}" + (f"-seed{seed}" if seed else "")
                yield Task(name, group, plan, run, ({"seed": seed},))


def sick() -> Iterator[Task]:
    """Yield the run whose loss kernel goes wrong, and the one that diverges.

    The first is restarted with another micro batch, at which the kernel is faulty.
    """
    family = compiled()
    run = band(family, HIGH)[FAULT_SIZE]
    whole = run.batch.sequences
    quarter = next(n for n in (4, 3, 2, 1) if whole % n == 0)
    fault = {"logit_gradient": "float8_e5m2", "scale": FAULT_SCALE, "micro_batch": whole}
    first = {"micro_batch": whole // quarter, "stop_after": round(FAULT_FROM * run.steps)}
    starts = (first, {"micro_batch": whole, "fault": fault})
    yield Task(f"{run.name}-fault", "fault", family, run, starts)
    base = family.parametrization.base_lr
    hot = smallest(
        family="tiny-family-hot", tpp=[HIGH], parametrization={"base_lr": base * DIVERGED_RATE}
    )
    (run,) = hot.runs
    yield Task(f"{run.name}-diverged", "diverged", hot, run, ({},))


def smallest(**changes: Any) -> Plan:
    """Compile the family's smallest size alone, with sections changed."""
    sizes = YAML(typ="safe").load(HERE / "family.yaml")["sizes"][:1]
    return compiled(sizes=sizes, **changes)


def sweep() -> Iterator[Task]:
    """Yield tau x TPP x learning rate at the smallest size; a seed has one order of data."""
    base = compiled().parametrization.base_lr
    for rate in SWEEP_RATES:
        for tau in SWEEP_TAUS:
            swept = smallest(
                family="tiny-family-sweep",
                tpp=list(SWEEP_TPP),
                parametrization={"base_lr": base * rate},
                timescale={"value": tau},
            )
            for run in swept.runs:
                for seed in SWEEP_SEEDS:
                    name = f"{run.name}-tau{tau:g}-lr{rate:g}-seed{seed}"
                    yield Task(name, "sweep", swept, run, ({"seed": seed},))


def settings(task: Task, data: Path, start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of one start."""
    steps = task.run.steps
    return {
        "data": str(data),
        "seed": 0,
        "device": "cpu",
        "threads": 1,
        "eval_steps": max(1, steps // 40),
        "eval_sequences": 4096,
        "checkpoint_steps": max(1, steps // 20),
        "keep": 1,
        **start,
    }


def record(work: Path) -> int:
    """Train what is not trained yet; return the exit code.

    Several of these may work side by side in one folder: each takes runs that nobody has taken.
    """
    commit = _git("rev-parse", "HEAD")
    if _git("status", "--porcelain", "--untracked-files=no"):
        sys.exit("error: the clone has changes that are not committed; the manifest names a commit")
    data = work / "data"
    if not data.exists():
        subprocess.run(_planner("prepare", "--corpus", "python", "-o", str(data)), check=True)
    (work / "jobs").mkdir(exist_ok=True)
    for task in tasks():
        out = work / "work" / task.name
        out.mkdir(parents=True, exist_ok=True)
        with (out / "taken").open("w") as mark:
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not (out / "done.json").exists():
                status = train(task, work, out, commit)
                if status not in (0, 1):
                    return status
    return 0


def train(task: Task, work: Path, out: Path, commit: str) -> int:
    """Train one run and write its part of the manifest; return the trainer's exit code."""
    commands, status = [], 0
    for number, start in enumerate(task.starts):
        file = work / "jobs" / f"{task.name}-{number}.json"
        values = settings(task, work / "data", start)
        file.write_text(
            dump_run_file(RunFile(task.plan.family, task.plan.digest, values, task.run))
        )
        commands.append(shlex.join(["planner", "train", file.name, "-o", task.name]))
        mark = out / f"start-{number}.done"
        if mark.exists():
            continue
        before = _cpu_seconds()
        status = subprocess.run(_planner("train", str(file), "-o", str(out))).returncode
        _add(out / "cpu.json", _cpu_seconds() - before)
        if status not in (0, 1):
            return status
        mark.touch()
    entry = {
        "name": task.name,
        "group": task.group,
        "run": task.run.name,
        "run_digest": task.run.digest,
        "plan": task.plan.digest,
        "commit": commit,
        "commands": commands,
        "settings": [settings(task, Path("data"), start) for start in task.starts],
        "status": "diverged" if status else "finished",
        "cpu_seconds": round(json.loads((out / "cpu.json").read_text()), 1),
        "machine": machine(),
    }
    (out / "done.json").write_text(json.dumps(entry, indent=1) + "\n")
    return status


def collect(work: Path) -> None:
    """Copy finished logs, packed, and write the manifest: the same bytes for the same logs."""
    (HERE / "runs").mkdir(exist_ok=True)
    entries = []
    for task in tasks():
        out = work / "work" / task.name
        if not (out / "done.json").exists():
            continue
        log = (out / "log.jsonl").read_bytes()
        packed = HERE / "runs" / f"{task.name}.jsonl.gz"
        packed.write_bytes(gzip.compress(log, 9, mtime=0))
        entry = json.loads((out / "done.json").read_text())
        entry["wall_seconds"] = round(_wall_seconds(log), 1)
        entry["log_sha256"] = hashlib.sha256(log).hexdigest()
        entries.append(entry)
    (HERE / "MANIFEST.json").write_text(json.dumps(entries, indent=1) + "\n")
    print(f"{len(entries)} of {len(list(tasks()))} runs")


def machine() -> dict[str, Any]:
    """Return the class of this machine, without its name."""
    import torch

    model = "unknown"
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    return {
        "cpu": model,
        "cores_used": 1,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _planner(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "planner.cli.main", *arguments]


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(HERE), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _add(path: Path, seconds: float) -> None:
    before = json.loads(path.read_text()) if path.exists() else 0.0
    path.write_text(json.dumps(before + seconds))


def _wall_seconds(log: bytes) -> float:
    """Return the sum over all starts of the time that the log gives."""
    total = last = 0.0
    for line in log.splitlines():
        record = json.loads(line)
        if "segment" in record:
            total, last = total + last, 0.0
        last = record.get("time", last)
    return total + last


def show() -> None:
    """Print every run and its estimated cost."""
    total = 0.0
    for task in tasks():
        run = task.run
        total += task.seconds
        print(
            f"{task.group:10} {task.name:32} N {run.tokens / run.tpp:8.0f} total "
            f"{run.params.total:7} D {run.tokens:9} B {run.batch.sequences:5} T {run.steps:5} "
            f"tau {run.optimizer.tau:6.3f} {task.seconds:6.0f} s, all {total:6.0f} s"
        )


def main() -> None:
    """Run the verb."""
    match sys.argv[1:]:
        case ["list"]:
            show()
        case ["run", work]:
            show()
            sys.stdout.flush()
            sys.exit(record(Path(work).resolve()))
        case ["collect", work]:
            collect(Path(work).resolve())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
