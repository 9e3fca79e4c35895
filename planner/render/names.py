"""What users name in options beside paths: variables, secrets, Kubernetes objects."""

from __future__ import annotations

import hashlib
import re
import shlex

from planner.render.target import VARIABLE

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")


def read_variables(text: str) -> dict[str, str]:
    """Return the variables of ``NAME=VALUE`` words, quoted as for a shell.

    Raises:
        ValueError: If it is not such words, or a variable is a secret by its name.
    """
    found = {}
    for word in split_words(text):
        name, equals, value = word.partition("=")
        if not equals or not VARIABLE.match(name):
            raise ValueError(f"{word!r} is not NAME=VALUE")
        if _SECRET.search(name):
            raise ValueError(f"{name} is a secret by its name; wanted it in secrets, without value")
        if "\0" in value:
            raise ValueError(f"the value of {name} holds a NUL character")
        found[name] = value
    return found


def split_words(text: str) -> list[str]:
    """Split text into words as a shell does.

    Raises:
        ValueError: If a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError:
        raise ValueError("a quote is not closed") from None


def check_label(value: str | None) -> str | None:
    """Return a DNS-1123 label, as names of most Kubernetes objects are.

    Raises:
        ValueError: If it is none.
    """
    if value is not None and not _LABEL.match(value):
        raise ValueError("wanted at most 63 small letters, digits and hyphens")
    return value


def check_subdomain(value: str | None) -> str | None:
    """Return a DNS-1123 subdomain: labels with dots between them.

    Raises:
        ValueError: If it is none.
    """
    if value is not None and not _SUBDOMAIN.match(value):
        raise ValueError("wanted small letters, digits, hyphens and dots")
    return value


def object_name(stem: str, *differs: str, limit: int) -> str:
    """Return a DNS-1123 label of at most ``limit`` characters for a stem and what it differs by.

    It starts with a letter, shows the stem as far as there is room, and ends with eight hexadecimal
    digits of the hash of all.
    """
    whole = "\0".join((stem, *differs)).encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(whole).hexdigest()[:8]
    shown = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    if not shown or not shown[0].isalpha():
        shown = f"r{shown}"
    return f"{shown[: limit - 9].rstrip('-')}-{digest}"
