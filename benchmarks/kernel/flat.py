"""Time per curve and memory from 100 to 100,000 curves.

    python benchmarks/kernel/flat.py [WORKLOAD ...] [--largest N] [--json FILE]

Each row is a process of its own: N curves (100 different ones, repeated) of 200 to 1000 points, all
CPUs, the default options. Time is the CPU time of the call over the curves, the median of calls
that take half a second in all. Memory is the largest resident size during the first call over the
one before it, less the arrays the call returns (Linux only, else NaN): what the call needs beyond
its input and output. It should stay the same for any N.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.kernel import Ragged
from planner.kernel.fits import fit_curves
from planner.kernel.residuals import score
from planner.kernel.smoothing import Smoother, resample

Float64 = NDArray[np.float64]
SMALLEST = 100


@dataclasses.dataclass(frozen=True)
class Row:
    workload: str
    curves: int
    points: int
    microseconds: float  # of CPU time per curve
    input_mib: float
    output_mib: float
    beyond_mib: float  # largest resident size beyond the input and the output


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process in bytes; NaN where /proc does not say."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    return float("nan")


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def bytes_of(result: Any) -> int:
    """Of all arrays in a result."""
    if isinstance(result, np.ndarray):
        return result.nbytes
    if isinstance(result, Ragged):
        return result.values.nbytes + result.offsets.nbytes
    if dataclasses.is_dataclass(result):
        return sum(bytes_of(getattr(result, f.name)) for f in dataclasses.fields(result))
    return 0


def task(workload: str, count: int) -> tuple[Callable[[], Any], int, int]:
    """The call, its points, and the bytes of its input."""
    from w2 import make_curves

    base = make_curves(SMALLEST, 7, shortest=200, longest=1000)
    times = count // SMALLEST
    y = Ragged(
        np.tile(base.y.values, times),
        np.concatenate([[0], np.cumsum(np.tile(base.y.lengths, times))]),
    )
    size = bytes_of(y)
    if workload == "w1":
        smoother, grid = Smoother.exponential(0.02), np.arange(1, 101) / 100
        return lambda: resample(y, grid, smoother, normalize=True), y.values.size, size
    if workload == "w5":
        reference = Ragged(np.tile(np.nan_to_num(base.y.values, nan=1.0), times), y.offsets)
        return lambda: score(y, reference), y.values.size, 2 * size
    x, eta = np.tile(base.x, times), np.tile(base.eta, times)
    return lambda: fit_curves(y, x, eta), y.values.size, size + x.nbytes + eta.nbytes


def one(workload: str, count: int) -> Row:
    run, points, size = task(workload, count)
    forget_peak()
    before = resident("VmRSS")
    result = run()
    beyond = resident("VmHWM") - before - bytes_of(result)
    out = bytes_of(result)
    del result
    taken: list[float] = []
    while not taken or (sum(taken) < 0.5 and len(taken) < 200):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    mib = 2.0**20
    return Row(
        workload,
        count,
        points,
        1e6 * statistics.median(taken) / count,
        size / mib,
        out / mib,
        beyond / mib,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="w1 w2 w5")
    parser.add_argument("--largest", type=int, default=100_000, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(dataclasses.asdict(one(options.workloads[0], options.one))))
        return 0
    rows = []
    print("     curves    points  us of CPU/curve   input MiB  output MiB  beyond both MiB")
    for workload in options.workloads or ["w1", "w2", "w5"]:
        count = SMALLEST
        while count <= options.largest:
            command = [sys.executable, __file__, workload, "--one", str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = Row(**json.loads(done.stdout))
            rows.append(row)
            print(
                f"{workload} {row.curves:8} {row.points:9} {row.microseconds:16.2f} "
                f"{row.input_mib:11.1f} {row.output_mib:11.1f} {row.beyond_mib:16.1f}",
                flush=True,
            )
            count *= 10
    if options.json:
        options.json.write_text(
            json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n",
            encoding="utf-8",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
