"""What the command promises whatever the verb: exit codes, one JSON document, files kept."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from planner.spec import spec_json_schema

EDITED = (
    "error: plan.json: exists and is not a plan as this program wrote it; nothing was written "
    "(overwrite with --force)\n"
)


def test_plan_writes_once_and_again(command: Callable, small_spec: Path) -> None:
    first = command("plan", "small.yaml", "-o", "plan.json")
    text = Path("plan.json").read_text()
    again = command("plan", "small.yaml", "-o", "plan.json")
    assert (first.code, again.code) == (0, 0)
    assert first.out == again.out
    assert first.out.endswith("wrote plan.json\n")
    assert Path("plan.json").read_text() == text


def test_edited_plan_is_kept_without_force(command: Callable, small_spec: Path) -> None:
    command("plan", "small.yaml", "-o", "plan.json")
    edited = Path("plan.json").read_text().replace("3755", "3754")
    Path("plan.json").write_text(edited)

    refused = command("plan", "small.yaml", "-o", "plan.json")
    assert (refused.code, refused.out, refused.err) == (2, "", EDITED)
    assert Path("plan.json").read_text() == edited

    assert command("plan", "small.yaml", "-o", "plan.json", "--force").code == 0
    assert Path("plan.json").read_text() != edited


def test_spec_is_not_overwritten_by_its_plan(command: Callable, small_spec: Path) -> None:
    spec = small_spec.read_text()
    result = command("plan", "small.yaml", "-o", "small.yaml")
    assert (result.code, result.err) == (2, EDITED.replace("plan.json", "small.yaml"))
    assert small_spec.read_text() == spec


def test_output_and_input_by_pipe(command: Callable, small_spec: Path) -> None:
    printed = command("plan", "-", "-o", "-", stdin=small_spec.read_bytes())
    assert printed.code == 0
    command("plan", "small.yaml", "-o", "plan.json")
    assert printed.out == Path("plan.json").read_text()
    explained = command("explain", "-", "300M-20tpp.steps", stdin=printed.out.encode())
    assert (explained.code, explained.err) == (0, "")


@pytest.mark.parametrize(
    "args",
    [
        ("plan", "small.yaml", "--json"),
        ("plan", "small.yaml", "--json", "-o", "other.json"),
        ("plan", "small.yaml", "-o", "-"),
        ("explain", "plan.json", "300M-20tpp.steps", "--json"),
        ("diff", "plan.json", "plan.json", "--json"),
        ("diff", "plan.json", "coarse.json", "--json"),
        ("tradeoff", "--json"),
        ("schema",),
        ("schema", "plan"),
        ("targets", "--json"),
        ("render", "plan.json", "-o", "jobs", "--json"),
    ],
    ids=" ".join,
)
def test_json_is_one_document_and_nothing_else(
    command: Callable, small_spec: Path, args: tuple[str, ...]
) -> None:
    command("plan", "small.yaml", "-o", "plan.json")
    Path("coarse.yaml").write_text(small_spec.read_text().replace("tpp: 20", "tpp: 40"))
    command("plan", "coarse.yaml", "-o", "coarse.json")

    result = command(*args)

    assert result.code == (1 if "coarse.json" in args else 0)
    assert isinstance(json.loads(result.out), dict)
    assert result.out.endswith("}\n")
    assert "\x1b" not in result.out


def test_schema_is_that_of_the_library(command: Callable) -> None:
    assert json.loads(command("schema").out) == spec_json_schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(command("schema", "plan").out))


@pytest.mark.parametrize(
    ("args", "printed"),
    [
        (("schema", "pan"), "schema: got 'pan', wanted spec or plan"),
        (("diff", "small.yaml", "small.yaml"), "small.yaml:1: is not a plan: it is not JSON"),
        (("explain", "none.json", "x.y"), "none.json: no such file"),
        (("render", "none.json", "-o", "jobs"), "none.json: no such file"),
        (("tradeoff", "--tpp", "5"), "got 5 TPP, wanted at least the compute-optimal 20"),
        (("tradeoff", "--max-extra-compute", "-1"), "got extra compute of -1, wanted zero or more"),
        (("tradeoff", "--params", "0.01"), "got a parameter ratio of 0.01, wanted more than "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_of_other_verbs(
    command: Callable, small_spec: Path, args: tuple[str, ...], printed: str
) -> None:
    result = command(*args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {printed}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [("plan",), ("plan", "a", "b"), ("plam",), ("plan", "x", "--jsn"), ("tradeoff", "--tpp", "x")],
    ids=" ".join,
)
def test_usage_errors(command: Callable, args: tuple[str, ...]) -> None:
    result = command(*args)
    assert (result.code, result.out) == (2, "")
    assert "Traceback" not in result.err
    assert "Error: " in result.err


def test_internal_error_is_one_line_and_70(
    command: Callable, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import planner.compile

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(planner.compile, "compile_plan", broken)
    result = command("plan", "small.yaml", "-o", "plan.json")
    assert (result.code, result.out, result.err) == (
        70,
        "",
        "internal error: ZeroDivisionError: division by zero "
        "(set PLANNER_TRACEBACK=1 to see where)\n",
    )
    assert not Path("plan.json").exists()


def test_interrupt_is_130(
    command: Callable, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import planner.compile

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(planner.compile, "compile_plan", interrupted)
    result = command("plan", "small.yaml")
    assert (result.code, result.out, result.err) == (130, "", "interrupted\n")


# --- the installed command, in a process of its own ---------------------------------------------


@pytest.fixture(scope="module")
def installed() -> list[str]:
    command = Path(sys.executable).parent / "planner"
    if not command.exists():
        pytest.fail(f"the command is not installed: {command} does not exist.")
    return [str(command)]


def test_bad_spec_in_a_process(run_planner: Callable, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("family: f\npreset: celerity\ntpps: 20\n")
    result = run_planner("plan", "spec.yaml", "-o", "plan.json", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        "error: spec.yaml:3: tpps: is unknown; did you mean 'tpp'?\n",
    )
    assert os.listdir(tmp_path) == ["spec.yaml"]


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize(
    ("where", "code", "printed"),
    [
        ("closed pipe", 0, ""),
        ("/dev/full", 2, "error: <stdout>: cannot be written: No space left on device\n"),
    ],
)
def test_output_that_nobody_takes(
    installed: list[str], small_spec: Path, form: list[str], where: str, code: int, printed: str
) -> None:
    """As in `planner plan ... | head -1`: no traceback, nor when the interpreter closes down."""
    reader, writer = os.pipe()
    os.close(reader)
    if where != "closed pipe":
        os.close(writer)
        writer = os.open(where, os.O_WRONLY)
    result = subprocess.run(
        [*installed, "plan", small_spec, *form],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert result.returncode == code
    errors = [line for line in result.stderr.splitlines(True) if not line.startswith("warning")]
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr
    assert "".join(line for line in errors if line.startswith("error")) == printed


def test_closed_standard_streams(installed: list[str], small_spec: Path) -> None:
    for closed, code in (("<&-", 2), (">&-", 0), ("2>&-", 0)):
        source = "-" if closed == "<&-" else str(small_spec)
        result = subprocess.run(
            ["bash", "-c", f'exec "$@" {closed}', "bash", *installed, "plan", source],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (result.returncode, "Traceback" in result.stderr) == (code, False), closed


def test_interrupted_in_a_process(installed: list[str]) -> None:
    """Control-C while it waits for its input: 130, one word."""
    process = subprocess.Popen(
        [*installed, "plan", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background leaves SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin is not None
    os.write(process.stdin.fileno(), b"family: f")
    unread = bytearray(b"more")
    deadline = time.monotonic() + 30
    while any(unread) and time.monotonic() < deadline:
        time.sleep(0.01)
        fcntl.ioctl(process.stdin, termios.FIONREAD, unread)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
