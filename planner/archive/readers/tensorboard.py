"""TensorBoard event files: scalars of summaries, stored as values or as tensors.

The protocol buffers are read field by field: TensorFlow is not needed. The messages are Event,
Summary, TensorProto and the plug-ins' own, as
https://github.com/tensorflow/tensorboard/tree/master/tensorboard/compat/proto states them.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.errors import LogError
from planner.archive.names import LOGGER_NAMES, STEP_NAMES, TOKEN_NAMES
from planner.archive.readers.jsonl import flatten, parse_json
from planner.archive.readers.tfrecord import Records
from planner.archive.record import Column, LoggedRun, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.archive.readers.protocol import Log

MAX_TAGS = 10_000
MAX_VALUES = 20_000_000  # 16 bytes each
_MAX_TEXT = 256 * 1024
_MAX_NAME = 500  # characters of a tag, or of a fact's name or value
_VERSION = b"brain.Event:"
# TensorProto.dtype to the type of its bytes; and to the field that holds its values otherwise.
_DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    9: "<i8",
    10: "?",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
_STRING, _BFLOAT16 = 7, 14
_SHAPE, _CONTENT, _FLOATS, _DOUBLES, _STRINGS, _HALFS = 2, 4, 5, 6, 8, 13
_WHOLES = (7, 10, 11, 16, 17)
_SCALARS = b"scalars"
# An event of a time, a step and one value: what stands before the name of its tag; and after it,
# before the four bytes of the number; and after those.
_PLAIN = re.compile(
    rb"\x09.{8}(?:\x10([\x80-\xff]{0,9}[\x00-\x7f]))?"
    rb"\x2a([\x00-\x7f])\x0a([\x00-\x7f])\x0a[\x00-\x7f]",
    re.DOTALL,
)
_VALUE = b"\x15"
_TENSOR = b"\x42\x0a\x08\x01\x12\x00\x22\x04"
_SCALAR_PLUGIN = b"\x4a\x0b\x0a\x09\x0a\x07" + _SCALARS

Slice = tuple[int, int]


@dataclass
class _Series:
    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


class TensorBoardReader:
    """Files ``events.out.tfevents.*`` of both versions of TensorFlow, of PyTorch and others."""

    name = "tensorboard"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether the first record is the version of an event file."""
        head = log.head
        length = int.from_bytes(head[:8], "little")
        return 0 < length < 1024 and _VERSION in head[12 : 12 + length]

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        events = _Events()
        records = Records(log.source.blocks())
        for number, record in enumerate(records):
            try:
                events.add(record)
            except (ValueError, IndexError, struct.error, OverflowError):
                raise LogError(f"its record {number + 1} is no event") from None
        run = LoggedRun(_tables(events.series), config=events.config)
        if records.cut:
            run.notes.append(f"its last record is cut short and was left out ({records.cut} bytes)")
        if events.unread:
            run.notes.append(f"{events.unread} values that are no scalars were left out")
        return [run]


