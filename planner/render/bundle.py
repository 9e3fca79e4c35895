"""From a plan to a bundle of files: `render_files` computes them, `render_plan` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.render.engine import Engine
from planner.render.errors import CannotExpressError
from planner.render.paths import slugs
from planner.render.target import Context, Job, find_target, read_options
from planner.render.writer import Written, write_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.plan.model import Plan

PLAN_FILE = "plan.json"
README = "README.md"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A bundle in memory.

    Attributes:
        target: Full name of the target.
        files: Text by path, with ``/`` between folders; sorted.
        jobs: What the bundle starts, in the order in which it does.
        warnings: One sentence each; things that hold but that the user should know.
    """

    target: str
    files: dict[str, str]
    jobs: tuple[Job, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk: what was rendered, and what happened to each file."""

    folder: Path
    rendered: Rendered
    written: Written

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, of the rendering and of the writing."""
        return self.rendered.warnings + self.written.warnings


def render(
    plan: Plan,
    target: str,
    options: Mapping[str, Any] | None = None,
    *,
    templates: Path | str | None = None,
) -> Rendered:
    """Render a plan for a target, without touching the disk except to read templates.

    Args:
        plan: A sealed plan.
        target: ``TRAINER`` or ``TRAINER+LAUNCHER``.
        options: The target's options by name (see `planner.render.describe`).
        templates: A folder whose templates override the shipped ones by name.

    Raises:
        TargetError: If there is no such target.
        OptionError: If an option is unknown or does not fit.
        CannotExpressError: If the target cannot run what the plan says.
        TemplateError: If a template is missing or fails.
    """
    found = find_target(target)
    trainer_options, launcher_options = read_options(found, options or {})
    if not plan.runs:
        raise CannotExpressError("the plan has no runs, so there is nothing to render")
    context = Context(
        plan=plan,
        target=found.name,
        engine=Engine(None if templates is None else Path(templates)),
        folders=slugs([run.name for run in plan.runs], "runs"),
        version=planner_version(),
    )
    output = found.trainer.render(context, trainer_options)
    from planner.plan import dump_plan

    files = {PLAN_FILE: dump_plan(plan), **output.files}
    for path, text in found.launcher.render(context, output, launcher_options).items():
        if path == README:
            text = files.get(README, "") + text
        elif path in files:
            raise CannotExpressError(f"both trainer and launcher want to write {path!r}")
        files[path] = text
    return Rendered(found.name, dict(sorted(files.items())), output.jobs, output.warnings)


def render_files(
    plan: Plan,
    target: str,
    options: Mapping[str, Any] | None = None,
    *,
    templates: Path | str | None = None,
) -> dict[str, str]:
    """Return only the files of `render`: text by path in the bundle."""
    return render(plan, target, options, templates=templates).files


def render_plan(
    plan: Plan,
    target: str,
    out_dir: Path | str,
    *,
    options: Mapping[str, Any] | None = None,
    templates: Path | str | None = None,
    force: bool = False,
) -> Bundle:
    """Render a plan into a folder: all files or none.

    Rendering again is safe: what did not change is left alone, what this command wrote before and
    no longer belongs is removed, and what somebody edited is never overwritten unless ``force``.

    Args:
        plan: A sealed plan.
        target: ``TRAINER`` or ``TRAINER+LAUNCHER``.
        out_dir: The bundle's folder; made if missing.
        options: The target's options by name.
        templates: A folder whose templates override the shipped ones by name.
        force: Overwrite files that were edited or that this command did not write.

    Raises:
        OutputError: If a file was edited, the folder holds another bundle, or writing fails.
        PlannerError: As `render`.
    """
    rendered = render(plan, target, options, templates=templates)
    folder = Path(out_dir)
    written = write_bundle(folder, rendered.files, about=about(plan, rendered), force=force)
    return Bundle(folder, rendered, written)


def about(plan: Plan, rendered: Rendered) -> dict[str, str]:
    """Return what a bundle's manifest says of it."""
    return {
        "target": rendered.target,
        "family": plan.family,
        "plan": plan.digest,
        "planner": planner_version(),
    }


def planner_version() -> str:
    """Return the version that headers and manifests name."""
    from planner._version import __version__

    return __version__
