"""The verb that fits laws: planner fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import Force, Json, json_text, print_json, verb
from planner.errors import UnitError, did_you_mean

if TYPE_CHECKING:
    from planner.fitting import Fit

KINDS = ("loss", "tau", "batch", "surrogate", "schedule")


@verb
def fit(
    kind: Annotated[str, typer.Argument(metavar="|".join(KINDS), help="Which law.")],
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="An archive of runs.")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Laws file to write or add to; - prints the laws."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What specs call the law; default: fitted-KIND.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Series; default: the train loss, or the only evaluation.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Such as params>=100M; all must hold; may be repeated."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(help="Name or pattern of runs, of which one must match; may be repeated."),
    ] = None,
    level: Annotated[float, typer.Option(help="Probability that an interval states.")] = 0.9,
    warmup_steps: Annotated[
        int | None, typer.Option(help="For schedule: warm-up that the logs do not tell.")
    ] = None,
    gamma: Annotated[
        str | None, typer.Option(help="For schedule: hold gamma at this, or free to fit it.")
    ] = None,
    residuals: Annotated[
        str | None, typer.Option(help="Write every fitted point here (JSON), for plots.")
    ] = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Fit a law to the runs of an archive; exit code 1 if the runs leave a constant open."""
    if kind not in KINDS:
        raise UnitError(f"got {kind!r}; {did_you_mean(kind, KINDS)}", field="fit")
    if not 0 < level < 1:
        raise UnitError(f"got {level:g}, wanted a probability between 0 and 1", field="--level")
    if name is not None and not name.strip():
        raise UnitError("got nothing, wanted what specs call the law", field="--name")
    if residuals == "-":
        raise UnitError("got -, wanted a file; --json prints the same", field="--residuals")
    if warmup_steps is not None and (kind != "schedule" or warmup_steps < 0):
        wanted = "wanted 0 or more" if kind == "schedule" else "only fit schedule has it"
        raise UnitError(f"got {warmup_steps}; {wanted}", field="--warmup-steps")
    if gamma is not None and kind != "schedule":
        raise UnitError(f"got {gamma}; only fit schedule has it", field="--gamma")
    from planner.archive import Archive
    from planner.fitting import fit_law, laws_text, write_laws
    from planner.plan.store import write_text

    options: dict[str, Any] = {}
    if kind == "schedule":
        options = {"warmup_steps": warmup_steps, "gamma": _gamma(gamma)}
    if name is not None:
        options["name"] = name
    fits = fit_law(
        kind,
        Archive(archive),
        metric=metric,
        where=tuple(where or ()),
        runs=tuple(run or ()),
        level=level,
        **options,
    )
    kept: tuple[str, ...] = ()
    if output is not None and output != "-":
        kept = write_laws([found.law for found in fits], output, force=force)
    document = {"schema": "planner.fit/1", "fits": [_record(found) for found in fits]}
    if residuals is not None:
        write_text(residuals, json_text(document))
    if output == "-":
        sys.stdout.write(laws_text(found.law for found in fits))
    elif json:
        print_json(document)
    else:
        from planner.cli.fitting_tables import print_fits

        print_fits(fits, output, kept)
    if not all(found.ok for found in fits):
        if json or output == "-":
            from planner.cli.tables import print_warnings

            print_warnings([text for found in fits for text in found.warnings])
        raise typer.Exit(1)


def _gamma(given: str | None) -> float | str:
    if given is None or given in ("auto", "free"):
        return given or "auto"
    try:
        value = float(given)
    except ValueError:
        value = float("nan")
    if not -1 <= value <= 2:
        raise UnitError(f"got {given!r}, wanted free or a number from -1 to 2", field="--gamma")
    return value


def _record(fit: Fit) -> dict[str, Any]:
    law = fit.law
    return {
        "kind": fit.kind,
        "name": law.name,
        "metric": fit.metric,
        "runs": fit.runs,
        "law": law,
        "error": fit.error,
        "unit": fit.unit,
        "left_out": fit.left_out,
        "residuals": fit.residuals,
        "notes": fit.notes,
        "warnings": fit.warnings,
    }
