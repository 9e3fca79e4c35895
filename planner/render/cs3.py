"""The launcher ``cs3``: plain bash on a user node; the appliance does the queueing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from planner.render.paths import short, slug
from planner.render.target import Context, Job, Output, Slot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan
    from planner.render.check import Check

_WORDS = {Slot.CONFIG: '"$config"', Slot.OUTPUT: '"$output"'}


class Cs3Options(BaseModel):
    """Options of the launcher ``cs3``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs_dir: str = Field(
        "runs",
        min_length=1,
        description="folder that all runs write below; PLANNER_RUNS_DIR overrides it at start",
    )

    @field_validator("runs_dir")
    @classmethod
    def _no_nul(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a path cannot hold a NUL character")
        return value


class Cs3:
    """Renders ``RUN/launch.sh`` for each run and ``launch.sh`` for all of them."""

    name = "cs3"
    options = Cs3Options

    def render(self, context: Context, output: Output, options: Cs3Options) -> dict[str, str]:
        """Return the scripts.

        Raises:
            TemplateError: If a template fails.
        """
        groups: dict[str, list[Job]] = {}
        for job in sorted(output.jobs, key=lambda job: job.cost):
            groups.setdefault(job.folder, []).append(job)
        common = {
            **context.common(),
            "root": options.runs_dir,
        }
        files = {
            f"{folder}/launch.sh": context.engine.render(
                "cs3/run.sh.j2",
                {
                    **common,
                    "run": jobs[0].run,
                    "run_digest": context.plan.run(jobs[0].run).digest,
                    # The run's digest, not the plan's: a plan that differs elsewhere, or only in
                    # a warning, goes on with what this run has already trained.
                    "place": place(context.plan, jobs[0].run),
                    "folder": folder,
                    "first": jobs[0],
                    "jobs": jobs,
                    "words": {mode: _words(command) for mode, command in jobs[0].commands.items()},
                },
            )
            for folder, jobs in groups.items()
        }
        files["launch.sh"] = context.engine.render(
            "cs3/all.sh.j2", {**common, "folders": list(groups)}
        )
        return files

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash and, if installed, shellcheck say about the scripts."""
        from planner.render.check import check_scripts

        return check_scripts(files)


def place(plan: Plan, run: str) -> str:
    """Return where a run writes below the root of all runs: family, then the run's digest."""
    return f"{slug(plan.family)}/{short(plan.run(run).digest)}"


def _words(command: Sequence[str | Slot]) -> str:
    """Return the words after the program as bash; those of the launcher are its variables."""
    from planner.render.escape import raw, to_shell

    return raw(
        " ".join(_WORDS[word] if isinstance(word, Slot) else to_shell(word) for word in command[1:])
    )
