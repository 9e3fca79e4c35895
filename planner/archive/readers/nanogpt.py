"""Text of nanoGPT, llm.c and modded-nanoGPT: one line a step."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from planner.archive.readers.text import (
    MAX_LINE,
    NUMBER,
    STEP,
    TextRows,
    short_head,
    short_lines,
    state,
)
from planner.archive.record import LoggedRun
from planner.archive.source import HEAD_BYTES, decode

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Log

# llm.c's main.log: "s:300 trl:5.9851 lr:0.000257 norm:0.68", "s:250 tel:6.1"
_LLMC_FILE = re.compile(rf"^s:({STEP}) ((?:tel|trl|eval):.*)$", re.IGNORECASE)
# modded-nanoGPT: "step:299/5100 train_loss:4.7861 train_time:39842ms step_avg:137.86ms"
_MODDED = re.compile(rf"^step:({STEP})(?:/({STEP}))? (.*(?:train|val)_loss:.*)$", re.IGNORECASE)
_PAIR = re.compile(rf"\b(\w{{1,60}}):({NUMBER})(?:ms|s)?(?=\s|$)", re.IGNORECASE)
# nanoGPT: "iter 10: loss 2.3, time 12.30ms, mfu 3.1%", "step 250: train loss 2.1, val loss 2.2"
_NANO_ITER = re.compile(rf"^iter ({STEP}): loss ({NUMBER}), ", re.IGNORECASE)
_NANO_EVAL = re.compile(
    rf"^step ({STEP}): train loss ({NUMBER}), val loss ({NUMBER})", re.IGNORECASE
)
# llm.c's screen: "step  150/19560 | loss 4.5 (+1.2z)| norm 1.2 (-0.1z)| lr 3.0e-04 | ..."
_LLMC_SCREEN = re.compile(rf"^step\s{{1,20}}({STEP})/({STEP}) \| (?:train )?loss ({NUMBER})")
_LLMC_NORM = re.compile(rf"\| norm ({NUMBER})")
_LLMC_LR = re.compile(rf"\| lr ({NUMBER})")
_LLMC_VAL = re.compile(rf"^val loss:? ({NUMBER})$", re.IGNORECASE)
# build-nanoGPT's log.txt: "250 val 6.1234", "250 hella 0.2463", "250 train 6.200123"
_BUILD = re.compile(rf"^({STEP}) (train|val|hella) ({NUMBER})$")
_LINES = (_LLMC_FILE, _MODDED, _NANO_ITER, _NANO_EVAL, _LLMC_SCREEN, _BUILD)
_MARKS = (b"_loss:", b"trl:", b"tel:", b": loss ", b"train loss ", b"| loss ", b" val ", b" train ")
_FIRST = frozenset("sSiI0123456789")  # spares most lines of other formats six patterns

_NAMES = {
    "trl": "train_loss",
    "train": "train_loss",
    "tel": "val_loss",
    "val": "val_loss",
    "eval": "eval/hellaswag/accuracy",
    "hella": "eval/hellaswag/accuracy",
}
# how long a step took is no quantity of the training
_CLOCKS = {"train_time", "step_avg", "time", "mfu"}

# What the programs print about the run: nanoGPT's sentences, llm.c's table
_TOKENS_PER_STEP = re.compile(r"^tokens per iteration will be: ([\d,]{1,20})$")
_TENSORS = re.compile(
    r"^num (non-)?decayed parameter tensors: \d{1,6}, with ([\d,]{1,20}) parameters"
)
_OVERRIDE = re.compile(r"^Overriding: (\w{1,60}) = (.{1,200})$")
_LLMC_NAMES = {
    "sequence length T": "sequence_length",
    "max_sequence_length T": "max_sequence_length",
    "total batch size": "total_batch_size",
    "LR scheduler": "lr_scheduler",
    "learning rate (LR)": "learning_rate",
    "warmup iterations": "warmup_iters",
    "final LR fraction": "final_lr_fraction",
    "weight decay": "weight_decay",
    "num_parameters": "num_parameters",
    "train_num_batches": "total_steps",
    "vocab_size V": "vocab_size",
    "num_layers L": "n_layer",
    "num_heads NH": "n_head",
    "channels C": "n_embd",
}
# modded-nanoGPT prints its own source first, with the settings in a class
_SETTINGS_CLASS = re.compile(r"^class (?:Hyperparameters|args)\b")
_SETTING = re.compile(r"^    (\w{1,60})\s{0,20}(?::[^=]{0,60})?= ?([^#]{1,200})")
_CODE = re.compile(r"^(?:import|from) \w", re.MULTILINE)


class NanoGptReader:
    """The six line formats of nanoGPT and its descendants."""

    name = "nanogpt"
    version = 1

    def recognizes(self, log: Log) -> bool:
        """Return whether at least two of the first lines are of one of the formats.

        A log that starts with its program's source is looked at further down, too.
        """
        lines = short_head(log, *_MARKS)
        if lines and _count(lines) >= (1 if len(lines) <= 2 else 2):
            return True
        if len(log.head) < HEAD_BYTES or not _CODE.search(decode(log.head[:4096])):
            return False
        more = decode(next(log.source.blocks(), b""))
        return _count([line for line in more.splitlines() if len(line) <= MAX_LINE]) >= 2

    def read(self, log: Log) -> list[LoggedRun]:
        """Return the one run of the file; raises `LogError`."""
        rows = TextRows()
        config: dict[str, Any] = {}
        params: dict[str, int] = {}
        last = 0
        settings = False
        for line in short_lines(log):
            if match := _MODDED.match(line) or _LLMC_FILE.match(line):
                printed = {
                    _NAMES.get(key.lower(), key): value
                    for key, value in _PAIR.findall(match[match.re.groups])
                    if key.lower() not in _CLOCKS
                }
                total = match[2] if match.re is _MODDED else None
            elif match := _NANO_ITER.match(line):
                printed, total = {"loss": match[2]}, None
            elif match := _NANO_EVAL.match(line):
                printed, total = {"eval/train/loss": match[2], "val_loss": match[3]}, None
            elif match := _LLMC_SCREEN.match(line):
                printed, total = {"train_loss": match[3]}, match[2]
                for name, pattern in (("grad_norm", _LLMC_NORM), ("lr", _LLMC_LR)):
                    if found := pattern.search(line):
                        printed[name] = found[1]
            elif match := _BUILD.match(line):
                printed, total = {_NAMES[match[2]]: match[3]}, None
            elif match := _LLMC_VAL.match(line):
                rows.add(last, {"val_loss": match[1]})
                continue
            else:
                if not len(rows):
                    settings = _describe(line, config, params, settings)
                continue
            last = int(match[1])
            if total is not None:
                config["total_steps"] = int(total)
            if printed:
                rows.add(last, printed)
        if len(params) == 2:
            config["num_parameters"] = sum(params.values())
        _batch(config)
        return [LoggedRun([rows.table()], config=config)]


def _count(lines: list[str]) -> int:
    return sum(
        any(pattern.match(line) for pattern in _LINES) for line in lines if line[:1] in _FIRST
    )


def _describe(line: str, config: dict[str, Any], params: dict[str, int], settings: bool) -> bool:
    """Learn from a line before the first step; return whether it is inside a class of settings."""
    if _SETTINGS_CLASS.match(line):
        return True
    if settings:
        if match := _SETTING.match(line):
            value = _constant(match[2])
            if value is not None:
                state(config, match[1], value)
        return not line or line[0] in " \t#"
    if match := _TOKENS_PER_STEP.match(line):
        config["tokens_per_step"] = int(match[1].replace(",", "") or 0)
    elif match := _TENSORS.match(line):
        params[match[1] or ""] = int(match[2].replace(",", "") or 0)
    elif match := _OVERRIDE.match(line):
        value = _constant(match[2])
        state(config, match[1], match[2] if value is None else value)
    elif line.startswith("| ") and line.count("|") == 3:
        _, name, text, _ = (part.strip() for part in line.split("|"))
        if name in _LLMC_NAMES:
            value = _constant(text)
            config[_LLMC_NAMES[name]] = text if value is None else value
    return False


def _constant(text: str) -> Any:
    """Return a number or a text that a line of Python states, products of numbers included."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, 0)
    except (ValueError, SyntaxError, RecursionError, MemoryError, OverflowError):
        return None


def _value(node: ast.expr, depth: int) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)) and depth < 10:
        left, right = _value(node.left, depth + 1), _value(node.right, depth + 1)
        # no text times a number
        if all(isinstance(x, (int, float)) and abs(x) < 1e15 for x in (left, right)):
            if isinstance(node.op, ast.Mult):
                return left * right
            return left / right if right else None
    return None


def _batch(config: dict[str, Any]) -> None:
    """State modded-nanoGPT's batch in tokens: its batch is in sequences over all devices."""
    sequences, length = config.get("batch_size"), config.get("sequence_length")
    if isinstance(sequences, int) and isinstance(length, int) and "device_batch_size" in config:
        config.setdefault("global_batch_size", sequences)
