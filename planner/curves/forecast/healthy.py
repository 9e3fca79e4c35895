"""Which finished runs a forecast may rest on: not those that diverged or left their band far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.curves.curve import Curve

_LEAST_SIZES = 2


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A finished run that no forecast rests on.

    Attributes:
        run: Id in the archive.
        name: Name.
        reason: A sentence, as the score says it.
    """

    run: str
    name: str
    reason: str


def without_sick(curves: Sequence[Curve]) -> tuple[list[Curve], tuple[LeftOut, ...]]:
    """Return the curves less the finished ones that deviate, and those.

    They are scored once, all together (`planner.curves.score`): each is compared with the smallest
    healthy runs of its band, so that the work grows with their number. What is undecidable stays.
    So does what deviates, without having diverged, by less than a sick run does
    (`planner.curves.verdict.HIDDEN`): it moves a forecast less than a size that is lost. And where
    the others of its band are of fewer than two sizes: they do not tell a sick run from what size
    does to a shape.

    Args:
        curves: Of one metric.
    """
    # the score compares with laws, and those with forecasts' helpers
    from planner.curves.bands import grouping
    from planner.curves.bins import bin_curves
    from planner.curves.score import score_binned
    from planner.curves.verdict import HIDDEN

    finished = [curve for curve in curves if curve.finished and curve.steps.size]
    if not finished:
        return list(curves), ()
    scored = score_binned(
        bin_curves(finished),
        metric=finished[0].metric,
        by=grouping(None),
        trusted=False,
        reference=None,
        alpha=0.01,
    )
    deviating = {run.run for run in scored.deviating}
    sizes: dict[str, set[int | None]] = {}
    params = {curve.facts.run: curve.facts.params for curve in finished}
    for run in scored.runs:
        if run.run not in deviating:
            sizes.setdefault(run.band, set()).add(params[run.run])
    sick = {
        run.run: LeftOut(run.run, run.name, run.reason)
        for run in scored.deviating
        # what diverged was compared with nothing
        if run.reference is None
        or ((run.deviation or 0.0) >= HIDDEN and len(sizes.get(run.band, ())) >= _LEAST_SIZES)
    }
    return [curve for curve in curves if curve.facts.run not in sick], tuple(sick.values())
