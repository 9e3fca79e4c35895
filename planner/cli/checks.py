"""The verbs that check a parametrization by training small models: coordinates, learning rate."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from planner.cli.app import Json, PlanFile, json_text, verb
from planner.errors import UnitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from planner.models.parametrization import Kind
    from planner.plan import Plan, Run
    from planner.train.data import TokenData

RunOption = Annotated[str | None, typer.Option("--run", help="Run that gives the architecture.")]
Kinds = Annotated[
    str | None,
    typer.Option("--parametrization", help="Instead of the plan's: standard, mup or completep."),
]
Width = Annotated[int | None, typer.Option(help="Narrowest width; default the plan's base width.")]
DataOption = Annotated[
    str | None, typer.Option("--data", help="Data folder; default made-up tokens.")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads.")]
OutputOption = Annotated[
    str | None, typer.Option("-o", "--output", help="Write the JSON document here; - prints it.")
]
Picture = Annotated[
    str | None, typer.Option(help="Draw it: a .png, .svg or .pdf file (needs the extra plots).")
]


@verb
def coordinate_check(
    file: PlanFile,
    run: RunOption = None,
    width: Width = None,
    depth: Annotated[
        int | None,
        typer.Option(help="Shallowest depth; default the plan's base depth, else the run's."),
    ] = None,
    factors: Annotated[str, typer.Option(help="What both are multiplied by.")] = "1,2,4,8",
    steps: Annotated[int, typer.Option(help="Updates, each at the peak rate.")] = 10,
    sequences: Annotated[int, typer.Option(help="Sequences an update.")] = 8,
    seeds: Annotated[int, typer.Option(help="Seeds that are averaged over.")] = 3,
    parametrization: Kinds = None,
    data: DataOption = None,
    tolerance: Annotated[float, typer.Option(help="Relative spread that passes.")] = 0.2,
    threads: Threads = None,
    output: OutputOption = None,
    picture: Picture = None,
    json: Json = False,
) -> None:
    """Check that activations keep their scale over width and depth; exit code 1 if they do not."""
    asked = _Asked(file, run, width, depth, parametrization, data, threads, picture)
    asked.check(steps=steps, sequences=sequences, seeds=seeds)
    _positive_tolerance(tolerance, above=0)
    ratios = _factors(factors)
    plan, chosen, tokens = asked.read()
    from planner.plan.codec import to_json
    from planner.train.coordinates import coordinate_check

    with _counted("shapes", 2 * len(ratios)) as note:
        check = coordinate_check(
            chosen,
            plan.parametrization,
            width=width or plan.parametrization.base_width,
            depth=depth or _shallowest(plan, chosen),
            factors=ratios,
            steps=steps,
            sequences=sequences,
            seeds=range(seeds),
            kind=asked.kind,
            data=tokens,
            tolerance=tolerance,
            progress=note,
        )
    document = {
        "schema": "planner.coordinates/1",
        "plan": plan.digest,
        "run": chosen.name,
        "parametrization": check.parametrization,
        "steps": check.steps,
        "seeds": seeds,
        "tolerance": tolerance,
        "spread": _finite(check.spread),
        "promised": list(check.promised),
        "ok": check.ok,
        "points": [_finite(to_json(point)) for point in check.points],
    }
    from planner.cli.check_tables import print_coordinates

    _finish(document, output, json, print_coordinates, picture, "coordinates")


@verb
def transfer_check(
    file: PlanFile,
    run: RunOption = None,
    width: Width = None,
    depth: Annotated[
        int | None, typer.Option(help="Depth; default the plan's base depth, else the run's.")
    ] = None,
    factors: Annotated[str, typer.Option(help="What the width is multiplied by.")] = "1,2,4,8",
    rates: Annotated[
        str, typer.Option(help="What the plan's base learning rate is multiplied by.")
    ] = "0.125,0.25,0.5,1,2,4,8",
    steps: Annotated[int, typer.Option(help="Updates of each run.")] = 200,
    sequences: Annotated[int, typer.Option(help="Sequences an update.")] = 8,
    seeds: Annotated[int, typer.Option(help="Seeds that are averaged over.")] = 1,
    parametrization: Kinds = None,
    data: DataOption = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest over smallest best learning rate that passes.")
    ] = 1.5,
    threads: Threads = None,
    output: OutputOption = None,
    picture: Picture = None,
    json: Json = False,
) -> None:
    """Check that the best learning rate is the same at all widths; exit code 1 if it is not."""
    asked = _Asked(file, run, width, depth, parametrization, data, threads, picture)
    asked.check(steps=steps, sequences=sequences, seeds=seeds)
    _positive_tolerance(tolerance, above=1)
    ratios, multipliers = _factors(factors), _rates(rates)
    plan, chosen, tokens = asked.read()
    from planner.plan.codec import to_json
    from planner.train.transfer import transfer_check

    with _counted("runs", len(ratios) * len(multipliers)) as note:
        check = transfer_check(
            chosen,
            plan.parametrization,
            width=width or plan.parametrization.base_width,
            depth=depth or _shallowest(plan, chosen),
            factors=ratios,
            rates=multipliers,
            steps=steps,
            sequences=sequences,
            seeds=range(seeds),
            kind=asked.kind,
            data=tokens,
            tolerance=tolerance,
            progress=note,
        )
    document = {
        "schema": "planner.transfer/1",
        "plan": plan.digest,
        "run": chosen.name,
        "parametrization": check.parametrization,
        "steps": check.steps,
        "seeds": seeds,
        "tolerance": tolerance,
        "spread": _finite(check.spread),
        "ok": check.ok,
        "best": [_finite(to_json(each)) for each in check.best],
        "rates": [_finite(to_json(each)) for each in check.rates],
    }
    from planner.cli.check_tables import print_transfer

    _finish(document, output, json, print_transfer, picture, "transfer")


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options that both checks have."""

    file: str
    run: str | None
    width: int | None
    depth: int | None
    parametrization: str | None
    data: str | None
    threads: int | None
    picture: str | None

    @property
    def kind(self) -> Kind | None:
        """The parametrization asked for in place of the plan's."""
        return cast("Kind | None", self.parametrization)

    def check(self, **counts: int) -> None:
        """Check what is asked for before anything is read or trained.

        Raises:
            PlannerError: If a number does not fit, or an optional part is not installed.
        """
        from planner.models.parametrization import Kind
        from planner.train.extra import require_torch

        require_torch()
        if self.picture is not None:
            from planner.report import check_picture

            check_picture(self.picture)
        kinds = get_args(Kind)
        if self.parametrization is not None and self.parametrization not in kinds:
            raise UnitError(
                f"got {self.parametrization!r}, wanted one of {', '.join(kinds)}",
                field="--parametrization",
            )
        for name in ("width", "depth", "threads"):
            number = getattr(self, name)
            if number is not None:
                counts[name] = number
        for name, number in counts.items():
            if number < 1:
                raise UnitError(f"got {number}, wanted a positive number", field=f"--{name}")

    def read(self) -> tuple[Plan, Run, TokenData | None]:
        """Return the plan, the run that gives the architecture, and the data if any.

        Raises:
            PlannerError: If one of them cannot be read, or they do not fit together.
        """
        from planner.plan import read_plan
        from planner.train.config import choose_run
        from planner.train.data import check_fits, open_data

        plan = read_plan(self.file)
        run = choose_run(plan, self.run, self.file, default_first=True)
        tokens = None if self.data is None else open_data(self.data)
        if tokens is not None:
            check_fits(tokens, run)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return plan, run, tokens


