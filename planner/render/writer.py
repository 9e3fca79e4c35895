"""Writing a bundle: all or nothing, again and again, and never over somebody's edits.

A manifest beside the files holds the SHA-256 of each file as it was written. On the next render a
file that still has its hash is ours to replace or remove; one that has not was edited.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MANIFEST = "manifest.json"
SCHEMA = "planner.bundle/1"
_STAGE = ".planner-stage-"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# Of these two, a folder that holds one bundle must not silently become another.
_IDENTITY = ("target", "family")


@dataclass(frozen=True, slots=True)
class Written:
    """What happened to each file, by path in the bundle.

    Attributes:
        changed: Written because it was missing or different.
        unchanged: Left alone because it was already so.
        removed: Of an earlier render of ours, no longer part of the bundle.
        kept: As `removed`, but edited since, so left where it is.
    """

    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each file that was kept."""
        return tuple(
            f"{path} no longer belongs to the bundle but was edited, so it was kept"
            for path in self.kept
        )


def sha256(text: str) -> str:
    """Return the hash of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_bundle(
    folder: Path, files: Mapping[str, str], *, about: Mapping[str, str], force: bool = False
) -> Written:
    """Bring ``folder`` to hold exactly ``files`` and a manifest; leave other files alone.

    Everything is checked before anything is written. New files are first written beside the
    folder, then moved in; if a move fails, those already made are undone.

    Args:
        folder: Where; made if missing.
        files: Text by relative path with ``/`` between folders. Those ending in ``.sh`` are made
            executable.
        about: What the manifest says of the bundle; holds at least target and family.
        force: Overwrite edited and foreign files.

    Raises:
        OutputError: If a file was edited or is not ours, the folder holds a bundle of another
            target or family, or the file system refuses.
    """
    folder = Path(os.path.realpath(folder))
    try:
        plan = compare_bundle(folder, files, about=about, force=force)
        manifest = _manifest(files, about)
        if plan.changed or plan.removed or _text(folder / MANIFEST) != manifest:
            _apply(folder, files, plan, manifest)
        return plan
    except OSError as error:
        reason = error.strerror or str(error)
        where = error.filename or folder
        raise OutputError(f"cannot write the bundle: {reason}", file=str(where)) from None


def compare_bundle(
    folder: Path, files: Mapping[str, str], *, about: Mapping[str, str], force: bool = False
) -> Written:
    """Return what `write_bundle` would do to each file, without doing it.

    Raises:
        OutputError: As `write_bundle`.
    """
    for path in files:
        _check_path(path)
    folder = Path(os.path.realpath(folder))
    try:
        old, old_about = _read_manifest(folder, force)
        if not force:
            for key in _IDENTITY:
                if key in old_about and old_about[key] != about[key]:
                    raise OutputError(
                        f"the folder holds a bundle of {key} {old_about[key]!r}, not of "
                        f"{about[key]!r}; choose another folder, or overwrite with --force",
                        file=str(folder),
                    )
        return _compare(folder, files, old, force)
    except OSError as error:
        reason = error.strerror or str(error)
        where = error.filename or folder
        raise OutputError(f"cannot read the bundle: {reason}", file=str(where)) from None


def _check_path(path: str) -> None:
    """Refuse paths that could leave the folder, whoever asks for them."""
    parts = path.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in path
        or "\0" in path
        or path == MANIFEST
        or parts[0].startswith(_STAGE)
    ):
        raise OutputError(f"{path!r} cannot be a path in a bundle")


def _manifest(files: Mapping[str, str], about: Mapping[str, str]) -> str:
    hashes = {path: sha256(text) for path, text in sorted(files.items())}
    document = {"schema": SCHEMA, **dict(sorted(about.items())), "files": hashes}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _read_manifest(folder: Path, force: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Return the hashes and the description of the bundle that the folder holds, if any."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, wanted a folder for the bundle", file=str(folder))
    path = folder / MANIFEST
    if not path.exists():
        return {}, {}
    try:
        document = json.loads(path.read_bytes())
        hashes, schema = document["files"], document["schema"]
        about = {key: value for key, value in document.items() if isinstance(value, str)}
        ok = schema == SCHEMA and all(_SHA256.match(value) for value in hashes.values())
        for name in hashes:
            _check_path(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OutputError):
        ok = False
    if ok:
        return hashes, about
    if force:
        return {}, {}
    raise OutputError(
        "is not a manifest of this program, so edited files cannot be told from others; "
        "choose another folder, or overwrite with --force",
        file=str(path),
    )


def _compare(
    folder: Path, files: Mapping[str, str], old: Mapping[str, str], force: bool
) -> Written:
    """Say what has to happen to each file; raise if that would lose somebody's work."""
    changed: list[str] = []
    unchanged: list[str] = []
    removed: list[str] = []
    kept: list[str] = []
    lost: list[str] = []
    for path, text in files.items():
        _refuse_links(folder, path)
        present = _hash(folder / path)
        if present == sha256(text):
            unchanged.append(path)
            continue
        changed.append(path)
        if present is not None and present != old.get(path):
            lost.append(path)
    for path in sorted(set(old) - set(files)):
        _refuse_links(folder, path)
        present = _hash(folder / path)
        if present is not None:
            (removed if present == old[path] else kept).append(path)
    if lost and not force:
        names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise OutputError(
            f"{names} was edited or is not of an earlier render; nothing was written "
            "(overwrite with --force)",
            file=str(folder),
        )
    return Written(tuple(changed), tuple(unchanged), tuple(removed), tuple(kept))


