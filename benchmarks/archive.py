"""How fast, and in how much memory, logs of thousands of runs become an archive.

    python benchmarks/archive.py [--runs 10000] [--points 2000] [--scale N ...]
                                 [--scale-formats csv ...] [--json] [--check]

Synthetic runs in mixed formats (CSV, JSON lines, modded-nanoGPT and Megatron-LM text) are written
to a temporary folder. Measured, each as whole processes:

- the CSV part alone, beside pyarrow's own CSV reader on the same files, in alternating rounds
  (target: at least half its speed);
- all of it: time, and the largest sum of the memory of all processes (target: below 1 GB);
- the training losses of all runs, read in bulk (target: 5 s for 10,000 runs of 2,000 points);
- `planner runs` of the result, as a table and as JSON (target: below 1 s);
- the same with other numbers of runs (`--scale`), to see that the cost grows linearly.

Every archive is checked for its number of runs and points. A busy machine shows: the number of
processes that wanted the CPU is printed beside each time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = """
import resource, sys, time
begin, cpu = time.perf_counter(), time.process_time()
from planner.archive import Archive
runs = points = 0
for batch in Archive(sys.argv[1]).batches([sys.argv[2]]):
    runs += len(batch.runs)
    points += len(batch.series[sys.argv[2]].values)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(time.perf_counter() - begin, time.process_time() - cpu, peak, runs, points)
"""
BODIES = 40  # different curves; each run has a first row of its own
MIX = {"csv": 11, "jsonl": 3, "txt": 3, "out": 3}  # of every twenty runs
PLANNER = [sys.executable, "-c", "from planner.cli.main import main; main()"]
ARROW = """
import sys, time
import pyarrow.csv as csv
names = open(sys.argv[1]).read().split()
begin, cpu, rows = time.perf_counter(), time.process_time(), 0
for name in names:
    rows += csv.read_csv(name).num_rows
