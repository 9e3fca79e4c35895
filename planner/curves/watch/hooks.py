"""Telling somebody: a command or a web address, tried again, never fatal, and discreet.

What is said of a hook names neither the path, the query nor the user of its address, nor the
arguments of its command: chat services keep their secrets in just those places.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planner.curves.errors import CurveError

ATTEMPTS = 4
_FIRST_WAIT = 1.0
_TIMEOUT = 10.0
_COMMAND_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a hook.

    Attributes:
        hook: Discreet name.
        attempts: How often it was tried.
        error: Why it failed; empty if it did not.
    """

    hook: str
    attempts: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """Something that is told of an alarm.

    Attributes:
        name: Discreet name.
        send: Takes the document; returns why it failed, or an empty text.
    """

    name: str
    send: Callable[[dict[str, Any]], str]


def command_hook(command: str) -> Hook:
    """Return a hook that runs a command, with the document on its standard input.

    The command is split as a shell would and run without one. ``PLANNER_WATCH_RUN``,
    ``PLANNER_WATCH_STATE`` and ``PLANNER_WATCH_MESSAGE`` are set in its environment.

    Raises:
        CurveError: The command is empty or its quotes do not match.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise CurveError(f"cannot be split into words: {error}", field="--command") from None
    if not words:
        raise CurveError("got an empty command", field="--command")

    def send(document: dict[str, Any]) -> str:
        message = "; ".join(alarm["evidence"] for alarm in document.get("alarms", ()))
        env = os.environ | {
            "PLANNER_WATCH_RUN": str(document.get("name", "")),
            "PLANNER_WATCH_STATE": str(document.get("state", "")),
            "PLANNER_WATCH_MESSAGE": message,
        }
        try:
            done = subprocess.run(
                words,
                input=json.dumps(document).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=env,
                timeout=_COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {_COMMAND_TIMEOUT:.0f} s"
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        except ValueError:
            return "cannot be run: it holds a null character"
        return "" if done.returncode == 0 else f"ended with exit code {done.returncode}"

    return Hook(f"command {os.path.basename(words[0])}", send)


def webhook(address: str) -> Hook:
    """Return a hook that posts the document to a web address.

    Raises:
        CurveError: It is no http or https address.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise CurveError("cannot be read as an address", field="--webhook") from None
    if parts.scheme not in ("http", "https") or not host:
        raise CurveError(
            "wanted an address that starts with http:// or https://", field="--webhook"
        )
    # user and password of an address go into a header, or no server sees them
    plain = urllib.parse.urlunsplit(
        (
            parts.scheme,
            f"[{host}]{port}" if ":" in host else f"{host}{port}",
            parts.path or "/",
            parts.query,
            "",
        )
    )
    headers = {"Content-Type": "application/json", "User-Agent": "planner-watch"}
    if parts.username is not None:
        import base64

        pair = (
            f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        )
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()

    def send(document: dict[str, Any]) -> str:
        try:
            request = urllib.request.Request(
                plain, json.dumps(document).encode(), headers, method="POST"
            )
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            return f"answered {error.code}"
        except Exception as error:  # its text may hold the address
            return f"cannot be reached ({_kind(error)})"
        return ""

    return Hook(f"webhook {parts.scheme}://{host}{port}", send)


def tell(
    hook: Hook,
    document: dict[str, Any],
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> Told:
    """Tell a hook; on failure wait 1, 2, 4 ... seconds and try again. Never raises.

    Args:
        hook: What to tell.
        document: What to say.
        attempts: How often it is tried at most.
        sleep: Waits.
    """
    error = ""
    for attempt in range(1, attempts + 1):
        if attempt > 1:
            sleep(_FIRST_WAIT * 2.0 ** (attempt - 2))
        try:
            error = hook.send(document)
        except Exception as unexpected:  # a hook's failure never ends the watch
            error = f"failed ({_kind(unexpected)})"
        if not error:
            return Told(hook.name, attempt)
    return Told(hook.name, attempts, error)


def _kind(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return type(reason if isinstance(reason, Exception) else error).__name__
