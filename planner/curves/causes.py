"""What a deviation may come from, told from the shape of the residual.

Each cause has templates: how it would bend the residual of a run whose level is free. The residual
is regressed on each, weighted with what noise and the reference's own uncertainty leave of it, and
the causes share the weight by how much of it they explain: n/2 log(1 / unexplained share), less
log(n)/2 for each number that was fitted or searched (BIC). A template is only nearly right, so that
what it leaves is no independent noise: n is 16 at most, however many points there are.

- *tau mismatch*: the learning-rate term (eta + eps2)^q of the surrogate (arXiv 2509.25087 Eq. 4)
  gains or loses weight, with or without what a larger rate does early, a power of time.
- *TPP mismatch*: a power of time alone.
- *LR schedule mismatch*: that term under another schedule less the reference's.
- *warmup mismatch*: a shift in time, the slope of the reference.
- *restart or data switch*: a sudden step, which may fade; at a restart of the log, it is likelier.
- *numerics drift*: a rise from some fraction of training on.

What is known of a run counts too: a schedule, warm-up, TPP or tau that its log shows to be the
reference's is hardly what differs; one that it shows to differ is likely to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import RunFacts
from planner.curves.reference import GRID, Reference
from planner.curves.schedule import Schedule, declared_schedule
from planner.curves.verdict import Cause
from planner.laws.surrogate import EPS2

Float64 = NDArray[np.float64]

TAU = "tau mismatch"
TPP = "TPP mismatch"
SCHEDULE = "LR schedule mismatch"
WARMUP = "warmup mismatch"
RESTART = "restart or data switch"
DRIFT = "numerics drift"

# Log odds that a fact adds: what a log shows to differ is likely to matter, what it shows to be
# equal can matter only where the log is wrong.
_DIFFERS, _EQUAL = 4.0, -4.0
_FROM = 0.03
_INDEPENDENT = 16
_LEAST = 8
_LEAST_WEIGHT = 0.02
# What a reference's log curve is uncertain by, as a share of it, besides noise
_SHAPE = 0.02
# q of the surrogate lies in 0.1 to 1 (FACTS A6); beyond, templates resemble each other
_EXPONENTS = (0.5, 1.0)
_POWER = 0.3
_STEP, _NEAR = 0.02, 0.03


@dataclass(frozen=True, eq=False, slots=True)
class Deviation:
    """A run's residual, and what is known of it.

    Attributes:
        time: Fractions of training, rising, shape ``(points,)``.
        residual: Log loss less the reference's log curve; its level is free.
        noise: Standard deviation of one point, one number.
        facts: What is known of the run.
        schedule: Its schedule, if known.
        horizon: Steps of the whole run.
        reference: What it was compared with.
    """

    time: Float64
    residual: Float64
    noise: float
    facts: RunFacts
    schedule: Schedule | None
    horizon: float
    reference: Reference


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to explain a residual."""

    cause: str
    columns: Float64
    searched: int
    sign: int
    text: str


def likely_causes(deviation: Deviation) -> tuple[Cause, ...]:
    """Return the causes with their weights, the likeliest first."""
    usable = np.isfinite(deviation.time) & np.isfinite(deviation.residual)
    usable &= deviation.time >= _FROM
    t, y = deviation.time[usable], deviation.residual[usable]
    if t.size < _LEAST or not deviation.noise >= 0:
        return ()
    curve, _ = deviation.reference.at(t, deviation.facts.params)
    spread = np.sqrt(deviation.noise**2 + (_SHAPE * np.nan_to_num(curve)) ** 2)
    weight = 1.0 / np.maximum(spread, 1e-6)
    total = _left(np.zeros((t.size, 0)), y, weight)[0]
    points = min(_INDEPENDENT, t.size)
    best: dict[str, tuple[float, str]] = {}
    for candidate in _candidates(deviation, t, y):
        left, amplitude = _left(candidate.columns, y, weight)
        if candidate.sign * amplitude < 0 or not np.isfinite(left):
            continue
        # noise that no template explains bounds what can be explained
        share = max(left, float(t.size)) / max(total, float(t.size))
        numbers = candidate.columns.shape[1] + candidate.searched
        gain = 0.5 * points * -math.log(min(share, 1.0)) - 0.5 * numbers * math.log(points)
        if candidate.cause not in best or gain > best[candidate.cause][0]:
            text = candidate.text.format(amount=amplitude)
            best[candidate.cause] = (gain, f"{text}; explains {1.0 - left / total:.0%}")
    for cause, (change, text) in _known(deviation).items():
        if cause in best:
            gain, before = best[cause]
            best[cause] = (gain + change, f"{before}; {text}" if text else before)
    if not best:
        return ()
    most = max(gain for gain, _ in best.values())
    odds = {cause: math.exp(gain - most) for cause, (gain, _) in best.items()}
    whole = sum(odds.values())
    found = [
        Cause(cause, odds[cause] / whole, best[cause][1])
        for cause in best
        if odds[cause] / whole >= _LEAST_WEIGHT
    ]
    return tuple(sorted(found, key=lambda c: (-c.weight, c.cause)))


def _left(columns: Float64, y: Float64, weight: Float64) -> tuple[float, float]:
    """Return the weighted squares that columns and a level leave, and the first amplitude."""
    design = np.column_stack([columns, np.ones(y.size)]) * weight[:, None]
    size = np.sqrt((design**2).sum(axis=0))
    if not np.all(size > 1e-12):
        return math.inf, 0.0
    solved, *_ = np.linalg.lstsq(design / size, y * weight, rcond=1e-9)
    left = y * weight - (design / size) @ solved
    return float(left @ left), float(solved[0] / size[0])


