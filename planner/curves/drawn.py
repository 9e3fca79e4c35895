"""What a picture of a family shows: normalized curves, their reference, residuals, verdicts.

The numbers are those of the score: the same stretches, references and residuals. A run is divided
by its final loss; one that deviates, or is not finished, by the divisor that aligns it with the
reference: its own final loss would hide where it left the others. One that diverged is aligned by
what came before that, if enough did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.curves.band_reference import by_law, comparable
from planner.curves.bands import grouping
from planner.curves.bins import STRETCHES, Binned, bin_batch, join
from planner.curves.errors import CurveError
from planner.curves.law_reference import LawReferences
from planner.curves.load import Loader
from planner.curves.normalize import final_level
from planner.curves.reference import Reference
from planner.curves.residual import JUDGED_FROM, WINDOW, residuals
from planner.curves.score import score_binned
from planner.curves.scored import RunScore
from planner.curves.verdict import Verdict
from planner.kernel import Ragged
from planner.kernel.smoothing import Smoother, smooth

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.plan import Plan

Float64 = NDArray[np.float64]
_GRID = np.linspace(0.0, 1.0, STRETCHES + 1)[1:]


@dataclass(frozen=True, eq=False, slots=True)
class DrawnRun:
    """A run of P points, Q of which are judged.

    Attributes:
        name: Its name.
        params: N, if known.
        verdict: ``healthy``, ``deviating`` or ``undecidable``.
        since: Fraction of training at which a deviation began.
        diverged: Whether that was a divergence, seen without a reference: what follows may be of
            any size.
        fraction: Fractions of training, rising, shape ``(P,)``.
        normalized: Loss over the divisor; its logarithm is a centred mean over a twentieth of
            training, shape ``(P,)``.
        judged: Fractions of training at which the residual is judged, shape ``(Q,)``.
        residual: A share of the loss, a trailing mean over a twentieth of training, shape
            ``(Q,)``.
        allowed: What it may reach there in a healthy run, shape ``(Q,)``.
    """

    name: str
    params: int | None
    verdict: Verdict
    since: float | None
    diverged: bool
    fraction: Float64
    normalized: Float64
    judged: Float64
    residual: Float64
    allowed: Float64


@dataclass(frozen=True, eq=False, slots=True)
class DrawnBand:
    """A band that has a reference.

    Attributes:
        label: Its label.
        reference: Name of the reference.
        fraction: Fractions of training where the reference is known and counts, shape ``(G,)``.
        curve: The reference there: the mean of its members, shape ``(G,)``.
        noise: Standard deviation of its noise, relative, shape ``(G,)``.
        allowed: What the residual of the median run may reach there, not-a-number where no run is
            judged, shape ``(G,)``.
        runs: Its runs, by size and name.
    """

    label: str
    reference: str
    fraction: Float64
    curve: Float64
    noise: Float64
    allowed: Float64
    runs: tuple[DrawnRun, ...]


@dataclass(frozen=True, eq=False, slots=True)
class DrawnFamily:
    """What `drawn_family` found.

    Attributes:
        metric: The series.
        bands: Those with a reference that at least one run was compared with, most runs first.
        left_out: Name of each other run, and why it is not drawn.
    """

    metric: str
    bands: tuple[DrawnBand, ...]
    left_out: dict[str, str]


def drawn_family(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    plans: Sequence[Plan] = (),
    group_by: str | None = None,
    reference: Reference | LawReferences | None = None,
    alpha: float = 0.01,
) -> DrawnFamily:
    """Return the curves of an archive's runs and what the score says of them.

    Args:
        archive: The archive.
        metric: Series; chosen as `planner.curves.score.score_archive` chooses.
        where: Conditions, as for `planner.archive.list_runs`.
        plans: What the runs were meant to be.
        group_by: Fields that make a band.
        reference: Compare with this, or with what laws say; else each band has its own.
        alpha: Probability of calling a healthy run deviating.

    Raises:
        ArchiveError: The archive is damaged or a condition cannot be read.
        CurveError: The metric cannot be chosen, or no run can be compared with a reference.
    """
    if reference is not None:
        metric = metric or reference.metric
    loader = Loader.open(archive, metric=metric, where=where, plans=plans)
    offset = reference.offset if reference is not None else 0.0
    parts = [bin_batch(batch, offset=offset) for batch in loader.batches()]
    if not sum(map(len, parts)):
        raise CurveError(f"no run that was asked for logged {loader.metric}")
    binned = join(parts)
    scored = score_binned(
        binned,
        metric=loader.metric,
        by=grouping(group_by),
        trusted=group_by is not None,
        reference=reference,
        alpha=alpha,
    )
    scores = {score.run: score for score in scored.runs}
    bands: list[DrawnBand] = []
    left_out: dict[str, str] = {}
    for band in scored.bands:
        made = scored.references.get(band.label)
        of = [scores[binned.facts[row].run] for row in band.rows]
        if made is None or all(score.reference is None for score in of):
            left_out |= {score.name: score.reason for score in of}
            continue
        runs = []
        for row, score in zip(band.rows, of, strict=True):
            if isinstance(reference, LawReferences):
                against, _ = by_law(reference, binned, row, loader.metric)
            else:
                against, _ = comparable(
                    binned, row, band, made, reference is not None, group_by is not None
                )
            drawn = _drawn(binned, row, score, against, alpha)
            if drawn is None:
                left_out[score.name] = score.reason
            else:
                runs.append(drawn)
        runs.sort(key=lambda run: (run.params or 0, run.name))
        bands.append(_band(band.label, made, tuple(runs)))
    if not bands:
        raise CurveError(
            "no run can be compared with a reference, so there is nothing to draw; "
            "planner score says why"
        )
    bands.sort(key=lambda band: (-len(band.runs), band.label))
    return DrawnFamily(loader.metric, tuple(bands), left_out)


def _band(label: str, made: Reference, runs: tuple[DrawnRun, ...]) -> DrawnBand:
    """Return a band with its reference and what is allowed there."""
    t = _GRID[np.isfinite(made.at(_GRID)[0]) & (_GRID >= JUDGED_FROM + WINDOW - 1e-9)]
    curve, noise = made.at(t)
    allowed = np.full(t.size, np.nan)
    ranges = [
        np.interp(t, run.judged, run.allowed, left=np.nan, right=np.nan)
        for run in runs
        if run.judged.size and not run.diverged
    ]
    if ranges:
        stacked = np.array(ranges)
        some = np.isfinite(stacked).any(axis=0)
        allowed[some] = np.nanmedian(stacked[:, some], axis=0)
    return DrawnBand(label, made.name, t, np.exp(curve), noise, allowed, runs)


def _drawn(
    binned: Binned, row: int, score: RunScore, against: Reference | None, alpha: float
) -> DrawnRun | None:
    """Return what is drawn of a run; None if nothing can be."""
    mean, time, known = (column[0] for column in binned.rows(np.array([row])))
    if not known.any():
        return None
    divisor = np.nan
    judged = residual = allowed = np.zeros(0)
    diverged = score.verdict == "deviating" and score.reference is None
    if against is not None and (score.reference is not None or _healthy_before(score, against)):
        until = np.array([score.since]) if diverged else None
        found = residuals(binned, np.array([row]), [against], alpha=alpha, until=until)
        some = np.isfinite(found.smooth[0]) & np.isfinite(found.allowed[0])
        judged, residual, allowed = (
            column[0][some] for column in (found.time, found.smooth, found.allowed)
        )
        divisor = float(np.log(found.divisor[0] - against.offset))
    if binned.finished[row] and (score.verdict != "deviating" or not np.isfinite(divisor)):
        divisor, _ = final_level(time[known], mean[known])
    if not np.isfinite(divisor):
        return None
    smoother = Smoother.by_steps(
        WINDOW, steps_per_point=1.0 / np.count_nonzero(known), centred=True
    )
    logs = smooth(Ragged.from_list([mean[known] - divisor]), smoother).curves.values
    return DrawnRun(
        name=score.name,
        params=binned.facts[row].params,
        verdict=score.verdict,
        since=score.since,
        diverged=diverged,
        fraction=time[known],
        normalized=np.exp(logs),
        judged=judged,
        residual=residual,
        allowed=allowed,
    )


def _healthy_before(score: RunScore, against: Reference) -> bool:
    """Whether a run that diverged is known to have been judged for a window before that."""
    start = max(JUDGED_FROM, against.start)
    return (
        score.verdict == "deviating" and score.since is not None and score.since >= start + WINDOW
    )
