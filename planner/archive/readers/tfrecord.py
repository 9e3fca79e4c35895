"""TFRecord framing: length, checksum, payload, checksum; checked with CRC-32C in bulk.

A record is a little-endian 64-bit length, a masked CRC-32C of those eight bytes, the payload, and a
masked CRC-32C of the payload (https://www.tensorflow.org/tutorials/load_data/tfrecord). The
checksums of many records are computed at once: the loop runs over byte positions, not over bytes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.archive.errors import LogError
from planner.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_RECORD_BYTES = 64 * 1024**2
_HEADER, _FOOTER = 12, 4  # bytes around a payload
_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_MASK_DELTA = 0xA282EAD8
_ONES = 0xFFFFFFFF
_ROW = 4096  # longer slices are cut in rows of this many bytes

Octets = NDArray[np.uint8]
Words = NDArray[np.uint32]
Offsets = NDArray[np.int64]


def _byte_table() -> Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _byte_table()


def _feed(registers: Words, columns: NDArray[np.uint8]) -> Words:
    """Feed bytes into registers: ``columns`` has a row for each position, a column a register."""
    for column in columns:
        registers = _TABLE[(registers ^ column) & 0xFF] ^ (registers >> 8)
    return registers


@cache
def _row_tables() -> list[list[int]]:
    """Return what a row of zeros makes of a register: one table for each of its bytes."""
    one = np.uint32(1) << np.arange(32, dtype=np.uint32)
    moved = _feed(one, np.zeros((_ROW, 32), np.uint8)).reshape(4, 8)
    tables = np.zeros((4, 256), np.uint32)
    for bit in range(8):
        tables[:, (np.arange(256) >> bit) & 1 == 1] ^= moved[:, bit : bit + 1]
    return [table.tolist() for table in tables]


def crc32c(data: Octets, starts: Offsets, lengths: Offsets) -> Words:
    """Return the CRC-32C of slices of a buffer.

    Args:
        data: Bytes, shape (n,).
        starts: First byte of each slice, shape (k,).
        lengths: Bytes in each slice, shape (k,).

    Returns:
        Checksums, shape (k,).
    """
    registers: Words = np.zeros(len(starts), np.uint32)
    # Zeros leave a register of zero as it is, so slices of different lengths are fed together,
    # aligned at their ends. That it starts from ones flips the first four bytes.
    width = np.maximum(lengths, 4)
    bucket = np.ceil(np.log2(width)).astype(np.int64)
    for size in np.unique(bucket):
        chosen = np.flatnonzero(bucket == size)
        if 2 ** int(size) <= _ROW:
            rows = _aligned(data, starts[chosen], lengths[chosen], int(width[chosen].max()))
            registers[chosen] = _feed(registers[chosen], np.ascontiguousarray(rows.T))
        else:
            for i in chosen:
                registers[i] = _long(data[starts[i] : starts[i] + lengths[i]])
    for i in np.flatnonzero(lengths < 4):
        # ones that no byte pushed out
        registers[i] ^= np.uint32(_ONES >> (8 * int(lengths[i])))
    done: Words = registers ^ np.uint32(_ONES)
    return done


def _aligned(data: Octets, starts: Offsets, lengths: Offsets, width: int) -> NDArray[np.uint8]:
    if not len(data):
        return np.zeros((len(starts), width), np.uint8)
    offsets = np.arange(width) - width + lengths[:, None]
    rows: NDArray[np.uint8] = data[np.clip(starts[:, None] + offsets, 0, len(data) - 1)]
    rows[offsets < 0] = 0
    rows[(offsets >= 0) & (offsets < 4)] ^= 0xFF
    return rows


def _long(data: Octets) -> int:
    rows = -(-len(data) // _ROW)
    padded = np.zeros(rows * _ROW, np.uint8)
    padded[-len(data) :] = data
    padded[len(padded) - len(data) :][:4] ^= 0xFF
    columns = np.ascontiguousarray(padded.reshape(rows, _ROW).T)
    a, b, c, d = _row_tables()
    register = 0
    for state in _feed(np.zeros(rows, np.uint32), columns).tolist():
        register = (
            a[register & 0xFF]
            ^ b[register >> 8 & 0xFF]
            ^ c[register >> 16 & 0xFF]
            ^ d[register >> 24]
            ^ state
        )
    return register


def masked(checksums: Words) -> Words:
    """Return checksums as TFRecord stores them: rotated and offset."""
    rotated: Words = (checksums >> np.uint32(15)) | (checksums << np.uint32(17))
    return rotated + np.uint32(_MASK_DELTA)


class Records:
    """The payloads of a stream of records, in order.

    Args:
        blocks: The bytes of the file.

    Attributes:
        cut: Bytes at the end that are no whole record; known once all were read.
    """

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks
        self.cut = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield payloads.

        Raises:
            LogError: If a checksum is wrong, or a record claims to be longer than the bound.
        """
        pending = bytearray()
        wanted = _HEADER
        at = 0  # of the first pending byte in the file
        for block in self._blocks:
            pending += block
            if len(pending) < wanted:
                continue
            data = bytes(pending)
            starts, lengths, done, wanted = _split(data, at)
            for start, length in zip(starts, lengths, strict=True):
                yield data[start : start + length]
            at += done
            pending = bytearray(data[done:])
        self.cut = len(pending)


def _split(data: bytes, at: int) -> tuple[list[int], list[int], int, int]:
    """Find the whole records of a buffer and check them.

    Returns:
        Where their payloads start; their lengths; bytes that they fill; bytes that have to be there
        before the next one is whole.
    """
    starts: list[int] = []
    lengths: list[int] = []
    size, position, wanted = len(data), 0, _HEADER
    heads = []
    while position + _HEADER <= size:
        length = int.from_bytes(data[position : position + 8], "little")
        heads.append(position)
        wanted = _HEADER + length + _FOOTER
        if length > MAX_RECORD_BYTES or position + wanted > size:
            break
        starts.append(position + _HEADER)
        lengths.append(length)
        position += wanted
        wanted = _HEADER
    octets = np.frombuffer(data, np.uint8)
    head = np.asarray(heads, np.int64)
    _check(octets, head, np.full(len(head), 8), at, heads)
    if wanted > _HEADER + MAX_RECORD_BYTES + _FOOTER:
        claimed = format_bytes(wanted - _HEADER - _FOOTER)
        raise LogError(
            f"a record at byte {at + position} claims {claimed}, "
            f"wanted at most {format_bytes(MAX_RECORD_BYTES)}"
        )
    _check(octets, np.asarray(starts, np.int64), np.asarray(lengths, np.int64), at, heads)
    return starts, lengths, position, wanted


def _check(data: Octets, starts: Offsets, lengths: Offsets, at: int, heads: list[int]) -> None:
    """Raise `LogError` for the first slice that differs from the checksum after it."""
    if not len(starts):
        return
    after = data[(starts + lengths)[:, None] + np.arange(4)].astype(np.uint32)
    stored = after[:, 0] | after[:, 1] << 8 | after[:, 2] << 16 | after[:, 3] << 24
    wrong = np.flatnonzero(masked(crc32c(data, starts, lengths)) != stored)
    if len(wrong):
        place = at + heads[wrong[0]]
        raise LogError(f"is damaged: the record at byte {place} has a wrong checksum")
