"""What launchers that are plain bash have in common: a script for each run, and one for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from planner.render.escape import Quoted, to_shell
from planner.render.paths import short, slug
from planner.render.target import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from planner.plan.model import Plan, Run
    from planner.render.target import Context, Job, Output, Word


class ScriptOptions(BaseModel):
    """Options of every such launcher."""

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


def render_scripts(
    context: Context,
    output: Output,
    launcher: str,
    common: Mapping[str, Any],
    of_run: Callable[[Sequence[Job]], Mapping[str, Any]] | None = None,
) -> dict[str, str]:
    """Return ``RUN/launch.sh`` for each run and ``launch.sh`` for all of them, cheapest run first.

    Args:
        context: What is rendered.
        output: The trainer's jobs.
        launcher: Folder of ``run.sh.j2`` and ``all.sh.j2``.
        common: Values for both templates.
        of_run: Further values for a run's template, from its jobs.

    Raises:
        TemplateError: If a template fails.
    """
    groups: dict[str, list[Job]] = {}
    for job in sorted(output.jobs, key=lambda job: job.cost):
        groups.setdefault(job.folder, []).append(job)
    shared = {**context.common(), **common}
    runs = {run.name: run for run in context.plan.runs}
    files = {}
    for folder, jobs in groups.items():
        values = {
            **shared,
            "run": jobs[0].run,
            # The run's digest, not the plan's: a plan that differs elsewhere, or only in a warning,
            # goes on with what this run has already trained.
            "place": place(context.plan, runs[jobs[0].run]),
            "folder": folder,
            "jobs": jobs,
            **(of_run(jobs) if of_run else {}),
        }
        files[f"{folder}/launch.sh"] = context.engine.render(f"{launcher}/run.sh.j2", values)
    files["launch.sh"] = context.engine.render(
        f"{launcher}/all.sh.j2", {**shared, "folders": list(groups)}
    )
    return files


def bash_words(words: Sequence[Word]) -> Quoted:
    """Return a command's words as bash; `Slot` words are the variables named like them."""
    return Quoted(" ".join(map(_bash_word, words)))


def _bash_word(word: Word) -> str:
    if isinstance(word, Slot):
        return f'"${word.value}"'
    if isinstance(word, str):
        return to_shell(word)
    return "".join(_bash_word(part) for part in word)


def place(plan: Plan, run: Run) -> str:
    """Return where a run writes below the root of all runs: family, then the run's digest."""
    return f"{slug(plan.family)}/{short(run.digest)}"
