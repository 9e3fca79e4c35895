"""The launcher ``cs3``: plain bash on a user node; the appliance does the queueing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.render.check import check_scripts
from planner.render.scripts import ScriptOptions, bash_words, render_scripts
from planner.render.target import Context, Job, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.render.check import Check


class Cs3Options(ScriptOptions):
    """Options of the launcher ``cs3``."""


class Cs3:
    """Renders ``RUN/launch.sh`` for each run and ``launch.sh`` for all of them."""

    name = "cs3"
    options = Cs3Options

    def render(self, context: Context, output: Output, options: Cs3Options) -> dict[str, str]:
        """Return the scripts.

        Raises:
            TemplateError: If a template fails.
        """

        def of_run(jobs: Sequence[Job]) -> dict[str, Any]:
            first = jobs[0]
            return {
                "run_digest": context.plan.run(first.run).digest,
                "first": first,
                "words": {
                    mode: bash_words(command[1:]) for mode, command in first.commands.items()
                },
            }

        return render_scripts(context, output, "cs3", {"root": options.runs_dir}, of_run)

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash and, if installed, shellcheck say about the scripts."""
        return check_scripts(files)
