"""What needs no reference: a loss that is no number, that blows up, rises, or never falls.

The rules are absolute: they look at a run alone, at any metric that is a loss in nats, and each is
judged from the points up to its own step. They are conservative, because a healthy loss may jump
for a hard batch, stay up for hundreds of steps after a spike, and stand still while the learning
rate is constant: what they leave open is what a reference is for.

- **not finite**: three logged values in a row are missing or infinite.
- **diverged**: what the run had learned is lost: the loss is back to within a tenth of the log loss
  that it had lost since its first value.
- **rising**: the loss has stood above the lowest level reached before, by 2 % and four times its
  noise, for a tenth of all steps so far, without a break.
- **stalled**: after 1,000 steps a subword language model still has more than 6.5 nats a token, and
  has gained less than 5 % since half its steps. Only where the first loss was above 8 nats: other
  metrics have other scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

Kind = Literal["not finite", "diverged", "rising", "stalled"]

# Measured on the shared runs (benchmarks/accuracy/detection.py counts alarms on all of them):
# stalled runs stay above 6.76 nats; healthy ones that are slower still fall by 16 % and more.
STALL_LEVEL = 6.5
STALL_GAIN = 0.05
STALL_STEPS = 1000
_SUBWORD_START = 8.0
LEAST_RISE = 0.02  # of log loss
_NOISES = 4.0
_SHARE = 0.1
_LOST = 0.9
_LEARNED = 0.4  # of log loss, before "lost" means anything
_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Divergence:
    """A run that is sick by itself.

    Attributes:
        kind: See this module.
        step: At which it was called.
        since: Step since which it has been so.
        evidence: One sentence.
        bar: Loss above which the rule holds, nats; not-a-number for ``not finite``.
    """

    kind: Kind
    step: int
    since: int
    evidence: str
    bar: float = float("nan")


def find_divergence(steps: Int64, values: Float64) -> list[Divergence]:
    """Return what a loss shows by itself, the first of each kind, in the order of their steps.

    Args:
        steps: Rising, shape ``(points,)``.
        values: Loss, nats; not-a-number where it was logged and is none, shape ``(points,)``.
    """
    first: dict[Kind, Divergence] = {}
    for item in all_divergences(steps, values):
        if item.kind not in first or item.step < first[item.kind].step:
            first[item.kind] = item
    return sorted(first.values(), key=lambda item: (item.step, item.kind))


def all_divergences(steps: Int64, values: Float64) -> Iterator[Divergence]:
    """Yield what `find_divergence` finds, and each time that the run rose or was lost again."""
    bad = _not_finite(steps, values)
    if bad is not None:
        yield bad
    usable = np.isfinite(values) & (values > 0)
    at, loss = steps[usable], values[usable]
    if at.size >= _IN_A_ROW:
        logs = np.log(loss)
        level = _lowest(logs)
        yield from _lost(at, loss, logs, level)
        yield from _rising(at, loss, logs, level)
        stalled = _stalled(at, loss)
        if stalled is not None:
            yield stalled


def _not_finite(steps: Int64, values: Float64) -> Divergence | None:
    bad = ~np.isfinite(values)
    run = 0
    for i in np.flatnonzero(bad).tolist():
        run = run + 1 if run and bad[i - 1] else 1
        if run >= _IN_A_ROW:
            since = int(steps[i - run + 1])
            return Divergence(
                "not finite", int(steps[i]), since, f"the loss is not finite since step {since:,}"
            )
    return None


def _lowest(logs: Float64) -> Float64:
    """Return the lowest level reached up to each point: of medians of three, against outliers."""
    if logs.size < 3:
        return np.minimum.accumulate(logs)
    middle = np.median(np.stack([logs[:-2], logs[1:-1], logs[2:]]), axis=0)
    return np.minimum.accumulate(np.concatenate([logs[:1], logs[:1], middle]))


def _lost(at: Int64, loss: Float64, logs: Float64, level: Float64) -> Iterator[Divergence]:
    first = float(logs[: min(3, logs.size)].max())
    before = np.concatenate([level[:1], level[:-1]])
    learned = first - before
    back = (learned >= _LEARNED) & (logs >= before + _LOST * learned)
    for i in np.flatnonzero(back & ~np.concatenate([[False], back[:-1]])).tolist():
        best = float(np.exp(before[i]))
        yield Divergence(
            "diverged",
            int(at[i]),
            int(at[i]),
            f"the loss was {best:.3f} and is {loss[i]:.3f}: what was learned is lost",
            float(np.exp(before[i] + _LOST * learned[i])),
        )


def _rising(at: Int64, loss: Float64, logs: Float64, level: Float64) -> Iterator[Divergence]:
    if not _may_rise(at, logs, level):
        return
    # the noise, from third differences, which a bent curve hardly touches
    rough = np.abs(np.diff(logs, 3)) / np.sqrt(20.0) / 0.6745
    since, said = 0, False
    for i in range(3, logs.size):
        before = float(level[since - 1]) if since else float(level[i - 1])
        bar = before + LEAST_RISE
        if logs[i] > bar and i > 3:
            bar = max(bar, before + _NOISES * float(np.median(rough[max(0, i - 103) : i - 3])))
        if not logs[i] > bar:
            since, said = 0, False
            continue
        if not since:
            since = i
        if not said and i - since + 1 >= _IN_A_ROW and at[i] - at[since] >= _SHARE * at[i]:
            said = True
            best, start = float(np.exp(before)), int(at[since])
            yield Divergence(
                "rising",
                int(at[i]),
                start,
                f"the loss had come down to {best:.3f} and has stood above it since step "
                f"{start:,}; it is {loss[i]:.3f}",
                float(np.exp(bar)),
            )


def _may_rise(at: Int64, logs: Float64, level: Float64) -> bool:
    """Return whether the rule of rising can hold: it does without the noise. Spares most runs."""
    above = logs[1:] > level[:-1] + LEAST_RISE
    place = np.arange(above.size)
    since = np.maximum.accumulate(np.where(above, -1, place)) + 1
    here, start = at[1:], at[1:][np.minimum(since, above.size - 1)]
    return bool(np.any(above & (here - start >= _SHARE * here)))


def _stalled(at: Int64, loss: Float64) -> Divergence | None:
    if loss[0] < _SUBWORD_START:
        return None
    for i in np.flatnonzero(at >= STALL_STEPS).tolist():
        recent = float(np.median(loss[max(0, i - 2) : i + 1]))
        half = int(np.searchsorted(at, at[i] / 2.0, side="right"))
        if recent <= STALL_LEVEL:
            return None  # it has learned to speak
        if i < 4 or half < 1 or half > i - 1:
            continue
        earlier = float(np.median(loss[max(0, half - 2) : half + 1]))
        if recent > (1.0 - STALL_GAIN) * earlier:
            return Divergence(
                "stalled",
                int(at[i]),
                int(at[half]),
                f"after {int(at[i]):,} steps the loss is {recent:.2f} nats, and was "
                f"{earlier:.2f} at step {int(at[half]):,}: it has hardly learned",
                STALL_LEVEL,
            )
    return None
