"""YAML in: plain values with their lines, or one error, whatever the text is."""

from __future__ import annotations

import fcntl
import json
import os
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner import documents
from planner.documents import (
    MAX_DEPTH,
    Document,
    parse_document,
    read_bytes,
    read_document,
)
from planner.errors import SpecError


def test_values_and_lines() -> None:
    document = parse_document("a: 1\nb:\n  - x\n  - {c: 1e-3, d: null}\ne: 0x10\n", "f")
    assert document.value == {"a": 1, "b": ["x", {"c": 1e-3, "d": None}], "e": 16}
    assert document.line(("a",)) == 1
    assert document.line(("b", "1", "d")) == 4
    assert document.line(("b", "0", "no", "such")) == 3
    assert document.line(("nothing",)) == 1


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "[yes, no, 1:30, 010, 0o10, 1_000, .inf, 2001-01-01, '1', \"\\e\", ~]"
    assert parse_document(text, "f").value == [
        *("yes", "no", "1:30", 10, 8, 1000, float("inf"), "2001-01-01", "1", "\x1b", None)
    ]


def test_merge_keys() -> None:
    text = "base: &base {a: 1, b: 2}\nover: {<<: *base, b: 3}\nmany: {<<: [*base, {c: 4}]}\n"
    value = parse_document(text, "f").value
    assert value["over"] == {"a": 1, "b": 3}
    assert value["many"] == {"a": 1, "b": 2, "c": 4}


def test_bounds_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 100)
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_document(deepest, "f").value is not None
    with pytest.raises(SpecError, match="nested"):
        parse_document(f"[{deepest}]", "f")
    assert len(parse_document("[" + "1," * 99 + "]", "f").value) == 99
    with pytest.raises(SpecError, match="values"):
        parse_document("[" + "1," * 100 + "]", "f")
    with pytest.raises(SpecError, match="aliases"):
        parse_document("a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\nb: [" + "*a, " * 10 + "]", "f")


snippets = st.sampled_from(
    [
        *("a", "b: ", "- ", "? ", ": ", "{", "}", "[", "]", ",", "\n", "  ", "\t", "#", "'", '"'),
        *("|", ">", "&a ", "*a", "<<: ", "!", "!!int ", "!x ", "!!", "%YAML 1.1\n", "---\n"),
        *("...\n", "1e999", "0x", "\\u0041", "\\ud800", "\ud800", "é", "\u2028", "\x85", "\0"),
        *("\r", "@", "`", "~", ".nan", "1_0", "9" * 5000, "0x" + "f" * 5000, "\ufeff", "\x07"),
    ]
)


def read(text: bytes | str) -> Document | None:
    try:
        return parse_document(text, "spec.yaml")
    except SpecError as error:
        message = str(error)
    assert message.startswith("spec.yaml:")
    assert message.isprintable()
    return None


@given(st.lists(snippets, max_size=30).map("".join))
@settings(max_examples=500)
@example("&a [*a]")
@example("&a {<<: *a}")
@example("? &a [*a]\n: 1")
@example("? {a: 1}\n: 1")
@example("%YAML 1.1\n---\na: 1:30\nb: 0777\nc: yes\n")
@example("!!int x")
@example("!!bool x")
@example("!!float x")
@example("!!null x")
@example("!!merge x: 1")
@example("!<tag:yaml.org,2002:int> x")
@example('"\\ud800": 1')
@example("- - - - - -\n  - - -")
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read(data)


# JSON's escaped surrogate pairs are no YAML
words = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(words, plain, min_size=1))
def test_json_is_yaml(value: dict[str, object]) -> None:
    assert parse_document(json.dumps(value), "f").value == value


def test_named_pipe_that_somebody_writes_to_slowly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)

    def write() -> None:
        for part in (b"family", b": f", b"\n"):
            os.write(writer, part)
            unread = bytearray(4)
            while fcntl.ioctl(writer, termios.FIONREAD, unread) == 0 and any(unread):
                time.sleep(0.01)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    assert read_document(pipe).value == {"family": "f"}
    thread.join()


def test_files_do_not_stay_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "none", Path("/proc/self/mem"), Path(__file__)):
        with suppress(SpecError):
            read_bytes(path, 10**6)
    assert len(os.listdir("/proc/self/fd")) == before
