"""How long it takes to render a thousand runs, for every target: below 2 s is promised.

    python benchmarks/render.py [--runs 1000] [--rounds 3] [--target NAME ...] [--json] [--check]

A family of 1,000 runs is compiled once. For every target it is rendered in memory, then rendered
and written to a temporary folder, each in several rounds of which the fastest counts; beside each
time stands the CPU time, which a busy machine changes least. `--check` fails if a target takes
longer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planner.compile import compile_plan
from planner.errors import PlannerError
from planner.plan import Plan
from planner.render import render, render_plan, target_names
from planner.spec import parse_spec

LIMIT = 2.0
ENV = "TRAIN_DATA_DIR=/data MEGATRON_LM_DIR=/opt/Megatron-LM"
# What a launcher cannot do without.
OPTIONS: dict[str, dict[str, Any]] = {
    "kubernetes": {"image": "registry/trainer:1", "env": ENV},
    "skypilot": {"env": ENV},
}


def family(runs: int) -> Plan:
    """Return a plan of small models: sizes of growing width at twenty budgets each."""
    sizes = [
        {"name": f"s{number:03}", "d_model": 64 * (1 + number), "n_layers": 4, "head_dim": 64}
        for number in range(-(-runs // 20))
    ]
    spec = {
        "family": "thousand",
        "tpp": [10 + number for number in range(20)],
        "sizes": sizes,
        "architecture": {
            "vocab_size": 32000,
            "context": 512,
            "activation": "silu",
            "gated": True,
            "position": "rope",
            "norm": "rmsnorm",
        },
        "parametrization": {"kind": "mup", "base_width": 64},
        "timescale": {"value": 0.2},
        "batch": {"value": "64 sequences"},
        "optimizer": {"eps": 1e-16, "eps_mode": "negligible"},
    }
    return compile_plan(parse_spec(json.dumps(spec), "thousand.yaml"))


def fastest(rounds: int, work: Callable[[int], object]) -> tuple[float, float]:
    """Return the least seconds and the least CPU seconds of several rounds."""
    times = []
    for number in range(rounds):
        begin, cpu = time.perf_counter(), time.process_time()
        work(number)
        times.append((time.perf_counter() - begin, time.process_time() - cpu))
    return min(wall for wall, _ in times), min(cpu for _, cpu in times)


def measure(plan: Plan, target: str, rounds: int) -> dict[str, Any]:
    """Return what one target takes, or why it cannot run the family."""
    options = OPTIONS.get(target.partition("+")[2], {})
    try:
        files = render(plan, target, options).files
    except PlannerError as error:
        return {"target": target, "refused": str(error)}
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = fastest(rounds, lambda _: render(plan, target, options))
        written, written_cpu = fastest(
            rounds, lambda n: render_plan(plan, target, Path(folder) / str(n), options=options)
        )
    return {
        "target": target,
        "files": len(files),
        "megabytes": sum(len(text.encode()) for text in files.values()) / 1e6,
        "render": {"seconds": wall, "cpu_seconds": cpu},
        "render_and_write": {"seconds": written, "cpu_seconds": written_cpu},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", action="append", default=None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    plan = family(asked.runs)
    found = [measure(plan, name, asked.rounds) for name in asked.target or target_names()]
    load = os.getloadavg()[0]
    if asked.json:
        print(json.dumps({"runs": len(plan.runs), "load": load, "targets": found}, indent=1))
    else:
        print(
            f"{len(plan.runs)} runs, {load:.1f} processes wanted the CPU on {os.cpu_count()} cores"
        )
        for item in found:
            if "refused" in item:
                print(f"{item['target']:<20} refused: {item['refused']}")
                continue
            both = (item["render"], item["render_and_write"])
            times = ", ".join(f"{t['seconds']:.2f} s ({t['cpu_seconds']:.2f} s CPU)" for t in both)
            size = f"{item['files']:>5} files {item['megabytes']:5.1f} MB"
            print(f"{item['target']:<20} {size}: {times}")
    slow = [item for item in found if item.get("render", {}).get("seconds", 0.0) > LIMIT]
    return 1 if asked.check and slow else 0


if __name__ == "__main__":
    sys.exit(main())
