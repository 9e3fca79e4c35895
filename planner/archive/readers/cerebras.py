"""Cerebras ModelZoo: progress lines on the screen or in a run folder's ``run.log``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from planner.archive.readers.jsonl import flatten
from planner.archive.readers.text import NUMBER, STEP, TextRows, short_head, short_lines
from planner.archive.record import LoggedRun
from planner.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.archive.readers.protocol import Log

# "... INFO:   | Train Device=CSX, Step=50, Loss=7.90000, Rate=..., GlobalRate=..."; before release
# 2.0 without commas.
_PROGRESS = re.compile(
    rf"\| (Train|Eval) Device=([^\s,]{{1,40}}),? (?:Global)?Step=({STEP}),?(?: (.*))?$"
)
_PAIR = re.compile(rf"\b([A-Za-z]\w{{0,60}})=({NUMBER})(?=[,\s]|$)")
# "Avg Eval Loss: 5.12", in older releases "Avg eval_loss = 5.12"
_AVERAGE = re.compile(rf"\bavg[ _.]eval[ _.]{{1,2}}loss\s{{0,4}}[:=] ?({NUMBER})", re.IGNORECASE)
# "    - eval/lm_perplexity = 12.3", after an evaluation
_METRIC = re.compile(rf"- ((?:eval|val)/[\w./-]{{1,80}}) = ({NUMBER})\s*$")
_PROCESSED = re.compile(r"Processed (\d{1,15}) (?:training )?sample\(s\)")
_CHECKPOINT = re.compile(r"checkpoint_\d{1,15}\.mdl")
# what the appliance says while it compiles and programs itself
_APPLIANCE = re.compile(
    r"INFO:\s{1,8}(?:.{0,80}\bwsjob-\w|Compile was successful|Programming Cerebras|"
    r"Preparing to execute using \d{1,6} CSX|Beginning appliance run|Compiling image)"
)
_LOADING = re.compile(r"\bload|\bresum|found latest", re.IGNORECASE)

# how fast it went is no quantity of the training
_CLOCKS = {"rate", "globalrate", "time", "looptimeremaining", "timeremaining", "batch", "epoch"}
_NAMES = {"learningrate": "lr"}
_PARAMETERS = "trainer_params.yaml"


class CerebrasReader:
    """Lines ``| Train Device=CSX, Step=50, Loss=7.90000, ...``."""

    name = "cerebras"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether the head holds a line of progress, or is the head of a ``run.log``.

        The compiler may fill the head of a log with more than what is looked at here, so a head
        of the appliance's own messages is taken for such a log too.
        """
        appliance = 0
        for line in short_head(log, b" Device=", b"INFO:"):
            match = _PROGRESS.search(line)
            if match:
                return True
            appliance += _APPLIANCE.search(line) is not None
        return appliance >= 2

    def beside(self, path: str) -> str | None:
        """Return the path of the configuration that is read with the log at a path."""
        return _parameters_file(path)

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        run = LoggedRun([])
        rows = TextRows()
        train: list[int] = []
        samples = starts = 0
        last = None
        for line in short_lines(log):
            if match := _PROGRESS.search(line):
                last = int(match[3])
                run.config["device"] = match[2]
                if match[1] == "Train":
                    train.append(last)
                    rows.add(last, _quantities(match[4] or ""))
            elif last is not None and (match := _AVERAGE.search(line)):
                rows.add(last, {"eval_loss": match[1]})
            elif last is not None and (match := _METRIC.search(line)):
                rows.add(last, {match[1]: match[2]})
            elif match := _PROCESSED.search(line):
                samples += int(match[1])
                starts += 1
            elif (match := _CHECKPOINT.search(line)) and _LOADING.search(line[: match.start()]):
                run.resumed_from = line[: match.end()].split()[-1].strip("'\"")
        if not log.source.is_remote:
            run.config.update(_run_folder(log.source.path))
        steps = max(train, default=0)
        if starts == 1 and steps and run.resumed_from is None and samples % steps == 0:
            # one whole start from step 0: what it processed is what it trained on
            run.config.setdefault("global_batch_size", samples // steps)
        run.tables.append(rows.table())
        return [run]


def _quantities(text: str) -> dict[str, str]:
    pairs = ((name.lower(), value) for name, value in _PAIR.findall(text))
    return {_NAMES.get(name, name): value for name, value in pairs if name not in _CLOCKS}


def _parameters_file(path: str) -> str | None:
    """Return the configuration that lies in the run folder of a log.

    A run folder holds ``TIME/trainer_params.yaml`` and ``cerebras_logs/TIME/run.log``.
    """
    folder, file = os.path.split(os.path.realpath(path))
    parent, start = os.path.split(folder)
    places = [os.path.join(folder, _PARAMETERS)]
    if file == "run.log" and os.path.basename(parent) == "cerebras_logs":
        places.append(os.path.join(os.path.dirname(parent), start, _PARAMETERS))
    return next((place for place in places if os.path.isfile(place)), None)


def _run_folder(path: str) -> dict[str, Any]:
    """Return what the run folder says that a log belongs to; empty if it says nothing."""
    file = _parameters_file(path)
    if file is None:
        return {}
    # parsing YAML takes long to load, and most logs have none
    from planner.documents import read_document

    try:
        return run_parameters(read_document(file).value)
    except SpecError:
        return {}


def run_parameters(value: Any) -> dict[str, Any]:
    """Return the facts of a ModelZoo configuration, by names that say what they are.

    Args:
        value: The YAML document as plain values; of several phases the first counts.
    """
    trainer = value.get("trainer") if isinstance(value, dict) else None
    if isinstance(trainer, list):
        trainer = trainer[0] if trainer else None
    if isinstance(trainer, dict) and isinstance(trainer.get("trainer"), dict):
        trainer = trainer["trainer"]
    if not isinstance(trainer, dict):
        return {}
    init = _dict(trainer.get("init"))
    loader = _dict(_dict(trainer.get("fit")).get("train_dataloader"))
    model = _dict(init.get("model"))
    said: dict[str, Any] = {}
    for section, values in (("model", model), ("train_dataloader", loader)):
        for key, item in flatten(values, f"{section}/"):
            if isinstance(item, (str, int, float, bool)):
                said[key] = item
    for name, options in _dict(init.get("optimizer")).items():
        said["optimizer"] = name
        for key, item in _dict(options).items():
            if isinstance(item, (int, float)) or key == "betas":
                said[f"optimizer/{key}"] = item
    _say(said, "seed", init.get("seed"))
    _say(said, "max_steps", _dict(init.get("loop")).get("max_steps"))
    _say(said, "num_steps", _dict(init.get("loop")).get("num_steps"))
    _say(said, "grad_accum_steps", _dict(init.get("loop")).get("grad_accum_steps"))
    _say(said, "global_batch_size", loader.get("batch_size"))
    length = loader.get("max_sequence_length") or model.get("max_position_embeddings")
    _say(said, "sequence_length", length)
    said.update(_schedule(init.get("schedulers") or init.get("scheduler")))
    return said


def _schedule(schedulers: Any) -> dict[str, Any]:
    """Return the peak, the end and the warm-up of a learning-rate schedule."""
    pieces = list(_pieces(schedulers))
    if not pieces:
        return {}
    rates = [rate for _, start, end, _ in pieces for rate in (start, end)]
    said: dict[str, Any] = {
        "peak_lr": max(rates),
        "min_lr": pieces[-1][2],
        "schedule": "+".join(name for name, *_ in pieces),
    }
    _, start, end, steps = pieces[0]
    if len(pieces) > 1 and end > start and steps is not None:
        said["warmup_steps"] = steps
    return said


def _pieces(value: Any, depth: int = 0) -> Iterator[tuple[str, float, float, int | None]]:
    """Yield (name, first rate, last rate, steps) of each piece of a schedule."""
    if depth > 10:
        return
    if isinstance(value, list):
        for item in value:
            yield from _pieces(item, depth + 1)
    elif isinstance(value, dict):
        for name, options in value.items():
            options = _dict(options)
            if isinstance(options.get("schedulers"), list):
                yield from _pieces(options["schedulers"], depth + 1)
                continue
            start = options.get("initial_learning_rate", options.get("learning_rate"))
            end = options.get("end_learning_rate", start)
            steps = options.get("total_iters")
            if isinstance(start, (int, float)) and isinstance(end, (int, float)):
                yield name, start, end, steps if isinstance(steps, int) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _say(said: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        said[name] = value
