"""Small families for the trainer's tests, compiled as a user's are."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from planner.compile import compile_plan
from planner.plan import Plan, Run
from planner.spec import parse_spec
from planner.train.config import Job, Settings
from planner.train.corpus import Text, prepare

SMALL = {"name": "small", "d_model": 32, "n_layers": 2, "head_dim": 16}
ARCHITECTURE = {
    "vocab_size": 256,
    "context": 16,
    "ffn_multiplier": 2,
    "activation": "relu2",
    "position": "alibi",
}
COMPLETEP = {
    "kind": "completep",
    "base_width": 16,
    "base_depth": 1,
    "base_lr": 0.01,
    "init_std": 0.05,
    "input_multiplier": 3.0,
    "output_multiplier": 2.0,
}


def family(
    *sizes: dict[str, Any],
    architecture: dict[str, Any] | None = None,
    parametrization: dict[str, Any] | None = None,
    **changes: Any,
) -> Plan:
    """Return the plan of a family that is small in all but what is changed."""
    spec = {
        "family": "tiny",
        "tpp": 1,
        "sizes": list(sizes) or [SMALL],
        "architecture": {**ARCHITECTURE, **(architecture or {})},
        "parametrization": {**COMPLETEP, **(parametrization or {})},
        "timescale": {"value": 0.2},
        "batch": {"value": "8 sequences"},
        "optimizer": {"eps": 1e-8},
        "precision": "fp32",
        **changes,
    }
    return compile_plan(parse_spec(json.dumps(spec), "tiny.yaml"))


def only(plan: Plan) -> Run:
    """Return the plan's one run."""
    (run,) = plan.runs
    return run


def job(plan: Plan, run: str | None = None, **settings: Any) -> Job:
    """Return the job of a run (the only one, if none is named)."""
    settings = {"threads": 1, "device": "cpu", **settings}
    chosen = only(plan) if run is None else plan.run(run)
    return Job(plan.family, plan.digest, chosen, Settings(**settings))


def make_data(folder: Path, size: int = 40_000) -> Path:
    """Return a data folder of bytes with something to learn: a noisy cycle of letters."""
    rng = np.random.default_rng(5)
    texts = folder / "texts"
    texts.mkdir(parents=True)
    for number in range(4):
        letters = (np.arange(size // 4) * (number + 1) + rng.integers(0, 3, size // 4)) % 26 + 97
        (texts / f"{number}.txt").write_bytes(letters.astype(np.uint8).tobytes())
    out = folder / "data"
    found = [Text(path.name, path) for path in sorted(texts.iterdir())]
    prepare(found, out, source="letters", validation=0.1)
    return out


def read_log(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the start lines and the step lines of a run's log, without clock times."""
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if "step" in record]
    for record in steps:
        record.pop("time")
    return [record for record in records if "step" not in record], steps


def losses(out: Path) -> list[float]:
    """Return the logged training losses."""
    return [record["loss"] for record in read_log(out)[1]]


def wait_for_lines(out: Path, count: int) -> None:
    """Wait until a run that another process trains has logged so many lines."""
    path, end = out / "log.jsonl", time.monotonic() + 300
    while not path.exists() or len(path.read_bytes().splitlines()) < count:
        assert time.monotonic() < end, "the run does not log"
        time.sleep(0.02)
