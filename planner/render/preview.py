"""What a render would change, shown as a diff and not done."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import OutputError
from planner.render.bundle import Rendered, about, render
from planner.render.writer import Written, compare_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.plan.model import Plan


@dataclass(frozen=True, slots=True)
class Preview:
    """A bundle that is not written.

    Attributes:
        rendered: What was rendered.
        written: What would happen to each file, overwriting what was edited.
        diffs: Unified diff by path of every file that would be written or removed.
        refused: Why it would not be written without ``force``; None if it would.
    """

    rendered: Rendered
    written: Written
    diffs: dict[str, str]
    refused: OutputError | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, of the rendering and of the writing."""
        return self.rendered.warnings + self.written.warnings


def preview_plan(
    plan: Plan,
    target: str,
    out_dir: Path | str,
    *,
    options: Mapping[str, Any] | None = None,
    templates: Path | str | None = None,
    force: bool = False,
) -> Preview:
    """Render a plan and say what `planner.render.render_plan` would change; nothing is changed.

    Args:
        plan: A sealed plan.
        target: ``TRAINER`` or ``TRAINER+LAUNCHER``.
        out_dir: The bundle's folder, which need not exist.
        options: The target's options by name.
        templates: A folder whose templates override the shipped ones by name.
        force: As for `planner.render.render_plan`.

    Raises:
        PlannerError: As `planner.render.render`, and if the folder cannot be read.
    """
    rendered = render(plan, target, options, templates=templates)
    folder = Path(out_dir)
    described = about(plan, rendered)
    refused = None
    if not force:
        try:
            compare_bundle(folder, rendered.files, about=described)
        except OutputError as error:
            refused = error
    written = compare_bundle(folder, rendered.files, about=described, force=True)
    diffs = {
        path: _diff(folder, path, rendered.files.get(path))
        for path in sorted((*written.changed, *written.removed))
    }
    return Preview(rendered, written, diffs, refused)


def _diff(folder: Path, path: str, text: str | None) -> str:
    """Return the diff from what lies there to a text, or to nothing."""
    place = folder / path
    before = None
    if place.exists():
        try:
            before = place.read_bytes().decode()
        except UnicodeDecodeError:
            return f"--- {path}\n+++ {path}\nwhat is there now is not text\n"
    lines = difflib.unified_diff(
        _lines(before),
        _lines(text),
        "/dev/null" if before is None else f"a/{path}",
        "/dev/null" if text is None else f"b/{path}",
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _lines(text: str | None) -> list[str]:
    """Return the lines of a text, which end with a line feed and nothing else."""
    lines = (text or "").split("\n")
    whole = [f"{line}\n" for line in lines[:-1]]
    return whole + ([f"{lines[-1]}\n\\ No newline at end of file\n"] if lines[-1] else [])
