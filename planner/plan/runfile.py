"""Run files: one run of a plan, alone, with the settings of who trains it.

    {"schema": "planner.run/1", "family": "...", "plan": "sha256:...", "run": {...},
     "settings": {...}}

The run is as in its plan, digest included; what the settings mean is up to the trainer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.errors import PlanFileError
from planner.plan.codec import indented, run_from_document
from planner.units import show

if TYPE_CHECKING:
    from planner.plan.model import Run

SCHEMA = "planner.run/1"
_FIELDS = ("schema", "family", "plan", "settings", "run")


@dataclass(frozen=True, slots=True)
class RunFile:
    """What a run file holds."""

    family: str
    plan_digest: str
    settings: dict[str, Any]
    run: Run


def dump_run_file(file: RunFile) -> str:
    """Return the text of a run file, the same bytes for the same content."""
    document = {
        "schema": SCHEMA,
        "family": file.family,
        "plan": file.plan_digest,
        "settings": file.settings,
        "run": file.run,
    }
    return indented(document) + "\n"


def load_run_file(text: str | bytes, name: str = "<run>") -> RunFile | None:
    """Read a run file; None if the text is something else.

    Raises:
        PlanFileError: If it says that it is one, but a field is missing, unknown or wrong, or the
            run was edited.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return None
    for key in _FIELDS:
        if key not in document:
            raise PlanFileError("is missing", file=name, field=key)
    for key, value in document.items():
        if key not in _FIELDS:
            raise PlanFileError(
                "is unknown: was it written by another version?", file=name, field=key
            )
        if key in ("family", "plan") and not isinstance(value, str):
            raise PlanFileError(f"got {show(value)}, wanted text", file=name, field=key)
    settings = document["settings"]
    if not isinstance(settings, dict):
        raise PlanFileError(f"got {show(settings)}, wanted a mapping", file=name, field="settings")
    run = run_from_document(document["run"], name)
    return RunFile(document["family"], document["plan"], settings, run)
