"""What the runs of a band are compared with, and whether that can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.curves.bands import Band
from planner.curves.bins import Binned
from planner.curves.forecast.prefix import UndecidableError
from planner.curves.law_reference import LawReferences
from planner.curves.member import Member, make_member, schedule_kinks
from planner.curves.reference import Reference
from planner.curves.residual import LEAST_POINTS, residuals
from planner.curves.scored import RunScore

# A reference is made of so many of the smallest sizes, and runs of each.
REFERENCE_SIZES = 3
RUNS_A_SIZE = 4


def make_reference(
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


_NO_HORIZON = (
    "the log does not tell how many steps the whole run has; tell it at ingest, or say --ended if "
    "all such runs are over"
)


def by_law(
    laws: LawReferences, binned: Binned, row: int, metric: str
) -> tuple[Reference | None, str]:
    """Return what a law says that a run should look like, or why it says nothing."""
    if np.isnan(binned.horizon[row]):
        return None, _NO_HORIZON
    try:
        found = laws.of(
            binned.facts[row], binned.schedules[row], float(binned.horizon[row]), metric
        )
    except UndecidableError as error:
        return None, str(error)
    return found, ""


def comparable(
    binned: Binned,
    row: int,
    band: Band,
    made: Reference | None,
    given: bool,
    trusted: bool,
) -> tuple[Reference | None, str]:
    """Return what a run is compared with, or why with nothing."""
    if np.isnan(binned.horizon[row]):
        return None, _NO_HORIZON
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


def settle(made: Reference, binned: Binned, band: Band, scores: dict[int, RunScore]) -> None:
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
