"""Which finished runs forecasts and laws may rest on: none that diverged or left its band far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.curves.curve import Curve

if TYPE_CHECKING:
    from planner.curves.bins import Binned

_LEAST_SIZES = 2


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A finished run that nothing rests on.

    Attributes:
        run: Id in the archive.
        name: Name.
        reason: A sentence, as the score says it.
    """

    run: str
    name: str
    reason: str


def without_sick(curves: Sequence[Curve]) -> tuple[list[Curve], tuple[LeftOut, ...]]:
    """Return the curves less the finished ones that deviate (`sick_runs`), and those.

    Args:
        curves: Of one metric.
    """
    from planner.curves.bins import bin_curves

    finished = [curve for curve in curves if curve.finished and curve.steps.size]
    if not finished:
        return list(curves), ()
    left_out = sick_runs(bin_curves(finished), finished[0].metric)
    sick = {each.run for each in left_out}
    return [curve for curve in curves if curve.facts.run not in sick], left_out


def sick_runs(finished: Binned, metric: str) -> tuple[LeftOut, ...]:
    """Return the runs that nothing should rest on.

    They are scored once, all together (`planner.curves.score`): each is compared with the smallest
    healthy runs of its band, so that the work grows with their number. What is undecidable stays.
    So does what deviates, without having diverged, by less than a sick run does
    (`planner.curves.verdict.HIDDEN`): it moves a forecast less than a size that is lost. And where
    the others of its band are of fewer than two sizes: they do not tell a sick run from what size
    does to a shape.

    Args:
        finished: Runs that came to their end.
        metric: Theirs.
    """
    # the score compares with laws, and those with forecasts' helpers
    from planner.curves.bands import grouping
    from planner.curves.score import score_binned
    from planner.curves.verdict import HIDDEN

    scored = score_binned(
        finished,
        metric=metric,
        by=grouping(None),
        trusted=False,
        reference=None,
        alpha=0.01,
    )
    deviating = {run.run for run in scored.deviating}
    sizes: dict[str, set[int | None]] = {}
    params = {facts.run: facts.params for facts in finished.facts}
    for run in scored.runs:
        if run.run not in deviating:
            sizes.setdefault(run.band, set()).add(params[run.run])
    return tuple(
        LeftOut(run.run, run.name, run.reason)
        for run in scored.deviating
        # what diverged was compared with nothing
        if run.reference is None
        or ((run.deviation or 0.0) >= HIDDEN and len(sizes.get(run.band, ())) >= _LEAST_SIZES)
    )
