"""Bad input: one clear sentence each that names file, line and field; exit code 2; no traces."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden" / "bad_specs.txt"
VALID = "family: f\npreset: celerity\ntpp: 20\nsizes: [300M]\n"


def golden_cases() -> list[object]:
    """Return (spec, printed) of every case of the golden file, named by its title."""
    cases = []
    for block in GOLDEN.read_text().split("\n=== ")[1:]:
        title, text = block.split("\n", 1)
        spec, printed = text.split(">>>\n")
        cases.append(pytest.param(spec, printed.rstrip("\n") + "\n", id=title))
    return cases


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(("spec", "printed"), golden_cases())
def test_wrong_spec(command: Callable, tmp_path: Path, spec: str, printed: str) -> None:
    (tmp_path / "spec.yaml").write_text(spec)
    before = files(tmp_path)

    result = command("plan", "spec.yaml", "-o", "plan.json")

    assert result.err == printed
    assert (result.code, result.out) == (2, "")
    assert files(tmp_path) == before


def test_golden_file_is_read_whole() -> None:
    assert len(golden_cases()) == GOLDEN.read_text().count("\n>>>\n") > 90


BOMB = (
    "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
    )
    + VALID
)
TOO_MANY = "holds more than 50,000 values: is this the right file?"

# name: (the file's bytes, all that is printed after "error: spec.yaml")
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", ": is empty, wanted a YAML mapping"),
    "only comments": (b"# family: f\n\n# tpp\n", ": is empty, wanted a YAML mapping"),
    "null": (b"---\n~\n", ": is empty, wanted a YAML mapping"),
    "an executable": (b"\x7fELF\x02\x01\x01\x00\x00", ": is a binary file, wanted YAML text"),
    "random bytes": (bytes(range(253, -1, -1)), ": is a binary file, wanted YAML text"),
    "gzip": (b"\x1f\x8b\x08\x00\x11\x22", ": is a binary file, wanted YAML text"),
    "NUL in text": (VALID.encode() + b"\0", ": is a binary file, wanted YAML text"),
    "control character": (
        VALID.encode() + b"\x1b[31m: 1\n",
        ":5: holds the control character U+001B, wanted a YAML text file",
    ),
    "UTF-16": (VALID.encode("utf-16"), ": is UTF-16 text, wanted UTF-8"),
    "UTF-16 without a mark": (
        VALID.encode("utf-16-le"),
        ": is a binary file, wanted YAML text",
    ),
    "Latin-1": (
        VALID.encode() + "data: {tokenizer: café}\n".encode("latin-1"),
        ":5: is not UTF-8 text, wanted a YAML file",
    ),
    "an anchors bomb": (BOMB.encode(), ":5: e: expands to more than 50,000 values by its aliases"),
    "a million brackets": (b"family: " + b"[" * 1_000_000, ":1: is nested more than 50 deep"),
    "deep mappings": (b"a: " + b"{b: " * 99 + b"1" + b"}" * 99, ":1: is nested more than 50 deep"),
    "deep dashes": (b"- " * 1000 + b"a", ":1: is nested more than 50 deep"),
    "half a million values on one line": (b"sizes: [" + b"1," * 500_000 + b"]", f":1: {TOO_MANY}"),
    "a hundred thousand lines": (
        b"".join(b"k%d: 1\n" % i for i in range(90_000)),
        f":25000: {TOO_MANY}",
    ),
    "a million characters for a name": (
        VALID.replace("family: f", "family: " + "f" * 1_000_000).encode(),
        ":1: family: got 1,000,000 characters, wanted at most 64",
    ),
    "a million digits": (
        VALID.replace("tpp: 20", "tpp: " + "9" * 1_000_000).encode(),
        f":3: tpp: got '{'9' * 60}..., wanted positive tokens per parameter such as 20",
    ),
    "a million hexadecimal digits": (
        VALID.replace("tpp: 20", "tpp: 0x" + "f" * 1_000_000).encode(),
        f":3: tpp: got '0x{'f' * 58}..., wanted positive tokens per parameter such as 20",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_file(command: Callable, tmp_path: Path, name: str) -> None:
    data, expected = FILES[name]
    (tmp_path / "spec.yaml").write_bytes(data)
    started = time.process_time()

    result = command("plan", "spec.yaml", "-o", "plan.json")

    assert result.err == f"error: spec.yaml{expected}\n"
    assert (result.code, result.out) == (2, "")
    assert files(tmp_path) == {tmp_path / "spec.yaml"}
    assert time.process_time() - started < 10


@pytest.mark.parametrize("verb", ["plan", "diff"])
def test_50_mb_file(command: Callable, tmp_path: Path, verb: str) -> None:
    limits = {"plan": "1,048,576", "diff": "67,108,864"}
    size = {"plan": 50_000_000, "diff": 500_000_000}[verb]
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(size)

    result = command(verb, *["large"] * (2 if verb == "diff" else 1))

    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: large: has {size:,} bytes, wanted at most {limits[verb]}: "
        "is this the right file?\n"
    )


def test_unknown_key_of_any_length_is_one_short_line(command: Callable, tmp_path: Path) -> None:
    key = "k" * 100_000
    (tmp_path / "spec.yaml").write_text(f'{VALID}? "a\\n\\e[31mb{key}"\n: 1\n')

    result = command("plan", "spec.yaml")

    assert result.code == 2
    assert result.err.startswith("error: spec.yaml:5: a\\n\\x1b[31mbkkk")
    assert result.err.count("\n") == 1
    assert len(result.err) < 1500


def test_a_thousand_errors_are_ten_lines_and_a_count(command: Callable, tmp_path: Path) -> None:
    unknown = "".join(f"unknown{i}: 1\n" for i in range(1000))
    (tmp_path / "spec.yaml").write_text(VALID + unknown)

    lines = command("plan", "spec.yaml").err.splitlines()

    assert [line.split(" ")[1] for line in lines[:10]] == [f"spec.yaml:{i}:" for i in range(5, 15)]
    assert lines[10:] == ["error: ... and 990 more"]


def test_a_bill_of_a_megabyte_is_read(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(VALID + "# why\n" * 170_000)
    assert command("plan", "spec.yaml").code == 0


def test_byte_order_mark_and_crlf_are_fine(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert command("plan", "spec.yaml").code == 0


def test_the_same_anchor_twice_is_fine(command: Callable, tmp_path: Path) -> None:
    text = "family: &x f\npreset: &y celerity\ntpp: &x 20\nsizes: [300M]\nseeds: [*x]\n"
    (tmp_path / "spec.yaml").write_text(text)
    assert command("plan", "spec.yaml").code == 0


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("nothere.yaml", "nothere.yaml: no such file"),
        ("no/folder/spec.yaml", "no/folder/spec.yaml: no such file"),
        (".", ".: is a folder, wanted a file"),
        ("dangling.yaml", "dangling.yaml: no such file"),
        ("loop.yaml", "loop.yaml: cannot be read: Too many levels of symbolic links"),
        ("small.yaml/spec.yaml", "small.yaml/spec.yaml: cannot be read: Not a directory"),
        ("pipe", "pipe: is empty, wanted a YAML mapping"),
        ("socket", "socket: cannot be read: No such device or address"),
        ("/dev/null", "/dev/null: is empty, wanted a YAML mapping"),
        (
            "/dev/zero",
            "/dev/zero: is too large, wanted at most 1,048,576: is this the right file?",
        ),
        ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
        ("", "got an empty file name"),
        ("a\nb", "a\\nb: no such file"),
        ("a\0b", "a\\x00b: cannot be read: embedded null byte"),
        ("-", "<stdin>: is empty, wanted a YAML mapping"),
    ],
)
def test_unreadable_path(
    command: Callable, tmp_path: Path, small_spec: Path, path: str, printed: str
) -> None:
    import socket

    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")

        result = command("plan", path)

    assert (result.code, result.out, result.err) == (2, "", f"error: {printed}\n")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (b"family: f\n  tpp: 20\n", "<stdin>:2: is not valid YAML: "),
        (b"preset: celerity\nfamly: f\n", "<stdin>:2: famly: is unknown; "),
    ],
)
def test_standard_input_is_named(command: Callable, text: bytes, printed: str) -> None:
    result = command("plan", "-", stdin=text)
    assert result.code == 2
    assert result.err.startswith(f"error: {printed}")


def test_standard_input_is_read(command: Callable) -> None:
    result = command("plan", "-", "--json", stdin=VALID.encode())
    assert result.code == 0
    assert result.out.startswith('{\n "schema": "planner.plan/1"')


def test_standard_input_too_large(command: Callable) -> None:
    result = command("plan", "-", stdin=VALID.encode() + b"#" * 2_000_000)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: <stdin>: is too large, wanted at most 1,048,576: is this the right file?\n"
    )


def test_tpp_outside_every_law_warns_and_plans(command: Callable, tmp_path: Path) -> None:
    text = "family: f\npreset: llama-like\nsizes: [160M]\ntpp: 5000\ntimescale: power-lines\n"
    (tmp_path / "spec.yaml").write_text(text)

    result = command("plan", "spec.yaml", "--json")

    assert result.code == 0
    assert "law 'power-lines' is used at tpp 5000, outside the 20 to 1280 it was fitted on" in (
        result.out
    )
