"""Text of nanoGPT, llm.c and modded-nanoGPT: one line a step."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from planner.archive.record import LoggedRun, RowCollector

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Log

_N = r"([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf(?:inity)?))"
# llm.c's main.log: "s:300 trl:5.9851 lr:0.000257 norm:0.68", "s:250 tel:6.1"
_LLMC_FILE = re.compile(r"^s:(\d{1,15}) ((?:tel|trl|eval):.*)$", re.IGNORECASE)
# modded-nanoGPT: "step:299/5100 train_loss:4.7861 train_time:39842ms step_avg:137.86ms"
_MODDED = re.compile(r"^step:(\d{1,15})(?:/(\d{1,15}))? (.*(?:train|val)_loss:.*)$", re.IGNORECASE)
_PAIR = re.compile(rf"(\w+):{_N}(ms|s)?(?=\s|$)", re.IGNORECASE)
# nanoGPT: "iter 10: loss 2.3, time 12.30ms, mfu 3.1%", "step 250: train loss 2.1, val loss 2.2"
_NANO_ITER = re.compile(rf"^iter (\d{{1,15}}): loss {_N}, (.*)$", re.IGNORECASE)
_NANO_EVAL = re.compile(rf"^step (\d{{1,15}}): train loss {_N}, val loss {_N}", re.IGNORECASE)
# llm.c's screen: "step  150/19560 | loss 4.5 (+1.2z)| norm 1.2 (-0.1z)| lr 3.0e-04 | ..."
_LLMC_SCREEN = re.compile(
    rf"^step\s+(\d{{1,15}})/(\d{{1,15}}) \| (?:train )?loss {_N}"
    rf"(?:.*?\| norm {_N})?(?:.*?\| lr {_N})?.*$",
    re.IGNORECASE,
)
_LLMC_VAL = re.compile(rf"^val loss:? {_N}$", re.IGNORECASE)

_NAMES = {"trl": "train_loss", "tel": "val_loss", "eval": "eval/hellaswag/accuracy"}
# how long a step took is no quantity of the training
_CLOCKS = {"train_time", "step_avg", "time"}
_LINES = (_LLMC_FILE, _MODDED, _NANO_ITER, _NANO_EVAL, _LLMC_SCREEN)
_FIRST = frozenset("sSiI")  # spares most lines of other formats five patterns
_HEAD_LINES = 2000


class NanoGptReader:
    """The five line formats of nanoGPT and its descendants."""

    name = "nanogpt"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether at least two of the first lines are of one of the formats."""
        found = 0
        for line in log.head_lines[:_HEAD_LINES]:
            if line[:1] in _FIRST:
                found += any(pattern.match(line) for pattern in _LINES)
            if found >= 2:
                return True
        return found == 1 and len(log.head_lines) <= 2

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file."""
        rows = RowCollector()
        config: dict[str, int] = {}
        last = 0
        for line in log.source.lines():
            if match := _MODDED.match(line) or _LLMC_FILE.match(line):
                values = {
                    _NAMES.get(key.lower(), key): float(value)
                    for key, value, _ in _PAIR.findall(match[match.lastindex or 1])
                    if key not in _CLOCKS
                }
                total = match[2] if match.re is _MODDED else None
            elif match := _NANO_ITER.match(line):
                values, total = {"loss": float(match[2])}, None
            elif match := _NANO_EVAL.match(line):
                values = {"eval/train/loss": float(match[2]), "val_loss": float(match[3])}
                total = None
            elif match := _LLMC_SCREEN.match(line):
                parts = zip(("train_loss", "grad_norm", "lr"), match.groups()[2:], strict=True)
                values, total = {k: float(v) for k, v in parts if v is not None}, match[2]
            elif match := _LLMC_VAL.match(line):
                rows.add(last, {"val_loss": float(match[1])})
                continue
            else:
                continue
            step = int(match[1])
            last = step
            if total is not None:
                config["total_steps"] = int(total)
            if values:
                rows.add(step, values)
        return [LoggedRun([rows.table()], config=dict(config))]
