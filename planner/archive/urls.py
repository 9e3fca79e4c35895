"""Files that are named by URLs, through fsspec; only the modules of this room see URLs."""

from __future__ import annotations

from typing import IO, Any, cast

from planner.archive.errors import LogError
from planner.errors import MissingExtraError


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        MissingExtraError: If fsspec, or the package for the URL's protocol, is not installed.
        LogError: If there is no such protocol, or the file system cannot be reached.
    """
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError(
            "reading URLs needs fsspec: pip install 'collapse-planner[remote]'", file=url
        ) from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(
            f"this protocol is not installed: {_words(error)}", file=url
        ) from None
    except ValueError as error:
        raise LogError(f"cannot be reached: {_words(error)}", file=url) from None
    except Exception as error:
        raise LogError(f"cannot be reached: {_short(error)}", file=url) from None
    return system, path


def open_url(url: str) -> IO[bytes]:
    """Open the file at a URL.

    Raises:
        LogError: If it cannot be opened.
    """
    system, path = file_system(url)
    try:
        return cast("IO[bytes]", system.open(path, "rb"))
    except FileNotFoundError:
        raise LogError("no such file") from None
    except Exception as error:
        raise LogError(f"cannot be read: {_short(error)}") from None


def url_size(url: str) -> int:
    """Return how many bytes lie at a URL, 0 if that is not known."""
    system, path = file_system(url)
    try:
        return int(system.size(path) or 0)
    except Exception:
        return 0


def find_urls(url: str) -> tuple[list[str], str]:
    """Return the URLs of all files that a URL names (a file, a folder or a pattern), and its root.

    Raises:
        LogError: If there is none, or the file system cannot be reached.
    """
    system, path = file_system(url)
    try:
        if any(sign in path for sign in "*?["):
            found, root = sorted(system.glob(path)), path.split("*")[0].rpartition("/")[0]
            found = [name for name in found if not system.isdir(name)]
        elif system.isdir(path):
            found, root = sorted(system.find(path)), path.rstrip("/")
        else:
            found, root = ([path] if system.exists(path) else []), path.rpartition("/")[0]
    except Exception as error:
        raise LogError(f"cannot be reached: {_short(error)}", file=url) from None
    if not found:
        raise LogError("no such file or folder, and no file matches it", file=url)
    return [system.unstrip_protocol(name) for name in found], system.unstrip_protocol(root)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
