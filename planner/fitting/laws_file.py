"""Laws files that fits write: one file holds the laws of several fits, each replaced by its name.

The first line holds a digest of the rest, so that a file that somebody edited is known as such and
not overwritten without being asked to.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from typing import TYPE_CHECKING, Any

from planner.documents import MAX_BYTES, read_bytes
from planner.errors import LawError, OutputError, SpecError
from planner.laws.catalog import SCHEMA, load_laws
from planner.plan.store import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.laws.law import Law

_HEAD = re.compile(rb"# written by planner fit; digest of what follows: sha256:([0-9a-f]{64})\n")


def laws_text(laws: Iterable[Law]) -> str:
    """Return a laws file (``planner.laws/1``) that holds some laws, by name."""
    from ruamel.yaml import YAML

    entries = {law.name: _entry(law) for law in sorted(laws, key=lambda law: law.name)}
    document = {"schema": SCHEMA, "laws": entries}
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(document, stream)
    body = stream.getvalue()
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"# written by planner fit; digest of what follows: sha256:{digest}\n{body}"


def write_laws(
    laws: Iterable[Law], path: str | os.PathLike[str], *, force: bool = False
) -> tuple[str, ...]:
    """Add laws to a laws file, or begin one; a law of the same name is replaced.

    Args:
        laws: The laws.
        path: The file.
        force: Write also into a file that somebody edited or wrote: its other laws stay, its
            comments do not; a file that holds no laws is replaced.

    Returns:
        Names of the laws that were in the file and stay, sorted.

    Raises:
        OutputError: If the file was edited and ``force`` is off, or it cannot be written.
    """
    name, new = os.fspath(path), {law.name: law for law in laws}
    present: dict[str, Law] = {}
    if os.path.lexists(name) and os.path.isfile(name):
        present = _present(name, force=force)
    write_text(name, laws_text({**present, **new}.values()))
    return tuple(sorted(set(present) - set(new)))


def _present(name: str, *, force: bool) -> dict[str, Law]:
    try:
        data = read_bytes(name, MAX_BYTES)
    except SpecError as error:
        raise OutputError(f"{error.message}; nothing was written", file=name) from None
    head = _HEAD.match(data)
    untouched = head is not None and hashlib.sha256(
        data[head.end() :]
    ).hexdigest().encode() == head.group(1)
    if not untouched and not force:
        raise OutputError(
            "exists and is not as planner fit wrote it; nothing was written "
            "(put the laws into it all the same with --force)",
            file=name,
        )
    try:
        return load_laws(name)
    except (SpecError, LawError):
        if force:
            return {}
        raise


def _entry(law: Law) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "quantity": law.quantity,
        "form": law.form,
        "input": law.input,
        "constants": {key: float(value) for key, value in law.constants.items()},
        "fitted_range": {key: [float(v) for v in pair] for key, pair in law.fitted_range.items()},
        "source": law.source,
        "confidence": law.confidence,
    }
    if law.scatter is not None:
        entry["scatter"] = float(law.scatter)
    if law.intervals:
        entry["intervals"] = {k: [float(v) for v in pair] for k, pair in law.intervals.items()}
    if law.level is not None:
        entry["level"] = float(law.level)
    if law.unidentified:
        entry["unidentified"] = list(law.unidentified)
    if law.covariance is not None:
        entry["covariance"] = [list(row) for row in law.covariance]
    if law.curve_errors:
        entry["curve_errors"] = list(law.curve_errors)
    if law.curve_settings is not None:
        entry["curve_settings"] = law.curve_settings
    if law.metric is not None:
        entry["metric"] = law.metric
    if law.schedules:
        entry["schedules"] = [
            {"settings": each.settings, "error": each.error, "factors": list(each.factors)}
            if each.settings
            else {"factors": list(each.factors)}
            for each in law.schedules
        ]
    return entry