def _candidates(deviation: Deviation, t: Float64, y: Float64) -> Iterator[_Candidate]:
    power = t**-_POWER
    yield _Candidate(TPP, power[:, None], 0, 0, "bends like a power of time, as with another TPP")
    schedule = deviation.reference.schedule
    if schedule is not None and schedule.covers(float(t[-1])):
        for q in _EXPONENTS:
            rate = (schedule.at(t) + EPS2) ** q
            text = "follows the learning rate ({amount:+.2%} of the loss at its peak)"
            yield _Candidate(TAU, rate[:, None], 1, 0, text)
            yield _Candidate(TAU, np.column_stack([rate, power]), 1, 0, text)
            for label, other in _other_schedules(schedule.warmup):
                if other.distance(schedule, until=float(t[-1])) > 0.1:
                    change = (other.at(t) + EPS2) ** q - rate
                    yield _Candidate(
                        SCHEDULE, change[:, None], 2, 1, f"bends as under a schedule {label}"
                    )
    curve, _ = deviation.reference.at(GRID, deviation.facts.params)
    known = np.isfinite(curve)
    slope = np.interp(t, GRID[known], np.gradient(curve[known], GRID[known]))
    yield _Candidate(
        WARMUP, -slope[:, None], 0, 0, "lags the reference by {amount:+.2%} of training"
    )
    for at in np.arange(_FROM + _STEP, t[-1] - _STEP / 2, _STEP).tolist():
        ramp = np.maximum(t - at, 0.0)
        yield _Candidate(DRIFT, ramp[:, None], 1, 1, f"rises from {at:.0%} of training on")
        yield from _steps(t, y, at, 1, "")
    for boundary in deviation.facts.boundaries:
        at = boundary / deviation.horizon
        if _FROM < at < t[-1]:
            yield from _steps(t, y, at, 0, ", where it was restarted")


def _steps(t: Float64, y: Float64, at: float, searched: int, where: str) -> Iterator[_Candidate]:
    """Yield a step that stays, and one that fades, if the residual jumps there at all."""
    before, after = y[(t < at) & (t >= at - _NEAR)], y[(t >= at) & (t < at + _NEAR)]
    if before.size < 2 or after.size < 2:
        return
    jump = float(np.median(after) - np.median(before))
    # what the same stretch changes by on its own, on either side
    outer = [y[(t >= at - 3 * _NEAR) & (t < at - 2 * _NEAR)], before, after]
    outer.append(y[(t >= at + 2 * _NEAR) & (t < at + 3 * _NEAR)])
    middles = [float(np.median(part)) for part in outer if part.size]
    drift = abs(middles[1] - middles[0]) if outer[0].size else 0.0
    if abs(jump) < 2.0 * drift:
        return
    text = f"jumps by {jump:+.2%} at {at:.0%} of training{where}"
    later = (t >= at).astype(np.float64)
    yield _Candidate(RESTART, later[:, None], searched, 0, text)
    fading = later * np.exp(-np.maximum(t - at, 0.0) / 0.05)
    yield _Candidate(RESTART, fading[:, None], searched, 0, text + ", and fades")


def _other_schedules(warmup: float) -> Iterator[tuple[str, Schedule]]:
    kinds = (
        ("held constant", "constant", 0.0, 1.0),
        ("linear to zero", "linear-to-zero", 0.0, 1.0),
        ("cosine to 10 %", "cosine", 0.1, 1.0),
        ("cosine to zero", "cosine", 0.0, 1.0),
        ("with a decay over the last 10 %", "wsd", 0.0, 0.1),
        ("with a decay over the last 20 %", "wsd", 0.0, 0.2),
        ("with a decay over the last 50 %", "wsd", 0.0, 0.5),
    )
    for label, kind, final, decay in kinds:
        made = declared_schedule(
            kind, warmup_fraction=warmup, final_lr_fraction=final, decay_fraction=decay
        )
        if made is not None:
            yield label, made


def _known(deviation: Deviation) -> dict[str, tuple[float, str]]:
    """Return what facts add to the log odds of causes, and why."""
    facts, reference, own = deviation.facts, deviation.reference, deviation.schedule
    found: dict[str, tuple[float, str]] = {}
    for cause, got, wanted, name in (
        (TAU, facts.implied_tau or facts.tau, reference.tau, "tau"),
        (TPP, facts.implied_tpp or facts.tpp, reference.tpp, "TPP"),
    ):
        if got and wanted:
            ratio = abs(math.log(got / wanted))
            if ratio > math.log(1.2):
                text = f"its log implies {name} {got:.3g}, the reference has {wanted:.3g}"
                found[cause] = (_DIFFERS, text)
            else:
                found[cause] = (_EQUAL, "")
    if own is not None and reference.schedule is not None:
        until = min(float(own.fractions[-1]), float(deviation.time[-1]))
        apart = own.distance(reference.schedule, until=until)
        if apart > 0.05:
            found[SCHEDULE] = (
                _DIFFERS,
                f"its logged rate differs from the reference's by {apart:.0%} of the peak",
            )
        elif own.source == "logged":
            found[SCHEDULE] = (_EQUAL, "")
        ratio = (own.warmup + 1e-3) / (reference.schedule.warmup + 1e-3)
        if abs(math.log(ratio)) > math.log(1.5):
            found[WARMUP] = (
                _DIFFERS,
                f"its warm-up takes {own.warmup:.1%} of training, the reference's "
                f"{reference.schedule.warmup:.1%}",
            )
        elif own.source == "logged":
            found[WARMUP] = (_EQUAL, "")
    return found
