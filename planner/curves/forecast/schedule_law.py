"""Forecasts across schedules and learning rates: a law of the last iterate's bound.

``log L = c + a X1^p + b X2^q`` with the two terms of `planner.laws.last_iterate`, which the whole
schedule up to a step gives. a, b, p and q are those of finished runs of any size, schedule and
length at the same batch; c is one for each size, and for the run itself what its last stretch says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import Curve
from planner.curves.forecast.method import Estimate, Pool, names
from planner.curves.forecast.prefix import UndecidableError, last_fifth, learning_rates, usable
from planner.laws.last_iterate import last_iterate_bound

Float64 = NDArray[np.float64]

# powers that are tried; both are flat around the best
_PROGRESS_POWERS = np.arange(10, 61, 5) / 100.0
_NOISE_POWERS = np.arange(3, 13) / 10.0
_POINTS = 12
_LEAST_RUNS = 4
# the nearest sizes; more would not make the law better
_MOST_RUNS = 60
_SAME_BATCH = 1.01
# of the warm-up, and of training: before that the start counts
_FIRST_WARMUPS, _FIRST_FRACTION = 3.0, 0.05
_LEAST_POINTS = 2


@dataclass(frozen=True, slots=True)
class ScheduleTerms:
    """What the fit sees of a run.

    Attributes:
        size: N.
        logs: Log loss, shape ``(points,)``.
        progress: X1 there.
        noise: X2 there.
    """

    size: int
    logs: Float64
    progress: Float64
    noise: Float64


@dataclass(frozen=True, slots=True)
class FittedLaw:
    """A law of the last iterate's bound; the constant of a size is left open.

    Attributes:
        a: Of X1^p.
        p: Power of X1.
        b: Of X2^q.
        q: Power of X2.
        scatter: Root mean square residual of log loss.
    """

    a: float
    p: float
    b: float
    q: float
    scatter: float

    def log_excess(self, progress: Float64, noise: Float64) -> Float64:
        """Return log loss less the constant of the size."""
        return np.asarray(self.a * progress**self.p + self.b * noise**self.q)


@dataclass(frozen=True, slots=True)
class ScheduleLaw:
    """See this module."""

    name: str = "schedule-law"

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        found, law = self.fit(prefix, pool)
        log_final = _forecast(prefix, law)
        errors = self._left_out(prefix, found)
        every = np.concatenate(errors) if errors else np.zeros(0)
        own = sum(float(((e - e.mean()) ** 2).sum()) for e in errors)
        freedom = every.size - len(errors)
        return Estimate(
            log_final,
            float(np.sqrt(np.mean(every**2))) if every.size else None,
            names(found.curves),
            f"a law of the schedule fitted to {len(found.curves)} runs, laid on the run's last "
            "stretch",
            math.sqrt(own / freedom) if freedom > 0 else None,
        )

    def fit(self, prefix: Curve, pool: Pool) -> tuple[Pool, FittedLaw]:
        """Fit the law that holds for a run, to the finished runs of its batch.

        Raises:
            UndecidableError: What the law needs is not known, or too few runs are finished.
        """
        learning_rates(prefix)
        size = float(prefix.facts.params or 1)
        fitting = sorted(
            (c for c in pool.curves if c.facts.run != prefix.facts.run and _fits(c, prefix)),
            key=lambda c: (abs(math.log((c.facts.params or size) / size)), c.facts.name),
        )
        nearest = {c.facts.run for c in fitting[:_MOST_RUNS]}
        found = pool.only(lambda c: c.facts.run in nearest)
        if len(found.curves) < _LEAST_RUNS:
            raise UndecidableError(
                f"{len(found.curves)} finished runs of the same batch and known learning rates are "
                f"too few for a law of the schedule: {_LEAST_RUNS} are needed"
            )
        law = fit_law([_terms(curve, found) for curve in found.curves])
        if not (law.a > 0 and law.b > 0):
            raise UndecidableError("the finished runs do not tell how loss depends on the schedule")
        return found, law

    def _left_out(self, prefix: Curve, found: Pool) -> list[Float64]:
        """Return each size's errors, when forecast by the runs of the other sizes."""
        at = round(prefix.at or 0.0, 3)
        key = ("left out", f"{at} {' '.join(sorted(c.facts.run for c in found.curves))}")
        if key not in found.notes:
            found.notes[key] = self._errors(at, found)
        errors = found.notes[key]
        assert isinstance(errors, list)
        return errors

    def _errors(self, at: float, found: Pool) -> list[Float64]:
        every: list[Float64] = []
        for size in found.sizes:
            rest = found.without_size(size)
            if len(rest.curves) < _LEAST_RUNS:
                continue
            law = fit_law([_terms(curve, rest) for curve in rest.curves])
            errors = []
            for curve in found.curves:
                if curve.facts.params == size:
                    try:
                        forecast = _forecast(curve.until(at), law)
                    except UndecidableError:
                        continue
                    errors.append(forecast - float(usable(curve)[1][-1]))
            if errors:
                every.append(np.array(errors))
        return every


