"""Curves as the surrogate's fit needs them: smoothed, normalized, on one grid of fractions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.curves.schedule import since_warmup
from planner.kernel import Ragged
from planner.kernel.smoothing import Smoother, resample
from planner.units import count_of

if TYPE_CHECKING:
    from planner.curves import Curve

Float64 = NDArray[np.float64]

SEQUENCES = 12_288
"""Window of the moving average (arXiv 2509.25087, D.1)."""
LEAST_WINDOW = 0.01
"""Of training: logs of few, noisy values need more than the sequences to tell a final loss."""
MOST_WINDOW = 0.05
"""Of training: the sequences are so much of a very short run that its shape would be gone."""
START = 0.2
"""Curves are compared from this fraction of training on (arXiv 2509.25087, section 5)."""
GRID = np.linspace(START, 1.0, 161)


@dataclass(frozen=True, slots=True)
class Sample:
    """One normalized curve on `GRID`.

    Attributes:
        run: Id.
        name: Name.
        params: N, if known.
        tau: AdamW timescale, fraction of training.
        tpp: Tokens per parameter.
        loss: Loss over final loss, not-a-number where missing, shape ``(grid,)``.
        lr: Learning rate in units of its peak, shape ``(grid,)``.
        end: Where the curve is 1: the middle of the window that the divisor is the mean of. A decay
            to zero falls steeply there, and taking it for t = 1 would bias q.
        end_lr: Learning rate there, in units of its peak.
        shape: Of the schedule, as `planner.curves.schedule.since_warmup` returns it.
    """

    run: str
    name: str
    params: float | None
    tau: float
    tpp: float
    loss: Float64
    lr: Float64
    end: float
    end_lr: float
    shape: Float64


def normalized_samples(
    curves: Sequence[Curve], *, sequences: float = SEQUENCES, threads: int | None = None
) -> tuple[list[Sample], list[str]]:
    """Return the curves that can be fitted, normalized, and sentences about the others."""
    chosen, missing = [], Counter[str]()
    for curve in curves:
        why = _unusable(curve)
        if why is None:
            chosen.append(curve)
        else:
            missing[why] += 1
    notes = [
        f"{count_of(count, 'run')} left aside: {why}" for why, count in sorted(missing.items())
    ]
    if not chosen:
        return [], notes
    finite = [np.isfinite(curve.values) for curve in chosen]
    values = Ragged.from_list([c.values[ok] for c, ok in zip(chosen, finite, strict=True)])
    times = Ragged.from_list([c.fraction[ok] for c, ok in zip(chosen, finite, strict=True)])
    points = np.array([_window(curve, sequences) for curve in chosen])
    smoother = Smoother.by_steps(points, centred=True)
    divisors = np.array(
        [float(v[-max(int(n), 1) :].mean()) for v, n in zip(values, points, strict=True)]
    )
    found = resample(
        values, GRID, smoother, positions=times, divisors=divisors, threads=threads
    ).values
    samples = []
    for curve, loss, t, window in zip(chosen, found, times, points, strict=True):
        assert curve.schedule is not None
        count = max(int(window), 1)
        end = float(t[-count:].mean())
        # further on, windows are not centred any more
        last = float(t[-1 - (count - 1) // 2]) if count <= t.size else end
        loss = np.where(last + 1e-9 < GRID, np.nan, loss)
        samples.append(
            Sample(
                run=curve.facts.run,
                name=curve.facts.name,
                params=float(curve.facts.params) if curve.facts.params else None,
                tau=float(curve.facts.tau or 0),
                tpp=float(curve.facts.tpp or 0),
                loss=loss,
                lr=curve.schedule.at(GRID),
                end=end,
                end_lr=float(curve.schedule.at(end)),
                shape=since_warmup(curve.schedule),
            )
        )
    return samples, notes


def _unusable(curve: Curve) -> str | None:
    if not curve.finished:
        return "unfinished" if curve.horizon is not None else "of unknown length"
    if np.isfinite(curve.values).sum() < 10:
        return "fewer than 10 points"
    if not np.isfinite(curve.values[-1]) or not curve.values[-1] > 0:
        return "without a finite final loss"
    if curve.values[-1] > 1.2 * float(np.nanmin(curve.values)):
        return "diverged: the loss ended far above its lowest"
    for known, what in (
        (curve.schedule, "schedule"),
        (curve.facts.tau, "tau"),
        (curve.facts.tpp, "TPP"),
    ):
        if not known:
            return f"unknown {what}"
    assert curve.schedule is not None
    return None if curve.schedule.covers(1.0) else "the schedule is known in part only"


def _window(curve: Curve, sequences: float) -> float:
    """Return the points of the moving average."""
    horizon = float(curve.horizon or curve.steps[-1])
    steps = LEAST_WINDOW * horizon
    facts = curve.facts
    if facts.batch_tokens and facts.seq_len:
        steps = max(steps, sequences / (facts.batch_tokens / facts.seq_len))
    steps = min(steps, MOST_WINDOW * horizon)
    return max(round(steps / max(curve.every, 1.0)), 1)