def _refuse_links(folder: Path, path: str) -> None:
    """Refuse symbolic links inside the bundle: following one would write somewhere else."""
    place = folder
    for part in path.split("/"):
        place /= part
        if place.is_symlink():
            raise OutputError("is a symbolic link, wanted a file of the bundle", file=str(place))


def _hash(path: Path) -> str | None:
    """Return a file's hash; None if there is none; an impossible one for a folder in its place."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise OutputError("is a folder, wanted a file of the bundle", file=str(path)) from None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _apply(folder: Path, files: Mapping[str, str], plan: Written, manifest: str) -> None:
    """Write, move in and remove as planned; undo all of it if the file system refuses."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system as the folder, so that moving is renaming.
    stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=folder.parent))
    try:
        new, saved = stage / "new", stage / "old"
        for path in plan.changed:
            _write(new / path, files[path])
        _write(new / MANIFEST, manifest)
        if not folder.exists():
            new.rename(folder)
            return
        _swap(folder, new, saved, [*plan.removed, *plan.changed, MANIFEST])
        _prune(folder, plan.removed)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _swap(folder: Path, new: Path, saved: Path, paths: Iterable[str]) -> None:
    """Move each path's present file to ``saved`` and its new one, if any, in; the manifest last."""
    moved: list[tuple[Path, Path]] = []
    made: list[Path] = []

    def move(source: Path, target: Path) -> None:
        source.rename(target)
        moved.append((source, target))

    try:
        for path in paths:
            target, keep = folder / path, saved / path
            if target.exists():
                keep.parent.mkdir(parents=True, exist_ok=True)
                move(target, keep)
            if (new / path).exists():
                made += _make_folders(folder, target.parent)
                move(new / path, target)
    except OSError:
        for source, target in reversed(moved):
            target.replace(source)
        for place in reversed(made):
            place.rmdir()
        raise


def _make_folders(root: Path, folder: Path) -> list[Path]:
    """Make ``folder`` and what is missing above it below ``root``; return what was made."""
    missing = []
    while folder != root and not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for place in reversed(missing):
        place.mkdir()
    return missing[::-1]


def _prune(folder: Path, removed: Iterable[str]) -> None:
    """Remove folders that removing files has emptied."""
    for path in removed:
        place = (folder / path).parent
        while place != folder:
            try:
                place.rmdir()
            except FileNotFoundError:
                pass  # An earlier turn has removed it.
            except OSError:
                break  # Something else is in it.
            place = place.parent


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    if path.suffix == ".sh":
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o444) >> 2)  # Whoever may read a script may run it.
