"""Hugging Face Trainer: ``trainer_state.json``."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from planner.archive.errors import LogError
from planner.archive.names import TOKEN_NAMES
from planner.archive.readers.json_document import outer_keys, read_json_document
from planner.archive.readers.jsonl import flatten, number, whole
from planner.archive.record import LoggedRun, RowCollector

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Log

_STATE = ("global_step", "is_world_process_zero", "max_steps", "num_train_epochs", "epoch")
# how fast it went is no quantity of the training
_CLOCKS = ("_runtime", "_per_second", "_flos")
_MAX_FIELDS = 10_000


class HfTrainerReader:
    """The state that the Trainer saves with each checkpoint; its ``log_history`` is the log."""

    name = "hf-trainer"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether the outer keys are a trainer state's."""
        keys = outer_keys(log)
        return keys.get("log_history") == "[" and any(name in keys for name in _STATE)

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        state = read_json_document(log)
        history = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(history, list):
            raise LogError("its log_history is no list")
        run = LoggedRun([], config=_facts(state))
        rows = RowCollector(tokens=TOKEN_NAMES)
        trained: list[int] = []
        names: set[str] = set()
        bad = 0
        for entry in history:
            step = whole(entry.get("step")) if isinstance(entry, dict) else None
            if step is None:
                bad += 1
                continue
            if "train_runtime" in entry:
                # the summary at the end: means over the whole run, no point of it
                run.config.update((f"summary/{k}", v) for k, v in entry.items() if k != "step")
                continue
            values = {}
            for name, value in flatten(entry):
                if name == "step" or name.endswith(_CLOCKS):
                    continue
                found = number(value)
                if found is not None:
                    values[name] = found
            names.update(values)
            if len(names) > _MAX_FIELDS:
                raise LogError(f"has more than {_MAX_FIELDS:,} different fields")
            rows.add(step, values)
            if "loss" in values:
                trained.append(step)
        if bad:
            run.notes.append(f"{bad} entries without a step were left out")
        run.tables.append(rows.table(_window(state, trained)))
        return [run]


def _facts(state: dict[str, Any]) -> dict[str, Any]:
    facts = {k: v for k, v in state.items() if isinstance(v, (str, int, float, bool))}
    # what the state calls so is the batch of one device
    if "train_batch_size" in facts:
        facts["per_device_train_batch_size"] = facts.pop("train_batch_size")
    if isinstance(state.get("trial_params"), dict):
        facts.update(flatten(state["trial_params"]))
    return facts


def _window(state: dict[str, Any], steps: list[int]) -> int | None:
    """Return over how many steps a training loss is averaged: those since the one before."""
    stated = state.get("logging_steps")
    if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0:
        return stated
    apart = Counter(b - a for a, b in pairwise(steps) if b > a)
    return apart.most_common(1)[0][0] if apart else None
