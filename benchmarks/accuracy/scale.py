"""How long, and in how much memory, thousands of runs are scored from the archive."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from accuracy.section import Section, Table, Target
from made_archive import make, sick

# runs and points; the largest of fewer points, so that making it does not take ten minutes
ARCHIVES = ((1_000, 2_000), (10_000, 2_000), (10_000, 200), (100_000, 200))
SECONDS = 10.0  # for 10,000 runs
MEMORY = 7e3  # bytes for each further run, all objects and the interpreter's slack counted
LINEAR = 1.3  # cost a run at 100,000, over that at 10,000

TEXT = """`planner score ARCHIVE --json`, from the start of the process to the end of the document,
on archives of made-up runs (`benchmarks/made_archive.py`: families of five
sizes and four seeds; of every hundred runs one drifts from 60 % of training on, one has a spike
that recovers). CPU time is the sum over threads: it depends less on what else the machine does than
the time by the clock, which is stated with the machine's load. Linear time and memory for each run
are measured on runs of 200 points, of which a hundred thousand are made in a minute: what is kept
of a run, 256 stretches, does not depend on its points. Below, what was said of the runs."""


def evaluate(data: Path, work: Path) -> Section:
    """Score archives of several sizes, each in a process of its own."""
    rows: list[tuple[str, ...]] = []
    verdicts: list[tuple[str, ...]] = []
    figures: dict[str, Any] = {}
    measured: dict[tuple[int, int], tuple[float, float, float]] = {}
    for runs, points in ARCHIVES:
        folder = work / f"archive{runs}x{points}"
        make(folder, runs, points)
        load = os.getloadavg()[0]
        clock, cpu, peak, document = score(folder, work / "scores.json")
        shutil.rmtree(folder)
        measured[runs, points] = clock, cpu, peak
        rows.append(
            (
                f"{runs:,}",
                f"{points:,}",
                f"{load:.1f}",
                f"{clock:.1f} s",
                f"{cpu:.1f} s",
                f"{1e3 * cpu / runs:.2f} ms",
                f"{peak / 1e6:.0f} MB",
            )
        )
        figures[f"runs_{runs}_points_{points}"] = {
            "seconds": clock,
            "cpu_seconds": cpu,
            "peak_bytes": peak,
            "load_before": load,
        }
        said = Counter(
            (sick(number(run["name"])) or "healthy", run["verdict"]) for run in document["runs"]
        )
        for truth in ("healthy", "drift", "spike"):
            counts = [said[truth, v] for v in ("healthy", "deviating", "undecidable")]
            verdicts.append(
                (f"{runs:,}", f"{points:,}", truth, *(f"{count:,}" for count in counts))
            )
    clock, cpu, _ = measured[10_000, 2_000]
    few, many = measured[10_000, 200], measured[100_000, 200]
    growth = (many[1] / 100_000) / (few[1] / 10_000)
    each = (many[2] - few[2]) / 90_000
    return Section(
        "Scale",
        TEXT,
        tables=[
            Table(("runs", "points", "load", "clock", "CPU", "CPU a run", "memory"), rows),
            Table(("runs", "points", "made", "healthy", "deviating", "undecidable"), verdicts),
        ],
        targets=[
            Target(
                "10,000 runs scored end to end",
                f"below {SECONDS:.0f} s",
                f"{clock:.1f} s by the clock, {cpu:.1f} s of CPU",
                clock < SECONDS,
            ),
            Target(
                "CPU a run at 100,000 over 10,000",
                f"at most {LINEAR:g}",
                f"{growth:.2f}",
                growth <= LINEAR,
            ),
            Target(
                "memory for each run from 10,000 to 100,000",
                f"at most {MEMORY / 1e3:g} kB",
                f"{each / 1e3:.1f} kB",
                each <= MEMORY,
            ),
        ],
        figures=figures,
    )


def number(name: str) -> int:
    """Return which of the made-up runs has a name."""
    family, size, seed = name.split("/")
    sizes = {"100M": 0, "200M": 1, "400M": 2, "800M": 3, "1600M": 4}
    return int(family.removeprefix("family")) * 20 + sizes[size] * 4 + int(seed)


def score(folder: Path, output: Path) -> tuple[float, float, float, dict[str, Any]]:
    """Return seconds by the clock and of CPU, the largest memory in bytes, and the document."""
    command = [sys.executable, "-c", "from planner.cli.main import main; main()", "score"]
    begin = time.perf_counter()
    with open(output, "wb") as stream:
        process = subprocess.Popen(
            [*command, str(folder), "--json"], stdout=stream, env={**os.environ}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    clock = time.perf_counter() - begin
    if process.returncode not in (0, 1):
        raise RuntimeError(f"planner score ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return (
        clock,
        usage.ru_utime + usage.ru_stime,
        _peak(usage) * unit,
        json.loads(output.read_text()),
    )


def _peak(usage: resource.struct_rusage) -> float:
    return float(usage.ru_maxrss)
