"""What ``planner watch`` draws: a few lines on a terminal, one line a change in a pipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from planner.curves.watch.assess import smoothed

if TYPE_CHECKING:
    from planner.curves.watch import Assessment

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_LARGEST = 700.0  # whose exponential is a float
_SMALL = 0.1  # a difference of logarithms below that is a share, to within a twentieth of itself


def lines(found: Assessment) -> list[str]:
    """Return the view of a run, a few lines of text."""
    curve, i, drift = found.curve, found.last, found.drift
    total = f" of {curve.horizon:,}" if curve.horizon else ""
    at = "" if curve.at is None else f" ({curve.at:.1%})"
    step = int(curve.steps[-1]) if curve.steps.size else 0
    out = [f"{curve.facts.name}  {curve.metric}  step {step:,}{total}{at}"]
    if i is None:
        out.append("loss      none yet")
    else:
        usable = np.isfinite(curve.values) & (curve.values > 0)
        logs = smoothed(np.log(curve.values[usable]))
        out.append(f"loss      {curve.values[i]:<9.4f} {sparkline(logs)}")
    if drift is not None and drift.residual.size:
        mean = smoothed(drift.residual)
        out.append(f"residual  {relative(mean[-1]):<9} {sparkline(mean)}")
        if np.isfinite(drift.score[-1]):
            out.append(
                f"score     {drift.score[-1]:<9.2f} alarm above {drift.threshold:.2f}, "
                f"{found.alpha:.2%} of healthy runs"
            )
    forecast = found.forecast
    if forecast is not None and forecast.final is not None:
        ends = "no interval"
        if forecast.low is not None and forecast.high is not None:
            ends = f"{forecast.low:.4f} to {forecast.high:.4f} ({forecast.level:.0%})"
        out.append(f"final     {forecast.final:<9.4f} {ends}, if it follows {found.reference}")
    if found.spikes:
        steps = ", ".join(f"{spike.step:,}" for spike in found.spikes[-6:])
        out.append(f"spikes    {len(found.spikes):<9} no alarm; the last at {steps}")
    out.append(f"state     {found.state}" + (f": {found.reason}" if found.reason else ""))
    out += [
        f"ALARM     {alarm.kind} at step {alarm.step:,}: {alarm.evidence}" for alarm in found.alarms
    ]
    return out


def line(found: Assessment) -> str:
    """Return one line on a run: for a pipe."""
    curve, i, drift = found.curve, found.last, found.drift
    step = int(curve.steps[-1]) if curve.steps.size else 0
    parts = [f"step {step:,}" + (f"/{curve.horizon:,}" if curve.horizon else "")]
    if i is not None:
        parts.append(f"loss {curve.values[i]:.4f}")
    if drift is not None and drift.residual.size:
        parts.append(f"residual {relative(smoothed(drift.residual)[-1])}")
        if np.isfinite(drift.score[-1]):
            parts.append(f"score {drift.score[-1]:.2f}/{drift.threshold:.2f}")
    if found.forecast is not None and found.forecast.final is not None:
        parts.append(f"final {found.forecast.final:.4f}")
    parts.append(found.state)
    return "  ".join(parts)


def relative(residual: float) -> str:
    """Return a difference of logarithms as a share of the loss; as a factor where it doubles it."""
    if abs(residual) < _SMALL:
        return f"{residual:+.2%}"
    if residual < math.log(2.0):
        return f"{math.expm1(residual):+.1%}"
    if residual > _LARGEST:
        return f"x1e{residual / math.log(10.0):.0f}"
    return f"x{math.exp(residual):.3g}"


def sparkline(values: np.ndarray, width: int = _WIDTH) -> str:
    """Return values as a row of bars, each the mean of a stretch."""
    if not values.size:
        return ""
    parts = np.array_split(values, min(width, values.size))
    means = np.array([float(np.mean(part)) for part in parts])
    low, high = float(means.min()), float(means.max())
    if high <= low:
        return _BARS[0] * means.size
    places = ((means - low) / (high - low) * (len(_BARS) - 1)).round().astype(int)
    return "".join(_BARS[place] for place in places)
