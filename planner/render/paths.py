"""Names of families and runs as names of folders."""

from __future__ import annotations

import hashlib
import re

from planner.render.errors import CannotExpressError

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
# Files of the bundle's own top folder, whatever the trainer.
_TAKEN = ("readme.md", "plan.json", "manifest.json", "launch.sh", "slurm")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")


def slug(name: str) -> str:
    """Return a folder name for ``name``: itself if it is plain, else a cleaned form with a hash.

    The result holds letters, digits, ``.``, ``_`` and ``-`` only, starts and ends with a letter or
    digit, and has at most 63 characters, so that it is also a valid job label. Different names
    give different slugs.
    """
    # A name that already looks like a cleaned form gets a hash too, or two names could meet.
    clean = _PLAIN.match(name) and not re.search(r"-[0-9a-f]{8}\Z", name)
    if clean and name.casefold() not in _TAKEN:
        return name
    stem = _OTHER.sub("-", name).strip("._-")[:54].rstrip("._-") or "run"
    return f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def slugs(names: list[str], what: str) -> dict[str, str]:
    """Return the folder name of each name.

    Raises:
        CannotExpressError: If two names are the same, or would be the same folder on a file system
            that does not tell upper from lower case.
    """
    folders: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name in names:
        folder = slug(name)
        other = seen.setdefault(folder.casefold(), name)
        if name in folders or other != name:
            raise CannotExpressError(
                f"{what} names {other!r} and {name!r} would share one folder; rename one"
            )
        folders[name] = folder
    return folders


def short(digest: str) -> str:
    """Return the first twelve hexadecimal digits of a digest."""
    return digest.removeprefix("sha256:")[:12]
