"""What the single points of a reference's runs stray from its smooth curve.

Runs that see the same batches in the same order share most of the noise of their training loss: in
the 124M sweep of wsd_cosine_llama it correlates by 0.98 and more between learning rates, schedules
and sizes. `planner.curves.alarm.shared` takes that part out of a run that is watched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from planner.curves.curve import Curve
from planner.curves.member import GRID, SMOOTHED, Member
from planner.curves.noise import point_noise
from planner.curves.normalize import log_excess
from planner.curves.reference import Reference


def with_points(reference: Reference, curves: Iterable[Curve]) -> Reference:
    """Return the reference with the logged points of its runs, where those are noisy.

    Args:
        reference: Made of runs.
        curves: Their curves, and any others.
    """
    members = {member.run: member for member in reference.members}
    for curve in curves:
        if curve.facts.run in members and curve.metric == reference.metric:
            member = members[curve.facts.run]
            members[curve.facts.run] = _with_points(member, curve, reference.offset)
    return replace(reference, members=tuple(members[m.run] for m in reference.members))


def _with_points(member: Member, curve: Curve, offset: float) -> Member:
    logs = log_excess(curve.values, offset)
    known = np.isfinite(member.shape)
    t = curve.fraction
    usable = np.isfinite(logs) & (t >= GRID[known][0])
    smooth = np.interp(
        np.log(np.maximum(t[usable], GRID[0])), np.log(GRID[known]), member.shape[known]
    )
    noise = logs[usable] - np.log(member.final - offset) - smooth
    if noise.size < 5 or not point_noise(noise[-200:]) > SMOOTHED:
        return member
    return replace(member, steps=curve.steps[usable], noise=noise)