def fit_law(runs: list[ScheduleTerms]) -> FittedLaw:
    """Fit a, b, p and q by least squares in log loss, with one constant for each size."""
    sizes = np.concatenate([np.full(run.logs.size, run.size) for run in runs])
    logs = _centred(np.concatenate([run.logs for run in runs])[None, :], sizes)[0]
    progress = np.concatenate([run.progress for run in runs])
    noise = np.concatenate([run.noise for run in runs])
    # in units of their own middle, so that the columns are of one size
    one, two = float(np.median(progress)), float(np.median(noise))
    first = _centred((progress / one) ** _PROGRESS_POWERS[:, None], sizes)
    second = _centred((noise / two) ** _NOISE_POWERS[:, None], sizes)
    # the two coefficients of every pair of powers, and the square that they leave
    ff, ss, fs = (first**2).sum(axis=1)[:, None], (second**2).sum(axis=1)[None, :], first @ second.T
    fy, sy = (first @ logs)[:, None], (second @ logs)[None, :]
    determinant = np.maximum(ff * ss - fs**2, 1e-300)
    a, b = (fy * ss - sy * fs) / determinant, (sy * ff - fy * fs) / determinant
    square = float(logs @ logs) - a * fy - b * sy
    i, j = np.unravel_index(int(np.argmin(square)), square.shape)
    p, q = float(_PROGRESS_POWERS[i]), float(_NOISE_POWERS[j])
    scatter = float(np.sqrt(max(float(square[i, j]), 0.0) / logs.size))
    return FittedLaw(float(a[i, j]) / one**p, p, float(b[i, j]) / two**q, q, scatter)


def _centred(rows: Float64, sizes: NDArray[np.int64]) -> Float64:
    """Take each size's mean from every row, shape (rows, points)."""
    _, which = np.unique(sizes, return_inverse=True)
    counts = np.bincount(which)
    means = np.array([np.bincount(which, row) / counts for row in rows])
    return np.asarray(rows - means[:, which])


def _forecast(prefix: Curve, law: FittedLaw) -> float:
    """Return the log final loss: the constant is what the last fifth of the prefix says."""
    times, logs = last_fifth(prefix, least=_LEAST_POINTS)
    horizon = prefix.horizon or 1
    steps = np.rint(times * horizon).astype(np.int64)
    terms = last_iterate_bound(learning_rates(prefix), np.append(steps, horizon))
    excess = law.log_excess(*terms)
    return float(np.mean(logs - excess[:-1]) + excess[-1])


def _terms(curve: Curve, pool: Pool) -> ScheduleTerms:
    """Return a run's terms at points even in log t, computed once."""
    key = ("schedule-law", curve.facts.run)
    if key not in pool.notes:
        times, logs = usable(curve)
        steps = np.rint(times * (curve.horizon or 1))
        first = max(_FIRST_WARMUPS * (curve.facts.warmup_steps or 0), _FIRST_FRACTION * steps[-1])
        wanted = np.geomspace(min(max(first, steps[0]), steps[-1]), steps[-1], _POINTS)
        chosen = np.unique(np.searchsorted(steps, wanted - 0.5).clip(0, steps.size - 1))
        terms = last_iterate_bound(learning_rates(curve), steps[chosen].astype(np.int64))
        pool.notes[key] = ScheduleTerms(curve.facts.params or 0, logs[chosen], *terms)
    found = pool.notes[key]
    assert isinstance(found, ScheduleTerms)
    return found


def _fits(curve: Curve, prefix: Curve) -> bool:
    a, b = curve.facts, prefix.facts
    if a.batch_tokens and b.batch_tokens:
        ratio = a.batch_tokens / b.batch_tokens
        if not 1 / _SAME_BATCH <= ratio <= _SAME_BATCH:
            return False
    elif a.batch_tokens or b.batch_tokens:
        return False
    try:
        learning_rates(curve)
    except UndecidableError:
        return False
    return a.params is not None
