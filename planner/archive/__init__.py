"""The run archive: any trainer's logs in, one clean table out.

`ingest` reads logs into an `Archive`, `inspect` says what it would read; `read_mapping` reads what
the logs do not say by themselves. A reader for another format is a `Reader`, named by an entry
point of the group ``planner.readers``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.archive.batches import Batch as Batch
    from planner.archive.batches import Ragged as Ragged
    from planner.archive.errors import ArchiveError as ArchiveError
    from planner.archive.errors import LogError as LogError
    from planner.archive.errors import MappingError as MappingError
    from planner.archive.front import Progress as Progress
    from planner.archive.front import Report as Report
    from planner.archive.front import ingest as ingest
    from planner.archive.intake import Inspected as Inspected
    from planner.archive.intake import inspect as inspect
    from planner.archive.listing import list_runs as list_runs
    from planner.archive.mapping import read_mapping as read_mapping
    from planner.archive.policies import Policy as Policy
    from planner.archive.policies import read_policy as read_policy
    from planner.archive.readers.protocol import Log as Log
    from planner.archive.readers.protocol import Reader as Reader
    from planner.archive.record import Column as Column
    from planner.archive.record import LoggedRun as LoggedRun
    from planner.archive.record import RowCollector as RowCollector
    from planner.archive.record import Table as Table
    from planner.archive.rules import Mapping as Mapping
    from planner.archive.store import Archive as Archive

# Public name -> module; loaded on first use, so that opening an archive does not load the readers.
_EXPORTS = {
    "Archive": "store",
    "ArchiveError": "errors",
    "Batch": "batches",
    "Column": "record",
    "Inspected": "intake",
    "Log": "readers.protocol",
    "LogError": "errors",
    "LoggedRun": "record",
    "Mapping": "rules",
    "MappingError": "errors",
    "Policy": "policies",
    "Progress": "front",
    "Ragged": "batches",
    "Reader": "readers.protocol",
    "Report": "front",
    "RowCollector": "record",
    "Table": "record",
    "ingest": "front",
    "inspect": "intake",
    "list_runs": "listing",
    "read_mapping": "mapping",
    "read_policy": "policies",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use."""
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