print(time.perf_counter() - begin, time.process_time() - cpu, rows)
"""


def curves(points: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    steps = np.arange(1, points)
    found = []
    for i in range(BODIES):
        rng = np.random.default_rng(i)
        loss = 1.8 + 6 / (1 + steps / 40) ** 0.5 + rng.normal(0, 0.02, len(steps))
        rate = 1e-3 * (1 - steps / points)
        norm = np.exp(rng.normal(0, 0.3, len(steps)))
        found.append((loss, rate, norm))
    return found


def csv_row(step: int, loss: float, rate: float, norm: float, total: int) -> str:
    return f"{step * 10},{loss:.5f},{rate:.6g},{norm:.4f}"


def jsonl_row(step: int, loss: float, rate: float, norm: float, total: int) -> str:
    return f'{{"step": {step * 10}, "loss": {loss:.5f}, "lr": {rate:.6g}, "grad_norm": {norm:.4f}}}'


def txt_row(step: int, loss: float, rate: float, norm: float, total: int) -> str:
    return f"step:{step * 10}/{total * 10} train_loss:{loss:.4f} train_time:{step}ms step_avg:1.0ms"


def out_row(step: int, loss: float, rate: float, norm: float, total: int) -> str:
    return (
        f" iteration {step * 10:8d}/ {total * 10:8d} | consumed samples: {step * 5120:12d} | "
        f"learning rate: {rate:.3E} | global batch size:   512 | lm loss: {loss:.6E} | "
        f"loss scale: 1.0 | grad norm: {norm:.3f} |"
    )


ROWS: dict[str, Callable[[int, float, float, float, int], str]] = {
    "csv": csv_row,
    "jsonl": jsonl_row,
    "txt": txt_row,
    "out": out_row,
}
SERIES = {"csv": 3, "jsonl": 3, "txt": 1, "out": 6}


def write_logs(folder: Path, runs: int, points: int, mix: dict[str, int] = MIX) -> dict[str, int]:
    """Write the logs, a hundred to a folder; return how many there are of each format."""
    kinds = [kind for kind, share in mix.items() for _ in range(share)]
    bodies: dict[str, list[str]] = {}
    for kind in mix:
        bodies[kind] = [
            "\n".join(
                ROWS[kind](step + 1, *values, points)
                for step, values in enumerate(zip(*curve, strict=True))
            )
            for curve in curves(points)
        ]
    count = dict.fromkeys(mix, 0)
    for i in range(runs):
        kind = kinds[i % len(kinds)]
        first = ROWS[kind](0, 10 + i / runs, 1e-3, 1.0, points)
        head = "step,loss,lr,grad_norm\n" if kind == "csv" else ""
        path = folder / kind / f"{i // 100:04d}" / f"run{i:06d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}{first}\n{bodies[kind][i % BODIES]}\n")
        count[kind] += 1
    return count


def memory(pid: int) -> int:
    """Return the resident bytes of a process and all below it."""
    total = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * 4096
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError, IndexError):
            continue
    return total


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            peak[0] = max(peak[0], memory(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def command(*arguments: str) -> tuple[float, float, int, str]:
    """Run planner; return seconds, CPU seconds, peak bytes and what it printed."""
    before = os.times()
    begin = time.perf_counter()
    process = subprocess.Popen([*PLANNER, *arguments], stdout=subprocess.PIPE, text=True)
    with watched(process.pid) as peak:
        output, _ = process.communicate()
    seconds = time.perf_counter() - begin
    after = os.times()
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    if process.returncode:
        sys.exit(f"error: planner {' '.join(arguments)} exited with {process.returncode}")
    return seconds, cpu, peak[0], output


def ingest(folder: Path, archive: Path, runs: int, points: int) -> dict[str, float]:
    shutil.rmtree(archive, ignore_errors=True)
    seconds, cpu, peak, output = command("ingest", str(folder), "-o", str(archive), "--json")
    report = json.loads(output)
    if len(report["added"]) != runs or report["points"] != points:
        sys.exit(f"error: {len(report['added'])} runs of {runs}, {report['points']} of {points}")
    return {"runs": runs, "points": points, "seconds": seconds, "cpu": cpu, "peak_bytes": peak}


def beside_arrow(folder: Path, work: Path, runs: int, points: int, rounds: int) -> dict[str, Any]:
    names = work / "names.txt"
    names.write_text("\n".join(map(str, sorted((folder / "csv").rglob("*.csv")))))
    ours, arrow = [], []
    for _ in range(rounds):
        for which in ("arrow", "ours", "arrow"):
            if which == "ours":
                ours.append(ingest(folder / "csv", work / "csv", runs, points * 3 * runs))
            else:
                done = subprocess.run(
                    [sys.executable, "-c", ARROW, names], capture_output=True, text=True, check=True
                )
                seconds, cpu, rows = map(float, done.stdout.split())
                if rows != runs * points:
                    sys.exit(f"error: pyarrow read {rows} rows of {runs * points}")
                arrow.append((seconds, cpu))
    best = min(item["seconds"] for item in ours)
    reader = min(seconds for seconds, _ in arrow)
    return {
        "files": runs,
        "ours_s": best,
        "arrow_s": reader,
        "ours_cpu_s": min(item["cpu"] for item in ours),
        "arrow_cpu_s": min(cpu for _, cpu in arrow),
        "speed": reader / best,
    }


def read_curves(archive: Path, runs: int, points: int) -> dict[str, float]:
    """Read one series of all runs in bulk, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BATCHES, str(archive), "train/loss"],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, cpu, peak, found, read = map(float, done.stdout.split())
    if (found, read) != (runs, runs * points):
        sys.exit(f"error: {found:.0f} runs of {runs}, {read:.0f} points of {runs * points}")
    return {"runs": runs, "seconds": seconds, "cpu": cpu, "peak_bytes": peak}


