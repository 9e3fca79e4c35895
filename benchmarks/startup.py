"""How long the command takes, as a whole process.

    python benchmarks/startup.py [--rounds N] [--json] [--check]

Measures `planner --help` (target 0.3 s) and `planner plan` of the Celerity family, five sizes by
three bands (target 0.5 s), beside a bare `python -c pass` in the same interleaved rounds, so that
a slow or busy machine shows in the same table. Each run is also checked for what it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLANNER = str(Path(sys.executable).parent / "planner")


@dataclass(frozen=True)
class Case:
    name: str
    command: tuple[str, ...]
    target_s: float | None = None
    expect: str = ""


@dataclass(frozen=True)
class Timing:
    name: str
    rounds: int
    median_s: float
    min_s: float
    max_s: float
    iqr_s: float
    target_s: float | None
    within: bool | None


def cases(example: Path) -> list[Case]:
    return [
        Case("python -c pass", (sys.executable, "-c", "pass")),
        Case("planner --help", (PLANNER, "--help"), 0.3, "plan"),
        Case(f"planner plan {example.name}", (PLANNER, "plan", str(example)), 0.5, "TPP"),
    ]


def run_once(case: Case, cwd: str) -> float:
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "160"}
    start = time.perf_counter()
    done = subprocess.run(
        case.command, cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0 or case.expect.lower() not in done.stdout.lower():
        sys.exit(
            f"error: {case.name!r} exited with {done.returncode} and did not print "
            f"{case.expect!r}:\n{done.stdout[-500:]}{done.stderr[-1500:]}"
        )
    return seconds


def measure(cases: list[Case], rounds: int) -> list[Timing]:
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory() as cwd:
        for case in cases:
            run_once(case, cwd)  # once unmeasured: byte code is compiled, files are in memory
        for _ in range(rounds):
            for case in cases:
                seconds[case.name].append(run_once(case, cwd))
    timings = []
    for case in cases:
        times = seconds[case.name]
        median = statistics.median(times)
        quartiles = statistics.quantiles(times, n=4)
        timings.append(
            Timing(
                name=case.name,
                rounds=rounds,
                median_s=median,
                min_s=min(times),
                max_s=max(times),
                iqr_s=quartiles[2] - quartiles[0],
                target_s=case.target_s,
                within=None if case.target_s is None else median <= case.target_s,
            )
        )
    return timings


def table(timings: list[Timing]) -> str:
    lines = [f"{'whole process':32} {'median':>8} {'min':>8} {'max':>8} {'IQR':>8} {'target':>8}"]
    for t in timings:
        target = "" if t.target_s is None else f"{t.target_s:.1f} s"
        verdict = {None: "", True: "  met", False: "  MISSED"}[t.within]
        numbers = "".join(f"{x * 1e3:6.0f} ms" for x in (t.median_s, t.min_s, t.max_s, t.iqr_s))
        lines.append(f"{t.name:32}{numbers} {target:>8}{verdict}")
    lines.append(
        f"{timings[0].rounds} interleaved rounds, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {platform.machine()}"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15, help="at least 2 (default: 15)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "celerity.yaml")
    options = parser.parse_args()
    timings = measure(cases(options.spec.resolve()), max(2, options.rounds))
    if options.json:
        print(json.dumps([asdict(t) for t in timings], indent=2))
    else:
        print(table(timings))
    return int(options.check and any(t.within is False for t in timings))


if __name__ == "__main__":
    sys.exit(main())
