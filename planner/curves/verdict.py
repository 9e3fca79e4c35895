"""What is said of runs that were compared with their reference: a verdict with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from planner.curves.noise import row_medians
from planner.curves.residual import LEAST_POINTS, WINDOW, Residuals

Float64 = NDArray[np.float64]
Verdict = Literal["healthy", "deviating", "undecidable"]

# The residual of the paper's sick run reaches this (FACTS A3): noise that would hide it leaves a
# run undecided.
HIDDEN = 0.03
# An excursion that is over again and was shorter than this is not a deviation.
_BRIEF = 0.1


@dataclass(frozen=True, slots=True)
class Cause:
    """What a deviation may come from.

    Attributes:
        cause: Such as ``tau mismatch``.
        weight: Its share of all causes considered, 0 to 1.
        evidence: A sentence.
    """

    cause: str
    weight: float
    evidence: str


def judge(found: Residuals, logged: Float64, finished: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return fields of `planner.curves.score.RunScore` for each run.

    Args:
        found: The runs' residuals.
        logged: Fraction of training that is logged of each.
        finished: Whether each is finished.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        judged = np.isfinite(found.smooth) & np.isfinite(found.allowed)
        ratio = np.where(judged, np.abs(found.smooth) / np.maximum(found.allowed, 1e-12), -1.0)
        last = np.nanmax(np.where(np.isnan(found.time), -1.0, found.time), axis=1, initial=-1.0)
        tail = found.time >= last[:, None] - WINDOW
    worst = np.argmax(ratio, axis=1) if ratio.shape[1] else np.zeros(len(logged), np.int64)
    ending = np.where(tail, found.residual, 0.0).sum(axis=1) / np.maximum(tail.sum(axis=1), 1)
    levels = row_medians(np.where(judged, found.allowed, np.nan))
    decidable = np.isfinite(levels)
    said: list[dict[str, Any]] = []
    for i, k in enumerate(worst.tolist()):
        reason = _undecided(found, i, float(logged[i]), bool(decidable[i]))
        if reason is not None:
            said.append({"verdict": "undecidable", "reason": reason})
            continue
        smooth, allowed = float(found.smooth[i, k]), float(found.allowed[i, k])
        fields: dict[str, Any] = {
            "divisor": float(found.divisor[i] * np.exp(ending[i] if finished[i] else 0.0)),
            "divisor_from": "final loss" if finished[i] else "alignment",
            "deviation": abs(smooth),
            "direction": "above" if smooth > 0 else "below",
            "deviation_at": float(found.time[i, k]),
            "noise": float(found.noise[i, k]),
            "allowed": allowed,
        }
        level = float(levels[i])
        if ratio[i, k] > 1.0:
            said.append(fields | _off(found, i, smooth, allowed, float(found.time[i, k])))
        elif level > HIDDEN:
            whose = "the error of its reference" if found.doubt[i] else "its noise"
            reason = (
                f"{whose} would hide a deviation below {level:.1%}; such a one can matter from "
                f"{HIDDEN:.0%} on"
            )
            said.append(fields | {"verdict": "undecidable", "reason": reason})
        else:
            reason = f"within {level:.2%} of the reference to {logged[i]:.0%} of training"
            said.append(fields | {"verdict": "healthy", "reason": reason})
    return said


def _undecided(found: Residuals, i: int, logged: float, judged: bool) -> str | None:
    """Return why nothing can be said of a run, if so."""
    begin = float(found.start[i]) + WINDOW
    if logged < begin:
        return f"only {logged:.1%} is logged; a run is judged from {begin:.0%} on"
    points = int(found.points[i])
    if points < LEAST_POINTS or not np.isfinite(found.divisor[i]):
        return f"{points} stretches of training with points are too few, {LEAST_POINTS} needed"
    return None if judged else "no stretch of training could be compared"


def _off(found: Residuals, i: int, worst: float, allowed: float, at: float) -> dict[str, Any]:
    """Return the verdict on a run that was beyond what is allowed somewhere."""
    points = int(found.points[i])
    time, beyond = found.time[i, :points], found.beyond[i, :points]
    excursions = _excursions(beyond)
    longest = max(excursions, key=lambda e: float(time[e[1]] - time[e[0]]))
    over = excursions[-1][1] < points - 1
    # one that was there from the first window on began before anything was judged
    early = not np.isfinite(found.smooth[i, max(excursions[0][0] - 1, 0)]) or not excursions[0][0]
    if over and not early and float(time[longest[1]] - time[longest[0]]) < _BRIEF:
        reason = f"off by {worst:+.2%} at {at:.0%} of training, back on the reference since"
        # a little beyond what is allowed, for a moment, is no spike
        spike = worst > 2.0 * allowed
        causes = (Cause("spike that recovers", 1.0, reason),) if spike else ()
        return {"verdict": "healthy", "reason": reason, "causes": causes}
    begun = excursions[0][0] if over and early else longest[0] if over else excursions[-1][0]
    sign = "above" if worst > 0 else "below"
    return {
        "verdict": "deviating",
        "since": _onset(found.smooth[i, :points], found.noise[i, :points], begun, time),
        "reason": (
            f"{abs(worst):.2%} {sign} the reference at {at:.0%} of training, {allowed:.2%} allowed"
        ),
    }


def _excursions(beyond: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last index of each stretch that is beyond what is allowed."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], beyond, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _onset(smooth: Float64, noise: Float64, at: int, time: Float64) -> float:
    """Return where an excursion that was seen at a point began: when it last was within noise."""
    sign = np.sign(smooth[at])
    before = np.flatnonzero(~(sign * smooth[: at + 1] > noise[: at + 1]))
    return float(time[min(int(before[-1]) + 1 if before.size else 0, at)])
