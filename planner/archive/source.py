"""Files in: decompressed, bounded, and told apart by what they hold.

A source may come from anywhere: it may claim to be huge, expand without end, or be cut short. Every
read here has a bound, and every failure is a `LogError` with one reason.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, cast

from planner.archive.errors import LogError
from planner.archive.urls import open_url, url_size
from planner.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_BYTES = 64 * 1024
MAX_BYTES = 2 * 1024**3  # of a file, decompressed; a longer log is split
MAX_DOCUMENT_BYTES = 256 * 1024**2  # of a JSON document, whose values are all held at once
MAX_SHEET_BYTES = 512 * 1024**2  # of a table, whose columns are all held at once
MAX_LINE_BYTES = 16 * 1024**2
_ONCE = 256 * 1024  # read at one go; most logs are no longer
MAX_RATIO = 200  # of decompressed to compressed bytes; logs come to 5 to 20
_FREE_BYTES = 64 * 1024**2  # decompressed whatever the ratio
_BLOCK = 1 << 20

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_MAX_TENSOR_HEADER = 100_000_000  # what the safetensors format allows
# Binary files that lie beside logs and are none: checkpoints, pictures, archives, tables.
_FOREIGN = {
    b"PK\x03\x04": "a zip archive or checkpoint",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet file",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "a NumPy array",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"SQLite format 3": "an SQLite database",
}


@dataclass(frozen=True)
class Source:
    """One file that may be a log.

    Attributes:
        path: Where it lies.
        name: What to call it: its path from the folder that was named, with that folder's name.
    """

    path: str
    name: str

    def __reduce__(self) -> tuple[type[Source], tuple[str, str]]:
        # without its first bytes: thousands of them would fill the memory
        return Source, (self.path, self.name)

    def fresh(self) -> Source:
        """Return the same source, nothing of which is read yet."""
        return Source(self.path, self.name)

    @property
    def is_remote(self) -> bool:
        """Whether the path is a URL."""
        return "://" in self.path

    @cached_property
    def head(self) -> bytes:
        """The first bytes, decompressed.

        Raises:
            LogError: If it cannot be opened or decompressed.
        """
        return self._start[0][:HEAD_BYTES]

    @cached_property
    def _start(self) -> tuple[bytes, bool]:
        """The first bytes, decompressed, and whether they are all: then nothing is read again."""
        if not self.is_remote:
            with _reasons():
                stored = _regular(self.path)
            if stored is not None:
                return stored
        with self.open() as stream, _reasons():
            return stream.read(HEAD_BYTES), False

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the decompressed bytes.

        Raises:
            LogError: If it cannot be opened.
        """
        with _reasons():
            if self.is_remote:
                raw = open_url(self.path)
            else:
                raw = os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        with raw:
            if not self.is_remote and not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
                raise LogError("is not a regular file")
            with _reasons():
                magic = raw.read(4)
                raw.seek(0)
            if magic.startswith(_GZIP):
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            elif magic == _ZSTD:
                import pyarrow as pa

                # pyarrow has zstd in every build, Python only from 3.14 on
                with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as unpacked:
                    yield unpacked
            else:
                yield raw

    def blocks(self, limit: int = MAX_BYTES) -> Iterator[bytes]:
        """Yield the decompressed bytes in blocks.

        Raises:
            LogError: If there are more than ``limit``, or it ends where it should not.
        """
        start, is_all = self._start
        if is_all and len(start) <= limit:
            if start:
                yield start
            return
        total = 0
        with self.open() as stream:
            packed = isinstance(stream, (gzip.GzipFile, _arrow_stream()))
            most = max(_FREE_BYTES, MAX_RATIO * self._stored_bytes()) if packed else limit
            while True:
                with _reasons():
                    block = stream.read(_BLOCK)
                if not block:
                    return
                total += len(block)
                if total > most:
                    raise LogError(
                        f"expands to more than {MAX_RATIO} times its size, which no log does"
                    )
                if total > limit:
                    raise LogError(
                        f"holds more than {format_bytes(limit)} decompressed, which is the bound"
                    )
                yield block

    def _stored_bytes(self) -> int:
        if self.is_remote:
            return url_size(self.path)
        try:
            return os.stat(self.path).st_size
        except (OSError, ValueError):
            return 0

    def read(self, limit: int = MAX_BYTES) -> bytes:
        """Return all decompressed bytes; raises as `blocks`."""
        start, is_all = self._start
        return start if is_all and len(start) <= limit else b"".join(self.blocks(limit))

    def text(self, limit: int = MAX_BYTES) -> str:
        """Return all text; raises as `blocks`, or if it is no text."""
        return decode(self.read(limit))

    def lines(self) -> Iterator[str]:
        """Yield lines of text without their ends; raises as `blocks`, or if a line has no end."""
        rest = b""
        encoding = "utf-16" if self.head[:2] in (b"\xff\xfe", b"\xfe\xff") else None
        if encoding:
            yield from io.StringIO(self.text(MAX_DOCUMENT_BYTES))
            return
        for block in self.blocks():
            *whole, rest = (rest + block).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise LogError(f"has a line of more than {format_bytes(MAX_LINE_BYTES)}")
            for line in whole:
                yield line.decode("utf-8", "replace").rstrip("\r")
        if rest:
            yield rest.decode("utf-8", "replace").rstrip("\r")

    def digest(self) -> tuple[str, int]:
        """Return the SHA-256 of the decompressed bytes, and how many there are."""
        state, size = hashlib.sha256(), 0
        for block in self.blocks():
            state.update(block)
            size += len(block)
        return state.hexdigest(), size


def _regular(path: str) -> tuple[bytes, bool] | None:
    """Return the first bytes of a regular file, and whether they are all.

    Returns:
        None if it is no regular file, or compressed.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode):
            return None
        # no more than there is: larger buffers are mapped anew each time
        data = os.read(file, min(info.st_size + 1, _ONCE))
    finally:
        os.close(file)
    if data.startswith((_GZIP, _ZSTD)):
        return None
    if len(data) < _ONCE and len(data) == info.st_size:
        return data, True
    # of a long file what tells its format is enough
    return data[:HEAD_BYTES], False


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn what opening and decompressing raise into reasons."""
    try:
        yield
    except EOFError:
        raise LogError("is cut short: its compressed data ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise LogError(f"is damaged: {_short(error)}") from None
    except FileNotFoundError:
        raise LogError("no such file") from None
    except OSError as error:
        if error.errno is None:  # pyarrow's decompressor
            raise LogError(f"is damaged: {_short(error)}") from None
        raise LogError(f"cannot be read: {error.strerror}") from None


def _arrow_stream() -> type:
    import pyarrow as pa

    kind: type = pa.CompressedInputStream
    return kind


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def decode(data: bytes) -> str:
    """Return text of UTF-8 or, by its mark, UTF-16; other bytes are replaced."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def foreign(head: bytes) -> str | None:
    """Return what kind of known file, other than a log, starts like this."""
    if head[8:10] == b'{"' and 2 < int.from_bytes(head[:8], "little") < _MAX_TENSOR_HEADER:
        return "a safetensors checkpoint"  # the length of its JSON header, then that
    return next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)


def is_text(head: bytes) -> bool:
    """Return whether bytes look like text: no NUL, few control characters."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if b"\0" in head:
        return False
    control = sum(head.count(c) for c in _CONTROL)
    return control * 50 <= len(head)


_CONTROL = [bytes([c]) for c in range(32) if c not in (8, 9, 10, 12, 13, 27)] + [b"\x7f"]
