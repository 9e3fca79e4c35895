"""The kernel against its peers, in the same process and the same interleaved rounds.

    python benchmarks/kernel [WORKLOAD ...] [--quick] [--rounds N] [--json FILE] [--check]
    python benchmarks/kernel --quality N    # W2: objectives of N curves against SciPy
    python benchmarks/kernel --flat         # time and memory from 100 to 100,000 curves

Work per core-second: what a call did, over the CPU time of the whole process, all threads. Every
round runs every case once, in a new random order. The table gives the median and the quartile
spread over the rounds; a ratio is the median of the ratios within a round, ours over the peer's.
"""

from __future__ import annotations

import os

# Set before NumPy and others are imported: one thread each, so that no idle thread spins.
for _name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "POLARS_MAX"):
    os.environ.setdefault(
        f"{_name}_NUM_THREADS" if _name != "POLARS_MAX" else f"{_name}_THREADS", "1"
    )
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import argparse
import gc
import importlib
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from case import OURS, Case, Goal, Program, peers

WORKLOADS = sorted(path.stem for path in HERE.glob("w[0-9]*.py"))
# These time starts and refits on subsets of their own.
PROGRAMS = ("w2", "w3", "w6")
# Targets are stated for AVX-512; what part of them is demanded of a lower level.
SHARE = {"avx512": 1.0, "avx2": 0.6}


@dataclass(frozen=True)
class Row:
    name: str
    peer: str
    unit: str
    per_core_second: float
    spread: float  # interquartile range over the median
    milliseconds: float  # CPU time of one call
    ratio: float | None  # ours over this peer
    target: float | None
    met: bool | None
    checks: str
    check: float
    limit: float | None
    check_met: bool | None
    rounds: int


def seconds_of(run: Callable[[], Any], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


def measure(cases: list[Case], rounds: int, least: float, longest: float) -> list[Row]:
    """Time the cases of one task. `least` seconds a sample; few rounds for calls past `longest`."""
    checks, calls, wanted = {}, {}, {}
    for case in cases:
        checks[case.peer] = case.check(case.run())  # also compiles, and brings data into memory
        once = seconds_of(case.run, 1)
        calls[case.peer] = max(1, math.ceil(least / max(once, 1e-7)))
        wanted[case.peer] = rounds if once < longest else min(rounds, 3)
    times: dict[str, list[float]] = {case.peer: [] for case in cases}
    shuffled = random.Random(0)
    gc.disable()
    for at in range(rounds):
        for case in shuffled.sample(cases, len(cases)):
            if at < wanted[case.peer]:
                times[case.peer].append(seconds_of(case.run, calls[case.peer]))
    gc.enable()

    ours = next((case for case in cases if case.peer == OURS), None)
    rows = []
    for case in cases:
        mine = times[case.peer]
        median = statistics.median(mine)
        quartiles = statistics.quantiles(mine, n=4) if len(mine) > 1 else [median] * 3
        ratio = None
        if ours is not None and case is not ours:
            ratio = statistics.median(
                (theirs / case.units) / (own / ours.units)
                for theirs, own in zip(mine, times[OURS], strict=False)
            )
        check = checks[case.peer]
        rows.append(
            Row(
                name=case.name,
                peer=case.peer,
                unit=case.unit,
                per_core_second=case.units / median,
                spread=(quartiles[2] - quartiles[0]) / median,
                milliseconds=1e3 * median,
                ratio=ratio,
                target=case.target,
                met=None if case.target is None or ratio is None else ratio >= case.target,
                checks=case.checks,
                check=check,
                limit=case.limit,
                check_met=None if case.limit is None else check <= case.limit,
                rounds=len(mine),
            )
        )
    return rows


def number(x: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.3g} {suffix}"
    return f"{x:.3g} "


def table(rows: list[Row]) -> str:
    lines = []
    for at, row in enumerate(rows):
        if at == 0 or rows[at - 1].name != row.name:
            lines += [
                "",
                f"{row.name} (check: {row.checks})",
                f"  {'':34} {'per core-second':>22} {'spread':>7} {'call':>10} {'ours is':>9} "
                f"{'target':>8} {'check':>10}",
            ]
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}x"
        target = "" if row.target is None else f"{row.target:g}x{' ok' if row.met else ' NO'}"
        check = "" if math.isnan(row.check) else f"{row.check:.2g}"
        check += " TOO LARGE" if row.check_met is False else ""
        lines.append(
            f"  {row.peer:34} {number(row.per_core_second) + row.unit:>22} {row.spread:7.1%} "
            f"{row.milliseconds:7.3g} ms {ratio:>9} {target:>8} {check:>10}"
        )
    return "\n".join(lines)


