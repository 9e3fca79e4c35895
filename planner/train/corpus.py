"""Making token files: from a folder of text, or from the text that every Python has."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.errors import OutputError
from planner.train.data import ABOUT, DTYPES, SCHEMA, TOKENS, About, TokenData, open_data
from planner.train.errors import DataError
from planner.train.extra import require_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKENIZER = "tokenizer.json"
SEPARATOR = "<|endoftext|>"
BYTE_VOCABULARY = 256
MOST_VOCABULARY = 1_000_000
_NOT_LIBRARY = ("site-packages", "dist-packages", "__pycache__")


@dataclass(frozen=True, slots=True)
class Text:
    """A text to tokenize: its path for people and for the order, and where it is."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """A data folder that was made, and how many files were left out because they are no text."""

    data: TokenData
    skipped: int


def folder_texts(folder: Path, pattern: str = "*") -> list[Text]:
    """Return the files below a folder whose names match a pattern.

    Raises:
        DataError: If it is no folder, or has no such file.
    """
    if Path(pattern).is_absolute():
        raise DataError(f"got {pattern!r}, wanted names such as '*.txt'", field="pattern")
    if not folder.is_dir():
        raise DataError("is not a folder of texts", file=str(folder))
    texts = _below(folder, pattern)
    if not texts:
        raise DataError(f"has no file that matches {pattern!r}", file=str(folder))
    return texts


def python_texts() -> list[Text]:
    """Return the sources of the standard library of the Python that runs this.

    Raises:
        DataError: If this Python came without them.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = [
        text
        for text in _below(folder, "*.py")
        if not set(Path(text.name).parts) & set(_NOT_LIBRARY)
    ]
    if not texts:
        raise DataError("this Python came without its library's sources", file=str(folder))
    return texts


def python_source() -> tuple[str, str]:
    """Return what the built-in corpus is called, and its licence."""
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"standard library of Python {version}",
        "PSF-2.0, and for parts what Python's documentation lists under History and License",
    )


def prepare(
    texts: list[Text],
    out: Path,
    *,
    source: str,
    licence: str | None = None,
    tokenizer: str = "byte",
    vocab_size: int | None = None,
    validation: float = 0.01,
    force: bool = False,
) -> Prepared:
    """Tokenize texts into a data folder: the whole folder or nothing.

    Texts come in an order that their names' hashes decide, so that all kinds are mixed; the last
    ``validation`` share of all tokens is held out. Files that are not UTF-8 or hold a NUL are
    left out.

    Args:
        texts: What to tokenize.
        out: The folder; made, or replaced if it is a data folder and ``force``.
        source: What ``data.json`` says the tokens came from.
        licence: Likewise.
        tokenizer: ``byte`` (256 ids, NUL between documents), ``bpe`` (trained here), or the path
            of a ``tokenizer.json`` of the package tokenizers.
        vocab_size: Of BPE.
        validation: Share of the tokens that is held out, below 1.
        force: Replace a data folder.

    Raises:
        DataError: If there is no text, or the tokenizer does not fit.
        OutputError: If the folder exists, or cannot be written.
        MissingExtraError: If BPE is asked for and the package tokenizers is not installed.
    """
    if not 0 <= validation < 1:
        raise DataError(
            f"got {validation:g}, wanted a share of 0 or more, below 1", field="validation"
        )
    if out.exists() and not (force and (out / ABOUT).exists()):
        raise OutputError(
            "exists"
            + (" and is no data folder" if force else "; overwrite a data folder with --force"),
            file=str(out),
        )
    inside = out.resolve()  # what was made of texts is none of them
    texts = [text for text in texts if inside not in text.path.resolve().parents]
    texts = sorted(texts, key=lambda text: hashlib.sha256(os.fsencode(text.name)).digest())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".planner-data-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", file=str(out)) from None
    try:
        stage.chmod(0o777 & ~_umask())
        encode = _encoder(texts, stage, tokenizer, vocab_size)
        skipped = _write(texts, stage, encode, source, licence, validation)
        _move_into_place(stage, out)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", file=str(out)) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Prepared(open_data(out), skipped)


