"""The launcher ``local``: plain bash on this machine, one run after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from planner.render.check import check_scripts
from planner.render.scripts import ScriptOptions, bash_words, render_scripts
from planner.render.target import Context, Job, Output
from planner.render.torchrun import TorchrunOptions, readme, starts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.render.check import Check


class LocalOptions(ScriptOptions):
    """Options of the launcher ``local``."""

    processes: int = Field(
        1, ge=1, description="processes a run, by torchrun; PLANNER_PROCESSES overrides it"
    )
    accelerator: str | None = Field(
        None, min_length=1, description="device to estimate hours on; default the plan's"
    )
    mfu: float | None = Field(
        None, gt=0, le=1, description="model FLOPs utilization to assume; default the plan's"
    )


class Local:
    """Renders ``RUN/launch.sh`` for each run and ``launch.sh`` for all of them."""

    name = "local"
    summary = "plain bash on this machine, one run after the other, by torchrun if told to"
    options = LocalOptions

    def render(self, context: Context, output: Output, options: LocalOptions) -> dict[str, str]:
        """Return the scripts and the README's part.

        Raises:
            CannotExpressError: If the processes do not divide a run's batch.
            OptionError: If the accelerator is unknown.
            TemplateError: If a template fails.
        """
        asked = TorchrunOptions(
            runs_dir=options.runs_dir,
            nodes=1,
            gpus=0,
            processes=options.processes,
            accelerator=options.accelerator,
            mfu=options.mfu,
        )
        found = starts(context, output, asked)
        digests = {start.folder: start.run.digest for start in found}

        def of_run(jobs: Sequence[Job]) -> dict[str, Any]:
            first = jobs[0]
            return {
                "run_digest": digests[first.folder],
                "alone": bash_words(first.commands.get("fit", ())),
                "together": bash_words(first.torchrun),
                "variables": {name: bash_words([word]) for name, word in first.variables.items()},
            }

        common = {"root": options.runs_dir, "processes": options.processes}
        files = render_scripts(context, output, "local", common, of_run)
        files["README.md"] = readme(context, "local", found, asked)
        return files

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash and, if installed, shellcheck say about the scripts."""
        return check_scripts(files)
