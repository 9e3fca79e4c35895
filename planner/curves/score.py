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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from planner.curves.alarm.lasting import Lasting, lasting_divergence
from planner.curves.bands import Band, grouping, make_bands
from planner.curves.bins import Binned, bin_batch, join
from planner.curves.causes import Deviations, likely_causes
from planner.curves.errors import CurveError
from planner.curves.family import Collapse, Outsider, collapse, outsiders
from planner.curves.load import Loader
from planner.curves.outliers import HardBatch, hard_batches
from planner.curves.reference import Member, Reference, make_member, schedule_kinks
from planner.curves.residual import LEAST_POINTS, WINDOW, residuals
from planner.curves.verdict import Cause, Verdict, judge

if TYPE_CHECKING:
    from planner.archive import Archive
    from planner.plan import Plan

Int64 = NDArray[np.int64]

# A reference is made of so many of the smallest sizes, and runs of each.
REFERENCE_SIZES = 3
RUNS_A_SIZE = 4
_ROWS_AT_A_TIME = 1000


@dataclass(frozen=True, slots=True)
class RunScore:
    """What is said of a run.

    Attributes:
        run: Id in the archive.
        name: Name.
        metric: The series that was judged.
        band: Label of its band.
        reference: What it was compared with; None if with nothing.
        alpha: Probability of calling a healthy run deviating.
        verdict: ``healthy``, ``deviating`` or ``undecidable``.
        since: Fraction of training at which a deviation began.
        reason: Why, in a sentence.
        at: Fraction of training that is logged; None where the run's length is not known.
        divisor: What it is divided by, nats a token.
        divisor_from: ``final loss`` or ``alignment``.
        deviation: Size of the residual, smoothed, as a share of the loss, where it is largest
            against what is allowed.
        direction: ``above`` or ``below`` the reference there.
        deviation_at: The fraction of training there.
        noise: Standard deviation of the residual there by chance.
        allowed: What a healthy run may reach there.
        tau: AdamW timescale, if known.
        tpp: Tokens per parameter, if known.
        causes: Most likely first; empty unless something was seen.
    """

    run: str
    name: str
    metric: str
    band: str
    alpha: float
    verdict: Verdict
    reason: str
    reference: str | None = None
    since: float | None = None
    at: float | None = None
    divisor: float | None = None
    divisor_from: Literal["final loss", "alignment"] | None = None
    deviation: float | None = None
    direction: Literal["above", "below"] | None = None
    deviation_at: float | None = None
    noise: float | None = None
    allowed: float | None = None
    tau: float | None = None
    tpp: float | None = None
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """What `score_archive` found.

    Attributes:
        metric: The series that was judged.
        alpha: Probability of calling a healthy run deviating.
        runs: Scores, by name.
        bands: Bands of the runs, by label.
        references: The reference of each band that has one, by label.
        collapse: How well each band of two or more finished runs collapses, by label.
        outsiders: Runs that will not collapse, by name.
        hard_batches: Steps at which several runs have an outlier, by step.
    """

    metric: str
    alpha: float
    runs: tuple[RunScore, ...]
    bands: tuple[Band, ...]
    references: dict[str, Reference]
    collapse: dict[str, Collapse]
    outsiders: tuple[Outsider, ...]
    hard_batches: tuple[HardBatch, ...]

    @property
    def deviating(self) -> tuple[RunScore, ...]:
        """The runs that deviate."""
        return tuple(run for run in self.runs if run.verdict == "deviating")


def score_archive(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    plans: Sequence[Plan] = (),
    group_by: str | None = None,
    reference: Reference | None = None,
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
        reference: Compare with this; else each band has its own.
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
    if reference is not None and metric is None:
        metric = reference.metric
    loader = Loader.open(archive, metric=metric, where=where, plans=plans, ended=ended)
    if reference is not None and reference.metric != loader.metric:
        raise CurveError(
            f"is of {reference.metric}, wanted one of {loader.metric}", field="--reference"
        )
    offset = reference.offset if reference is not None else 0.0
    binned = join(
        (bin_batch(batch, offset=offset) for batch in loader.batches()), runs=len(loader.facts)
    )
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
    reference: Reference | None,
    alpha: float,
) -> Scored:
    """Score runs that are in stretches already; see `score_archive`.

    Args:
        binned: The runs.
        metric: The series that they are of.
        by: Fields that make a band.
        trusted: Whether the user named them.
        reference: Compare with this; else each band has its own.
        alpha: Probability of calling a healthy run.
    """
    bands = make_bands(binned.facts, binned.schedules, by)
    finished = binned.finished
    blown = {found.row: found for found in lasting_divergence(binned)}
    scores: dict[int, RunScore] = {}
    references: dict[str, Reference] = {}
    waiting: list[tuple[int, Reference]] = []
    labels = {row: band.label for band in bands for row in band.rows}

    def bare(row: int) -> dict[str, Any]:
        return _bare(binned, row, labels[row], metric, alpha, bool(finished[row]))

    for band in bands:
        made = reference
        if made is None and (trusted or not band.unknown):
            healthy = [row for row in band.rows if finished[row] and row not in blown]
            made = _reference(binned, band, healthy, metric, alpha)
        if made is not None:
            references[band.label] = made
        for row in band.rows:
            blowup = blown.get(row)
            if blowup is not None:
                scores[row] = _blown(bare(row), blowup)
                continue
            against, why = _comparable(binned, row, band, made, reference is not None, trusted)
            if against is None:
                scores[row] = RunScore(**bare(row), verdict="undecidable", reason=why)
            else:
                waiting.append((row, against))
    for start in range(0, len(waiting), _ROWS_AT_A_TIME):
        some = waiting[start : start + _ROWS_AT_A_TIME]
        rows = np.array([row for row, _ in some], np.int64)
        found = residuals(binned, rows, [against for _, against in some], alpha=alpha)
        judged = judge(found, np.minimum(binned.logged[rows], 1.0), finished[rows])
        off = [i for i, said in enumerate(judged) if said["verdict"] == "deviating"]
        if off:
            against_of = [some[i][1] for i in off]
            causes = _causes(binned, rows[off].tolist(), against_of, found.long_run[off])
            for i, cause in zip(off, causes, strict=True):
                judged[i]["causes"] = cause
        for (row, against), said in zip(some, judged, strict=True):
            scores[row] = RunScore(**{**bare(row), **said}, reference=against.name)
    for band in bands:
        if reference is None and band.label in references:
            _unsettled(references[band.label], binned, band, scores)
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
    )


