"""YAML documents in, with the line of every value; hardened against hostile input.

A spec comes from a person, so errors must name lines; it may also come from anywhere, so size,
depth, aliases and tags are bounded: an alias that would expand without end is an error, not a hang.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import SpecError

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

MAX_BYTES = 1024 * 1024
MAX_VALUES = 100_000
MAX_DEPTH = 50

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
        return parse_document(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>")
    return parse_document(read_bytes(name, MAX_BYTES), name)


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    Raises:
        SpecError: If it does not exist, is not a regular file or pipe, is larger, or is unreadable.
    """
    name = os.fspath(path)
    try:
        mode = os.stat(name)
        if stat.S_ISDIR(mode.st_mode):
            raise SpecError("is a folder, wanted a file", file=name)
        if mode.st_size > limit:
            raise SpecError(
                f"has {mode.st_size:,} bytes, wanted at most {limit:,}: is this the right file?",
                file=name,
            )
        with Path(name).open("rb") as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError:
        raise SpecError("no such file", file=name) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"cannot be read: {reason}", file=name) from None
    if len(data) > limit:
        raise SpecError(f"has more than {limit:,} bytes: is this the right file?", file=name)
    return data


def parse_document(text: bytes | str, name: str) -> Document:
    """Parse one YAML document.

    Raises:
        SpecError: As `read_document`, naming the line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > MAX_BYTES:
        raise SpecError(f"has more than {MAX_BYTES:,} bytes: is this the right file?", file=name)
    if isinstance(text, bytes):
        text = _decoded(text, name)
    loader = YAML(typ="safe", pure=True)
    try:
        node = loader.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context or "cannot be parsed").split())
        raise SpecError(
            f"is not valid YAML: {problem}", file=name, line=mark.line + 1 if mark else None
        ) from None
    except YAMLError as error:
        problem = " ".join(str(error).split())[:120]
        raise SpecError(f"is not valid YAML: {problem}", file=name) from None
    except RecursionError:
        raise SpecError(f"is nested more than {MAX_DEPTH} deep", file=name) from None
    if node is None:
        raise SpecError("is empty, wanted a YAML mapping", file=name)
    document = Document(name, None)
    document.value = _Builder(document).build(node, (), 0)
    return document


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError("is not UTF-8 text, wanted a YAML file", file=name, line=line) from None


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
            raise self.fail(f"holds more than {MAX_VALUES:,} values once aliases expand", node, ())
        if depth > MAX_DEPTH:
            raise self.fail(f"is nested more than {MAX_DEPTH} deep", node, ())
        self.document.lines.setdefault(place, node.start_mark.line + 1)
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
                raise self.fail("got a key that is not plain text", key_node, place)
            key = str(key_node.value)
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = self.build(value_node, place, depth + 1)
                for source in sources if isinstance(sources, list) else [sources]:
                    if not isinstance(source, dict):
                        raise self.fail("'<<' wants a mapping", value_node, place)
                    merged = {**source, **merged}
                continue
            if key in result:
                raise self.fail("is declared twice", key_node, (*place, key))
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
            case tag:
                raise self.fail(f"got the tag {tag!r}, wanted plain values", node, place)

    @staticmethod
    def integer(text: str) -> int | str:
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
