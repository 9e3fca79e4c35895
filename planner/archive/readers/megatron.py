"""Text of Megatron-LM and Megatron-DeepSpeed: a block of arguments, a line each log interval."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.readers.text import (
    MAX_NAMES,
    NUMBER,
    STEP,
    TextRows,
    short_head,
    short_lines,
    state,
)
from planner.archive.record import LoggedRun, Table

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Log

# " [2024-05-01 10:00:00] iteration      100/  500000 | consumed samples:   25600 | ... |"; what
# starts the processes may put the rank before it.
_ITERATION = re.compile(rf"\biteration\s{{1,20}}({STEP})/\s{{0,20}}({STEP}) \|(.*)")
# " validation loss at iteration 1000 on test set | lm loss value: 3.2E+00 | lm loss PPL: 2.4E+01 |"
_VALIDATION = re.compile(
    rf"\bvalid(?:ation)? loss at (?:iteration ({STEP})|the end of training)([^|]{{0,80}})\|(.*)"
)
_NUMBER = re.compile(NUMBER)
_ARGUMENT = re.compile(r"^(?:\S{1,40}:? )?\s*([A-Za-z_]\w{0,80}) \.{3,120} ?(.*)$")
_ARGUMENTS = re.compile(r"-{5,80} (end of )?(?:\w{1,20} )?arguments -{5,80}")
# Megatron-core 0.19 names a third way of sharing between the two, "(tensor, gtp_remat, pipeline)".
_RANK_PARAMS = re.compile(
    r"number of parameters on \(tensor,(?: \w{1,20},)? pipeline\) model parallel rank "
    r"\((\d{1,6}),(?: \d{1,6},)? (\d{1,6})\): (\d{1,15})"
)
_TOTAL_PARAMS = re.compile(r"\bTOTAL_PARAMS=(\d{1,15})\b")
# in billions, all digits
_ESTIMATED = re.compile(r"estimated model parameters: (\d{1,6})\.(\d{9})$")
_LOADED = re.compile(
    r"successfully loaded checkpoint from (\S{1,500})(?: .{0,200})? at iteration (\d{1,15})"
)
_SETS = re.compile(r"on (\w{1,40})(?: set)?|for (\w{1,40}) data")

_TOKENS = "consumed tokens"
_SAMPLES = "consumed samples"
# how fast it went is no quantity of the training
_CLOCKS = re.compile(r"elapsed|per second|per sec|TFLOP|throughput|time|memory", re.IGNORECASE)
_VALIDATION_SETS = ("valid", "validation", "val")


class MegatronReader:
    """Lines ``iteration N/ T | ... | lm loss: ... |`` and what stands around them."""

    name = "megatron"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether the head holds a line of progress, or a block of dotted arguments."""
        dotted = False
        for line in short_head(log, b"iteration ", b" arguments --"):
            match = _ITERATION.search(line)
            if match and " loss" in match[3]:
                return True
            dotted = dotted or _ARGUMENTS.search(line) is not None
            if dotted and _ARGUMENT.match(line):
                return True
        return False

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        run = LoggedRun([])
        rows = TextRows(tokens=(_TOKENS,))
        params: dict[tuple[str, str], int] = {}
        in_arguments = False
        last = 0
        for line in short_lines(log):
            if match := _ITERATION.search(line):
                last = int(match[1])
                run.config["total_steps"] = int(match[2])
                rows.add(last, _quantities(match[3]))
            elif match := _VALIDATION.search(line):
                step = int(match[1]) if match[1] else last
                rows.add(step, _validation(match[2], match[3]))
            elif match := _ARGUMENTS.search(line):
                in_arguments = not match[1]
            elif in_arguments and (match := _ARGUMENT.match(line)):
                state(run.config, match[1], _argument(match[2]))
            elif match := _RANK_PARAMS.search(line):
                if len(params) < MAX_NAMES:
                    params[match[1], match[2]] = int(match[3])
            elif match := _TOTAL_PARAMS.search(line):
                params["", ""] = int(match[1])
            elif match := _ESTIMATED.search(line):
                params.setdefault(("", ""), int(match[1] + match[2]))
            elif match := _LOADED.search(line):
                run.resumed_from = f"{match[1]} at iteration {match[2]}"
        _count_params(run.config, params)
        interval = run.config.get("log_interval")
        table = rows.table(interval if isinstance(interval, int) and interval > 0 else None)
        _count_tokens(table, run)
        run.tables.append(table)
        return [run]


def _quantities(text: str) -> dict[str, str]:
    found = {}
    for part in text.split("|"):
        before, _, after = part.rpartition(":")
        name, value = _quantity(before), after.strip()
        if name and _NUMBER.fullmatch(value):
            found[name] = value
    return found


@lru_cache(1000)
def _quantity(text: str) -> str:
    """Return the name of a quantity, empty if it is none of the training."""
    name = text.strip()
    return "" if len(name) > 80 or _CLOCKS.search(name) else name


def _validation(place: str, text: str) -> dict[str, str]:
    """Return the losses of a validation line by names that tell its set."""
    match = _SETS.search(place)
    split = (match[1] or match[2]) if match else "validation"
    split = "validation" if split in _VALIDATION_SETS else split
    found = {}
    for name, value in _quantities(text).items():
        plain = name.removesuffix(" value").removeprefix("lm ")
        if plain == "loss":
            found[f"{split}/loss"] = value
        elif plain.lower() in ("loss ppl", "ppl"):
            found[f"{split}/perplexity"] = value
        else:
            found[f"{split}/{name}"] = value
    return found


def _argument(text: str) -> Any:
    """Return the value of an argument as Python printed it."""
    text = text.strip()
    known = {"None": None, "True": True, "False": False}
    if text in known:
        return known[text]
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return text[:500]


def _count_params(config: dict[str, Any], params: dict[tuple[str, str], int]) -> None:
    """Sum the parameters of the ranks, where every rank has told its own."""
    whole = params.pop(("", ""), None)
    ranks = 1
    for name in ("tensor_model_parallel_size", "pipeline_model_parallel_size"):
        size = config.get(name, 1)
        ranks *= size if isinstance(size, int) and size > 0 else 1
    if params and len(params) == ranks:
        config["num_parameters"] = sum(params.values())
    elif whole and ranks == 1:
        config["num_parameters"] = whole


def _count_tokens(table: Table, run: LoggedRun) -> None:
    """Count in tokens what the log counts in sequences."""
    config = run.config
    length = config.get("seq_length")
    if not isinstance(length, int) or not 0 < length < 2**31:
        return
    samples = config.get("train_samples")
    if isinstance(samples, int) and config.get("train_tokens") is None:
        config["train_tokens"] = samples * length
    seen = table.columns.get(_SAMPLES)
    if table.tokens is None and seen is not None and not config.get("curriculum_learning"):
        table.tokens = seen.values * length
        if seen.present is not None:
            table.tokens = np.where(seen.present, table.tokens, np.nan)
