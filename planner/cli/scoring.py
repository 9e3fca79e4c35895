"""The verb ``score``: runs against the reference of their family."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from planner.cli.app import (
    AlphaOption,
    ArchiveFolder,
    Json,
    LawOption,
    LawsOption,
    MetricOption,
    PlanOption,
    ReferenceOption,
    WhereOption,
    given_reference,
    read_plans,
    verb,
)

_LEAST_ALPHA = 1e-9


@verb
def score(
    archive: ArchiveFolder,
    plan: PlanOption = None,
    metric: MetricOption = None,
    where: WhereOption = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="What makes runs comparable: fields such as tpp,schedule, or none; "
            "tpp,tau,schedule if not given.",
        ),
    ] = None,
    reference: ReferenceOption = None,
    laws: LawsOption = None,
    law: LawOption = None,
    alpha: AlphaOption = 0.01,
    ended: Annotated[
        bool,
        typer.Option(
            "--ended", help="Runs of unknown length ended where their logs do; else undecidable."
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="Write the reference of the one band here; - prints it."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 for undecidable runs too.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare runs with their family; exit code 1 if one deviates."""
    from planner.archive import Archive
    from planner.cli.score_tables import print_scores, print_scores_json
    from planner.curves import CurveError
    from planner.curves.load import load_curves
    from planner.curves.points import with_points
    from planner.curves.reference_file import dump_reference
    from planner.curves.score import score_archive

    if 0 < alpha < _LEAST_ALPHA:
        raise CurveError(f"got {alpha:g}, wanted {_LEAST_ALPHA:g} or more", field="--alpha")
    if json and output == "-":
        raise CurveError("prints a reference on standard output, as --json does", field="-o -")
    if output is not None and output != "-":
        _spare(output)
    opened = Archive(archive)
    plans = read_plans(plan or [])
    scored = score_archive(
        opened,
        metric=metric,
        where=where or [],
        plans=plans,
        group_by=group_by,
        reference=given_reference(reference, laws, law),
        alpha=alpha,
        ended=ended,
    )
    if output is not None:
        made = list(scored.references.values())
        if len(made) != 1:
            names = "; ".join(sorted(scored.references)[:4])
            raise CurveError(
                f"{len(made)} bands have a reference, wanted one"
                + (f" ({names}): say which by --where" if made else ""),
                field="--output",
            )
        loaded = load_curves(opened, metric=scored.metric, where=where or [], plans=plans)
        whole = with_points(made[0], (curve for batch in loaded for curve in batch))
        if output == "-":
            sys.stdout.write(dump_reference(whole))
        else:
            whole.save(output)
    if output == "-":
        pass
    elif json:
        print_scores_json(scored)
    else:
        print_scores(scored)
        if output is not None:
            print(f"wrote {output}")
    if scored.deviating or (strict and any(r.verdict == "undecidable" for r in scored.runs)):
        raise typer.Exit(1)


def _spare(output: str) -> None:
    """Refuse to write a reference over a file that is none."""
    from planner.curves import CurveError, Reference

    if Path(output).is_file() and Path(output).stat().st_size:
        try:
            Reference.load(output)
        except CurveError:
            raise CurveError(
                "exists and is no reference; nothing was written", file=output
            ) from None
