"""YAML documents in, with the line of every value; hardened against hostile input.

A spec comes from a person, so errors must name lines; it may also come from anywhere, so size,
depth, values, aliases and tags are bounded while the file is read: what would expand without end is
an error, not a hang.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner.errors import SpecError
from planner.units import show

if TYPE_CHECKING:
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.nodes import Node

MAX_BYTES = 1024 * 1024
MAX_VALUES = 50_000
MAX_DEPTH = 50
_MAX_DIGITS = 400

# What the YAML parser says, and what it means to who wrote the file.
_PROBLEMS = (
    (r"found character '\\t' that cannot start any token", "a tab indents, wanted spaces"),
    (
        "mapping values are not allowed here",
        "a ':' stands where none can be; check the indentation, or put quotes around the text",
    ),
    ("but found another document", "a second document starts, wanted one"),
    ("could not find expected ':'", "a line has no ':' after its key"),
)
_CONTROL = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Place = tuple[str, ...]


@dataclass(slots=True)
class Document:
    """A YAML document as plain values.

    Attributes:
        name: File name, for errors.
        value: Dicts with text keys, lists, text, numbers, booleans and None.
        lines: Path of a value, list positions as text, to its one-based line.
    """

    name: str
    value: Any
    lines: dict[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int | None:
        """Return the line of a value, or of the nearest value around it."""
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return None


def read_document(path: str | os.PathLike[str]) -> Document:
    """Read a YAML file; ``-`` is standard input.

    Raises:
        SpecError: If it cannot be read, is too large, is not text, is not YAML, or is empty.
    """
    name = os.fspath(path)
    if name == "-":
        return parse_document(read_stdin(MAX_BYTES), "<stdin>")
    return parse_document(read_bytes(name, MAX_BYTES), name)


def read_stdin(limit: int) -> bytes:
    """Read standard input whole, at most ``limit`` bytes.

    Raises:
        SpecError: If it is closed, larger or unreadable.
    """
    if sys.stdin is None:
        raise SpecError("is closed", file="<stdin>")
    try:
        data = sys.stdin.buffer.read(limit + 1)
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file="<stdin>") from None
    if len(data) > limit:
        raise SpecError(_too_large(None, limit), file="<stdin>")
    return data


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes; a named pipe that nobody writes to is empty.

    Raises:
        SpecError: If it does not exist, is a folder, is larger, or is unreadable.
    """
    name = os.fspath(path)
    if not name:
        raise SpecError("got an empty file name")
    try:
        with open(name, "rb", opener=_open_at_once) as stream:
            os.set_blocking(stream.fileno(), True)
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(limit + 1) if size <= limit else b""
    except FileNotFoundError:
        raise SpecError("no such file", file=name) from None
    except IsADirectoryError:
        raise SpecError("is a folder, wanted a file", file=name) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"cannot be read: {reason}", file=name) from None
    if size > limit or len(data) > limit:
        raise SpecError(_too_large(size if size > limit else None, limit), file=name)
    return data


def _open_at_once(name: str, flags: int) -> int:
    """Open a file; a named pipe that nobody writes to would hold up an ordinary open for ever."""
    return os.open(name, flags | os.O_NONBLOCK)


def _too_large(size: int | None, limit: int) -> str:
    got = f"has {size:,} bytes" if size is not None else "is too large"
    return f"{got}, wanted at most {limit:,}: is this the right file?"


def parse_document(text: bytes | str, name: str) -> Document:
    """Parse one YAML document.

    Raises:
        SpecError: As `read_document`, naming the line.
    """
    if len(text) > MAX_BYTES:
        raise SpecError(_too_large(len(text), MAX_BYTES), file=name)
    if isinstance(text, bytes):
        text = _decoded(text, name)
    control = _CONTROL.search(text)
    if control is not None:
        raise SpecError(
            f"holds the control character U+{ord(control[0]):04X}, wanted a YAML text file",
            file=name,
            line=text.count("\n", 0, control.start()) + 1,
        )
    node = _compose(text, name)
    document = Document(name, None)
    document.value = None if node is None else _Builder(document).build(node, (), 0)
    if document.value is None:
        raise SpecError("is empty, wanted a YAML mapping", file=name)
    return document


