"""Scores: each run against the reference of its band, with a verdict that says why.

`score_archive` reads an archive once, in the order in which it is stored, and keeps a few kilobytes
of each run (`planner.curves.bins`). Runs are put into bands (`planner.curves.bands`); the smallest
healthy finished runs of a band are its reference, unless one is given; every run is compared with
it (`planner.curves.residual`), a member of the reference with what the others make.

A verdict is *deviating since t*, *healthy*, or *undecidable* with the reason. Undecidable is said
where nothing that is comparable has finished, the run's length or schedule is not known, too little
is logged, or the noise would hide what the paper's sick run showed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.curves.alarm.lasting import Lasting, lasting_divergence
from planner.curves.band_reference import by_law, comparable, make_reference, settle
from planner.curves.bands import grouping, make_bands, mostly_alone
from planner.curves.bins import Binned, bin_batch, join
from planner.curves.causes import Deviations, likely_causes
from planner.curves.errors import CurveError
from planner.curves.family import collapse, outsiders
from planner.curves.law_reference import LawReferences
from planner.curves.load import Loader
from planner.curves.outliers import hard_batches
from planner.curves.reference import Reference
from planner.curves.residual import WINDOW, residuals
from planner.curves.scored import RunScore, Scored
from planner.curves.threads import in_threads
from planner.curves.verdict import Cause, judge

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.plan import Plan

Float64 = NDArray[np.float64]

_ROWS_AT_A_TIME = 1000
_POINTS_AT_A_TIME = 500_000


def score_archive(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    plans: Sequence[Plan] = (),
    group_by: str | None = None,
    reference: Reference | LawReferences | None = None,
    alpha: float = 0.01,
    ended: bool = False,
) -> Scored:
    """Score the runs of an archive.

    Args:
        archive: The archive.
        metric: Series; the reference's, else as `planner.curves.choose_metric` chooses.
        where: Conditions, as for `planner.archive.list_runs`.
        plans: What the runs were meant to be.
        group_by: Fields that make a band, as `planner.curves.bands.grouping` reads them; the
            user's word that such runs are comparable, whatever else is not known of them.
        reference: Compare with this, or with what laws say; else each band has its own.
        alpha: Probability of calling a healthy run over its whole length, above 0 and below 0.5.
        ended: Whether a run whose length the log does not tell is taken to have ended where its
            log does.

    Raises:
        ArchiveError: The archive is damaged or a condition cannot be read.
        CurveError: The metric cannot be chosen, or an argument is out of range.
    """
    if not 0.0 < alpha < 0.5:
        raise CurveError(f"got {alpha:g}, wanted above 0 and below 0.5", field="--alpha")
    by = grouping(group_by)
    given = "--laws" if isinstance(reference, LawReferences) else "--reference"
    theirs = None if reference is None else reference.metric
    try:
        loader = Loader.open(
            archive, metric=metric or theirs, where=where, plans=plans, ended=ended
        )
    except CurveError as error:
        if metric is None and theirs is not None and error.field == "--metric":
            raise CurveError(f"is of {theirs}: {error.message}", field=given) from None
        raise
    if theirs not in (None, loader.metric):
        raise CurveError(f"is of {theirs}, and what is scored is {loader.metric}", field=given)
    offset = reference.offset if reference is not None else 0.0
    parts = in_threads(
        lambda batch: bin_batch(batch, offset=offset), loader.batches(points=_POINTS_AT_A_TIME)
    )
    binned = join(parts, runs=len(loader.facts))
    if not len(binned):
        raise CurveError(f"no run that was asked for logged {loader.metric}")
    return score_binned(
        binned,
        metric=loader.metric,
        by=by,
        trusted=group_by is not None,
        reference=reference,
        alpha=alpha,
    )


def score_binned(
    binned: Binned,
    *,
    metric: str,
    by: tuple[str, ...],
    trusted: bool,
    reference: Reference | LawReferences | None,
    alpha: float,
) -> Scored:
    """Score runs that are in stretches already; see `score_archive`.

    Args:
        binned: The runs.
        metric: The series that they are of.
        by: Fields that make a band.
        trusted: Whether the user named them.
        reference: Compare with this, or with what laws say; else each band has its own.
        alpha: Probability of calling a healthy run.
    """
    laws = reference if isinstance(reference, LawReferences) else None
    bands = make_bands(binned.facts, binned.schedules, by)
    finished = binned.finished
    blown = {found.row: found for found in lasting_divergence(binned)}
    scores: dict[int, RunScore] = {}
    references: dict[str, Reference] = {}
    waiting: list[tuple[int, Reference]] = []
    labels = {row: band.label for band in bands for row in band.rows}

    divisors = _divisors(binned, finished)

    def bare(row: int) -> dict[str, Any]:
        return _bare(binned, row, labels[row], metric, alpha, divisors[row])

    for band in bands:
        made = None if isinstance(reference, LawReferences) else reference
        if reference is None and (trusted or not band.unknown):
            healthy = [row for row in band.rows if finished[row] and row not in blown]
            made = make_reference(binned, band, healthy, metric, alpha)
        told: dict[int, tuple[Reference | None, str]] = {}
        if laws is not None:
            told = {row: by_law(laws, binned, row, metric) for row in band.rows}
            made = next((of for of, _ in told.values() if of is not None), None)
        if made is not None:
            references[band.label] = made
        for row in band.rows:
            blowup = blown.get(row)
            if blowup is not None:
                scores[row] = _blown(bare(row), blowup)
                continue
            against, why = told.get(row) or comparable(
                binned, row, band, made, reference is not None, trusted
            )
            if against is None:
                scores[row] = RunScore(**bare(row), verdict="undecidable", reason=why)
            else:
                waiting.append((row, against))
    off: list[tuple[int, Reference, float]] = []  # with the noise

    def judged(some: list[tuple[int, Reference]]) -> tuple[list[dict[str, Any]], Float64]:
        rows = np.array([row for row, _ in some], np.int64)
        found = residuals(binned, rows, [against for _, against in some], alpha=alpha)
        said = judge(found, np.minimum(binned.logged[rows], 1.0), finished[rows])
        return said, found.long_run

    parts = [waiting[i : i + _ROWS_AT_A_TIME] for i in range(0, len(waiting), _ROWS_AT_A_TIME)]
    for some, (all_said, noise) in zip(parts, in_threads(judged, parts), strict=True):
        for (row, against), said, own in zip(some, all_said, noise.tolist(), strict=True):
            scores[row] = RunScore(**{**bare(row), **said}, reference=against.name)
            if said["verdict"] == "deviating":
                off.append((row, against, own))
    for start in range(0, len(off), _ROWS_AT_A_TIME):
        part = off[start : start + _ROWS_AT_A_TIME]
        for (row, _, _), causes in zip(part, _causes(binned, part), strict=True):
            scores[row] = replace(scores[row], causes=causes)
    for band in bands:
        if reference is None and band.label in references:
            settle(references[band.label], binned, band, scores)
    well = finished.copy()
    well[list(blown)] = False
    quality = {
        band.label: found_quality
        for band in bands
        if band.label in references
        and (found_quality := collapse(binned, band, references[band.label], well)) is not None
    }
    by_id = {score.run: score for score in scores.values()}
    ordered = sorted(scores.values(), key=lambda s: (s.name, s.run))
    return Scored(
        metric,
        alpha,
        tuple(ordered),
        tuple(bands),
        references,
        quality,
        tuple(outsiders(binned.facts, bands, by_id)),
        hard_batches(binned),
        None
        if trusted or reference is not None
        else mostly_alone(binned.facts, binned.schedules, bands),
    )


def _causes(binned: Binned, off: Sequence[tuple[int, Reference, float]]) -> list[tuple[Cause, ...]]:
    """Return the likely causes of some runs' deviations."""
    rows, references = [row for row, _, _ in off], [reference for _, reference, _ in off]
    noise = np.array([own for _, _, own in off])
    mean, time, known = binned.rows(np.array(rows))
    curve = np.array(
        [
            reference.at(t, binned.facts[row].params)[0]
            for row, t, reference in zip(rows, time, references, strict=True)
        ]
    )
    facts = [binned.facts[row] for row in rows]
    return likely_causes(
        Deviations(
            residual=np.where(known, mean - curve, np.nan),
            curve=curve,
            noise=noise,
            facts=facts,
            schedules=[binned.schedules[row] for row in rows],
            references=references,
            restarts=[
                [step / binned.horizon[row] for step in f.boundaries]
                for row, f in zip(rows, facts, strict=True)
            ],
        )
    )


