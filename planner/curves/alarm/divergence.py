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
_RISE = 0.02
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
    """

    kind: Kind
    step: int
    since: int
    evidence: str


def find_divergence(steps: Int64, values: Float64) -> list[Divergence]:
    """Return what a loss shows by itself, the first of each kind, in the order of their steps.

    Args:
        steps: Rising, shape ``(points,)``.
        values: Loss, nats; not-a-number where it was logged and is none, shape ``(points,)``.
    """
    found = [_not_finite(steps, values)]
    usable = np.isfinite(values) & (values > 0)
    at, loss = steps[usable], values[usable]
    if at.size >= _IN_A_ROW:
        logs = np.log(loss)
        level = _lowest(logs)
        found += [_lost(at, loss, logs, level), _rising(at, loss, logs, level)]
        found.append(_stalled(at, loss))
    known = [item for item in found if item is not None]
    return sorted(known, key=lambda item: (item.step, item.kind))


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


def _lost(at: Int64, loss: Float64, logs: Float64, level: Float64) -> Divergence | None:
    first = float(logs[: min(3, logs.size)].max())
    before = np.concatenate([level[:1], level[:-1]])
    learned = first - before
    back = (learned >= _LEARNED) & (logs >= before + _LOST * learned)
    where = np.flatnonzero(back)
    if not where.size:
        return None
    i = int(where[0])
    best = float(np.exp(before[i]))
    return Divergence(
        "diverged",
        int(at[i]),
        int(at[i]),
        f"the loss was {best:.3f} and is {loss[i]:.3f}: what was learned is lost",
    )


def _rising(at: Int64, loss: Float64, logs: Float64, level: Float64) -> Divergence | None:
    # the noise, from third differences, which a bent curve hardly touches
    rough = np.abs(np.diff(logs, 3)) / np.sqrt(20.0) / 0.6745
    since = 0
    for i in range(3, logs.size):
        before = float(level[since - 1]) if since else float(level[i - 1])
        above = logs[i] > before + _RISE
        if above and i > 3:
            usual = float(np.median(rough[max(0, i - 103) : i - 3]))
            above = logs[i] > before + _NOISES * usual
        if not above:
            since = 0
            continue
        if not since:
            since = i
        if i - since + 1 >= _IN_A_ROW and at[i] - at[since] >= _SHARE * at[i]:
            best, start = float(np.exp(before)), int(at[since])
            return Divergence(
                "rising",
                int(at[i]),
                start,
                f"the loss had come down to {best:.3f} and has stood above it since step "
                f"{start:,}; it is {loss[i]:.3f}",
            )
    return None


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
            )
    return None
