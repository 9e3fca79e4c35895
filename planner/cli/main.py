"""The ``planner`` command.

Verbs only parse arguments, call the library and print; nothing heavy is imported until a verb
runs. Exit codes: 0 done, 1 done and something needs attention, 2 bad input or usage, 3 an optional
part is not installed, 70 an internal error, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from planner.cli.app import app

# Each registers its verbs, in the order in which --help lists them.
_JOURNEYS = (
    *("planning", "rendering", "training", "checks"),
    *("archiving", "scoring", "plotting", "forecasting", "watching", "fitting"),
)


def _version(wanted: bool) -> None:
    if not wanted:
        return
    from planner import _core
    from planner._version import __version__

    try:
        level = _core.simd_level()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"planner {__version__}")
    print(f"kernel built by {_core.compiler()}, SIMD level in use: {level}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Version, compiler, SIMD."
        ),
    ] = False,
) -> None:
    """Plan families of language models that train predictably at every size."""


for _journey in _JOURNEYS:
    importlib.import_module(f"planner.cli.{_journey}")


def main() -> None:
    """Run the command line."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    app()


if __name__ == "__main__":
    main()
