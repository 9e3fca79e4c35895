"""Any CSV table with one run a row: the mapping file says which column is what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.errors import LogError
from planner.archive.expressions import evaluate
from planner.archive.metadata import COUNT_FACTS, FACTS, TEXT_FACTS
from planner.archive.readers.csv_table import text_rows
from planner.archive.readers.wandb import unique_labels
from planner.archive.record import Column, LoggedRun, Table, Values

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Log

_MAX_RUNS = 200_000
_NAME, _STEP = "name", "step"
_NO_STEPS = "the table says no step: its final values stand at step 1"
# tau and TPP follow from the others; a person who knows better declares them as constants
_MAPPED = frozenset(FACTS) - {"tau"}


class RunTableReader:
    """One run a row, with its final values; read only where a mapping file names this reader.

    The mapping's ``columns`` say which column, or arithmetic on columns, is ``name``, ``step``, a
    fact such as ``params``, or a series. Other columns become settings of the runs.
    """

    name = "run-table"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return False: nothing in such a table tells what its columns are."""
        return False

    def read(self, log: Log) -> list[LoggedRun]:
        """Return a run for each row; raises `LogError`."""
        rows = text_rows(log)
        if not rows:
            raise LogError("holds no runs")
        if len(rows) > _MAX_RUNS:
            raise LogError(f"holds {len(rows):,} runs, wanted at most {_MAX_RUNS:,}")
        cells = _Cells(rows)
        facts = {name: text for name, text in log.fields.items() if name in _MAPPED}
        series = {
            name: text
            for name, text in log.fields.items()
            if name not in facts and name not in (_NAME, _STEP)
        }
        if "tau" in series:
            raise LogError("its mapping maps tau, which can only be declared as a constant")
        if not series:
            raise LogError("its mapping names no series, such as train/loss")
        known = {name: _fact(name, text, cells) for name, text in facts.items()}
        values = {text: cells.numbers(text) for text in series.values()}
        steps = _steps(log.fields.get(_STEP), known, cells)
        runs = []
        for row, label in enumerate(_labels(log.fields.get(_NAME), cells)):
            config = {n: found[row] for n, found in known.items() if found[row] is not None}
            used = {*facts, *log.fields.values()}
            for name, text in rows[row].items():
                if name not in used and text.strip():
                    config[name] = text
            runs.append(_run(label, config, {t: v[row] for t, v in values.items()}, steps[row]))
        return runs


class _Cells:
    """The cells of a table by column."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self._rows = rows
        self._numbers: dict[str, Values] = {}
        self.names = list(rows[0])

    def __len__(self) -> int:
        return len(self._rows)

    def texts(self, name: str) -> list[str]:
        """Return a column's cells."""
        return [row.get(name, "").strip() for row in self._rows]

    def column(self, name: str) -> Values:
        """Return a column's numbers, not-a-number where there is none."""
        if name not in self._numbers:
            self._numbers[name] = np.fromiter(map(_number, self.texts(name)), np.float64)
        return self._numbers[name]

    def numbers(self, expression: str) -> Values:
        """Return the value of an expression for each row; raises `LogError`."""
        found = evaluate(expression, self.names, self.column)
        return np.broadcast_to(np.asarray(found, np.float64), (len(self),))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _fact(name: str, text: str, cells: _Cells) -> list[Any]:
    """Return a fact of each run; None where the row does not say it."""
    if name in TEXT_FACTS:
        if text not in cells.names:
            raise LogError(f"its mapping takes {name} from {text!r}, which is no column")
        return [cell or None for cell in cells.texts(text)]
    numbers = cells.numbers(text).tolist()
    known = [number if np.isfinite(number) else None for number in numbers]
    if name not in COUNT_FACTS:
        return known
    # digitised figures and quotients are no whole numbers; counts are
    return [None if number is None else round(number) for number in known]


def _steps(mapped: str | None, known: dict[str, list[Any]], cells: _Cells) -> list[int | None]:
    """Return the step of each run's final values: mapped, or else its number of steps."""
    if mapped is not None:
        return _fact("total_steps", mapped, cells)
    nothing: list[Any] = [None] * len(cells)
    total, tokens, batch = (
        known.get(name, nothing) for name in ("total_steps", "tokens", "batch_tokens")
    )
    return [
        t if t is not None else round(d / b) if d and b else None
        for t, d, b in zip(total, tokens, batch, strict=True)
    ]


def _labels(mapped: str | None, cells: _Cells) -> list[str]:
    if mapped is None:
        width = len(str(len(cells)))
        return [f"{number:0{width}}" for number in range(1, len(cells) + 1)]
    if mapped not in cells.names:
        raise LogError(f"its mapping takes the name from {mapped!r}, which is no column")
    return unique_labels(text or "run" for text in cells.texts(mapped))


def _run(
    label: str, config: dict[str, Any], values: dict[str, float], step: int | None
) -> LoggedRun:
    tokens = config.get("tokens")
    table = Table(
        np.asarray([1 if step is None else step]),
        {
            name: Column(np.asarray([value]), None if np.isfinite(value) else np.zeros(1, np.bool_))
            for name, value in values.items()
        },
        tokens=None if tokens is None else np.asarray([float(tokens)]),
    )
    notes = ["a table of runs holds only the final values"]
    if step is None:
        notes.append(_NO_STEPS)
    return LoggedRun([table], label=label, config=config, notes=notes)
