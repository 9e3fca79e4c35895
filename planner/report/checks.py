"""Pictures of the coordinate check and of the learning-rate transfer check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What blocks add and the residual stream decide; the rest is shown for whoever looks for a cause.
_CHECKED = ("added", "hidden")


def coordinate_figure(document: dict[str, Any]) -> Figure:
    """Return root mean squares of activations after the updates over width, and over depth.

    Args:
        document: As ``planner coordinate-check --json`` prints it (schema planner.coordinates/1).
    """
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    tolerance = document["tolerance"]
    for where, axis, label in zip(axes, ("width", "depth"), ("d_model", "n_layers"), strict=True):
        points = [point for point in document["points"] if point["axis"] == axis]
        sizes = [point[label] for point in points]
        for name in points[0]["after"]:
            values = [_number(point["after"][name]) for point in points]
            checked = name in _CHECKED
            (line,) = where.plot(
                sizes, values, marker="o", lw=2.0 if checked else 0.8, ms=4, label=name
            )
            if checked:
                low, high = values[0] * (1 - tolerance), values[0] * (1 + tolerance)
                where.axhspan(low, high, color=line.get_color(), alpha=0.1, lw=0)
        spread = document["spread"][axis]
        said = "diverged" if spread is None else f"within {spread:.0%}"
        if axis not in document["promised"]:
            said += ", not promised"
        where.set_title(f"{axis}: {said}")
        _log_sizes(where, sizes, f"{axis} ({label})")
        where.set_yscale("log")
    axes[0].set_ylabel(f"RMS after {document['steps']} updates")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"coordinate check, {document['parametrization']}")
    return figure


def transfer_figure(document: dict[str, Any]) -> Figure:
    """Return the final loss over the base learning rate, one line a width, best rates marked.

    Args:
        document: As ``planner transfer-check --json`` prints it (schema planner.transfer/1).
    """
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    for best in document["best"]:
        points = [point for point in document["rates"] if point["factor"] == best["factor"]]
        rates = [point["lr"] for point in points]
        losses = [_number(point["loss"]) for point in points]
        (line,) = axes.plot(rates, losses, marker="o", ms=3, label=f"{best['d_model']}")
        if best["lr"] is not None:
            axes.axvline(best["lr"], color=line.get_color(), lw=0.8, ls="--")
    finite = [point["loss"] for point in document["rates"] if point["loss"] is not None]
    if finite:
        # a model that nearly diverged would flatten all that matters
        low, high = min(finite), sorted(finite)[(3 * len(finite)) // 4]
        margin = 0.08 * max(high - low, 1e-3)
        axes.set_ylim(low - margin, high + margin)
    axes.set_xscale("log")
    tried = sorted({point["lr"] for point in document["rates"]})
    axes.set_xticks(tried, [f"{lr:.3g}" for lr in tried])
    axes.minorticks_off()
    axes.set_xlabel("base learning rate at the peak (dashed: best)")
    axes.set_ylabel(f"loss after {document['steps']} updates, nats a token")
    axes.legend(title="width")
    spread = document["spread"]
    said = "not known at all widths" if spread is None else f"within a factor of {spread:.2f}"
    axes.set_title(f"{document['parametrization']}: best learning rate {said}")
    return figure


def _number(value: float | None) -> float:
    """Return a JSON number; NaN, which is not drawn, for null."""
    return float("nan") if value is None else value


def _log_sizes(axes: Axes, sizes: list[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel(label)
