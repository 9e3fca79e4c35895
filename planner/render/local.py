"""The launcher ``local``: plain bash on this machine, one run after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from planner.render.check import check_scripts
from planner.render.scripts import ScriptOptions, bash_words, render_scripts
from planner.render.target import Context, Job, Output

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

        def of_run(jobs: Sequence[Job]) -> dict[str, Any]:
            first = jobs[0]
            return {
                "program": first.program,
                "alone": bash_words(first.commands["fit"]),
                "together": bash_words(first.torchrun),
            }

        return render_scripts(context, output, "local", common, of_run)

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash and, if installed, shellcheck say about the scripts."""
        return check_scripts(files)
