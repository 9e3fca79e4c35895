"""One small module for each log format, and how the right one is chosen: by content."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from planner.archive.errors import MappingError
from planner.archive.readers.cerebras import CerebrasReader
from planner.archive.readers.csv_table import CsvReader
from planner.archive.readers.hf_trainer import HfTrainerReader
from planner.archive.readers.jsonl import JsonLinesReader
from planner.archive.readers.megatron import MegatronReader
from planner.archive.readers.nanogpt import NanoGptReader
from planner.archive.readers.protocol import Log, Reader
from planner.archive.readers.run_table import RunTableReader
from planner.archive.readers.tensorboard import TensorBoardReader
from planner.archive.readers.wandb_chart import WandbChartReader
from planner.archive.readers.wandb_dump import WandbDumpReader
from planner.archive.readers.wandb_history import WandbHistoryReader
from planner.archive.readers.wandb_runs import WandbRunsReader
from planner.errors import did_you_mean

__all__ = ["Log", "Reader", "choose", "reader_named", "reader_names"]

# The first that recognizes a file reads it: the stricter a format's signature, the earlier.
_READERS: tuple[Reader, ...] = (
    TensorBoardReader(),
    HfTrainerReader(),
    WandbDumpReader(),
    JsonLinesReader(),
    WandbRunsReader(),
    WandbChartReader(),
    WandbHistoryReader(),
    CsvReader(),
    MegatronReader(),
    CerebrasReader(),
    NanoGptReader(),
    RunTableReader(),
)


@cache
def _plugins() -> tuple[Reader, ...]:
    """Readers that installed packages add; asked before those of this package."""
    found = sorted(entry_points(group="planner.readers"), key=lambda point: point.name)
    return tuple(point.load() for point in found)


def choose(log: Log) -> Reader | None:
    """Return the reader of a file, or None if no reader recognizes it.

    Raises:
        LogError: If the file cannot be opened.
    """
    return next((r for r in (*_plugins(), *_READERS) if r.recognizes(log)), None)


def reader_names() -> list[str]:
    """Return the names of all readers."""
    return [reader.name for reader in (*_plugins(), *_READERS)]


def reader_named(name: str) -> Reader:
    """Return a reader by its name.

    Raises:
        MappingError: If there is none.
    """
    for reader in (*_plugins(), *_READERS):
        if reader.name == name:
            return reader
    raise MappingError(f"no reader is called {name!r}; {did_you_mean(name, reader_names())}")
