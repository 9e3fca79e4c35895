"""Token files: memory-mapped, read in an order that only the seed and the step decide.

A data folder holds ``tokens.bin`` (unsigned little-endian integers, documents one after the other)
and ``data.json``, which says how wide they are, which part is held out, and where they came from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.train.errors import DataError
from planner.units import show

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from planner.plan.model import Run

SCHEMA = "planner.data/1"
TOKENS = "tokens.bin"
ABOUT = "data.json"
DTYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4"}


@dataclass(frozen=True, slots=True)
class About:
    """What ``data.json`` says.

    Attributes:
        dtype: uint8, uint16 or uint32.
        vocab_size: Ids are below this.
        train: Tokens to train on: the first ones of the file.
        validation: Tokens held out: the rest.
        tokenizer: ``byte``, or ``bpe`` with ``tokenizer.json`` beside it.
        separator: Id between documents.
        documents: How many texts the tokens came from.
        source: What they came from.
        licence: Under which licence, as far as known.
        digest: ``sha256:`` of the token file.
    """

    dtype: str
    vocab_size: int
    train: int
    validation: int
    tokenizer: str
    separator: int
    documents: int
    source: str
    licence: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class TokenData:
    """An open data folder."""

    folder: Path
    about: About
    tokens: NDArray[Any]

    def windows(self, seq_len: int, *, validation: bool = False) -> int:
        """Return how many sequences of ``seq_len`` tokens, and the one after, a part holds."""
        count = self.about.validation if validation else self.about.train
        return max(0, (count - 1) // seq_len)

    def sequences(
        self, numbers: NDArray[np.int64], seq_len: int, *, validation: bool = False
    ) -> NDArray[np.int64]:
        """Return the sequences of these numbers, (len(numbers), seq_len + 1).

        Sequence i starts at token i * seq_len; its last token is the first of sequence i + 1, so
        that every token is a target once.

        Raises:
            DataError: If an id is not below the vocabulary that ``data.json`` states.
        """
        start = self.about.train if validation else 0
        rows = [
            self.tokens[start + i * seq_len : start + (i + 1) * seq_len + 1]
            for i in numbers.tolist()
        ]
        found = np.stack(rows)
        if int(found.max()) >= self.about.vocab_size:
            raise DataError(
                f"holds token id {found.max()}, but {ABOUT} says that ids are below "
                f"{self.about.vocab_size}",
                file=str(self.folder / TOKENS),
            )
        return found.astype(np.int64)


class Order:
    """Which sequences a step trains on: epochs of all windows, each shuffled by seed and epoch.

    It depends on nothing else, so a resumed run, or one on another number of devices, sees the
    same batches. (Philox's bits are part of its definition, so the order outlives NumPy versions.)

    Args:
        windows: Sequences an epoch.
        seed: Of the order.
    """

    def __init__(self, windows: int, seed: int) -> None:
        self.windows = windows
        self.seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def numbers(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the numbers of ``count`` sequences from the ``first`` of the whole training."""
        found = []
        while count:
            epoch, place = divmod(first, self.windows)
            part = self._shuffled(epoch)[place : place + count]
            found.append(part)
            first += len(part)
            count -= len(part)
        return np.concatenate(found)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            key = np.array([self.seed, epoch], dtype=np.uint64)
            bits = np.random.Philox(key=key).random_raw(self.windows)
            self._epoch, self._order = epoch, np.argsort(bits, kind="stable")
        return self._order


def open_data(folder: str | os.PathLike[str]) -> TokenData:
    """Open a data folder; the token file is mapped, not read.

    Raises:
        DataError: If it is none, or its two files do not agree.
    """
    place = Path(folder)
    about = _read_about(place)
    path = place / TOKENS
    try:
        tokens = np.memmap(path, dtype=DTYPES[about.dtype], mode="r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is empty or not whole"
        raise DataError(f"cannot be read: {reason}", file=str(path)) from None
    if len(tokens) != about.train + about.validation:
        raise DataError(
            f"holds {len(tokens):,} tokens, but {ABOUT} says "
            f"{about.train + about.validation:,}; prepare it again",
            file=str(path),
        )
    return TokenData(place, about, tokens)


def check_fits(data: TokenData, run: Run) -> None:
    """Check that a run can train on these tokens.

    Raises:
        DataError: If its vocabulary is smaller than theirs, or there is not one whole sequence.
    """
    name = str(data.folder)
    if data.about.vocab_size > run.model.vocab_size:
        raise DataError(
            f"has token ids up to {data.about.vocab_size - 1}, but run {run.name} has a vocabulary "
            f"of {run.model.vocab_size}",
            file=name,
        )
    if data.windows(run.model.seq_len) < 1:
        raise DataError(
            f"has {data.about.train:,} training tokens, wanted more than the "
            f"{run.model.seq_len:,} of one sequence of run {run.name}",
            file=name,
        )


def _read_about(folder: Path) -> About:
    path = folder / ABOUT
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"is no data folder: {ABOUT} is missing; make one with `planner prepare`",
            file=str(folder),
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=str(path)) from None
    except (ValueError, RecursionError):
        raise DataError("is not JSON", file=str(path)) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        got = document.get("schema") if isinstance(document, dict) else document
        raise DataError(f"got {show(got)}, wanted {SCHEMA!r}", file=str(path), field="schema")
    types: dict[str, tuple[type, ...]] = {
        "dtype": (str,),
        "vocab_size": (int,),
        "train": (int,),
        "validation": (int,),
        "tokenizer": (str,),
        "separator": (int,),
        "documents": (int,),
        "source": (str,),
        "licence": (str, type(None)),
        "digest": (str,),
    }
    for field, kinds in types.items():
        value = document.get(field)
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if field not in document or not fits or (isinstance(value, int) and value < 0):
            wanted = "a whole number of 0 or more" if int in kinds else "a text"
            raise DataError(f"got {show(value)}, wanted {wanted}", file=str(path), field=field)
    if document["dtype"] not in DTYPES:
        raise DataError(
            f"got {show(document['dtype'])}, wanted one of {', '.join(DTYPES)}",
            file=str(path),
            field="dtype",
        )
    return About(**{field: document[field] for field in types})
