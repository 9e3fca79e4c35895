"""The verbs that make a plan and look at it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from planner.cli.app import (
    Force,
    Json,
    PlanFile,
    SpecFile,
    print_json,
    verb,
)
from planner.errors import UnitError


@verb
def plan(
    spec: SpecFile,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the plan here; - prints it.")
    ] = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Compile a spec into a plan; exit code 1 if its audit fails."""
    from planner.compile import compile_plan
    from planner.plan import dump_plan, write_plan
    from planner.spec import load_spec

    compiled = compile_plan(load_spec(spec))
    if output is not None and output != "-":
        write_plan(compiled, output, force=force)
    if json or output == "-":
        sys.stdout.write(dump_plan(compiled))
    else:
        from planner.cli.tables import print_plan

        print_plan(compiled)
        if output is not None:
            print(f"wrote {output}")
    if not compiled.ok:
        raise typer.Exit(1)


@verb
def explain(
    plan: PlanFile,
    target: Annotated[str, typer.Argument(metavar="RUN.FIELD", help="Such as 300M-20tpp.steps.")],
    json: Json = False,
) -> None:
    """Say where a number of a plan came from: formula, inputs, law with source, rounding."""
    from planner.plan import explain as explain_field
    from planner.plan import read_plan

    found = explain_field(read_plan(plan), target)
    if json:
        print_json({"schema": "planner.explain/1", "fields": found})
    else:
        from planner.cli.tables import print_explanation

        for explanation in found:
            print_explanation(explanation)


@verb
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A plan.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another plan.")],
    json: Json = False,
) -> None:
    """Show what differs between two plans; exit code 1 if anything does."""
    from planner.plan import diff_plans, read_plan

    changes = diff_plans(read_plan(before), read_plan(after))
    if json:
        print_json({"schema": "planner.diff/1", "changes": changes})
    else:
        from planner.cli.tables import print_changes

        print_changes(changes)
    if changes:
        raise typer.Exit(1)


@verb
def tradeoff(
    tpp: Annotated[
        list[float] | None, typer.Option("--tpp", help="Tokens per parameter; may be repeated.")
    ] = None,
    extra_compute: Annotated[
        list[float] | None,
        typer.Option("--max-extra-compute", help="Such as 0.67 for 67 % more; may be repeated."),
    ] = None,
    params: Annotated[
        list[float] | None,
        typer.Option("--params", help="Parameters against compute-optimal; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what fewer parameters cost in tokens and compute at equal loss."""
    from planner.laws import published, trade_off

    law = published()["iso-loss"]
    points = trade_off(law, tpp=tpp, extra_compute=extra_compute, params_ratio=params)
    if json:
        print_json({"schema": "planner.tradeoff/1", "law": law, "points": points})
    else:
        from planner.cli.tables import print_trade_off

        print_trade_off(law, points)


@verb
def schema(
    of: Annotated[str, typer.Argument(metavar="[spec|plan]", help="What to describe.")] = "spec",
) -> None:
    """Print the JSON Schema of the spec (for editors) or of the plan."""
    from planner.plan import plan_json_schema
    from planner.spec import spec_json_schema

    schemas: dict[str, Callable[[], dict[str, Any]]] = {
        "spec": spec_json_schema,
        "plan": plan_json_schema,
    }
    if of not in schemas:
        raise UnitError(f"got {of!r}, wanted spec or plan", field="schema")
    print_json(schemas[of]())
