"""Event files: framing, checksums, protocol buffers, both ways to store a scalar."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.archive.errors import LogError
from planner.archive.readers import Log
from planner.archive.readers.tensorboard import TensorBoardReader, _Events
from planner.archive.readers.tfrecord import MAX_RECORD_BYTES, Records, crc32c

MakeLog = Callable[..., Log]
READER = TensorBoardReader()


def test_crc_of_the_standard(events: Any) -> None:
    # RFC 3720 B.4
    for data, expected in (
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ):
        octets = np.frombuffer(data, np.uint8)
        got = crc32c(octets, np.array([0]), np.array([len(data)]))
        assert got.tolist() == [expected]
        assert events.crc(data) == expected


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_crc_of_slices_is_that_of_each_alone(seed: int, events: Any) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(20_000)
    lengths = [rng.choice([0, 1, 3, 4, 5, 60, 300]) for _ in range(20)]
    lengths += [rng.choice([4095, 4096, 4097, 8192, 9000])]
    starts = [rng.randrange(len(data) - length + 1) for length in lengths]
    got = crc32c(np.frombuffer(data, np.uint8), np.array(starts), np.array(lengths))
    expected = [events.crc(data[a : a + n]) for a, n in zip(starts, lengths, strict=True)]
    assert got.tolist() == expected


@given(
    payloads=st.lists(st.binary(max_size=100), max_size=20),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=10),
)
@settings(max_examples=50)
def test_records_do_not_depend_on_blocks(
    payloads: list[bytes], sizes: list[int], events: Any
) -> None:
    data = b"".join(events.record(payload) for payload in payloads)
    blocks, at, i = [], 0, 0
    while at < len(data):
        size = sizes[i % len(sizes)]
        blocks.append(data[at : at + size])
        at, i = at + size, i + 1
    records = Records(blocks)
    assert list(records) == payloads
    assert records.cut == 0


def test_scalars_of_the_first_version(make_log: MakeLog, events: Any) -> None:
    log = make_log(
        events.start()
        + events.event(0, events.value("train/loss", 5.5), events.value("lr", 0.25))
        + events.event(10, events.value("train/loss", 4.5), events.value("lr", 0.5))
        + events.event(10, events.value("eval/loss", 4.75))
    )
    assert READER.recognizes(log)
    (run,) = READER.read(log)
    both, evaluation = run.tables
    assert both.steps.tolist() == [0, 10]
    assert both.columns["train/loss"].values.tolist() == [5.5, 4.5]
    assert both.columns["lr"].values.tolist() == [0.25, 0.5]
    assert evaluation.steps.tolist() == [10]
    assert evaluation.columns["eval/loss"].values.tolist() == [4.75]
    assert run.notes == []


TENSORS = [
    (1, struct.pack("<f", 1.5), 1.5),
    (2, struct.pack("<d", -2.25), -2.25),
    (3, struct.pack("<i", -7), -7.0),
    (9, struct.pack("<q", -(2**40)), -(2.0**40)),
    (14, struct.pack("<f", 1.5)[2:], 1.5),
    (19, struct.pack("<e", 0.5), 0.5),
]


@pytest.mark.parametrize(("dtype", "content", "value"), TENSORS)
def test_a_tensor_of_one_number_is_a_scalar(
    dtype: int, content: bytes, value: float, make_log: MakeLog, events: Any
) -> None:
    shape = events.field(2, b"") if dtype == 1 else events.field(2, events.field(2, b"\x08\x01"))
    tensor = events.field(1, dtype) + shape + events.field(4, content)
    # only the first value of a tag says what it is
    log = make_log(
        events.start()
        + events.event(1, events.tensor("loss", tensor))
        + events.event(2, events.tensor("loss", tensor, plugin=""))
    )
    (run,) = READER.read(log)
    assert run.tables[0].steps.tolist() == [1, 2]
    assert run.tables[0].columns["loss"].values.tolist() == [value, value]


def test_typed_values_of_a_tensor(make_log: MakeLog, events: Any) -> None:
    packed = events.field(1, 1) + events.field(5, struct.pack("<f", 2.5))
    loose = events.field(1, 1) + events.fixed(5, 2.5)
    doubles = events.field(1, 2) + events.fixed(6, 3.5, double=True)
    wholes = events.field(1, 9) + events.field(10, (1 << 64) - 3)
    halfs = events.field(1, 19) + events.field(13, 0x3E00)
    log = make_log(
        events.start()
        + b"".join(
            events.event(i, events.tensor("x", tensor))
            for i, tensor in enumerate([packed, loose, doubles, wholes, halfs])
        )
    )
    (run,) = READER.read(log)
    assert run.tables[0].columns["x"].values.tolist() == [2.5, 2.5, 3.5, -3.0, 1.5]


def test_other_values_are_counted_and_left_out(make_log: MakeLog, events: Any) -> None:
    vector = events.field(1, 1) + events.field(2, events.field(2, b"\x08\x02"))
    log = make_log(
        events.start()
        + events.event(1, events.value("loss", 1.0), events.field(1, b"h") + events.field(5, b""))
        + events.event(2, events.tensor("v", vector + events.field(4, bytes(8))))
        + events.event(3, events.tensor("hist", vector, plugin="histograms"))
        + events.event(-5, events.value("loss", 1.0))
    )
    (run,) = READER.read(log)
    assert [table.steps.tolist() for table in run.tables] == [[1]]
    assert run.notes == ["4 values that are no scalars were left out"]


def test_settings_are_learned(make_log: MakeLog, events: Any) -> None:
    def hparam(name: bytes, value: bytes) -> bytes:
        return events.field(1, events.field(1, name) + events.field(2, value))

    session = (
        hparam(b"lr", events.fixed(2, 0.001, double=True))
        + hparam(b"seed", events.fixed(2, 7.0, double=True))
        + hparam(b"opt", events.field(3, b"adamw"))
        + hparam(b"bf16", events.field(4, 1))
    )
    content = events.field(3, session)
    text = events.field(1, 7) + events.field(8, b'{"max_steps": 100, "optim": {"wd": 0.1}}')
    one = events.field(1, 7) + events.field(8, b"2048")
    log = make_log(
        events.start()
        + events.event(0, events.tensor("_hparams_/session_start_info", b"", "hparams", content))
        + events.event(0, events.tensor("args/text_summary", text, "text"))
        + events.event(0, events.tensor("seq-length/text_summary", one, "text"))
    )
    (run,) = READER.read(log)
    assert run.config == {
        "lr": 0.001,
        "seed": 7,
        "opt": "adamw",
        "bf16": True,
        "max_steps": 100,
        "optim/wd": 0.1,
        "seq-length": 2048,
    }
    assert run.notes == []


def test_steps_logged_twice_stay(make_log: MakeLog, events: Any) -> None:
    log = make_log(
        events.start()
        + b"".join(events.event(s, events.value("loss", v)) for s, v in [(1, 3), (2, 2), (1, 1)])
    )
    (run,) = READER.read(log)
    assert run.tables[0].steps.tolist() == [1, 2, 1]
    assert run.tables[0].appended


def test_a_last_record_that_is_cut_short_is_noted(make_log: MakeLog, events: Any) -> None:
    data = events.start() + events.event(1, events.value("loss", 1.0))
    cut = events.event(2, events.value("loss", 2.0))[:-3]
    (run,) = READER.read(make_log(data + cut))
    assert run.tables[0].steps.tolist() == [1]
    assert run.notes == [f"its last record is cut short and was left out ({len(cut)} bytes)"]


@pytest.mark.parametrize("part", ["length", "length checksum", "payload", "payload checksum"])
def test_a_wrong_checksum_is_told_with_its_place(part: str, make_log: MakeLog, events: Any) -> None:
    data = bytearray(events.start() + events.event(1, events.value("loss", 1.0)))
    at = len(events.start())
    data[{"length": at, "length checksum": at + 9, "payload": at + 20}.get(part, -1)] ^= 1
    with pytest.raises(LogError, match=f"the record at byte {at} has a wrong checksum"):
        READER.read(make_log(bytes(data)))


def test_a_claimed_length_is_bounded(make_log: MakeLog, events: Any) -> None:
    length = struct.pack("<Q", 10 * 1024**3)
    crc = events.crc(length)
    head = length + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    with pytest.raises(LogError, match=r"claims 10\.7 GB, wanted at most 67\.1 MB"):
        READER.read(make_log(events.start() + head + bytes(100)))
    assert MAX_RECORD_BYTES == 64 * 1024**2


def test_a_record_that_is_no_event_is_told(make_log: MakeLog, events: Any) -> None:
    with pytest.raises(LogError, match="its record 2 is no event"):
        READER.read(make_log(events.start() + events.record(b"\x0f\xff\xff\xff")))


@given(payload=st.binary(max_size=80))
@settings(max_examples=150)
def test_any_record_is_read_or_refused(payload: bytes, make_log: MakeLog, events: Any) -> None:
    log = make_log(
        events.start()
        + events.record(payload)
        + events.event(1, payload)
        + events.event(1, events.tensor("x", payload))
        + events.event(2, events.tensor("h", b"", "hparams", payload))
        + events.event(3, events.tensor("t", payload, "text"))
    )
    with contextlib.suppress(LogError):
        READER.read(log)


def test_many_tags_are_refused(make_log: MakeLog, events: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("planner.archive.readers.tensorboard.MAX_TAGS", 3)
    log = make_log(
        events.start() + b"".join(events.event(1, events.value(f"t{i}", 1.0)) for i in range(5))
    )
    with pytest.raises(LogError, match="more than 3 different tags"):
        READER.read(log)


def test_many_values_are_refused(make_log: MakeLog, events: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("planner.archive.readers.tensorboard.MAX_VALUES", 3)
    log = make_log(
        events.start() + b"".join(events.event(i, events.value("t", 1.0)) for i in range(5))
    )
    with pytest.raises(LogError, match="more than 3 values"):
        READER.read(log)


def test_other_records_are_not_event_files(make_log: MakeLog, events: Any) -> None:
    assert not READER.recognizes(make_log(events.record(b"an example")))
    assert not READER.recognizes(make_log(b""))
    assert not READER.recognizes(make_log(b"brain.Event:2"))


class _OneByOne(_Events):
    """Takes no event as a whole."""

    def _add_plain(self, data: bytes) -> bool:
        return False


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_events_read_as_a_whole_and_field_by_field_are_the_same(
    seed: int, make_log: MakeLog, events: Any
) -> None:
    rng = random.Random(seed)
    tensor = events.field(1, 1) + events.field(2, b"") + events.field(4, struct.pack("<f", 2.5))
    payloads = []
    for step in range(6):
        tag = rng.choice(["loss", "lr", "x" * 120])
        value = rng.choice(
            [
                events.value(tag, 1.5),
                events.tensor(tag, tensor),
                events.tensor(tag, tensor, plugin=""),
                events.tensor(tag, tensor, plugin="text"),
            ]
        )
        at = rng.choice([step, -step, step << 40])
        payload = bytearray(events.event(at, value)[12:-4])
        if rng.random() < 0.3:
            payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        payloads.append(bytes(payload))
    outcomes = []
    for plain in (True, False):
        read = _Events() if plain else _OneByOne()
        failed = None
        for i, payload in enumerate(payloads):
            try:
                read.add(payload)
            except (ValueError, IndexError, struct.error):
                failed = i
                break
        told = {name: (s.steps.tolist(), s.values.tobytes()) for name, s in read.series.items()}
        outcomes.append((failed, told, read.unread, read.config))
    assert outcomes[0] == outcomes[1]


def test_most_events_are_read_as_a_whole(events: Any) -> None:
    tensor = events.field(1, 1) + events.field(2, b"") + events.field(4, struct.pack("<f", 2.5))
    for value in (events.value("loss", 1.5), events.tensor("loss", tensor, plugin="")):
        read = _Events()
        read.add(events.event(200, value)[12:-4])
        assert read._add_plain(events.event(300, value)[12:-4])
        assert read.series["loss"].steps.tolist() == [200, 300]