def _decoded(data: bytes, name: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError("is UTF-16 text, wanted UTF-8", file=name)
    if b"\0" in data:
        raise SpecError("is a binary file, wanted YAML text", file=name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError("is not UTF-8 text, wanted a YAML file", file=name, line=line) from None


def _compose(text: str, name: str) -> Node | None:
    """Return the document's nodes, or None if it has none, within the bounds of this module."""
    from ruamel.yaml import YAML
    from ruamel.yaml.composer import Composer
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    class Bounded(Composer):
        """Stops at the bounds, so that a hostile file costs no more than a large one."""

        def __init__(self, loader: Any = None) -> None:
            super().__init__(loader)
            self.warn_double_anchors = False
            self.values = self.nested = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.values += 1
            self.nested += 1
            if self.values > MAX_VALUES or self.nested > MAX_DEPTH:
                why = _TOO_MANY if self.values > MAX_VALUES else _TOO_DEEP
                line = self.parser.peek_event().start_mark.line + 1
                raise SpecError(why, file=name, line=line)
            node = super().compose_node(parent, index)
            self.nested -= 1
            return node

    loader = YAML(typ="safe", pure=True)
    loader.Composer = Bounded
    try:
        node: Node | None = loader.compose(text)
    except MarkedYAMLError as error:
        problem, line = _problem(error)
        raise SpecError(f"is not valid YAML: {problem}", file=name, line=line) from None
    except (YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:120]
        raise SpecError(f"is not valid YAML: {problem}", file=name) from None
    return node


_TOO_MANY = f"holds more than {MAX_VALUES:,} values: is this the right file?"
_TOO_DEEP = f"is nested more than {MAX_DEPTH} deep"


def _problem(error: MarkedYAMLError) -> tuple[str, int | None]:
    """Return what is wrong, in words for who wrote the file, and the line to look at."""
    problem = " ".join(str(error.problem or error.context or "cannot be parsed").split())
    mark = error.problem_mark or error.context_mark
    if "stream end" in problem or "end of stream" in problem:
        opened = {
            "quoted scalar": "a quote",
            "flow": "a bracket",
        }
        for what, subject in opened.items():
            if error.context_mark is not None and what in str(error.context):
                return f"{subject} is opened and not closed", error.context_mark.line + 1
    for pattern, words in _PROBLEMS:
        if re.search(pattern, problem):
            problem = words
    if "flow" in str(error.context) and error.context_mark is not None:
        problem += f", in the bracket opened in line {error.context_mark.line + 1}"
    return problem, mark.line + 1 if mark is not None else None


class _Builder:
    """Turns a node graph into plain values, counting what aliases expand to."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.values = 0

    def fail(self, message: str, node: Node, place: Place) -> SpecError:
        return SpecError(
            message,
            file=self.document.name,
            line=node.start_mark.line + 1,
            field=".".join(place) or None,
        )

    def build(self, node: Node, place: Place, depth: int) -> Any:
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        self.values += 1
        if self.values > MAX_VALUES:
            raise SpecError(
                f"expands to more than {MAX_VALUES:,} values by its aliases",
                file=self.document.name,
                line=self.document.line(place[:1]),
                field=".".join(place[:1]) or None,
            )
        if depth > MAX_DEPTH:
            raise self.fail(_TOO_DEEP, node, ())
        self.document.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, (MappingNode, SequenceNode)):
            self.check_tag(node, place, "map" if isinstance(node, MappingNode) else "seq")
        if isinstance(node, MappingNode):
            return self.mapping(node, place, depth)
        if isinstance(node, SequenceNode):
            return [
                self.build(item, (*place, str(i)), depth + 1) for i, item in enumerate(node.value)
            ]
        return self.scalar(node, place)

    def mapping(self, node: Node, place: Place, depth: int) -> dict[str, Any]:
        from ruamel.yaml.nodes import ScalarNode

        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise self.fail("got a list or a mapping as a key, wanted text", key_node, place)
            key = str(key_node.value)
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = self.build(value_node, place, depth + 1)
                for source in sources if isinstance(sources, list) else [sources]:
                    if not isinstance(source, dict):
                        raise self.fail(
                            f"got {show(source)} to merge, wanted a mapping",
                            value_node,
                            (*place, key),
                        )
                    merged = {**source, **merged}
                continue
            if key in result:
                first = self.document.lines[*place, key]
                raise self.fail(
                    f"is declared twice, first in line {first}", key_node, (*place, key)
                )
            self.document.lines[*place, key] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*place, key), depth + 1)
        return {**merged, **result}

    def scalar(self, node: Node, place: Place) -> Any:
        text = node.value
        match str(node.tag).removeprefix("tag:yaml.org,2002:"):
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int":
                return self.integer(text)
            case "float":
                return self.real(text)
            case "str" | "timestamp" | "!":
                return text
            case _:
                raise self.tagged(node, place)

    def check_tag(self, node: Node, place: Place, wanted: str) -> None:
        if str(node.tag) not in (f"tag:yaml.org,2002:{wanted}", "!"):
            raise self.tagged(node, place)

    def tagged(self, node: Node, place: Place) -> SpecError:
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        return self.fail(f"got the tag {show(tag)}, wanted plain values", node, place)

    @staticmethod
    def integer(text: str) -> int | str:
        if len(text) > _MAX_DIGITS:
            return text
        try:
            return int(text.replace("_", ""), 0 if "0x" in text or "0o" in text else 10)
        except ValueError:
            return text

    @staticmethod
    def real(text: str) -> float | str:
        plain = text.replace("_", "").lower()
        special = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
        try:
            return float(special.get(plain, plain))
        except ValueError:
            return text