def _move_into_place(stage: Path, out: Path) -> None:
    """Put a folder in place of another, which is deleted only once the new one is there.

    Raises:
        OSError: If it cannot be moved; the other one then is where it was.
    """
    if not out.exists():
        stage.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=".planner-data-old-", dir=out.parent))
    try:
        out.rename(old)  # an empty folder is replaced
    except OSError:
        old.rmdir()
        raise
    try:
        stage.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Encoder:
    name: str
    vocab_size: int
    separator: int
    encode: Callable[[str], Any]


def _encoder(texts: list[Text], folder: Path, name: str, vocab_size: int | None) -> _Encoder:
    if name == "byte":
        if vocab_size not in (None, BYTE_VOCABULARY):
            raise DataError(f"got {vocab_size}, wanted 256 for bytes", field="vocab_size")
        return _Encoder(
            "byte", BYTE_VOCABULARY, 0, lambda text: np.frombuffer(text.encode(), dtype=np.uint8)
        )
    package = require_tokenizers()
    if name == "bpe":
        size = 4096 if vocab_size is None else vocab_size
        if size <= BYTE_VOCABULARY + 1:
            raise DataError(f"got {size}, wanted more than 257 for BPE", field="vocab_size")
        if size > MOST_VOCABULARY:
            raise DataError(
                f"got {size}, wanted at most {MOST_VOCABULARY:,} for BPE", field="vocab_size"
            )
        model = package.Tokenizer(package.models.BPE())
        model.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[SEPARATOR],
            initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator((text for text in _read_all(texts) if text is not None), trainer)
        label = "bpe"
    else:
        if vocab_size is not None:
            raise DataError(
                f"got {vocab_size}, but {name} has its own vocabulary", field="vocab_size"
            )
        try:
            model = package.Tokenizer.from_file(name)
        except Exception:  # the package raises nothing more special
            raise DataError(
                "is not a tokenizer: wanted byte, bpe, or the path of a tokenizer.json", file=name
            ) from None
        label = f"bpe:{Path(name).name}"
    separator = model.token_to_id(SEPARATOR)
    if separator is None:
        raise DataError(f"has no token {SEPARATOR!r} to put between documents", file=name)
    model.save(str(folder / TOKENIZER))
    return _Encoder(
        label,
        1 + max(model.get_vocab().values()),  # ids may have gaps
        separator,
        lambda text: model.encode(text, add_special_tokens=False).ids,
    )


def _write(
    texts: list[Text],
    folder: Path,
    encoder: _Encoder,
    source: str,
    licence: str | None,
    validation: float,
) -> int:
    """Write the two files; return how many texts were left out."""
    dtype = next(
        name for name, code in DTYPES.items() if encoder.vocab_size - 1 <= np.iinfo(code).max
    )
    count = documents = skipped = 0
    sha = hashlib.sha256()
    with open(folder / TOKENS, "wb") as stream:
        for text in _read_all(texts):
            if text is None:
                skipped += 1
                continue
            ids = np.asarray(encoder.encode(text)).astype(DTYPES[dtype])
            data = ids.tobytes() + np.array(encoder.separator).astype(DTYPES[dtype]).tobytes()
            stream.write(data)
            sha.update(data)
            count += len(ids) + 1
            documents += 1
        stream.flush()
        os.fsync(stream.fileno())
    if not documents:
        raise DataError(f"none of {len(texts)} files is UTF-8 text", file=source)
    held_out = round(count * validation)
    about = About(
        dtype=dtype,
        vocab_size=encoder.vocab_size,
        train=count - held_out,
        validation=held_out,
        tokenizer=encoder.name,
        separator=encoder.separator,
        documents=documents,
        source=source,
        licence=licence,
        digest=f"sha256:{sha.hexdigest()}",
    )
    document = {"schema": SCHEMA, **asdict(about)}
    (folder / ABOUT).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return skipped


def _read_all(texts: list[Text]) -> Iterator[str | None]:
    """Yield each text, or None for a file that is none."""
    for text in texts:
        try:
            data = text.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", file=str(text.path)) from None
        try:
            yield None if b"\0" in data else data.decode("utf-8")
        except UnicodeDecodeError:
            yield None


def _below(folder: Path, pattern: str) -> list[Text]:
    return [
        Text(path.relative_to(folder).as_posix(), path)
        for path in folder.rglob(pattern)
        if path.is_file()
    ]


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
