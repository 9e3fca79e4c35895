"""What the checks of a parametrization print for people."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from planner.cli.tables import console
from planner.units import count_of


def print_coordinates(document: dict[str, Any]) -> None:
    """Print a coordinate check: the activations after the updates at each shape, and verdicts."""
    out = console()
    points = document["points"]
    out.print(
        f"{document['parametrization']}, {count_of(document['steps'], 'update')} "
        "at the peak learning rate, "
        f"{count_of(document['seeds'], 'seed')}; root mean squares after them"
    )
    for axis, spread in document["spread"].items():
        rows = [point for point in points if point["axis"] == axis]
        table = Table(box=box.SIMPLE_HEAD)
        for name in (axis, *rows[0]["after"], "loss"):
            table.add_column(name, justify="right")
        for point in rows:
            table.add_row(
                str(point["d_model" if axis == "width" else "n_layers"]),
                *("nan" if size is None else f"{size:.4g}" for size in point["after"].values()),
                "nan" if point["loss"] is None else f"{point['loss']:.3f}",
            )
        out.print(table)
        if spread is None:
            out.print(f"does not keep its scale over {axis}: a model diverged")
            continue
        word = "keeps" if spread <= document["tolerance"] else "does not keep"
        out.print(
            f"{word} its scale over {axis}: added and hidden stay within {spread:.1%} of the "
            f"first row (tolerance {document['tolerance']:.0%})"
            + ("" if axis in document["promised"] else "; muP does not promise to")
        )


def print_transfer(document: dict[str, Any]) -> None:
    """Print a transfer check: the final loss by learning rate and width, and the verdict."""
    out = console()
    out.print(
        f"{document['parametrization']}, runs of {count_of(document['steps'], 'update')}, "
        f"{count_of(document['seeds'], 'seed')}; final loss"
    )
    best = document["best"]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("base lr", justify="right")
    for each in best:
        table.add_column(f"width {each['d_model']}", justify="right")
    for lr in dict.fromkeys(point["lr"] for point in document["rates"]):
        row = [point["loss"] for point in document["rates"] if point["lr"] == lr]
        table.add_row(f"{lr:.4g}", *("nan" if loss is None else f"{loss:.4f}" for loss in row))
    table.add_section()
    table.add_row("best", *("?" if each["lr"] is None else f"{each['lr']:.4g}" for each in best))
    out.print(table)
    if document["spread"] is None:
        widths = ", ".join(str(each["d_model"]) for each in best if each["lr"] is None)
        out.print(
            f"the best learning rate is not known at width {widths}: the lowest loss is at an end "
            "of the rates, or beside a model that diverged; try other --rates"
        )
        return
    word = "stays" if document["ok"] else "does not stay"
    out.print(
        f"the best learning rate {word} where it is over width: within a factor of "
        f"{document['spread']:.2f} (tolerance {document['tolerance']:g})"
    )
