"""What every verb shares: how it is registered, its common options, how it prints JSON."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from planner.errors import OutputError, PlannerError

INTERNAL_ERROR = 70
INTERRUPTED = 130

# pydantic would look through every installed distribution for plugins: 40 ms for nothing here.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

app = typer.Typer(
    name="planner",
    help="Plan families of language models that train predictably at every size.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecFile = Annotated[str, typer.Argument(metavar="SPEC", help="Spec (YAML); - is standard input.")]
PlanFile = Annotated[str, typer.Argument(metavar="PLAN", help="Plan; - is standard input.")]
LogPaths = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns or URLs of logs.")
]
MappingOption = Annotated[
    str | None, typer.Option("--mapping", help="YAML: what the logs do not say by themselves.")
]
ArchiveFolder = Annotated[str, typer.Argument(metavar="ARCHIVE", help="Archive of runs.")]
MetricOption = Annotated[
    str | None,
    typer.Option("--metric", help="Series; the train loss, else the only evaluation loss."),
]
PlanOption = Annotated[
    list[str] | None,
    typer.Option("--plan", help="What the runs were meant to be; may be repeated."),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", help="Only such runs: params>=100M, name=*1xC*; may be repeated."),
]
ReferenceOption = Annotated[
    str | None,
    typer.Option("--reference", help="Compare with this reference; - is standard input."),
]
LawsOption = Annotated[
    str | None,
    typer.Option("--laws", help="Compare with a curve law of this file, as planner fit writes it."),
]
LawOption = Annotated[
    str | None,
    typer.Option("--law", help="Which: surrogate, schedule, or a name or pattern of names."),
]
AlphaOption = Annotated[
    float, typer.Option("--alpha", help="Chance of calling a healthy run deviating.")
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="NAME=VALUE", help="Such as duplicates=first; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that were edited.")]


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Register a verb; turn errors into one sentence and an exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except PlannerError as error:
            for line in str(error).splitlines():
                print(f"error: {line}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except (BrokenPipeError, SystemExit):
            # the reader has seen enough, as in `planner plan ... | head`; rich exits by itself
            _drop_output()
            raise typer.Exit(0) from None
        except typer.Exit:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename is None:
                # only what is printed has no name
                _drop_output()
                print(f"error: <stdout>: cannot be written: {error.strerror}", file=sys.stderr)
                raise typer.Exit(OutputError.exit_code) from None
            if os.environ.get("PLANNER_TRACEBACK"):
                raise
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            print(
                f"internal error: {detail} (set PLANNER_TRACEBACK=1 to see where)", file=sys.stderr
            )
            raise typer.Exit(INTERNAL_ERROR) from None

    return app.command()(run)


def _drop_output() -> None:
    """Send what is still to be printed nowhere, so that the interpreter's exit says nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_plans(names: list[str]) -> list[Any]:
    """Read plan files."""
    if not names:
        return []
    from planner.plan import read_plan

    return [read_plan(name) for name in names]


def given_reference(reference: str | None, laws: str | None, law: str | None) -> Any:
    """Return what --reference, --laws and --law say: a reference, references by laws, or None.

    Raises:
        CurveError: They do not go together, or a file holds nothing of the kind.
        LawError: The laws file cannot be read.
    """
    if reference is None and laws is None and law is None:
        return None
    from planner.curves import CurveError, Reference
    from planner.curves.law_reference import LawReferences
    from planner.laws import load_laws

    if laws is None:
        if law is not None:
            raise CurveError("says which law of a file: needs --laws", field="--law")
        return Reference.load(reference or "-")
    if reference is not None:
        raise CurveError("runs are compared with a reference or with laws: say one", field="--laws")
    try:
        return LawReferences.choose(load_laws(laws), law)
    except CurveError as error:
        raise CurveError(error.message, file=laws, field=error.field) from None


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json_text(value))


def json_text(value: Any) -> str:
    """Return a value as a JSON document."""
    import json

    from planner.plan.codec import to_json

    return json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n"
