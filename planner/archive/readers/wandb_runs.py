"""W&B table of runs as CSV: a row for each run, with its settings and its last values."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from planner.archive.errors import LogError
from planner.archive.names import TOKEN_NAMES
from planner.archive.readers.csv_table import header, text_rows
from planner.archive.readers.jsonl import flatten
from planner.archive.readers.wandb import (
    is_result,
    last_step,
    mapping,
    results,
    unique_labels,
    unwrap,
)
from planner.archive.record import LoggedRun, RowCollector

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Log

_NAME = "Name"
# Columns of every table that the user interface exports, besides the name.
_OWN = ("State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep", "ID", "End Time", "Group")
_DICTS = ("config", "summary")
_MAX_RUNS = 200_000


class WandbRunsReader:
    """The table of runs of W&B's user interface, or the one that its documentation builds.

    The latter has a column ``config`` and a column ``summary``, which hold dictionaries.
    """

    name = "wandb-runs"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether the header is that of a table of runs."""
        found = header(log)
        if found is None:
            return False
        names = found[0]
        own = sum(name in names for name in _OWN)
        return (_NAME in names and own >= 3) or all(name in names for name in _DICTS)

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the runs of the table; raises `LogError`."""
        rows = text_rows(log)
        if not rows:
            raise LogError("holds no runs")
        if len(rows) > _MAX_RUNS:
            raise LogError(f"holds {len(rows):,} runs, wanted at most {_MAX_RUNS:,}")
        names = list(rows[0])
        if all(name in names for name in _DICTS):
            return _labelled([_from_dicts(row) for row in rows])
        settings = _settings(names)
        return _labelled([_from_cells(row, settings) for row in rows])


def _labelled(runs: list[LoggedRun]) -> list[LoggedRun]:
    for run, label in zip(runs, unique_labels(run.name or "run" for run in runs), strict=True):
        run.label = label
    return runs


def _settings(names: list[str]) -> set[str]:
    """Return which columns are settings.

    The table lists the settings in order of their names, then the last values in order of theirs;
    where the order is another, a name decides.
    """
    others = [name for name in names if name != _NAME and name not in _OWN]
    falls = [i + 1 for i, (a, b) in enumerate(pairwise(others)) if b < a]
    if len(falls) == 1 and any(is_result(name) for name in others[falls[0] :]):
        return set(others[: falls[0]])
    return {name for name in others if not is_result(name)}


def _from_cells(row: dict[str, str], settings: set[str]) -> LoggedRun:
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for name, cell in row.items():
        if cell in ("", "-", "null"):
            continue
        if name in settings or name == _NAME or name in _OWN:
            config[name] = cell
        else:
            summary[name] = cell
    return _run(row.get(_NAME, ""), config, summary)


def _from_dicts(row: dict[str, str]) -> LoggedRun:
    config = mapping(row["config"])
    summary = mapping(row["summary"])
    run = _run(row.get("name", ""), unwrap(config or {}), dict(flatten(summary or {})))
    for name, found in (("config", config), ("summary", summary)):
        if found is None:
            run.notes.append(f"its {name} could not be read")
    return run


def _run(name: str, config: dict[str, Any], summary: dict[str, Any]) -> LoggedRun:
    run = LoggedRun([], config=config, name=name or None)
    config.update((k, v) for k, v in summary.items() if not is_result(k) and k not in config)
    found = results(summary)
    step = last_step(summary)
    if step is None:
        if found:
            run.notes.append("its last values are not kept: the table has no column of steps")
        return run
    if found:
        rows = RowCollector(tokens=TOKEN_NAMES)
        rows.add(step[1], found)
        run.tables.append(rows.table())
        run.notes.append("a table of runs holds only the last value of each series")
    return run
