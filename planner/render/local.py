"""The launcher ``local``: plain bash on this machine, one run after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from planner.render.cs3 import place
from planner.render.target import Context, Job, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.render.check import Check


class LocalOptions(BaseModel):
    """Options of the launcher ``local``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs_dir: str = Field(
        "runs",
        min_length=1,
        pattern=r"^[^\x00]*$",
        description="folder that all runs write below; PLANNER_RUNS_DIR overrides it at start",
    )
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
        groups: dict[str, list[Job]] = {}
        for job in sorted(output.jobs, key=lambda job: job.cost):
            groups.setdefault(job.folder, []).append(job)
        common = {**context.common(), "root": options.runs_dir, "processes": options.processes}
        files = {
            f"{folder}/launch.sh": context.engine.render(
                "local/run.sh.j2",
                {
                    **common,
                    "run": jobs[0].run,
                    "place": place(context.plan, jobs[0].run),
                    "folder": folder,
                    "jobs": jobs,
                },
            )
            for folder, jobs in groups.items()
        }
        files["launch.sh"] = context.engine.render(
            "local/all.sh.j2", {**common, "folders": list(groups)}
        )
        return files

    def check(self, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what bash and, if installed, shellcheck say about the scripts."""
        from planner.render.check import check_scripts

        return check_scripts(files)
