"""The verb ``plot``: the curves of a family, their reference, and residuals, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    print_json,
    read_plans,
    verb,
)
from planner.units import count_of

if TYPE_CHECKING:
    from planner.curves.drawn import DrawnFamily

_LISTED = 5


@verb
def plot(
    archive: ArchiveFolder,
    output: Annotated[
        str, typer.Option("-o", "--output", help="A .png, .svg or .pdf file (needs extra plots).")
    ],
    plan: PlanOption = None,
    metric: MetricOption = None,
    where: WhereOption = None,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="What makes runs comparable, as for score.")
    ] = None,
    reference: ReferenceOption = None,
    laws: LawsOption = None,
    law: LawOption = None,
    alpha: AlphaOption = 0.01,
    json: Json = False,
) -> None:
    """Draw the normalized curves of a family with their reference, and residuals with onsets."""
    from planner.report import check_picture, draw

    check_picture(output)
    from planner.archive import Archive
    from planner.curves.drawn import drawn_family

    family = drawn_family(
        Archive(archive),
        metric=metric,
        where=where or (),
        plans=read_plans(plan or []),
        group_by=group_by,
        reference=given_reference(reference, laws, law),
        alpha=alpha,
    )
    document = _document(family)
    draw("family", document, output)
    if json:
        print_json(document)
    else:
        _say(family, output)


def _document(family: DrawnFamily) -> dict[str, Any]:
    """Return what is drawn as a document of the schema ``planner.plot/1``."""
    bands = [
        {
            **_fields(band),
            "runs": [_fields(run) for run in band.runs],
        }
        for band in family.bands
    ]
    return {
        "schema": "planner.plot/1",
        "metric": family.metric,
        "bands": bands,
        "left_out": family.left_out,
    }


def _fields(part: Any) -> dict[str, Any]:
    """Return the fields of a run or band; arrays as lists, to six digits."""
    found = {}
    for name in part.__dataclass_fields__:
        value = getattr(part, name)
        found[name] = [float(f"{v:.6g}") for v in value] if hasattr(value, "tolist") else value
    return found


def _say(family: DrawnFamily, output: str) -> None:
    from planner.report import MOST_BANDS

    drawn = family.bands[:MOST_BANDS]
    print(f"wrote {output}: {family.metric}")
    for band in drawn:
        called = sum(run.verdict == "deviating" for run in band.runs)
        more = f", {called} deviating" if called else ""
        print(
            f"  {band.label}: {count_of(len(band.runs), 'run')}{more}; reference {band.reference}"
        )
    for band in family.bands[MOST_BANDS:]:
        print(f"  not drawn: {band.label}, {count_of(len(band.runs), 'run')} (--where chooses)")
    for name, why in list(family.left_out.items())[:_LISTED]:
        print(f"  not drawn: {name}: {why}")
    if len(family.left_out) > _LISTED:
        print(f"  not drawn: {len(family.left_out) - _LISTED} more")
