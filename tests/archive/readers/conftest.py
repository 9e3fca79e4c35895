"""Logs made by hand: what the tests of all readers share."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from planner.archive.readers import Log
from planner.archive.source import Source

MakeLog = Callable[..., Log]


@pytest.fixture(scope="session")
def make_log(tmp_path_factory: pytest.TempPathFactory) -> MakeLog:
    """Write bytes or text to a file and return it as a log: make_log(content, fields)."""
    folder = tmp_path_factory.mktemp("logs")
    numbers = itertools.count()

    def make(content: bytes | str, fields: Mapping[str, str] | None = None) -> Log:
        # the same few files over and over: a fuzz test makes thousands
        path = folder / f"{next(numbers) % 20}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Log(Source(str(path), path.name), fields or {})

    return make


@pytest.fixture(scope="session")
def open_log() -> Callable[[Path], Log]:
    return lambda path: Log(Source(str(path), path.name))


def slow_crc32c(data: bytes) -> int:
    """The definition, bit by bit: the oracle for the fast one."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


class EventFile:
    """Writes event files as the format's documents define them."""

    crc = staticmethod(slow_crc32c)

    @staticmethod
    def record(payload: bytes) -> bytes:
        def masked(data: bytes) -> bytes:
            crc = slow_crc32c(data)
            return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

        length = struct.pack("<Q", len(payload))
        return length + masked(length) + payload + masked(payload)

    @staticmethod
    def varint(value: int) -> bytes:
        value &= (1 << 64) - 1
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    @classmethod
    def field(cls, number: int, value: bytes | int) -> bytes:
        """A message, text or bytes; or a whole number."""
        if isinstance(value, int):
            return cls.varint(number << 3) + cls.varint(value)
        return cls.varint(number << 3 | 2) + cls.varint(len(value)) + value

    @classmethod
    def fixed(cls, number: int, value: float, double: bool = False) -> bytes:
        kind = (1, "<d") if double else (5, "<f")
        return cls.varint(number << 3 | kind[0]) + struct.pack(kind[1], value)

    @classmethod
    def event(cls, step: int, *values: bytes) -> bytes:
        """An event with summary values made by `value` or by hand."""
        summary = b"".join(cls.field(1, value) for value in values)
        stamp = cls.fixed(1, 1.7e9, double=True)
        return cls.record(stamp + cls.field(2, step) + cls.field(5, summary))

    @classmethod
    def value(cls, tag: str, number: float) -> bytes:
        return cls.field(1, tag.encode()) + cls.fixed(2, number)

    @classmethod
    def tensor(
        cls, tag: str, tensor: bytes, plugin: str = "scalars", content: bytes = b""
    ) -> bytes:
        made = cls.field(1, tag.encode()) + cls.field(8, tensor)
        if plugin:
            data = cls.field(1, plugin.encode()) + cls.field(2, content)
            made += cls.field(9, cls.field(1, data))
        return made

    @classmethod
    def start(cls) -> bytes:
        return cls.record(cls.fixed(1, 1.7e9, double=True) + cls.field(3, b"brain.Event:2"))


@pytest.fixture(scope="session")
def events() -> type[EventFile]:
    return EventFile


MEGATRON = """\
0: ------------------------ arguments ------------------------
0:   adam_beta2 ...................................... 0.95
0:   global_batch_size ............................... 512
0:   log_interval .................................... 200
0:   lr .............................................. 0.0003
0:   pipeline_model_parallel_size .................... 1
0:   seed ............................................ 1234
0:   seq_length ...................................... 2048
0:   tensor_model_parallel_size ...................... 1
0:   tokenizer_type .................................. GPT2BPETokenizer
0:   train_iters ..................................... None
0:   train_samples ................................... 73242187
0: -------------------- end of arguments ---------------------
0:  > number of parameters on (tensor, pipeline) model parallel rank (0, 0): 354871296
0: valid loss at iteration 100 | lm loss value: 9.595978E+00 | lm loss PPL: 1.470551E+04 | \n\
0:  iteration      200/  148693 | consumed samples:        25600 | elapsed time per iteration (s):\
 10.08 | learning rate: 4.194E-05 | global batch size:   128 | lm loss: 1.024022E+01 | loss scale:\
 1.0 | grad norm: 2.471 | number of skipped iterations:   0 | samples per second: 12.7 |
0:  iteration      400/  148693 | consumed samples:        51200 | elapsed time per iteration (s):\
 11.10 | learning rate: 8.389E-05 | global batch size:   128 | lm loss: 8.173834E+00 | loss scale:\
 1.0 | grad norm: 0.441 | number of skipped iterations:   0 | samples per second: 11.5 |
"""