def expected(count: dict[str, int], points: int) -> int:
    return sum(number * SERIES[kind] * points for kind, number in count.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=2_000)
    parser.add_argument("--scale", type=int, nargs="*", default=[])
    parser.add_argument(
        "--scale-formats", nargs="*", choices=list(MIX), help="formats of --scale; default: all"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    options = parser.parse_args()
    result: dict[str, Any] = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]}

    def say(text: str) -> None:
        if not options.json:
            print(f"{text}   [load {os.getloadavg()[0]:.1f}]", flush=True)

    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        work = Path(temporary)
        logs = work / "logs"
        count = write_logs(logs, options.runs, options.points)
        beside = beside_arrow(logs, work, count["csv"], options.points, options.rounds)
        result["csv"] = beside
        say(
            f"CSV part, {beside['files']:,} files: {beside['ours_s']:.1f} s, pyarrow alone "
            f"{beside['arrow_s']:.1f} s: {beside['speed']:.2f} of its speed (target 0.5); CPU "
            f"{beside['ours_cpu_s']:.1f} s and {beside['arrow_cpu_s']:.1f} s"
        )
        whole = ingest(logs, work / "all", options.runs, expected(count, options.points))
        result["all"] = whole
        say(
            f"all {options.runs:,} runs: {whole['seconds']:.1f} s, CPU {whole['cpu']:.1f} s, "
            f"{whole['points'] / whole['seconds'] / 1e6:.2f} M points/s, peak "
            f"{whole['peak_bytes'] / 1e6:.0f} MB (target 1000)"
        )
        for name, arguments in (("table", ()), ("json", ("--json",))):
            timings = [command("runs", str(work / "all"), *arguments)[:2] for _ in range(3)]
            result[f"list_{name}_s"], cpu = min(timings)
            say(f"planner runs, {name}: {min(timings)[0]:.2f} s (target 1), CPU {cpu:.2f} s")
        bulk = read_curves(work / "all", options.runs, options.points)
        result["bulk"] = bulk
        say(
            f"training losses of all runs in bulk: {bulk['seconds']:.2f} s (target 5), CPU "
            f"{bulk['cpu']:.2f} s, peak {bulk['peak_bytes'] / 1e6:.0f} MB"
        )
        again = command("ingest", str(logs), "-o", str(work / "all"), "--json")
        result["again_s"] = again[0]
        say(f"ingest again, nothing new: {again[0]:.1f} s, CPU {again[1]:.1f} s")
        shutil.rmtree(logs)
        shutil.rmtree(work / "all")
        result["scale"] = [whole]
        for runs in options.scale:
            mix = {kind: MIX[kind] for kind in options.scale_formats or MIX}
            count = write_logs(logs, runs, options.points, mix)
            item = ingest(logs, work / "all", runs, expected(count, options.points))
            item["list_s"] = min(command("runs", str(work / "all"))[0] for _ in range(2))
            item["bulk"] = read_curves(work / "all", runs, options.points)
            result["scale"].append(item)
            say(
                f"{runs:,} runs: {item['seconds']:.1f} s, CPU {item['cpu']:.1f} s "
                f"({item['cpu'] / runs * 1e3:.2f} ms a run), peak "
                f"{item['peak_bytes'] / 1e6:.0f} MB, list {item['list_s']:.2f} s, losses in bulk "
                f"{item['bulk']['seconds']:.2f} s, peak {item['bulk']['peak_bytes'] / 1e6:.0f} MB"
            )
            shutil.rmtree(logs)
            shutil.rmtree(work / "all")
    if options.json:
        print(json.dumps(result, indent=1))
    missed = []
    if beside["speed"] < 0.5:
        missed.append(f"CSV at {beside['speed']:.2f} of pyarrow's speed, wanted 0.5")
    if whole["peak_bytes"] >= 1e9:
        missed.append(f"a peak of {whole['peak_bytes'] / 1e6:.0f} MB, wanted below 1000")
    if result["list_table_s"] >= 1:
        missed.append(f"a list in {result['list_table_s']:.2f} s, wanted below 1")
    if bulk["seconds"] >= 5:
        missed.append(f"curves in bulk in {bulk['seconds']:.2f} s, wanted below 5")
    for text in missed:
        print(f"missed: {text}", file=sys.stderr)
    if options.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
