"""The picture of a family: how its normalized curves collapse, and which runs do not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from planner.report.pictures import MOST_BANDS
from planner.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FROM = 0.1  # of training; before, the fall from the initial loss would flatten all that matters
_CALLED = "tab:red"
_NAMED = 4
_ROOM = 3.0  # the residual of a run that diverged may take so many times what all others do


def family_figure(document: dict[str, Any]) -> Figure:
    """Return normalized curves over the fraction of training, and residuals below; a column a band.

    At most `MOST_BANDS` bands are drawn, the first of the document.

    Args:
        document: As ``planner plot --json`` prints it (schema planner.plot/1).
    """
    bands = document["bands"][:MOST_BANDS]
    figure = Figure(figsize=(1.3 + 4.2 * len(bands), 5.6), layout="constrained")
    axes = figure.subplots(
        2, len(bands), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2)
    )
    sizes = sorted({run["params"] or 0 for band in bands for run in band["runs"]})
    colors = _colors(sizes)
    for column, band in enumerate(bands):
        curves, residuals = axes[0][column], axes[1][column]
        _draw_curves(curves, band, colors)
        _draw_residuals(residuals, band, colors)
        curves.set_title(band["label"])
        residuals.set_xlabel("fraction of training")
        for where in (curves, residuals):
            _mark_onsets(where, band)
        if any(run["verdict"] == "deviating" for run in band["runs"]):
            curves.legend(loc="upper right", frameon=True, framealpha=1.0, edgecolor="none")
    axes[0][0].set_xlim(_FROM, 1.0)
    everyone = [run for band in bands for run in band["runs"]]
    well = [run for run in everyone if run["verdict"] != "deviating"]
    low, high = _limits([(run["fraction"], run["normalized"]) for run in well or everyone])
    axes[0][0].set_ylim(low, high)
    axes[0][0].set_ylabel(f"{document['metric']} / final")
    axes[1][0].set_ylabel("residual, % of the loss")
    reach = _residual_limit(bands)
    if reach is not None:
        axes[1][0].set_ylim(-reach, reach)
    shown = [axes[0][0].plot([], [], color=colors[size])[0] for size in sizes]
    labels = [format_count(size) if size else "unknown" for size in sizes]
    shown.append(axes[0][0].plot([], [], color="black", ls="--", lw=1.2)[0])
    labels.append("reference,\n± 2 s.d.")
    shown.append(axes[1][0].fill_between([], [], [], color="black", alpha=0.15, lw=0))
    labels.append("healthy range\n(median run)")
    figure.legend(shown, labels, loc="outside right upper", title="parameters")
    return figure


def _draw_curves(axes: Axes, band: dict[str, Any], colors: dict[int, Any]) -> None:
    for run in band["runs"]:
        called = run["verdict"] == "deviating"
        axes.plot(
            run["fraction"],
            run["normalized"],
            color=_CALLED if called else colors[run["params"] or 0],
            lw=1.6 if called else 0.9,
            zorder=3 if called else 2,
        )
    curve, noise = band["curve"], band["noise"]
    low, high = (
        [value * (1 + sign * 2 * error) for value, error in zip(curve, noise, strict=True)]
        for sign in (-1, 1)
    )
    axes.fill_between(band["fraction"], low, high, color="black", alpha=0.15, lw=0, zorder=4)
    axes.plot(band["fraction"], curve, color="black", ls="--", lw=1.2, zorder=5)


def _draw_residuals(axes: Axes, band: dict[str, Any], colors: dict[int, Any]) -> None:
    axes.axhline(0.0, color="black", lw=0.8, ls="--")
    allowed = [100 * value for value in band["allowed"]]
    below = [-value for value in allowed]
    axes.fill_between(band["fraction"], below, allowed, color="black", alpha=0.15, lw=0)
    for run in band["runs"]:
        called = run["verdict"] == "deviating"
        axes.plot(
            run["judged"],
            [100 * value for value in run["residual"]],
            color=_CALLED if called else colors[run["params"] or 0],
            lw=1.6 if called else 0.9,
            zorder=3 if called else 2,
        )


def _residual_limit(bands: list[dict[str, Any]]) -> float | None:
    """Return how far the axes of residuals go, in percent; None if no run that diverged has any."""
    usual: list[float] = []
    blown: list[float] = []
    for band in bands:
        usual += band["allowed"]
        for run in band["runs"]:
            (blown if run.get("diverged") else usual).extend(run["residual"])
    if not blown:
        return None
    most = max((abs(value) for value in usual if math.isfinite(value)), default=0.0)
    if most == 0.0:
        return None
    return 105.0 * min(max(most, *(abs(value) for value in blown)), _ROOM * most)


def _mark_onsets(axes: Axes, band: dict[str, Any]) -> None:
    """Mark where each called run was last on the reference; its label goes to the legend."""
    called = [run for run in band["runs"] if run["verdict"] == "deviating"]
    for i, run in enumerate(called):
        since = run["since"]
        text = run["name"] if since is None else f"{run['name']}, since {since:.0%}"
        if i >= _NAMED:
            text = "_"
        elif i == _NAMED - 1 and len(called) > _NAMED:
            text += f" (and {len(called) - _NAMED} more)"
        # one of which it is not known since when is in the legend only
        at = float("nan") if since is None else since
        axes.axvline(at, color=_CALLED, lw=1.0, ls=":", label=text)


def _colors(sizes: list[int]) -> dict[int, Any]:
    shades = mpl.colormaps["viridis"]
    return {size: shades(0.9 * i / max(len(sizes) - 1, 1)) for i, size in enumerate(sizes)}


def _limits(curves: list[tuple[list[float], list[float]]]) -> tuple[float, float]:
    """Return limits that hold every curve where it is shown; a run that blew up may leave them."""
    tops, lows = [], []
    for fraction, values in curves:
        shown = [
            v for t, v in zip(fraction, values, strict=True) if t >= _FROM and math.isfinite(v)
        ]
        if shown:
            tops.append(max(shown))
            lows.append(min(shown))
    if not tops:
        return 0.9, 1.5
    top = min(max(tops), 2.0 * sorted(tops)[len(tops) // 2])
    low = max(min(lows), 0.5 * sorted(lows)[len(lows) // 2])
    return low - 0.03 * (top - low) - 0.005, top + 0.03 * (top - low)