def _shallowest(plan: Plan, run: Run) -> int:
    """Return the base depth; only CompleteP has one that its values are tuned at."""
    rule = plan.parametrization
    return rule.base_depth if rule.kind == "completep" else run.model.n_layers


@contextmanager
def _counted(what: str, total: int) -> Iterator[Callable[[object], None]]:
    """Show how many of them are done."""
    from planner.cli.archive_tables import progress_bar

    with progress_bar(quiet=False) as tell:
        done = 0

        def note(_: object) -> None:
            nonlocal done
            done += 1
            if tell is not None:
                tell(what, done, total)

        yield note


def _finish(
    document: dict[str, Any],
    output: str | None,
    json: bool,
    show: Callable[[dict[str, Any]], None],
    picture: str | None,
    kind: str,
) -> None:
    """Print, write and draw a check's document; exit with 1 if the check failed.

    Printed first: it may have taken an hour, and a file may not be to be written.
    """
    if json or output == "-":
        sys.stdout.write(json_text(document))
    else:
        show(document)
    sys.stdout.flush()
    if output is not None and output != "-":
        from planner.plan.store import write_text

        write_text(output, json_text(document))
    if picture is not None:
        from planner.report import draw

        draw(kind, document, picture)
    if not document["ok"]:
        raise typer.Exit(1)


def _finite(value: Any) -> Any:
    """Return a JSON value with null for what is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _positive_tolerance(tolerance: float, *, above: float) -> None:
    if not above < tolerance < math.inf:
        wanted = "a positive number" if above == 0 else f"a number above {above:g}"
        raise UnitError(f"got {tolerance:g}, wanted {wanted}", field="--tolerance")


def _factors(text: str) -> list[int]:
    wanted = "rising whole numbers such as 1,2,4,8, at least two"
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) < 2 or found[0] < 1 or found != sorted(set(found)):
        raise UnitError(f"got {text!r}, wanted {wanted}", field="--factors")
    return found


def _rates(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    rising = all(a < b for a, b in pairwise(found))
    if len(found) < 3 or not rising or not found[0] > 0 or not found[-1] < math.inf:
        raise UnitError(
            f"got {text!r}, wanted rising positive numbers such as 0.5,1,2, at least three",
            field="--rates",
        )
    return found
