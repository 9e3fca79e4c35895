"""How well a family collapses, and which runs will not, and why.

The collapse deviation (FACTS 6) is the standard deviation over runs of the normalized loss, over
its mean, at a fraction of training. Here it is that of the log residual against the band's
reference, each run divided by its own final loss, in stretches of 1/32 of training: the reference
is common to all, so it drops out. It is set beside the noise floor: the scatter among repeats of
one size where there are any, else what the runs' own noise leaves in such means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.curves.bands import Band
from planner.curves.bins import Binned
from planner.curves.noise import long_run_noise
from planner.curves.reference import TAU_TOLERANCE, TPP_TOLERANCE, Reference
from planner.units import format_plain

if TYPE_CHECKING:
    from planner.curves.curve import RunFacts
    from planner.curves.scored import RunScore

Float64 = NDArray[np.float64]

COLLAPSE_FROM = 0.2  # FACTS A6: the paper's errors are means from here on
LEVEL = 0.9
_PARTS = 32
_REPLICATES = 200
_LEAST_FOR_INTERVAL = 4
_MOST_RUNS = 2000


@dataclass(frozen=True, slots=True)
class Collapse:
    """How well the finished runs of a band collapse.

    Attributes:
        runs: How many.
        sizes: Different N among them.
        deviation: Collapse deviation, mean over fractions of training from 0.2 on; a share.
        low: Of its interval, by a bootstrap over runs; None for fewer than four.
        high: Likewise.
        floor: Noise floor, mean likewise; None if it cannot be told.
        floor_from: ``repeats`` or ``own noise``.
        below_floor_from: The fraction of training from which on the deviation stays below the
            floor ("supercollapse" of Qiu et al.); None if nowhere.
    """

    runs: int
    sizes: int
    deviation: float
    low: float | None
    high: float | None
    floor: float | None
    floor_from: str | None
    below_floor_from: float | None


@dataclass(frozen=True, slots=True)
class Outsider:
    """A run that will not collapse with the others.

    Attributes:
        run: Id.
        name: Name.
        tpp: Tokens per parameter by its log.
        tau: AdamW timescale by its log.
        reasons: Sentences.
    """

    run: str
    name: str
    tpp: float | None
    tau: float | None
    reasons: tuple[str, ...]


def collapse(
    binned: Binned, band: Band, reference: Reference, well: NDArray[np.bool_]
) -> Collapse | None:
    """Measure the collapse of a band's finished runs; None for fewer than two.

    Args:
        binned: The runs.
        band: The band.
        reference: Its reference.
        well: Whether each run finished and did not diverge.
    """
    rows = np.array(band.rows, np.int64)
    rows = rows[well[rows]][:_MOST_RUNS]
    if rows.size < 2:
        return None
    mean, time, known = binned.rows(rows)
    curve, _ = reference.at(time)
    residual = np.where(known, mean - curve, np.nan)
    parts = _parts(residual)
    final = parts[:, -1]
    keep = np.isfinite(final)
    if np.count_nonzero(keep) < 2:
        return None
    parts, rows, residual = parts[keep] - final[keep, None], rows[keep], residual[keep]
    centres = (np.arange(_PARTS) + 0.5) / _PARTS
    counted = (centres >= COLLAPSE_FROM) & (np.isfinite(parts).sum(axis=0) >= 2)
    counted[-1] = False  # 0 by construction
    if not counted.any():
        return None
    deviations = _deviation(parts)
    sizes = [binned.facts[row].params for row in rows.tolist()]
    first = int(COLLAPSE_FROM * residual.shape[1])
    floor, source = _floor(parts, residual[:, first:], sizes)
    below = None
    if floor is not None:
        usable = np.flatnonzero(counted)
        worse = usable[deviations[usable] > floor[usable]]
        first = usable[0] if not worse.size else worse[-1] + 1
        below = float(first / _PARTS) if first < _PARTS - 1 else None
    low, high = _interval(parts[:, counted])
    return Collapse(
        runs=rows.size,
        sizes=len(set(sizes)),
        deviation=float(np.mean(deviations[counted])),
        low=low,
        high=high,
        floor=None if floor is None else float(np.mean(floor[counted])),
        floor_from=source,
        below_floor_from=below,
    )


def _parts(residual: Float64) -> Float64:
    runs, columns = residual.shape
    shaped = residual.reshape(runs, _PARTS, columns // _PARTS)
    count = np.isfinite(shaped).sum(axis=2)
    total = np.nansum(shaped, axis=2)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _deviation(parts: Float64) -> Float64:
    if np.isfinite(parts).all() and parts.shape[0] > 1:
        return np.asarray(parts.std(axis=0, ddof=1))
    count = np.isfinite(parts).sum(axis=0)
    centre = np.divide(np.nansum(parts, axis=0), count, out=np.zeros(count.size), where=count > 0)
    squares = np.nansum((parts - centre) ** 2, axis=0)
    return np.asarray(
        np.sqrt(np.divide(squares, count - 1, out=np.full(count.size, np.nan), where=count > 1))
    )


def _floor(
    parts: Float64, residual: Float64, sizes: list[int | None]
) -> tuple[Float64 | None, str | None]:
    groups: dict[int | None, list[int]] = {}
    for i, size in enumerate(sizes):
        groups.setdefault(size, []).append(i)
    squares, freedom = np.zeros(_PARTS), np.zeros(_PARTS)
    for rows in groups.values():
        if len(rows) > 1 and sizes[rows[0]] is not None:
            some = parts[rows]
            count = np.isfinite(some).sum(axis=0)
            deviation = np.nan_to_num(_deviation(some))
            squares += deviation**2 * np.maximum(count - 1, 0)
            freedom += np.maximum(count - 1, 0)
    if freedom.max() >= 2 and len(groups) > 1:
        pooled = np.sqrt(squares / np.maximum(freedom, 1))
        return np.asarray(pooled), "repeats"
    noise = long_run_noise(_packed(residual))
    noise = noise[np.isfinite(noise)]
    if not noise.size:
        return None, None
    points = np.isfinite(residual).sum(axis=1).mean() / (_PARTS * (1.0 - COLLAPSE_FROM))
    # of a stretch and of the last one, by which it is divided
    own = float(np.sqrt(2.0 * np.mean(noise**2) / max(points, 1.0)))
    return np.full(_PARTS, own), "own noise"


def _packed(residual: Float64) -> Float64:
    order = np.argsort(np.isnan(residual), axis=1, kind="stable")
    return np.take_along_axis(residual, order, axis=1)


def _interval(parts: Float64) -> tuple[float | None, float | None]:
    runs = parts.shape[0]
    if runs < _LEAST_FOR_INTERVAL:
        return None, None
    rng = np.random.default_rng(0)
    counts = np.zeros((_REPLICATES, runs))
    for row in counts:
        row += np.bincount(rng.integers(0, runs, min(runs, 200)), minlength=runs)
    known = np.isfinite(parts)
    # about the mean of all, so that squares do not cancel
    moved = np.where(known, parts - np.nanmean(parts, axis=0), 0.0)
    # not by BLAS: its threads would wait for each other longer than this takes
    n, sums, squares = (
        np.einsum("rj,jk->rk", counts, of) for of in (known.astype(np.float64), moved, moved**2)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(squares - sums**2 / n, 0.0) / (n - 1.0)
    drawn = np.nanmean(np.where(n > 1, np.sqrt(variance), np.nan), axis=1)
    # repeated runs make a resample too narrow, by a factor that is known for independent ones
    shrink = np.sqrt(1.0 - 1.0 / runs)
    low, high = np.quantile(drawn / shrink, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def outsiders(
    facts: Sequence[RunFacts], bands: Sequence[Band], scores: dict[str, RunScore]
) -> list[Outsider]:
    """Return the runs that will not collapse with any others, by name.

    These are runs that diverged or deviate, runs whose log differs from their plan in what collapse
    needs, and runs that stand alone while others of the archive make bands.
    """
    found = []
    shared = [band for band in bands if len({facts[row].params for row in band.rows}) > 1]
    for band in bands:
        alone = len(band.rows) == 1 and shared
        for row in band.rows:
            run = facts[row]
            reasons = [f"its log differs from its plan: {', '.join(run.differs)}"] * bool(
                run.differs and _moved(run)
            )
            if alone:
                reasons += _difference(run, band, shared)
            score = scores[run.run]
            if score.verdict == "deviating":
                reasons.append(score.reason)
            if reasons:
                found.append(
                    Outsider(run.run, run.name, run.implied_tpp, run.implied_tau, tuple(reasons))
                )
    return sorted(found, key=lambda o: (o.name, o.run))


def _moved(run: RunFacts) -> bool:
    """Return whether the log implies another TPP or tau than was planned, or another schedule."""
    pairs = ((run.implied_tpp, run.tpp, TPP_TOLERANCE), (run.implied_tau, run.tau, TAU_TOLERANCE))
    return any(
        got is not None and meant is not None and abs(np.log(got / meant)) > np.log1p(tolerance)
        for got, meant, tolerance in pairs
    ) or any("warmup" in text or "steps" in text for text in run.differs)


def _difference(run: RunFacts, band: Band, shared: Sequence[Band]) -> list[str]:
    """Say what keeps a run that is alone out of the nearest band of several sizes."""

    def apart(other: Band) -> tuple[float, str]:
        total = 0.0
        for got, wanted in ((run.tpp, other.tpp), (run.tau, other.tau)):
            total += abs(float(np.log(got / wanted))) if got and wanted else 1.0
        same = band.label.rpartition(", ")[2] == other.label.rpartition(", ")[2]
        return total + (0.0 if same else 1.0), other.label

    nearest = min(shared, key=apart)
    reasons = []
    for got, wanted, tolerance, name in (
        (run.tpp, nearest.tpp, TPP_TOLERANCE, "TPP"),
        (run.tau, nearest.tau, TAU_TOLERANCE, "tau"),
    ):
        if got and wanted and abs(np.log(got / wanted)) > np.log1p(tolerance) / 2:
            reasons.append(
                f"{name} {format_plain(got)}, the nearest band has {format_plain(wanted)}"
            )
    own, theirs = (b.label.rpartition(", ")[2] for b in (band, nearest))
    if own != theirs:
        reasons.append(f"schedule: {own}, the nearest band has {theirs}")
    return reasons
