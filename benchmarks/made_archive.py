"""An archive of made-up runs, written without logs: families, sizes, some of them sick.

    python benchmarks/made_archive.py FOLDER [--runs 10000] [--points 2000]

Every twenty runs are a family of its own tokens per parameter and tau: five sizes, four seeds.
The losses follow one normalized curve, bent a little with size, under noise correlated over a few
points. Of every hundred runs one drifts away from 60 % of training on and one has a spike.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from planner.archive import Archive
from planner.archive.store import BUCKETS, Stored, bucket_of

SIZES = (100_000_000, 200_000_000, 400_000_000, 800_000_000, 1_600_000_000)
SEEDS = 4
NOISE = 0.01


def family(number: int) -> tuple[float, float]:
    """Tokens per parameter and tau of a family."""
    return 20.0 * 1.5 ** (number % 7), 0.05 * 1.4 ** (number // 7 % 7)


def sick(number: int) -> str | None:
    """What is wrong with a run."""
    return {37: "drift", 71: "spike"}.get(number % 100)


def loss(number: int, points: int) -> np.ndarray:
    """The training loss of a run at each of its points."""
    rng = np.random.default_rng(number)
    tpp, tau = family(number // (len(SIZES) * SEEDS))
    size = SIZES[number // SEEDS % len(SIZES)]
    t = np.arange(1, points + 1) / points
    folds = np.log(size / SIZES[0])
    bend = 0.1 * (1.0 - 0.02 * folds)
    shape = -bend * np.log((t + 0.002) / 1.002) + 0.1 * tau**-0.3 * (1.0 - t) ** 1.2 * tpp**-0.1
    noise = rng.normal(0.0, NOISE, points + 2)
    shape += (noise[2:] + noise[1:-1] + noise[:-2]) / 3**0.5
    if sick(number) == "drift":
        shape += np.maximum(0.0, t - 0.6) / 0.4 * 0.05
    elif sick(number) == "spike":
        at = points // 2
        shape[at : at + points // 100] += 0.3
    return (1.7 + 400.0 * size**-0.34) * np.exp(shape)


def stored(number: int, points: int, unit: str) -> Stored:
    """A run as the archive keeps it."""
    tpp, tau = family(number // (len(SIZES) * SEEDS))
    size = SIZES[number // SEEDS % len(SIZES)]
    every = 10
    total = points * every
    values = loss(number, points)
    steps = np.arange(1, points + 1, dtype=np.int64) * every
    series = {
        "name": "train/loss",
        "logged_as": "loss",
        "source": f"made/{number}",
        "points": points,
        "nonfinite": 0,
        "duplicates": 0,
        "superseded": 0,
        "first_step": every,
        "last_step": total,
        "first": float(values[0]),
        "last": float(values[-1]),
    }
    row: dict[str, Any] = {
        "run": hashlib.sha256(f"run {number}".encode()).hexdigest()[:16],
        "name": f"family{number // (len(SIZES) * SEEDS):04d}/{size // 10**6}M/{number % SEEDS}",
        "params": size,
        "tokens": int(size * tpp),
        "batch_tokens": int(size * tpp / total),
        "seq_len": 2048,
        "total_steps": total,
        "warmup_steps": total // 100,
        "lr": 0.01,
        "weight_decay": 0.1,
        "schedule": "linear-to-zero",
        "tpp": tpp,
        "tau": tau,
        "seed": number % SEEDS,
        "metric": "train/loss",
        "final": float(values[-1]),
        "points": points,
        "first_step": every,
        "last_step": total,
        "every": float(every),
        "boundaries": [],
        "series": [series],
        "unknown": [],
        "notes": [],
        "sources": [f"made/{number}"],
        "readers": ["made/1"],
        "policy": "{}",
        "origins": "{}",
        "config": "{}",
        "unit": unit,
        "settings": "",
        "content": [],
        "sizes": [],
    }
    return Stored(row, steps, None, values, None)


def make(folder: Path, runs: int, points: int) -> Archive:
    """Write the archive, a bucket at a time."""
    archive = Archive.create(folder)
    buckets: list[dict[str, int]] = [{} for _ in range(BUCKETS)]
    for number in range(runs):
        unit = hashlib.sha256(f"unit {number}".encode()).hexdigest()
        buckets[bucket_of(unit)][unit] = number
    for bucket, units in enumerate(buckets):
        archive.update(
            bucket,
            {
                unit: lambda _, n=number, u=unit: [stored(n, points, u)]
                for unit, number in units.items()
            },
        )
    return archive


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=2000)
    given = parser.parse_args()
    make(given.folder, given.runs, given.points)