def _divisors(binned: Binned, finished: NDArray[np.bool_]) -> list[float | None]:
    """Return the final loss of each finished run, over the last window; None of the others."""
    tail = binned.mean[:, -max(1, round(WINDOW * binned.mean.shape[1])) :].astype(np.float64)
    known = np.isfinite(tail)
    count = np.count_nonzero(known, axis=1)
    level = np.exp(np.where(known, tail, 0.0).sum(axis=1) / np.maximum(count, 1))
    told = finished & (count > 0) & ~np.isnan(binned.horizon)
    return [one if yes else None for one, yes in zip(level.tolist(), told.tolist(), strict=True)]


def _bare(
    binned: Binned, row: int, label: str, metric: str, alpha: float, divisor: float | None
) -> dict[str, Any]:
    """Return what is said of a run before it is compared."""
    facts = binned.facts[row]
    known = not np.isnan(binned.horizon[row])
    return {
        "run": facts.run,
        "name": facts.name,
        "metric": metric,
        "band": label,
        "alpha": alpha,
        "at": min(1.0, float(binned.logged[row])) if known else None,
        "divisor": divisor,
        "divisor_from": None if divisor is None else "final loss",
        "tau": facts.tau,
        "tpp": facts.tpp,
    }


def _blown(base: dict[str, Any], blowup: Lasting) -> RunScore:
    since = blowup.since if base["at"] is not None else None
    cause = Cause(blowup.cause, 1.0, blowup.evidence)
    return RunScore(
        **base, verdict="deviating", since=since, reason=blowup.evidence, causes=(cause,)
    )