def _reference(
    binned: Binned, band: Band, rows: list[int], metric: str, alpha: float
) -> Reference | None:
    """Make a band's reference of its smallest finished runs; None if there is none.

    Of three or more, those that the others disown are left out, the worst first.
    """
    facts = binned.facts
    rows = sorted(rows, key=lambda row: (facts[row].params or 0, facts[row].name, facts[row].run))
    sizes = sorted({facts[row].params or 0 for row in rows})[:REFERENCE_SIZES]
    taken = dict.fromkeys(sizes, 0)
    members: dict[int, Member] = {}
    for row in rows:
        size = facts[row].params or 0
        if taken.get(size, RUNS_A_SIZE) >= RUNS_A_SIZE:
            continue
        mean, time, known = (column[0] for column in binned.rows(np.array([row])))
        if np.count_nonzero(known) < LEAST_POINTS:
            continue
        taken[size] += 1
        kinks = schedule_kinks(binned.schedules[row])
        members[row] = make_member(facts[row], time[known], mean[known], kinks=kinks)
    while members:
        made = Reference(
            metric, tuple(members.values()), schedule=band.schedule, tau=band.tau, tpp=band.tpp
        )
        if len(members) < 3:
            return made
        others = [made.without(facts[row].run) for row in members]
        found = residuals(
            binned, np.array(list(members)), [o for o in others if o is not None], alpha=alpha
        )
        with np.errstate(invalid="ignore"):
            worst = np.nanmax(
                np.where(found.beyond, np.abs(found.smooth) / found.allowed, 0.0), axis=1
            )
        if not worst.max() > 1.0:
            return made
        del members[list(members)[int(np.argmax(worst))]]
    return None


def _comparable(
    binned: Binned,
    row: int,
    band: Band,
    made: Reference | None,
    given: bool,
    trusted: bool,
) -> tuple[Reference | None, str]:
    """Return what a run is compared with, or why with nothing."""
    if np.isnan(binned.horizon[row]):
        return None, (
            "the log does not tell how many steps the whole run has; tell it at ingest, or say "
            "--ended if all such runs are over"
        )
    if band.unknown and not trusted and not given:
        *most, last = (name.replace("tpp", "TPP") for name in band.unknown)
        names = f"{', '.join(most)} and {last}" if most else last
        return None, f"the log does not tell its {names}, so nothing is known to be comparable"
    if given and made is not None and made.schedule is not None and not trusted:
        own = binned.schedules[row]
        if own is None:
            return None, "its schedule is not known, and the reference holds for one"
        until = min(float(own.fractions[-1]), float(binned.logged[row]), 1.0)
        apart = own.distance(made.schedule, until=until)
        if apart > 2 * 0.05:
            return None, (
                f"no reference of the same schedule: its learning rate differs from the "
                f"reference's by {apart:.0%} of the peak"
            )
    if made is None:
        return None, f"no finished healthy run of its band ({band.label}) to compare with"
    against = made.without(binned.facts[row].run)
    if against is None:
        return None, "it is the only finished run of its band: the reference itself"
    return against, ""


def _unsettled(made: Reference, binned: Binned, band: Band, scores: dict[int, RunScore]) -> None:
    """Take back what two runs that make a reference say of each other: nothing tells which is sick.

    Of two sizes the smaller is trusted, as the paper does.
    """
    sizes = {member.run: member.params for member in made.members}
    if len(sizes) != 2:
        return
    rows = [row for row in band.rows if binned.facts[row].run in sizes and row in scores]
    known = [size for size in sizes.values() if size is not None]
    different = len(set(known)) == 2
    for row in rows:
        score = scores[row]
        if score.verdict != "deviating" or (different and binned.facts[row].params != min(known)):
            continue
        other = next((scores[r].name for r in rows if r != row), "the other")
        if different:
            reason = f"it is the smallest of its band and makes the reference; {other} differs"
        else:
            reason = f"it and {other} differ: {score.reason}; nothing tells which is at fault"
        scores[row] = replace(score, verdict="undecidable", since=None, reason=reason, causes=())


def _causes(
    binned: Binned, rows: list[int], references: list[Reference], noise: NDArray[np.float64]
) -> list[tuple[Cause, ...]]:
    """Return the likely causes of some runs' deviations."""
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


def _bare(
    binned: Binned, row: int, label: str, metric: str, alpha: float, finished: bool
) -> dict[str, Any]:
    """Return what is said of a run before it is compared."""
    facts = binned.facts[row]
    known = not np.isnan(binned.horizon[row])
    divisor: float | None = None
    if known and finished:
        tail = binned.mean[row][-max(1, round(WINDOW * binned.mean.shape[1])) :]
        tail = tail[np.isfinite(tail)]
        divisor = float(np.exp(np.mean(tail, dtype=np.float64))) if tail.size else None
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
