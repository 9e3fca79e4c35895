"""The launcher ``cs3``: plain bash on a user node; the appliance does the queueing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from planner.render.check import check_scripts
from planner.render.estimate import Estimate, estimate
from planner.render.scripts import ScriptOptions, bash_words, render_scripts
from planner.render.target import Context, Job, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Run
    from planner.render.check import Check


class Cs3Options(ScriptOptions):
    """Options of the launcher ``cs3``."""

    accelerator: str | None = Field(
        None, min_length=1, description="device to estimate hours on; default the plan's"
    )
    mfu: float | None = Field(
        None, gt=0, le=1, description="model FLOPs utilization to assume; default the plan's"
    )


@dataclass(frozen=True, slots=True)
class _Costed:
    """A run with its jobs and what each of them costs."""

    run: Run
    jobs: tuple[Job, ...]
    cost: Estimate | None


class Cs3:
    """Renders ``RUN/launch.sh`` for each run and ``launch.sh`` for all of them."""

    name = "cs3"
    summary = "plain bash on a user node of a Cerebras cluster; the appliance does the queueing"
    options = Cs3Options

    def render(self, context: Context, output: Output, options: Cs3Options) -> dict[str, str]:
        """Return the scripts and the README's part.

        Raises:
            OptionError: If the accelerator is unknown.
            TemplateError: If a template fails.
        """
        runs = {run.name: run for run in context.plan.runs}

        def of_run(jobs: Sequence[Job]) -> dict[str, Any]:
            first = jobs[0]
            words = {mode: bash_words(command[1:]) for mode, command in first.commands.items()}
            return {
                "run_digest": runs[first.run].digest,
                "first": first,
                "words": words,
                "uses_bundle": any('"$bundle"' in line for line in words.values()),
            }

        files = render_scripts(context, output, "cs3", {"root": options.runs_dir}, of_run)

        def cost(run: Run) -> Estimate | None:
            asked, mfu = options.accelerator, options.mfu
            return estimate(context.plan, run, None, accelerator=asked, mfu=mfu)

        jobs: dict[str, list[Job]] = {}
        for job in sorted(output.jobs, key=lambda job: job.cost):
            jobs.setdefault(job.run, []).append(job)
        starts = [_Costed(runs[name], tuple(own), cost(runs[name])) for name, own in jobs.items()]
        files["README.md"] = context.engine.render(
            "cs3/README.md.j2", {**context.common(), "starts": starts}
        )
        return files

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash and, if installed, shellcheck say about the scripts."""
        return check_scripts(files)
