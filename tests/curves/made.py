"""Made-up curves of known shape, and where the recorded ones lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planner.archive import Archive
from planner.archive.store import Stored, bucket_of
from planner.curves import Curve, RunFacts, Schedule, declared_schedule

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny-family"


def tiny_family() -> list[str]:
    """The logs of the recorded family without its sweeps of tau, and its plan."""
    logs = ("*tpp.jsonl.gz", "*tpp-[cdfs]*.jsonl.gz")
    return [*(str(TINY / "runs" / name) for name in logs), str(TINY / "plan.json")]


def shape(t: np.ndarray[Any, Any], bend: float = 0.15) -> np.ndarray[Any, Any]:
    """A normalized loss curve: 1 at the end."""
    raw = (t + 0.01) ** -bend * (1.0 + 0.08 * (1.0 - t))
    return np.asarray(raw / ((1.01) ** -bend))


def curve(
    name: str = "run",
    *,
    params: int | None = 100_000_000,
    steps: int = 1000,
    every: int = 1,
    final: float = 3.0,
    bend: float = 0.15,
    noise: float = 0.0,
    seed: int = 0,
    until: float = 1.0,
    schedule: Schedule | None = None,
    warmup: int | None = 20,
    extra: Any = None,
    **facts: Any,
) -> Curve:
    """A run; `extra` is added to the log loss, a function of the fraction of training."""
    at = np.arange(every, int(steps * until) + 1, every)
    t = at / steps
    logs = np.log(final * shape(t, bend))
    logs += np.random.default_rng(seed).normal(0.0, noise, at.size) if noise else 0.0
    if extra is not None:
        logs = logs + extra(t)
    schedule = schedule or declared_schedule("linear-to-zero", warmup_fraction=0.02)
    known = {"tpp": 20.0, "tau": 0.2, "warmup_steps": warmup, "total_steps": steps} | facts
    return Curve(
        RunFacts(name, name, params=params, **known),
        "train/loss",
        at,
        np.exp(logs),
        steps,
        schedule,
        float(every),
        (np.zeros(0, np.int64), np.zeros(0)),
    )


def archived(
    curves: Sequence[Curve], folder: Path, more: Mapping[str, dict[str, Any]] | None = None
) -> Archive:
    """Write curves into an archive as if their logs had been read; `more` fields by run."""
    archive = Archive.create(folder)
    for made in curves:
        facts = made.facts
        unit = hashlib.sha256(facts.run.encode()).hexdigest()
        points = int(made.steps.size)
        series = {
            "name": made.metric,
            "logged_as": "loss",
            "source": facts.name,
            "points": points,
            "nonfinite": 0,
            "duplicates": 0,
            "superseded": 0,
            "first_step": int(made.steps[0]),
            "last_step": int(made.steps[-1]),
            "first": float(made.values[0]),
            "last": float(made.values[-1]),
        }
        lists = ("boundaries", "unknown", "notes", "sources", "readers", "content", "sizes")
        row: dict[str, Any] = {
            **{name: [] for name in lists},
            "run": facts.run,
            "name": facts.name,
            "unit": unit,
            "settings": "",
            "params": facts.params,
            "tpp": facts.tpp,
            "tau": facts.tau,
            "points": points,
            "total_steps": facts.total_steps,
            "warmup_steps": facts.warmup_steps,
            "schedule": "linear-to-zero",
            "parent_run": facts.parent,
            "branch_step": facts.branch_step,
            "policy": "{}",
            "origins": "{}",
            "config": "{}",
            "series": [series],
            **(more or {}).get(facts.run, {}),
        }
        stored = Stored(row, made.steps.astype(np.int64), None, made.values, None)
        archive.update(bucket_of(unit), {unit: lambda _, one=stored: [one]})
    return archive