CEREBRAS = """\
2024-03-14 03:14:59,558 INFO:   Programming Cerebras Wafer Scale Cluster for execution.
2024-03-14 03:16:12,959 INFO:   Preparing to execute using 1 CSX
2024-03-14 03:20:31,277 INFO:   | Train Device=CSX, Step=50, Loss=7.90000, Rate=974.00 samples/sec,\
 GlobalRate=974.00 samples/sec
2024-03-14 03:22:24,890 INFO:   | Train Device=CSX, Step=100, Loss=7.25000, Rate=0.38 samples/sec,\
 GlobalRate=936.24 samples/sec, LoopTimeRemaining=0:00:10, TimeRemaining>0:00:10
2024-03-14 03:22:25,890 INFO:   | Eval Device=CSX, GlobalStep=100, Batch=20, Loss=7.10000,\
 Rate=930.38 samples/sec, GlobalRate=936.24 samples/sec
2024-03-14 03:22:26,890 INFO:   Avg Eval Loss: 7.123456
2024-03-14 03:35:51,747 INFO:   Processed 102400 training sample(s) in 1025.603128781 seconds.
"""

HF = json.dumps(
    {
        "best_metric": None,
        "epoch": 2.0,
        "global_step": 100,
        "is_world_process_zero": True,
        "log_history": [
            {"epoch": 0.5, "grad_norm": 2.0, "learning_rate": 1e-4, "loss": 4.5, "step": 25},
            {"epoch": 1.0, "learning_rate": 2e-4, "loss": 4.0123, "step": 50},
            {"epoch": 1.0, "eval_loss": 3.9, "eval_runtime": 3.2, "step": 50},
            {"epoch": 2.0, "learning_rate": 1e-4, "loss": 3.5, "step": 75},
            {"step": 100, "train_loss": 4.2, "train_runtime": 77.0, "total_flos": 1e15},
        ],
        "max_steps": 100,
        "train_batch_size": 8,
    },
    indent=2,
)

DUMP = json.dumps(
    {
        "name": "run-a",
        "config": {"lr": 0.001, "seed": {"value": 7, "desc": None}},
        "summary": {"lr": 0.0, "parameters": 124, "val/loss": 3.4, "_wandb": {"runtime": 3}},
        "history": {
            "train": {"iter": [10, 20, 30], "train_loss": [5.0, 4.0, 3.5]},
            "val": {"iter": [20], "val_loss": [4.1], "val_acc": [0.1, 0.2]},
        },
    },
    indent=2,
)

NANOGPT = """\
tokens per iteration will be: 491,520
number of parameters: 123.59M
num decayed parameter tensors: 50, with 124,318,464 parameters
num non-decayed parameter tensors: 98, with 121,344 parameters
step 0: train loss 10.9883, val loss 10.9898
iter 0: loss 10.9886, time 40563.25ms, mfu -100.00%
iter 10: loss 9.7, time 1563.25ms, mfu 31.20%
"""

RUNS = """\
"Name","State","Created","Runtime","Sweep","batch_size","learning_rate","n_params","iter","lr","val/loss"
"a","finished","2026-05-25","732","","64","0.001","1000","5000","0.0001","1.5"
"a","crashed","2026-05-25","12","","64","0.002","1000","400","0.002","2.5"
"""

CHART = """\
"Step","big - run - train/loss","big - run - train/loss__MIN","big - run - train/loss__MAX",\
"Group: k - train/loss","Group: k - train/loss__MIN","Group: k - train/loss__MAX","Group: k - _step"
"10","5.5","5.5","5.5","6","5","7","10"
"20","4.5","4.5","4.5","","","","20"
"""

HISTORY = """\
,_step,_runtime,train/loss,train/global_step,eval/loss,lr
0,0,1.0,5.5,10,,0.1
1,1,2.0,4.5,20,,0.1
2,2,3.0,,20,4.4,0.1
"""


@pytest.fixture(scope="session")
def samples() -> dict[str, bytes]:
    """A small valid log of each format, by the name of its reader."""
    tensor = EventFile.field(1, 1) + EventFile.field(4, b"\0\0\x80?")
    event_file = EventFile.start() + EventFile.event(4, EventFile.tensor("loss", tensor))
    for i in range(4):
        event_file += EventFile.event(i, EventFile.value("train/loss", 5 - i))
    texts = {
        "megatron": MEGATRON,
        "cerebras": CEREBRAS,
        "hf-trainer": HF,
        "wandb-dump": DUMP,
        "nanogpt": NANOGPT,
        "wandb-runs": RUNS,
        "wandb-chart": CHART,
        "wandb-history": HISTORY,
        "csv": "step,loss,lr\n1,5.5,0.1\n2,5.25,0.1\n3,nan,0.1\n",
        "jsonl": '{"step": 1, "loss": 5.5}\n{"step": 2, "loss": null, "lr": 0.1}\n',
    }
    return {"tensorboard": event_file, **{name: text.encode() for name, text in texts.items()}}
