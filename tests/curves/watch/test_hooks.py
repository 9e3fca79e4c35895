"""Hooks: tried again, never fatal, discreet."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from planner.curves import CurveError
from planner.curves.watch import Hook, command_hook, tell, webhook

DOCUMENT = {"name": "run", "state": "alarm", "alarms": [{"evidence": "it rises"}]}


@contextmanager
def server(codes: list[int]) -> Iterator[tuple[int, list[tuple[str, Any, str | None]]]]:
    got: list[tuple[str, Any, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, json.loads(body), self.headers.get("Authorization")))
            self.send_response(codes.pop(0) if codes else 200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    made = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        yield made.server_port, got
    finally:
        made.shutdown()
        made.server_close()


def test_a_webhook_is_tried_again() -> None:
    waits: list[float] = []
    with server([500, 503]) as (port, got):
        hook = webhook(f"http://quentin:s3cret@127.0.0.1:{port}/T0K3N/path?key=abc")
        told = tell(hook, DOCUMENT, sleep=waits.append)
    assert (told.attempts, told.error) == (3, "")
    assert waits == [1.0, 2.0]
    assert got[-1][0] == "/T0K3N/path?key=abc"
    assert got[-1][1] == DOCUMENT
    assert got[-1][2] is not None
    assert got[-1][2].startswith("Basic ")


def test_what_is_said_of_a_webhook_holds_no_secret() -> None:
    hook = webhook("http://quentin:s3cret@127.0.0.1:1/T0K3N?key=abc")
    told = tell(hook, DOCUMENT, attempts=2, sleep=lambda _: None)
    assert told.error
    for secret in ("s3cret", "T0K3N", "abc", "quentin"):
        assert secret not in f"{told.hook} {told.error}"
    with pytest.raises(CurveError) as error:
        webhook("ftp://quentin:s3cret@host/T0K3N")
    assert "s3cret" not in str(error.value)


def test_a_command_gets_the_document(tmp_path: Path) -> None:
    out = tmp_path / "got.json"
    code = (
        "import os,sys; told=os.environ['PLANNER_WATCH_MESSAGE'];"
        "open(sys.argv[1],'w').write(sys.stdin.read()+told)"
    )
    told = tell(command_hook(f'{sys.executable} -c "{code}" {out}'), DOCUMENT)
    assert told.error == ""
    assert out.read_text() == json.dumps(DOCUMENT) + "it rises"


@pytest.mark.parametrize(
    ("command", "error"),
    [("false", "exit code 1"), ("/nowhere/tool --token=T0K3N", "cannot be run")],
)
def test_a_command_that_fails(command: str, error: str) -> None:
    told = tell(command_hook(command), DOCUMENT, attempts=1)
    assert error in told.error
    assert "T0K3N" not in told.hook + told.error


def test_a_hook_never_raises() -> None:
    def send(document: dict[str, Any]) -> str:
        raise RuntimeError("s3cret")

    told = tell(Hook("mine", send), DOCUMENT, attempts=2, sleep=lambda _: None)
    assert told.attempts == 2
    assert "s3cret" not in told.error


@pytest.mark.parametrize("command", ["", "  ", "say 'hello"])
def test_bad_commands(command: str) -> None:
    with pytest.raises(CurveError, match="--command"):
        command_hook(command)
