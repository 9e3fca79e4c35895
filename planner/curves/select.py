"""Which settings of a sweep to stop early: the likely losers, by forecasts of their final losses.

The candidates of one sweep have one size, one batch and one horizon. They are compared at an equal
fraction of it, the one that all of them have reached, by what each will end at: whoever leads now
may lead only because its cooldown has begun.

With forecasts m_i of the log final loss and standard error s, the errors being taken as independent
and normal, the probability that a candidate is best and what its choice is expected to lose follow
from the distribution of the smallest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.curves.curve import Curve
from planner.curves.errors import CurveError
from planner.curves.forecast.healthy import LeftOut, without_sick
from planner.curves.forecast.interval import LARGEST_LOG
from planner.curves.forecast.method import Method, Pool
from planner.curves.forecast.prefix import UndecidableError, usable
from planner.curves.forecast.runs import AUTO, LEAST_FRACTION, METHODS, check_method, named_curves
from planner.curves.load import no_run
from planner.curves.normalize import final_loss

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.plan import Plan

Float64 = NDArray[np.float64]
Verdict = Literal["stop", "keep", "undecidable"]

RISK = 0.05
"""The candidates to be stopped hold the best with at most this probability, all together."""
_LIKELY = 0.5
# sweeps differ in what the schedule law knows of; a sweep of one schedule may have a band
_AUTOMATIC = ("schedule-law", "collapse")
_GRID = 1201
_LEAST_ERROR = 1e-6


@dataclass(frozen=True, slots=True)
class Candidate:
    """One setting of a sweep.

    Attributes:
        run: Id in the archive.
        name: Name.
        lr: Peak learning rate, if known.
        loss: Last loss at the fraction of the comparison; None if there is none.
        final: Forecast of the final loss; None if undecidable.
        probability: That it is the best of the sweep; None if undecidable.
        regret: What it is expected to end above the best, relative; None if undecidable.
        verdict: ``stop``, ``keep`` or ``undecidable``.
        saved_tokens: Tokens that are not trained on if it is stopped now; None if not known.
        actual: The final loss of a run that is finished.
    """

    run: str
    name: str
    lr: float | None
    loss: float | None
    final: float | None
    probability: float | None
    regret: float | None
    verdict: Verdict
    saved_tokens: int | None
    actual: float | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """Candidates that compete, the likely best first.

    Attributes:
        params: N.
        horizon: Steps of each run.
        metric: The series.
        at: The fraction of training at which they are compared; None if undecidable for that.
        method: What forecast them; ``undecidable`` if nothing could.
        error: Standard error of the difference of two forecasts over sqrt(2), relative.
        why: How, or why not.
        saved: Share of the sweep's whole compute that stopping saves.
        candidates: The settings.
        left_out: Finished runs that no forecast rests on, because they diverged or deviate.
    """

    params: int | None
    horizon: int
    metric: str
    at: float | None
    method: str
    error: float | None
    why: str
    saved: float
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...] = ()


def best_of(log_finals: ArrayLike, error: float) -> tuple[Float64, Float64]:
    """Return each candidate's probability to be best, and its expected regret.

    Args:
        log_finals: Forecasts of log final losses, shape ``(candidates,)``, at least one.
        error: Standard error of each, independent of the others.

    Returns:
        Probabilities, summing to 1, and expected log loss above the smallest, both of the shape of
        ``log_finals``.

    Raises:
        ValueError: There is no candidate, or a number is not finite or the error negative.
    """
    means = np.asarray(log_finals, np.float64)
    if means.ndim != 1 or not means.size or not np.isfinite(means).all():
        raise ValueError(f"forecasts must be finite numbers, at least one, got {means.tolist()}.")
    if not (error >= 0 and math.isfinite(error)):
        raise ValueError(f"the error must be finite and not negative, got {error}.")
    scale = max(error, _LEAST_ERROR)
    z = (means - means.min()) / scale
    # the smallest lies within 9 standard errors of the smallest forecast
    x = np.linspace(-9.0, 9.0, _GRID)
    below = np.array([[0.5 * math.erfc((a - b) / math.sqrt(2.0)) for b in z] for a in x])
    density = np.exp(-0.5 * (x[:, None] - z) ** 2) / math.sqrt(2.0 * math.pi)
    logs = np.log(np.maximum(below, 1e-300))
    together = logs.sum(axis=1)
    everyone, others = np.exp(together), np.exp(together[:, None] - logs)
    step = x[1] - x[0]
    probability = (density * others).sum(axis=0) * step
    # E[min] = -9 + integral of P(min > x)
    smallest = -9.0 + float(np.sum(0.5 * (everyone[1:] + everyone[:-1]))) * step
    return probability / probability.sum(), (z - smallest) * scale


def select_runs(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    at: float | None = None,
    method: str = AUTO,
    plans: Sequence[Plan] = (),
) -> list[Sweep]:
    """Judge the candidates of every sweep of an archive.

    Args:
        archive: The archive.
        metric: Series; see `planner.curves.choose_metric`.
        where: Which runs are candidates, as for `planner.archive.list_runs`; all if empty. Other
            finished runs are still used to forecast.
        at: Pretend that only this fraction of each candidate was logged, for back-testing; no other
            run of the same size is used then.
        method: A name of `planner.curves.forecast.METHODS`; ``auto``: the law of the schedule, else
            collapse.
        plans: Plans to match the runs to, besides those that the archive keeps.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric, the method or ``at`` is not what it can be.
    """
    if at is not None and not 0 < at <= 1:
        raise CurveError(
            f"got {at:g}, wanted a fraction of training above 0, at most 1", field="--at"
        )
    check_method(method)
    curves = named_curves(archive, metric=metric, plans=plans)
    chosen = {c.facts.run for c in curves}
    if where:
        from planner.archive import list_runs

        asked = {r["run"] for r in list_runs(archive, where=where, columns=["run"])}
        if not asked:
            raise no_run(where)
        chosen &= asked
    groups: dict[tuple[int | None, int | None, int], list[Curve]] = {}
    for curve in curves:
        if curve.horizon is not None and curve.facts.run in chosen:
            key = (curve.facts.params, curve.facts.batch_tokens, curve.facts.total_steps or 0)
            groups.setdefault(key, []).append(curve)
    healthy, left_out = without_sick(curves)
    pool = Pool.of(healthy)
    found = []
    for key in sorted(groups, key=lambda k: tuple(v or 0 for v in k)):
        group = groups[key]
        if len(group) < 2 or (at is None and all(c.finished for c in group)):
            continue
        rest = pool
        if at is not None:
            rest = pool.without_size(key[0])
        found.append(replace(judge(group, rest, at=at, method=method), left_out=left_out))
    return found


def judge(
    candidates: Sequence[Curve], pool: Pool, *, at: float | None = None, method: str = AUTO
) -> Sweep:
    """Judge the candidates of one sweep.

    Args:
        candidates: At least two runs of one size, batch and horizon.
        pool: Finished runs to forecast by; a candidate is never used to forecast another.
        at: Pretend that only this fraction of each was logged; otherwise what all have reached.
        method: As in `select_runs`.
    """
    own = {c.facts.run for c in candidates}
    others = pool.only(lambda c: c.facts.run not in own)
    live = [c for c in candidates if at is not None or not c.finished]
    reached = min([c.at or 0.0 for c in live] + ([at] if at is not None else []), default=1.0)
    prefixes = [c.until(reached) for c in candidates]
    if reached < LEAST_FRACTION:
        why = f"all have logged {reached:.1%} of training, and {LEAST_FRACTION:.0%} is needed"
        return _undecided(candidates, prefixes, reached, why)
    reasons = []
    for name in _AUTOMATIC if method == AUTO else (method,):
        try:
            forecasts = _forecasts(candidates, prefixes, others, METHODS[name], known=at is None)
        except UndecidableError as error:
            reasons.append(f"{name}: {error}")
            continue
        return _decided(candidates, prefixes, reached, name, forecasts)
    return _undecided(candidates, prefixes, reached, "; ".join(reasons))


@dataclass(frozen=True, slots=True)
class _Forecasts:
    log_finals: Float64
    error: float
    why: str
    done: tuple[bool, ...]


def _forecasts(
    candidates: Sequence[Curve],
    prefixes: Sequence[Curve],
    pool: Pool,
    method: Method,
    *,
    known: bool,
) -> _Forecasts:
    """Forecast every candidate; the final loss of a finished one is known if so said.

    Raises:
        UndecidableError: One of them cannot be forecast, or nothing tells the error.
    """
    finals, errors, why = [], [], ""
    done = tuple(known and curve.finished for curve in candidates)
    for curve, prefix, ended in zip(candidates, prefixes, done, strict=True):
        if ended:
            finals.append(math.log(final_loss(curve)))
            if not math.isfinite(finals[-1]):
                raise UndecidableError(f"{curve.facts.name} has no final loss")
            continue
        estimate = method.estimate(prefix, pool)
        if not abs(estimate.log_final) < LARGEST_LOG:
            raise UndecidableError(f"{curve.facts.name} is given no finite loss")
        finals.append(estimate.log_final)
        why = estimate.why
        error = estimate.apart if estimate.apart is not None else estimate.error
        if error is not None:
            errors.append(error)
    if not errors and not all(done):
        raise UndecidableError("no finished run tells how far such forecasts err")
    error = float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0
    return _Forecasts(np.array(finals), error, why or "all have ended", done)


def _decided(
    candidates: Sequence[Curve],
    prefixes: Sequence[Curve],
    reached: float,
    method: str,
    forecasts: _Forecasts,
) -> Sweep:
    probability, regret = best_of(forecasts.log_finals, forecasts.error)
    order = np.argsort(forecasts.log_finals, kind="stable").tolist()
    # what is left for a candidate and all that are less likely
    remaining = np.empty(len(order))
    remaining[order] = np.cumsum(probability[order][::-1])[::-1]
    found = []
    for i in order:
        verdict: Verdict = "undecidable"
        if forecasts.done[i] or probability[i] >= _LIKELY:
            verdict = "keep"  # of what has ended there is nothing to stop
        elif remaining[i] <= RISK:
            verdict = "stop"
        found.append(
            _candidate(
                candidates[i],
                prefixes[i],
                reached,
                verdict,
                (
                    math.exp(forecasts.log_finals[i]),
                    float(probability[i]),
                    math.expm1(float(regret[i])),
                ),
            )
        )
    stopped = sum(c.verdict == "stop" for c in found)
    return Sweep(
        candidates[0].facts.params,
        candidates[0].horizon or 0,
        candidates[0].metric,
        reached,
        method,
        forecasts.error,
        forecasts.why,
        stopped * (1.0 - reached) / len(found),
        tuple(found),
    )


def _undecided(
    candidates: Sequence[Curve], prefixes: Sequence[Curve], reached: float, why: str
) -> Sweep:
    found = [
        _candidate(curve, prefix, reached, "undecidable", (None, None, None))
        for curve, prefix in zip(candidates, prefixes, strict=True)
    ]
    first = candidates[0]
    return Sweep(
        first.facts.params,
        first.horizon or 0,
        first.metric,
        reached,
        "undecidable",
        None,
        why,
        0.0,
        tuple(found),
    )


def _candidate(
    curve: Curve,
    prefix: Curve,
    reached: float,
    verdict: Verdict,
    numbers: tuple[float | None, float | None, float | None],
) -> Candidate:
    facts = curve.facts
    _, logs = usable(prefix)
    tokens = facts.tokens
    saved = None
    if verdict == "stop" and tokens is not None:
        saved = round(tokens * (1.0 - reached))
    return Candidate(
        facts.run,
        facts.name,
        facts.lr,
        math.exp(float(logs[-1])) if logs.size else None,
        *numbers,
        verdict,
        saved,
        final_loss(curve) if curve.finished else None,
    )
