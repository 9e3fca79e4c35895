"""Plan files: read whole and checked, written whole or not at all, never over somebody's edits."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.compile import compile_plan
from planner.errors import OutputError, PlanFileError
from planner.plan import Plan, dump_plan, load_plan, read_plan, run_digest, store, write_plan
from planner.plan.codec import plan_digest
from planner.spec import parse_spec

PLAN = compile_plan(parse_spec("family: f\npreset: celerity\ntpp: 20\nsizes: [300M]\n"))
TEXT = dump_plan(PLAN)
EDITED = (
    "exists and is not a plan as this program wrote it; nothing was written "
    "(overwrite with --force)"
)


def other_plan() -> Plan:
    return compile_plan(parse_spec("family: g\npreset: celerity\ntpp: 20\nsizes: [300M]\n"))


def error_of(text: str | bytes) -> str:
    with pytest.raises(PlanFileError) as error:
        load_plan(text, "plan.json")
    assert error.value.exit_code == 2
    return str(error.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "new" / "plan.json")
    assert read_plan(tmp_path / "new" / "plan.json") == PLAN
    assert dump_plan(load_plan(TEXT)) == TEXT


DAMAGED: dict[str, tuple[str | bytes, str]] = {
    "cut short": (TEXT[:1000], "plan.json:45: is not a plan: its JSON is cut short"),
    "without its end": (
        TEXT[:-3],
        f"plan.json:{TEXT.count(chr(10)) - 1}: is not a plan: its JSON is cut short",
    ),
    "empty": ("", "plan.json:1: is not a plan: it is empty"),
    "YAML": (
        "family: f\n",
        "plan.json:1: is not a plan: it is not JSON (expecting value)",
    ),
    "binary": (b"\x7fELF\xff\xfe", "plan.json: is not a plan: it is not UTF-8 text"),
    "UTF-16": (TEXT.encode("utf-16"), "plan.json: is not a plan: it is not UTF-8 text"),
    "a list": ("[]", 'plan.json: is not a plan: it has no "schema": "planner.plan/1"'),
    "a number": ("42", 'plan.json: is not a plan: it has no "schema": "planner.plan/1"'),
    "another schema": (
        TEXT.replace("planner.plan/1", "planner.plan/2", 1),
        "plan.json: schema: got 'planner.plan/2', wanted 'planner.plan/1'",
    ),
    "a long schema": (
        json.dumps({"schema": "x" * 10**6}),
        f"plan.json: schema: got '{'x' * 60}..., wanted 'planner.plan/1'",
    ),
    "one digit edited": (
        TEXT.replace('"steps": 3755', '"steps": 3754', 1),
        "plan.json: digest: was changed after it was planned: its digest does not match; "
        "plan again from the spec",
    ),
    "a key twice": (
        TEXT.replace('"steps": 3755', '"steps": 1, "steps": 3755', 1),
        "plan.json: is not a plan: the key 'steps' is there twice",
    ),
    "NaN": (
        TEXT.replace('"steps": 3755', '"steps": NaN', 1),
        "plan.json: is not a plan: it holds NaN, which is no JSON number",
    ),
    "a number beyond floats": (
        TEXT.replace('"steps": 3755', '"steps": 1e999', 1),
        "plan.json: runs.0.steps: got inf, wanted a finite number",
    ),
    "too many digits": (
        TEXT.replace('"steps": 3755', f'"steps": {"9" * 5000}', 1),
        "plan.json: is not a plan: its JSON cannot be read",
    ),
    "half a character": (
        TEXT.replace('"family": "f"', '"family": "\\ud800"', 1),
        "plan.json: is not a plan: its JSON cannot be read",
    ),
    "deep": ("[" * 10**5, "plan.json: is not a plan: its JSON cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged(damage: str) -> None:
    text, printed = DAMAGED[damage]
    assert text != TEXT
    assert error_of(text) == printed


def sealed_again(change: Callable[[dict[str, Any]], object]) -> str:
    """Return the plan with a change under digests that match it again."""
    document = json.loads(TEXT)
    change(document)
    for run in document["runs"] if isinstance(document["runs"], list) else ():
        if isinstance(run, dict):
            run["digest"] = run_digest(run)
    document["digest"] = plan_digest(document)
    return json.dumps(document)


def test_sealed_again_is_a_plan() -> None:
    assert load_plan(sealed_again(lambda plan: None)) == PLAN


FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "extra field": (
        lambda plan: plan["runs"][0]["model"].update(extra=1),
        "runs.0.model.extra: is unknown: was it written by another version?",
    ),
    "missing field": (lambda plan: plan["runs"][0].pop("steps"), "runs.0.steps: is missing"),
    "text for a number": (
        lambda plan: plan["runs"][0].update(steps="many"),
        "runs.0.steps: got 'many', wanted integer, unable to parse string as an integer",
    ),
    "half a step": (
        lambda plan: plan["runs"][0].update(steps=3755.5),
        "runs.0.steps: got 3755.5, wanted a whole number",
    ),
    "nothing for runs": (lambda plan: plan.update(runs=None), "runs: got nothing, wanted a list"),
    "text for a run": (
        lambda plan: plan.update(runs=["x"]),
        "runs.0: got 'x', wanted a mapping",
    ),
    "a list for a mapping": (
        lambda plan: plan.update(provenance=[]),
        "provenance: got [], wanted a mapping",
    ),
    "the same run twice": (
        lambda plan: plan["runs"].append(plan["runs"][0]),
        "runs.1.name: got the run '300M-20tpp' twice",
    ),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_forged(forgery: str) -> None:
    change, printed = FORGED[forgery]
    assert error_of(sealed_again(change)) == f"plan.json: {printed}"


@pytest.mark.parametrize("steps", ["3755", 3755.0, True])
def test_numbers_of_another_type_do_not_pass(steps: object) -> None:
    """Neither where the digest is that of the number itself, nor where it was taken anew."""
    document = json.loads(TEXT)
    document["runs"][0]["steps"] = steps
    anew = sealed_again(lambda plan: plan["runs"][0].update(steps=steps))
    for text in (json.dumps(document), anew):
        assert "its digest does not match" in error_of(text)


def test_digest_of_a_run_is_checked() -> None:
    document = json.loads(TEXT)
    document["runs"][0]["digest"] = "sha256:" + "0" * 64
    document["digest"] = plan_digest(document)
    assert error_of(json.dumps(document)) == (
        "plan.json: runs.0.digest: run '300M-20tpp' does not match its digest; "
        "plan again from the spec"
    )


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_edit_shows(data: st.DataObject) -> None:
    """One value of a plan changed, wherever it stands."""
    document = json.loads(TEXT)
    parent, value = None, document
    while isinstance(value, (dict, list)) and value:
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from(list(keys)))
        parent, value = value, value[key]
    assert parent is not None
    other = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([{}])
    )
    parent[key] = other
    if json.dumps(document) != json.dumps(json.loads(TEXT)):
        message = error_of(json.dumps(document))
        assert message.startswith("plan.json: ")
        assert message.isprintable()


@given(st.text() | st.binary())
@settings(max_examples=100)
def test_any_text_is_refused(text: str | bytes) -> None:
    error_of(text)


# --- writing -----------------------------------------------------------------------------------


def present(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_unedited_plan_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(PLAN, path)
    write_plan(PLAN, path)
    write_plan(other_plan(), path)
    assert present(tmp_path) == {"plan.json": dump_plan(other_plan()).encode()}


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace("3755", "3754").encode(),
        TEXT.encode() + b" // mine",
        TEXT[:1000].encode(),
        b"",
        b"family: f\n",
        b"\xff\xfe\x00",
    ],
    ids=["edited", "appended", "cut", "empty", "spec", "binary"],
)
def test_edited_or_foreign_file_is_kept_without_force(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(OutputError) as error:
        write_plan(PLAN, path)
    assert str(error.value) == f"{path}: {EDITED}"
    assert present(tmp_path) == {"plan.json": content}

    write_plan(PLAN, path, force=True)
    assert present(tmp_path) == {"plan.json": TEXT.encode()}


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "got an empty file name"),
        ("file/plan.json", "file/plan.json: cannot be written: it lies in a file, not a folder"),
        ("/dev/full", "/dev/full: cannot be written: No space left on device"),
        ("/proc/plan.json", "/proc/plan.json: cannot be written: No such file or directory"),
        ("pipe", "pipe: cannot be written: No such device or address"),
        ("a\0b", "a\\x00b: cannot be written: embedded null byte"),
    ],
)
def test_place_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, why: str, force: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    with pytest.raises(OutputError) as error:
        write_plan(PLAN, path, force=force)
    assert str(error.value) == why
    assert present(tmp_path) == {"file": b"mine"}


def test_folder_is_not_replaced(tmp_path: Path) -> None:
    for force, why in (
        (False, "is a folder, wanted a file; nothing was written"),
        (True, "cannot be written: Is a directory"),
    ):
        with pytest.raises(OutputError) as error:
            write_plan(PLAN, tmp_path, force=force)
        assert str(error.value) == f"{tmp_path}: {why}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
@pytest.mark.parametrize("reason", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, reason: BaseException
) -> None:
    """A full disk, or somebody who interrupts, leaves the old file and nothing beside it."""
    path = tmp_path / "plan.json"
    write_plan(PLAN, path)

    class Full:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def write(self, data: bytes) -> None:
            self.stream.write(data[:1000])
            raise reason

    def fail(*_: object) -> None:
        raise reason

    if failing == "write":
        fdopen = os.fdopen
        monkeypatch.setattr(store.os, "fdopen", lambda *args: Full(fdopen(*args)))
    elif failing == "fsync":
        monkeypatch.setattr(store.os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_plan(other_plan(), path)
    monkeypatch.undo()
    assert present(tmp_path) == {"plan.json": TEXT.encode()}


def test_links_and_modes_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "real.json"
    write_plan(PLAN, target)
    target.chmod(0o640)
    (tmp_path / "link.json").symlink_to(target)
    (tmp_path / "dangling.json").symlink_to("later.json")
    write_plan(other_plan(), tmp_path / "link.json")
    write_plan(PLAN, tmp_path / "dangling.json")
    assert (tmp_path / "link.json").is_symlink()
    assert read_plan(target) == other_plan()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert read_plan(tmp_path / "later.json") == PLAN


def test_pipe_that_somebody_reads_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_plan(PLAN, pipe)  # less than a pipe holds
    assert os.read(reader, 10**6).decode() == TEXT
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_devices_stay_devices() -> None:
    write_plan(PLAN, "/dev/null")
    write_plan(PLAN, "/dev/null", force=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
