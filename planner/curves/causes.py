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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import RunFacts
from planner.curves.reference import Reference
from planner.curves.schedule import Schedule, declared_schedule
from planner.curves.verdict import Cause
from planner.laws.surrogate import EPS2
from planner.units import format_plain

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
_CAUSES = (TAU, TPP, SCHEDULE, WARMUP, RESTART, DRIFT)
# What a reference's log curve is uncertain by, as a share of it, besides noise
_SHAPE = 0.02
# q of the surrogate lies in 0.1 to 1 (FACTS A6); beyond, templates resemble each other
_EXPONENTS = (0.5, 1.0)
_POWER = 0.3
# a run that drifts was well before; one that is off from its start is of another shape
_DRIFT_FROM = 0.2
# Steps are tried so far apart; a jump is seen within this on either side, and fades within that
_STEP, _NEAR, _FADES = 0.02, 0.03, 0.05


@dataclass(frozen=True, eq=False, slots=True)
class Deviations:
    """Residuals of R runs in K even stretches of training, and what is known of the runs.

    Attributes:
        residual: Log loss less the reference's log curve, not-a-number where missing; the level is
            free, shape ``(R, K)``.
        curve: The reference's log curve, shape ``(R, K)``.
        noise: Standard deviation of one stretch, shape ``(R,)``.
        facts: What is known of the runs.
        schedules: Their schedules, where known.
        references: What they were compared with.
        restarts: Fractions of training at which each was restarted.
    """

    residual: Float64
    curve: Float64
    noise: Float64
    facts: Sequence[RunFacts]
    schedules: Sequence[Schedule | None]
    references: Sequence[Reference]
    restarts: Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False, slots=True)
class _Template:
    """One way to explain a residual: a column, or a row of columns for each run."""

    cause: str
    column: Float64
    searched: int
    sign: int
    text: str
    with_power: bool = False
    step: float | None = None


def likely_causes(deviations: Deviations) -> list[tuple[Cause, ...]]:
    """Return the causes of each run's deviation with their weights, the likeliest first."""
    runs, stretches = deviations.residual.shape
    t = (np.arange(stretches) + 0.5) / stretches
    found: list[tuple[Cause, ...]] = [()] * runs
    alike: dict[tuple[bytes, ...], list[int]] = {}
    for i, reference in enumerate(deviations.references):
        of = reference.schedule
        key = () if of is None else (of.fractions.tobytes(), of.factors.tobytes())
        alike.setdefault(key, []).append(i)
    for rows in alike.values():
        schedule = deviations.references[rows[0]].schedule
        shared = list(_templates(t, schedule))
        fits = _Fits(deviations, rows, t)
        for template in shared:
            fits.try_template(template)
        slope = -np.gradient(np.nan_to_num(deviations.curve[rows]), t, axis=1)
        text = "lags the reference by {amount:+.2%} of training"
        fits.try_template(_Template(WARMUP, slope, 0, 0, text))
        for k, row in enumerate(rows):
            for at in deviations.restarts[row]:
                if _FROM < at < 1.0:
                    for template in _steps(t, at, 0, ", where it was restarted"):
                        fits.try_template(template, only=k)
        for k, row in enumerate(rows):
            found[row] = fits.causes(k, row)
    return found