def without_nan(value: Any) -> Any:
    """JSON has no word for what was not measured but null."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, str]:
    from planner import _core

    cpu = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return {
        "cpu": cpu,
        "cpus": str(os.cpu_count()),
        "simd": _core.simd_level(),
        "compiler": _core.compiler(),
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks/kernel", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=" ".join(WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="under two minutes: less of each")
    parser.add_argument("--rounds", type=int, help="default: 9, quick 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument(
        "--quality", type=int, metavar="N", help="only: W2's objectives of N curves against SciPy"
    )
    parser.add_argument(
        "--flat", action="store_true", help="only: time and memory from 100 to 100,000 curves"
    )
    options = parser.parse_args()
    if options.quality or options.flat:
        arguments = ["w2.py", "--quality", str(options.quality)] if options.quality else ["flat.py"]
        return subprocess.run([sys.executable, str(HERE / arguments[0]), *arguments[1:]]).returncode
    unknown = set(options.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"unknown workload {min(unknown)}; there are {', '.join(WORKLOADS)}.")
    rounds = max(1, options.rounds or (3 if options.quick else 9))
    least, longest = (0.02, 0.5) if options.quick else (0.1, 5.0)

    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    rows: list[Row] = []
    chosen = options.workloads or WORKLOADS
    for workload in [each for each in chosen if each not in PROGRAMS]:
        cases: list[Case] = importlib.import_module(workload).cases(options.quick)
        for name in dict.fromkeys(case.name for case in cases):
            done = measure([c for c in cases if c.name == name], rounds, least, longest)
            print(table(done), flush=True)
            rows += done
    goals = [Goal(r.name, r.peer, r.ratio, r.target) for r in rows if r.target and r.ratio]
    programs: dict[str, list[dict[str, Any]]] = {}
    for workload in [each for each in chosen if each in PROGRAMS]:
        print(f"\n{workload}", flush=True)
        program: Program = importlib.import_module(workload).program(options.quick)
        programs[workload] = program.rows
        goals += program.goals
    for name, reason in peers.skipped.items():
        print(f"\nskipped {name}: {reason}")
    wrong = [
        f"{row.name}, {row.peer}: {row.checks} {row.check:.2g}"
        for row in rows
        if row.check_met is False
    ]
    share = SHARE.get(about["simd"], 0.0)
    goals = [replace(goal, target=share * goal.target) for goal in goals if share]
    missed = [goal for goal in goals if not goal.met]
    print(f"\n{len(goals) - len(missed)} targets met, {len(missed)} missed", end="")
    print("" if share == 1.0 else f", at {share:g} of those in the tables for {about['simd']}")
    for goal in missed:
        print(f"  {goal.name}, {goal.peer}: {goal.ratio:.3g}x, wanted {goal.target:g}x")
    for each in wrong:
        print(f"  {each}: too large")
    if options.json:
        result = {
            "machine": about,
            "quick": options.quick,
            "skipped": peers.skipped,
            "rows": [asdict(row) for row in rows],
            "programs": programs,
            "targets": [{**asdict(goal), "met": goal.met} for goal in goals],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(without_nan(result), indent=1, allow_nan=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(options.check and bool(missed or wrong))


if __name__ == "__main__":
    sys.exit(main())
