"""tau over TPP and batch over tokens: from sweeps to laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from planner.fitting.critical import fit_critical_batch
from planner.fitting.inputs import (
    FinalLoss,
    final_losses,
    group,
    require,
    same,
    select_curves,
    source_text,
)
from planner.fitting.optimum import Sweep
from planner.fitting.power import fit_optima
from planner.fitting.result import Fit
from planner.units import format_count

if TYPE_CHECKING:
    from planner.archive import Archive


def fit_tau(
    archive: Archive,
    *,
    name: str = "fitted-tau",
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    level: float = 0.9,
) -> Fit:
    """Fit the best AdamW timescale as a power law of TPP.

    Runs of one size, budget and schedule shape are a sweep, whatever moved tau in it: weight decay,
    learning rate or batch; where the weight decay alone moved it at some learning rate and batch,
    each of those is a sweep of its own. The optimum of a sweep is that of a parabola in log tau
    through the final losses.

    Args:
        archive: The archive.
        name: What specs are to call the law.
        metric: Series; see `planner.curves.choose_metric`.
        where: Conditions on runs, as for `planner.archive.list_runs`.
        runs: Patterns of names, of which one must match.
        level: Probability that an interval states.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
        FitError: If fewer than two sweeps at different TPP have an optimum.
    """
    selection = select_curves(archive, metric=metric, where=where, runs=runs)
    finished, notes = final_losses(selection.curves)
    known, unknown = require(finished, ("params", "tokens", "tau", "tpp"))
    sweeps = [
        Sweep(
            name=_name(members, f"{members[0].facts.tpp:.4g} TPP") + at,
            setting=np.array([float(run.facts.tau or 0) for run in members]),
            loss=np.array([run.loss for run in members]),
            at=float(members[0].facts.tpp or 0),
            params=float(members[0].facts.params or 0),
            runs=tuple(run.facts.run for run in members),
        )
        for alike in group(known, ("params", "tokens"))
        for members, at in _by_weight_decay(alike)
        if not _alike(members, "tau")
    ]
    return fit_optima(
        sweeps,
        quantity="tau",
        kind="tau",
        name=name,
        metric=selection.metric,
        source=source_text(
            selection, archive.path.name, sum(s.loss.size for s in sweeps), "optima of sweeps"
        ),
        unit="",
        notes=(*notes, *unknown),
        level=level,
    )


def fit_batch(
    archive: Archive,
    *,
    name: str = "fitted-batch",
    metric: str | None = None,
    where: Sequence[str] = (),
    runs: Sequence[str] = (),
    level: float = 0.9,
    seed: int = 0,
) -> list[Fit]:
    """Fit the best batch, and where the runs allow it the critical batch, as power laws of tokens.

    Runs of one size, budget and schedule shape are a sweep over the batch; of runs with one batch
    the best counts, whatever its learning rate and decay. The critical batch (Power Lines, arXiv
    2505.13738): see `planner.fitting.critical`.

    Args:
        archive: The archive.
        name: What specs are to call the law; the critical batch's has ``-critical`` after it.
        metric: As for `fit_tau`, and so ``where``, ``runs`` and ``level``.
        where: Conditions on runs.
        runs: Patterns of names.
        level: Probability that an interval states.
        seed: Of the resampling.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
        FitError: If fewer than two sweeps at different tokens have an optimum, and there is no
            critical batch either.
    """
    selection = select_curves(archive, metric=metric, where=where, runs=runs)
    finished, notes = final_losses(selection.curves)
    known, unknown = require(finished, ("params", "tokens", "batch_tokens"))
    notes += unknown
    sweeps, moved = [], 0
    for members in group(known, ("params", "tokens")):
        best = [
            min(alike, key=lambda run: run.loss)
            for alike in group(members, ("batch_tokens",), by_schedule=False)
        ]
        if len(best) < 2:
            continue
        moved += not _alike(best, "tau")
        sweeps.append(
            Sweep(
                name=_name(best, f"{format_count(float(best[0].facts.tokens or 0))} tokens"),
                setting=np.array([float(run.facts.batch_tokens or 0) for run in best]),
                loss=np.array([run.loss for run in best]),
                at=float(best[0].facts.tokens or 0),
                params=float(best[0].facts.params or 0),
                runs=tuple(run.facts.run for run in best),
            )
        )
    if moved:
        notes.append(
            f"tau differs within {moved} of {len(sweeps)} sweeps: part of what is seen there is "
            "the effect of tau, not of the batch"
        )
    source = source_text(
        selection, archive.path.name, sum(s.loss.size for s in sweeps), "optima of sweeps"
    )
    fits: list[Fit] = []
    failure = None
    from planner.fitting.errors import FitError

    try:
        fits.append(
            fit_optima(
                sweeps,
                quantity="batch",
                kind="batch",
                name=name,
                metric=selection.metric,
                source=source,
                unit="tokens",
                notes=notes,
                level=level,
            )
        )
    except FitError as error:
        failure = error
    critical = fit_critical_batch(
        known,
        name=f"{name}-critical",
        metric=selection.metric,
        source=source_text(selection, archive.path.name, len(known), "critical batch"),
        level=level,
        seed=seed,
    )
    if isinstance(critical, Fit):
        fits.append(critical)
    if not fits:
        assert failure is not None
        raise FitError(f"{failure.message}; nor a critical batch: {critical}")
    if failure is not None:
        fits[0] = _with_note(fits[0], f"no law of the best batch: {failure.message}")
    elif isinstance(critical, str):
        fits[0] = _with_note(fits[0], f"no critical batch: {critical}")
    return fits


def _by_weight_decay(runs: Sequence[FinalLoss]) -> list[tuple[list[FinalLoss], str]]:
    """Return the parts in which weight decay alone moves tau, if any does, and what to call them.

    A grid over learning rate and decay is several sweeps: the best tau of each tells how far it
    depends on the rest, and one parabola through all would mix that in.
    """
    parts = [
        part
        for part in group(runs, ("lr", "batch_tokens"), by_schedule=False)
        if len(group(part, ("tau",), by_schedule=False)) >= 3
    ]
    if not parts:
        return [(list(runs), "")]
    if len(parts) == 1:
        return [(parts[0], "")]
    return [(part, f" lr {part[0].facts.lr:.4g}" if part[0].facts.lr else "") for part in parts]


def _with_note(fit: Fit, note: str) -> Fit:
    from dataclasses import replace

    return replace(fit, notes=(*fit.notes, note))


def _alike(runs: Sequence[FinalLoss], field: str) -> bool:
    first = getattr(runs[0].facts, field)
    return all(same(first, getattr(run.facts, field)) for run in runs)


def _name(runs: Sequence[FinalLoss], at: str) -> str:
    """Name a sweep by size, input and schedule."""
    first = runs[0]
    parts = [format_count(float(first.facts.params or 0)), at]
    if first.facts.schedule:
        parts.append(first.facts.schedule)
    if first.schedule is not None and first.facts.schedule == "wsd":
        parts.append(f"decay from {_decay_start(first):.2g}")
    return " ".join(parts)


def _decay_start(run: FinalLoss) -> float:
    assert run.schedule is not None
    grid = np.linspace(0, 1, 201)
    return float(grid[np.flatnonzero(run.schedule.at(grid) > 0.995)[-1]])
