"""The verbs `planner render` and `planner targets`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.app import Force, Json, PlanFile, print_json, verb
from planner.errors import UnitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.render import Rendered


@verb
def render(
    plan: PlanFile,
    output: Annotated[
        str, typer.Option("-o", "--output", help="Folder of the bundle; - prints all files.")
    ],
    target: Annotated[
        str, typer.Option("--target", help="TRAINER[+LAUNCHER]; see `planner targets`.")
    ] = "modelzoo",
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A target's option; may be repeated."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Folder whose templates replace the shipped ones by name.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Then run every validator that can run here.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change, as a diff.")
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Render a plan into the files that start its runs."""
    from planner.plan import read_plan
    from planner.render import check_bundle, preview_plan, render_plan
    from planner.render import render as render_files

    settings = _settings(option or [])
    if check and (dry_run or output == "-"):
        raise UnitError("wanted a bundle that is written, to check it", field="--check")
    if output == "-":
        _print_files(render_files(read_plan(plan), target, settings, templates=templates), json)
        return
    if dry_run:
        preview = preview_plan(
            read_plan(plan), target, output, options=settings, templates=templates, force=force
        )
        if json:
            print_json(
                {
                    **_document(preview.rendered, output, preview.written.changed),
                    "warnings": preview.warnings,
                    "refused": None if preview.refused is None else str(preview.refused),
                    "diff": preview.diffs,
                }
            )
        else:
            sys.stdout.write("".join(preview.diffs.values()))
        if preview.refused is not None:
            raise preview.refused
        return
    bundle = render_plan(
        read_plan(plan), target, output, options=settings, templates=templates, force=force
    )
    checks = check_bundle(output) if check else ()
    if json:
        print_json(
            {
                **_document(bundle.rendered, output, bundle.written.changed),
                "warnings": bundle.warnings,
                "checks": checks,
            }
        )
    else:
        from planner.cli.tables import print_bundle

        print_bundle(bundle, checks)
    if any(item.problems for item in checks):
        raise typer.Exit(1)


@verb
def targets(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="Show this one with its options.")
    ] = None,
    json: Json = False,
) -> None:
    """List what plans can be rendered for, and what each target can express."""
    from planner.render import describe, target_names

    described = [describe(name) for name in ([target] if target else target_names())]
    if json:
        print_json({"schema": "planner.targets/1", "targets": described})
    else:
        from planner.cli.tables import print_targets

        print_targets(described, options=target is not None)


def _document(rendered: Rendered, folder: str, changed: tuple[str, ...]) -> Mapping[str, object]:
    return {
        "schema": "planner.render/1",
        "target": rendered.target,
        "folder": folder,
        "files": list(rendered.files),
        "changed": changed,
    }


def _print_files(rendered: Rendered, json: bool) -> None:
    """Print a bundle's files, each below a line with its path."""
    if json:
        document = {"schema": "planner.render/1", "target": rendered.target}
        print_json({**document, "files": rendered.files, "warnings": rendered.warnings})
        return
    for number, (path, text) in enumerate(rendered.files.items()):
        gap = "\n" if number else ""
        end = "" if text.endswith("\n") else "\n"
        sys.stdout.write(f"{gap}==> {path} <==\n{text}{end}")


def _settings(given: list[str]) -> dict[str, str]:
    settings = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UnitError(f"got {item!r}, wanted NAME=VALUE", field="--set")
        settings[name.replace("-", "_")] = value
    return settings