class _Events:
    """What the events of a file say."""

    def __init__(self) -> None:
        self.series: dict[str, _Series] = {}
        self.config: dict[str, Any] = {}
        self.unread = 0
        self._count = 0
        self._tags: dict[bytes, str] = {}
        self._plugins: dict[bytes, bytes] = {}

    def add(self, data: bytes) -> None:
        """Add an event; raises `ValueError` if it is none."""
        if not self._add_plain(data):
            self._add_any(data)

    def _add_plain(self, data: bytes) -> bool:
        """Add an event of one 32-bit real, written as nearly all are; return whether it is one.

        Reading such events as a whole, rather than field by field, takes a quarter of the time.
        """
        match = _PLAIN.match(data)
        if match is None:
            return False
        size = len(data)
        tag_start = match.end()
        tag_end = tag_start + data[tag_start - 1]
        # the lengths have to agree with what is there
        if match.end(2) + data[match.end(2) - 1] != size:
            return False
        if match.end(3) + data[match.end(3) - 1] != size:
            return False
        tag, rest = data[tag_start:tag_end], data[tag_end:]
        if rest[:1] != _VALUE or len(rest) != 5:
            rest = rest.removesuffix(_SCALAR_PLUGIN)
            # slower for the first of a tag, which says what the others are
            if rest[:-4] != _TENSOR or tag not in self._tags:
                return False
            if self._plugins.get(tag, _SCALARS) != _SCALARS:
                return False
        step = _varint(data, *match.span(1))[0] if match[1] else 0
        if step >> 63:
            return False
        self._add(tag, step, struct.unpack("<f", rest[-4:])[0])
        return True

    def _add_any(self, data: bytes) -> None:
        """Add an event of any kind."""
        step = 0
        summaries = []
        for number, wire, value in _fields(data, 0, len(data)):
            if number == 2 and wire == 0:
                step = value - (1 << 64) if value >> 63 else value
            elif number == 5 and wire == 2:
                summaries.append(value)
        for start, end in summaries:
            for number, wire, value in _fields(data, start, end):
                if number == 1 and wire == 2:
                    self._value(data, value, step)

    def _value(self, data: bytes, place: Slice, step: int) -> None:
        tag = b""
        number_found: float | None = None
        tensor: Slice | None = None
        plugin = b""
        other = False
        for number, wire, value in _fields(data, *place):
            if number == 1 and wire == 2:
                tag = data[value[0] : value[1]]
            elif number == 2 and wire == 5:
                number_found = struct.unpack_from("<f", data, value)[0]
            elif number == 8 and wire == 2:
                tensor = value
            elif number == 9 and wire == 2:
                plugin = self._metadata(data, *value)
            elif number in (4, 5, 6):
                other = True
        # only the first value of a tag says which plug-in it is for
        if len(tag) > _MAX_NAME:
            self.unread += 1
            return
        if plugin:
            if len(self._plugins) < MAX_TAGS:
                self._plugins.setdefault(tag, plugin)
        else:
            plugin = self._plugins.get(tag, b"")
        if tensor is not None and plugin in (b"", _SCALARS):
            number_found = _scalar(data, *tensor)
            other = number_found is None
        elif tensor is not None:
            if plugin == b"text":
                self._text(tag, _strings(data, *tensor))
            else:
                other = plugin != b"hparams"
        if number_found is not None and step >= 0:
            self._add(tag, step, number_found)
        else:
            self.unread += other or number_found is not None

    def _add(self, tag: bytes, step: int, value: float) -> None:
        name = self._tags.get(tag)
        if name is None:
            name = self._tags[tag] = tag.decode("utf-8", "replace")
            if len(self._tags) > MAX_TAGS:
                raise LogError(f"has more than {MAX_TAGS:,} different tags")
        series = self.series.get(name)
        if series is None:
            series = self.series[name] = _Series()
        self._count += 1
        if self._count > MAX_VALUES:
            raise LogError(f"holds more than {MAX_VALUES:,} values, which is the bound")
        series.steps.append(step)
        series.values.append(value)

    def _metadata(self, data: bytes, start: int, end: int) -> bytes:
        name = b""
        content: Slice = (0, 0)
        for number, wire, value in _fields(data, start, end):
            if number == 1 and wire == 2:
                for inner, kind, place in _fields(data, *value):
                    if inner == 1 and kind == 2:
                        name = data[place[0] : place[1]]
                    elif inner == 2 and kind == 2:
                        content = place
        if name == b"hparams":
            for key, said in _hparams(data, *content).items():
                self._say(key, said)
        return name

    def _say(self, name: str, value: Any) -> None:
        """Keep a fact, unless it is too long or there are too many."""
        size = len(value) if isinstance(value, str) else 0
        if len(name) <= _MAX_NAME and size <= _MAX_NAME and len(self.config) < MAX_TAGS:
            self.config.setdefault(name, value)

    def _text(self, tag: bytes, texts: list[bytes]) -> None:
        """Keep a text: the arguments of the run, one by one or as a whole."""
        name = tag.decode("utf-8", "replace").removesuffix("/text_summary")
        for raw in texts:
            if len(raw) > _MAX_TEXT:
                continue
            text = raw.decode("utf-8", "replace").strip()
            try:
                said = parse_json(text)
            except ValueError:
                said = text
            if isinstance(said, dict):
                for key, item in flatten(said):
                    if isinstance(item, (str, int, float, bool)):
                        self._say(key, item)
            elif isinstance(said, (str, int, float, bool)):
                self._say(name, said)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, value) of each field of a message.

    The value of a number is the number (wire type 0), or where its bytes start (1 and 5); that of
    anything else is where it starts and ends.

    Raises:
        ValueError: If the bytes are no message.
    """
    while at < end:
        key = data[at]
        at += 1
        if key > 127:
            key, at = _varint(data, at - 1, end)
        wire = key & 7
        if wire == 2:
            length = data[at]
            at += 1
            if length > 127:
                length, at = _varint(data, at - 1, end)
            if length > end - at:
                raise ValueError
            yield key >> 3, 2, (at, at + length)
            at += length
        elif wire == 0:
            value, at = _varint(data, at, end)
            yield key >> 3, 0, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if size > end - at:
                raise ValueError
            yield key >> 3, wire, at
            at += size
        else:
            raise ValueError


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ValueError


def _scalar(data: bytes, start: int, end: int) -> float | None:
    """Return the one number of a tensor; None if it holds none or several."""
    dtype = 0
    found: float | None = None
    for number, wire, value in _fields(data, start, end):
        if number == 1 and wire == 0:
            dtype = value
        elif number == _SHAPE and wire == 2:
            if _elements(data, *value) != 1:
                return None
        elif number == _CONTENT and wire == 2:
            found = _from_bytes(data[value[0] : value[1]], dtype)
        elif number == _FLOATS and wire in (2, 5):
            found = _real(data, value, "<f")
        elif number == _DOUBLES and wire in (1, 2):
            found = _real(data, value, "<d")
        elif number in _WHOLES and wire in (0, 2):
            whole = _whole(data, value)
            found = None if whole is None else float(whole - (1 << 64) if whole >> 63 else whole)
        elif number == _HALFS and wire in (0, 2):
            bits = _whole(data, value)
            if bits is not None:
                found = _from_bytes((bits & 0xFFFF).to_bytes(2, "little"), dtype)
    return found


def _real(data: bytes, value: int | Slice, kind: str) -> float | None:
    """Return a real of a field that holds one, or where several would stand."""
    start, end = value if isinstance(value, tuple) else (value, value + struct.calcsize(kind))
    if end - start != struct.calcsize(kind):
        return None
    return float(struct.unpack_from(kind, data, start)[0])


def _whole(data: bytes, value: int | Slice) -> int | None:
    """Return a whole number of a field that holds one, or where several would stand."""
    if isinstance(value, int):
        return value
    found, end = _varint(data, *value)
    return found if end == value[1] else None


def _elements(data: bytes, start: int, end: int) -> int:
    """Return how many elements a shape has."""
    count = 1
    for number, wire, place in _fields(data, start, end):
        if number == 2 and wire == 2:
            size = 0
            for inner, kind, value in _fields(data, *place):
                if inner == 1 and kind == 0:
                    size = value
            count *= size
    return count


def _from_bytes(raw: bytes, dtype: int) -> float | None:
    if dtype == _BFLOAT16 and len(raw) == 2:
        return float(struct.unpack("<f", b"\0\0" + raw)[0])
    kind = _DTYPES.get(dtype)
    if kind is None or np.dtype(kind).itemsize != len(raw):
        return None
    return float(np.frombuffer(raw, kind)[0])


def _strings(data: bytes, start: int, end: int) -> list[bytes]:
    return [
        data[value[0] : value[1]]
        for number, wire, value in _fields(data, start, end)
        if number == _STRINGS and wire == 2
    ]


def _hparams(data: bytes, start: int, end: int) -> dict[str, Any]:
    """Return the hyperparameters that the plug-in of that name was told when the run began."""
    found: dict[str, Any] = {}
    for number, wire, session in _fields(data, start, end):
        if number != 3 or wire != 2:
            continue
        for inner, kind, entry in _fields(data, *session):
            if inner != 1 or kind != 2:
                continue
            name, value = "", None
            for part, kind_of_part, place in _fields(data, *entry):
                if part == 1 and kind_of_part == 2:
                    name = data[place[0] : place[1]].decode("utf-8", "replace")
                elif part == 2 and kind_of_part == 2:
                    value = _hparam(data, *place)
            if value is not None and len(found) < MAX_TAGS:
                found[name] = value
    return found


def _hparam(data: bytes, start: int, end: int) -> Any:
    for number, wire, value in _fields(data, start, end):
        if number == 2 and wire == 1:
            real = struct.unpack_from("<d", data, value)[0]
            return int(real) if math.isfinite(real) and real == int(real) else real
        if number == 3 and wire == 2:
            return data[value[0] : value[1]].decode("utf-8", "replace")
        if number == 4 and wire == 0:
            return bool(value)
    return None


def _tables(series: dict[str, _Series]) -> list[Table]:
    """Return a table for each sequence of steps: tags that were logged together share one."""
    together: dict[bytes, list[str]] = {}
    for name, logged in series.items():
        together.setdefault(sha256(logged.steps).digest(), []).append(name)
    tables = []
    for names in together.values():
        table = Table(np.frombuffer(series[names[0]].steps, np.int64), {})
        for name in names:
            values = np.frombuffer(series[name].values, np.float64)
            plain = name.lower().rpartition("/")[2]
            if table.tokens is None and (name in TOKEN_NAMES or plain in TOKEN_NAMES):
                table.tokens = values
            elif plain not in LOGGER_NAMES and plain not in STEP_NAMES:
                table.columns[name] = Column(values)
        if table.columns:
            tables.append(table)
    return tables