class _Fits:
    """Weighted regressions of many residuals on templates, all of them at once."""

    def __init__(self, deviations: Deviations, rows: list[int], t: Float64) -> None:
        self.deviations, self.t = deviations, t
        residual, curve = deviations.residual[rows], deviations.curve[rows]
        usable = np.isfinite(residual) & np.isfinite(curve) & (t >= _FROM)
        stray = np.array([np.nan_to_num(deviations.references[row].stray(t)) for row in rows])
        spread = deviations.noise[rows, None] ** 2 + (_SHAPE * np.nan_to_num(curve)) ** 2
        spread = spread + stray**2
        self.weight = np.where(usable, 1.0 / np.maximum(spread, 1e-12), 0.0)
        self.y = np.where(usable, residual, 0.0)
        self.points = np.count_nonzero(usable, axis=1)
        self.wy = self.weight * self.y
        self.sums = self.weight.sum(axis=1), self.wy.sum(axis=1)
        self.total = self._cross(self.wy, self.y, self.sums[1], self.sums[1])
        self.independent = np.minimum(self.points, _INDEPENDENT).astype(np.float64)
        self.power = np.broadcast_to(t**-_POWER, self.y.shape)
        self.best = {cause: np.full(len(rows), -np.inf) for cause in _CAUSES}
        self.what: list[dict[str, tuple[_Template, float, float]]] = [{} for _ in rows]
        counts = np.zeros((len(rows), t.size + 1))
        np.cumsum(usable, axis=1, out=counts[:, 1:])
        values = np.zeros((len(rows), t.size + 1))
        np.cumsum(self.y, axis=1, out=values[:, 1:])
        self.counts, self.values = counts, values

    def _cross(self, a: Float64, b: Float64, sum_a: Float64, sum_b: Float64) -> Float64:
        """Return the weighted cross product of two columns, the level taken out of both."""
        whole = np.maximum(self.sums[0], 1e-300)
        return np.asarray((a * b).sum(axis=1) - sum_a * sum_b / whole)

    def _mean(self, low: float, high: float) -> Float64:
        """Return each run's mean residual between two fractions; not-a-number if it has none."""
        a, b = np.searchsorted(self.t, [low, high])
        count = self.counts[:, b] - self.counts[:, a]
        total = self.values[:, b] - self.values[:, a]
        return np.asarray(
            np.divide(total, count, out=np.full(count.size, np.nan), where=count >= 2)
        )

    def jump(self, at: float) -> tuple[Float64, NDArray[np.bool_]]:
        """Return how far each residual jumps at a fraction, and whether that is sudden."""
        before, after = self._mean(at - _NEAR, at), self._mean(at, at + _NEAR)
        earlier = self._mean(at - 3 * _NEAR, at - 2 * _NEAR)
        with np.errstate(invalid="ignore"):
            jump = after - before
            sudden = np.abs(jump) >= 2.0 * np.nan_to_num(np.abs(before - earlier))
        return jump, sudden & np.isfinite(jump)

    def try_template(self, template: _Template, only: int | None = None) -> None:
        """Regress on a template, and keep it where it is the best of its cause."""
        x = np.broadcast_to(template.column, self.y.shape)
        wx = self.weight * x
        sum_x = wx.sum(axis=1)
        own = self._cross(wx, x, sum_x, sum_x)
        with_y = self._cross(wx, self.y, sum_x, self.sums[1])
        possible = own > 1e-9 * np.maximum((wx * x).sum(axis=1), 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            if template.with_power:
                wp = self.weight * self.power
                sum_p = wp.sum(axis=1)
                power = self._cross(wp, self.power, sum_p, sum_p)
                both = self._cross(wp, x, sum_p, sum_x)
                power_y = self._cross(wp, self.y, sum_p, self.sums[1])
                det = own * power - both**2
                possible &= det > 1e-6 * own * power
                amount = (with_y * power - power_y * both) / det
                second = (power_y * own - with_y * both) / det
                left = self.total - amount * with_y - second * power_y
            else:
                amount = with_y / own
                left = self.total - amount * with_y
        possible &= template.sign * np.nan_to_num(amount) >= 0
        if template.step is not None:
            possible &= self.jump(template.step)[1]
        # noise that no template explains bounds what can be explained
        least = np.maximum(self.points, 1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            share = np.maximum(left, least) / np.maximum(self.total, least)
            numbers = 1 + template.with_power + template.searched
            gain = -0.5 * self.independent * np.log(np.clip(share, 1e-12, 1.0))
            gain -= 0.5 * numbers * np.log(np.maximum(self.independent, 1.0))
        better = possible & (gain > self.best[template.cause])
        for k in np.flatnonzero(better).tolist():
            if only is None or k == only:
                self.best[template.cause][k] = gain[k]
                explained = 1.0 - float(left[k]) / max(float(self.total[k]), 1e-300)
                self.what[k][template.cause] = (template, float(amount[k]), explained)

    def causes(self, k: int, row: int) -> tuple[Cause, ...]:
        """Return the causes of one run."""
        if self.points[k] < _LEAST or not self.what[k]:
            return ()
        of = self.deviations
        logged = float(self.t[np.flatnonzero(self.weight[k])[-1]])
        known = _known(of.facts[row], of.schedules[row], of.references[row], logged)
        gains = {
            cause: float(self.best[cause][k]) + known.get(cause, (0.0, ""))[0]
            for cause in self.what[k]
        }
        most = max(gains.values())
        odds = {cause: math.exp(gain - most) for cause, gain in gains.items()}
        whole = sum(odds.values())
        found = []
        for cause, odd in odds.items():
            if odd / whole < _LEAST_WEIGHT:
                continue
            template, amount, explained = self.what[k][cause]
            if template.step is not None:
                amount = float(self.jump(template.step)[0][k])
            text = f"{template.text.format(amount=amount)}; explains {explained:.0%}"
            said = known.get(cause, (0.0, ""))[1]
            found.append(Cause(cause, odd / whole, f"{text}; {said}" if said else text))
        return tuple(sorted(found, key=lambda c: (-c.weight, c.cause)))


def _templates(t: Float64, schedule: Schedule | None) -> Iterator[_Template]:
    """Yield what all runs under a schedule are regressed on."""
    yield _Template(TPP, t**-_POWER, 0, 0, "bends like a power of time, as with another TPP")
    if schedule is not None and schedule.covers(1.0):
        for q in _EXPONENTS:
            rate = (schedule.at(t) + EPS2) ** q
            text = "follows the learning rate ({amount:+.2%} of the loss at its peak)"
            yield _Template(TAU, rate, 1, 0, text)
            yield _Template(TAU, rate, 1, 0, text, with_power=True)
            for label, other in _other_schedules(schedule.warmup):
                if other.distance(schedule) > 0.1:
                    change = (other.at(t) + EPS2) ** q - rate
                    yield _Template(SCHEDULE, change, 2, 1, f"bends as under a schedule {label}")
    for at in np.arange(_FROM + _STEP, 1.0 - _STEP / 2, _STEP).tolist():
        if at >= _DRIFT_FROM:
            text = f"rises from {at:.0%} of training on"
            yield _Template(DRIFT, np.maximum(t - at, 0.0), 1, 1, text)
        yield from _steps(t, at, 1, "")


def _steps(t: Float64, at: float, searched: int, where: str) -> Iterator[_Template]:
    """Yield a step that stays, and one that fades."""
    text = f"jumps by {{amount:+.2%}} at {at:.0%} of training{where}"
    later = (t >= at).astype(np.float64)
    yield _Template(RESTART, later, searched, 0, text, step=at)
    fading = later * np.exp(-np.maximum(t - at, 0.0) / _FADES)
    yield _Template(RESTART, fading, searched, 0, text + ", and fades", step=at)


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


def _known(
    facts: RunFacts, own: Schedule | None, reference: Reference, logged: float
) -> dict[str, tuple[float, str]]:
    """Return what facts add to the log odds of causes, and why."""
    found: dict[str, tuple[float, str]] = {}
    for cause, got, wanted, name in (
        (TAU, facts.implied_tau or facts.tau, reference.tau, "tau"),
        (TPP, facts.implied_tpp or facts.tpp, reference.tpp, "TPP"),
    ):
        if got and wanted:
            ratio = abs(math.log(got / wanted))
            if ratio > math.log(1.2):
                theirs = format_plain(wanted)
                text = f"its log implies {name} {format_plain(got)}, the reference has {theirs}"
                found[cause] = (_DIFFERS, text)
            else:
                found[cause] = (_EQUAL, "")
    if own is not None and reference.schedule is not None:
        until = min(float(own.fractions[-1]), logged)
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
