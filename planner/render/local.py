"""The launcher ``local``: plain bash on this machine, one run after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from planner.render.check import check_scripts
from planner.render.scripts import ScriptOptions, render_scripts
from planner.render.target import Context, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.render.check import Check


class LocalOptions(ScriptOptions):
    """Options of the launcher ``local``."""

    processes: int = Field(
        1, ge=1, description="processes a run, by torchrun; PLANNER_PROCESSES overrides it"
    )


class Local:
    """Renders ``RUN/launch.sh`` for each run and ``launch.sh`` for all of them."""

    name = "local"
    options = LocalOptions

    def render(self, context: Context, output: Output, options: LocalOptions) -> dict[str, str]:
        """Return the scripts.

        Raises:
            TemplateError: If a template fails.
        """
        common = {"root": options.runs_dir, "processes": options.processes}
        return render_scripts(context, output, "local", common)

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash and, if installed, shellcheck say about the scripts."""
        return check_scripts(files)
