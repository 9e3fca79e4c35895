"""Archives of made-up runs whose laws are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.archive import Archive, ingest

Float64 = NDArray[np.float64]

TRUE_LOSS = {"E": 1.7, "A": 400.0, "B": 900.0, "alpha": 0.34, "beta": 0.31}


@dataclass
class Made:
    """One run: its curve, its facts, and the learning rate of each logged step."""

    name: str
    steps: ArrayLike
    loss: ArrayLike
    facts: dict[str, Any]
    lr: ArrayLike | None = None
    extra: dict[str, ArrayLike] = field(default_factory=dict)


def made_archive(folder: Path, runs: Sequence[Made]) -> Archive:
    """Write each run as a CSV with a sidecar, and ingest them."""
    logs = folder / "logs"
    for i, run in enumerate(runs):
        path = logs / f"{run.name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        # no two logs alike: an archive takes equal bytes for one log that lies in two places
        columns = {"step": run.steps, "loss": run.loss, "order": np.full(np.size(run.steps), i)}
        if run.lr is not None:
            columns["lr"] = run.lr
        rows = zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True)
        text = ",".join(columns) + "\n"
        text += "".join(",".join(repr(value) for value in row) + "\n" for row in rows)
        path.write_text(text)
        lines = [f"{key}: {value}" for key, value in run.facts.items()]
        path.with_name(path.name + ".planner.yaml").write_text("\n".join(lines) + "\n")
    report = ingest([str(logs)], str(folder / "archive"))
    assert not report.failed, report.failed
    return Archive(folder / "archive")


def falling(final: float, points: int = 12) -> tuple[Float64, Float64]:
    """Steps and losses of a curve that ends at a loss."""
    steps = np.linspace(100, 100 * points, points)
    return steps.astype(int), final * (1 + 0.4 * (1 - steps / steps[-1]))


def ended(name: str, final: float, **facts: Any) -> Made:
    """A finished run with a final loss."""
    steps, loss = falling(final)
    return Made(name, steps, loss, {"total_steps": int(steps[-1]), **facts})


def law_loss(n: float, d: float) -> float:
    """The final loss of the true law."""
    c = TRUE_LOSS
    return float(c["E"] + c["A"] * n ** -c["alpha"] + c["B"] * d ** -c["beta"])


def family(
    sizes: Sequence[float] = (2e7, 5e7, 1e8, 2e8, 4e8), tpps: Sequence[float] = (5, 20, 80, 320)
) -> list[Made]:
    """Runs on the true law: every size at every TPP."""
    return [
        ended(f"{n / 1e6:g}M-{tpp:g}tpp", law_loss(n, n * tpp), params=int(n), tokens=int(n * tpp))
        for n in sizes
        for tpp in tpps
    ]


def sweep(
    n: float, tpp: float, best_tau: float, taus: Sequence[float], steepness: float = 0.03
) -> list[Made]:
    """Runs whose loss is a parabola in log tau."""
    runs = []
    for tau in taus:
        final = law_loss(n, n * tpp) + steepness * np.log(tau / best_tau) ** 2
        runs.append(
            ended(
                f"{n / 1e6:g}M-{tpp:g}tpp-tau{tau:g}",
                float(final),
                params=int(n),
                tokens=int(n * tpp),
                tau=tau,
            )
        )
    return runs
