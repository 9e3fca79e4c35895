"""Megatron, Cerebras, nanoGPT and its descendants: lines of text."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planner.archive.errors import LogError
from planner.archive.metadata import Metadata
from planner.archive.names import group_key
from planner.archive.policies import Policy, repair
from planner.archive.readers import Log
from planner.archive.readers.cerebras import CerebrasReader, run_parameters
from planner.archive.readers.megatron import MegatronReader
from planner.archive.readers.nanogpt import NanoGptReader
from planner.archive.readers.text import decimals_shown
from planner.archive.record import LoggedRun, Table

MakeLog = Callable[..., Log]


def only(runs: list[LoggedRun]) -> tuple[LoggedRun, Table]:
    (run,) = runs
    (table,) = run.tables
    return run, table


def series(table: Table, name: str) -> list[tuple[int, float]]:
    column = table.columns[name]
    keep = slice(None) if column.present is None else column.present
    return list(zip(table.steps[keep].tolist(), column.values[keep].tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "decimals"),
    [
        ("3.2", 1),
        ("3", 0),
        ("3.200000", 6),
        ("1.5E-02", 3),
        ("9.595978E+00", 6),
        ("1.024022E+01", 5),
        ("1e+30", 0),
        ("1e-300", 15),
        (".5", 1),
        ("nan", 0),
    ],
)
def test_decimals_that_a_number_shows(text: str, decimals: int) -> None:
    assert decimals_shown(text) == decimals


# -- Megatron


def test_megatron(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    run, table = only(MegatronReader().read(make_log(samples["megatron"])))
    assert series(table, "lm loss") == [(200, 10.24022), (400, 8.173834)]
    assert table.columns["lm loss"].decimals == 6
    assert series(table, "validation/loss") == [(100, 9.595978)]
    assert series(table, "learning rate") == [(200, 4.194e-05), (400, 8.389e-05)]
    assert series(table, "grad norm") == [(200, 2.471), (400, 0.441)]
    assert "samples per second" not in table.columns
    assert table.window == 200
    assert table.tokens is not None
    assert table.tokens[1:].tolist() == [25600 * 2048, 51200 * 2048]
    assert np.isnan(table.tokens[0])

    told = Metadata()
    told.learn(run.config, "log")
    assert told.facts == {
        "params": 354871296,
        "tokens": 73242187 * 2048,
        "batch_tokens": 512 * 2048,
        "seq_len": 2048,
        "total_steps": 148693,
        "seed": 1234,
        "lr": 0.0003,
        "beta2": 0.95,
        "tokenizer": "GPT2BPETokenizer",
    }


def test_megatron_without_arguments_and_with_newer_lines(make_log: MakeLog) -> None:
    text = (
        " [2026-05-01 10:00:00.123] iteration      100/  500000 | consumed samples:        25600 |"
        " elapsed time per iteration (ms): 1234.5 | throughput per GPU (TFLOP/s/GPU): 410.1 |"
        " learning rate: 1.000000E-05 | global batch size:   256 | lm loss: 9.100000E+00 |"
        " loss scale: 1.0 | grad norm: 1.234 | params norm: 100.5 | num zeros: 3 |\n"
        " validation loss at iteration 100 on validation set | lm loss value: 8.9E+00 |"
        " lm loss PPL: 7.33E+03 |\n"
        " validation loss at iteration 100 on test set | lm loss value: 8.8E+00 |\n"
        "  successfully loaded checkpoint from ckpt/a [ t 1/2, p 1/1 ] at iteration 100\n"
    )
    log = make_log(text)
    assert MegatronReader().recognizes(log)
    run, table = only(MegatronReader().read(log))
    assert series(table, "lm loss") == [(100, 9.1)]
    assert series(table, "validation/loss") == [(100, 8.9)]
    assert series(table, "validation/perplexity") == [(100, 7330.0)]
    assert series(table, "test/loss") == [(100, 8.8)]
    assert series(table, "params norm") == [(100, 100.5)]
    assert not {n for n in table.columns if "time" in n or "FLOP" in n}
    assert run.resumed_from == "ckpt/a at iteration 100"
    # no sequence length: samples are not tokens
    assert table.tokens is None


@pytest.mark.parametrize(
    ("names", "rank"), [("tensor, pipeline", "{}, 0"), ("tensor, gtp_remat, pipeline", "{}, 0, 0")]
)
def test_megatron_parameters_of_split_models(make_log: MakeLog, names: str, rank: str) -> None:
    def text(ranks: int, told: int) -> str:
        return (
            "------------ arguments ------------\n"
            f"  tensor_model_parallel_size ........ {ranks}\n"
            "-------- end of arguments ---------\n"
        ) + "".join(
            f" > number of parameters on ({names}) model parallel rank ({rank.format(i)}): 10\n"
            for i in range(told)
        )

    run, _ = only(MegatronReader().read(make_log(text(4, 4))))
    assert run.config["num_parameters"] == 40
    run, _ = only(MegatronReader().read(make_log(text(4, 1))))
    assert "num_parameters" not in run.config


def test_megatron_restart_in_one_file(make_log: MakeLog) -> None:
    def line(step: int, loss: float) -> str:
        return f"iteration {step}/ 900 | consumed samples: {step} | lm loss: {loss:.6E} |\n"

    text = "".join(line(s, 9 - s / 100) for s in (100, 200, 300))
    text += "".join(line(s, 5.0) for s in (200, 300, 400))
    _, table = only(MegatronReader().read(make_log(text)))
    repaired = repair(table, Policy())
    assert repaired.boundaries == [200]
    made = repaired.series["lm loss"]
    assert made.steps.tolist() == [100, 200, 300, 400]
    assert made.values.tolist() == [8.0, 5.0, 5.0, 5.0]
    assert made.decimals == 6


# -- Cerebras


def test_cerebras(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    run, table = only(CerebrasReader().read(make_log(samples["cerebras"])))
    assert series(table, "loss") == [(50, 7.9), (100, 7.25)]
    assert table.columns["loss"].decimals == 5
    assert series(table, "eval_loss") == [(100, 7.123456)]
    assert set(table.columns) == {"loss", "eval_loss"}
    assert run.config == {"device": "CSX", "global_batch_size": 1024}


def test_cerebras_survey_line(make_log: MakeLog) -> None:
    log = make_log("| Train Device=CSX, Step=50, Loss=7.90000, Rate=1.5, GlobalRate=1.5\n")
    assert CerebrasReader().recognizes(log)
    _, table = only(CerebrasReader().read(log))
    assert series(table, "loss") == [(50, 7.9)]


def test_cerebras_that_stopped_at_once(make_log: MakeLog) -> None:
    run, _ = only(
        CerebrasReader().read(
            make_log("| Train Device=CSX, Step=0, Loss=9.00000\nProcessed 8 sample(s) in 1 s.\n")
        )
    )
    assert "global_batch_size" not in run.config


def test_cerebras_before_commas(make_log: MakeLog) -> None:
    log = make_log("INFO: | Train Device=xla:0 Step=50 Loss=8.31250 Rate=69.37 GlobalRate=69.37\n")
    assert CerebrasReader().recognizes(log)
    run, table = only(CerebrasReader().read(log))
    assert series(table, "loss") == [(50, 8.3125)]
    assert run.config["device"] == "xla:0"


def test_cerebras_metrics_and_resumption(make_log: MakeLog) -> None:
    run, table = only(
        CerebrasReader().read(
            make_log(
                "INFO: Loading weights from checkpoint ./model_dir/checkpoint_1000.mdl\n"
                "| Train Device=CSX, Step=1050, Loss=nan, Rate=1, GlobalRate=1\n"
                "| Eval Device=CSX, GlobalStep=1050, Batch=3, Loss=2.00000, Rate=1, GlobalRate=1\n"
                "Avg eval_loss = 3.5\n"
                "    - eval/lm_perplexity = 33.1\n"
                "INFO: Saved checkpoint ./model_dir/checkpoint_1050.mdl\n"
                "Processed 51200 training sample(s) in 3 seconds.\n"
            )
        )
    )
    assert run.resumed_from == "./model_dir/checkpoint_1000.mdl"
    assert np.isnan(table.columns["loss"].values[0])
    assert series(table, "eval_loss") == [(1050, 3.5)]
    assert series(table, "eval/lm_perplexity") == [(1050, 33.1)]
    # a resumed run's samples are not those of its steps
    assert "global_batch_size" not in run.config


def test_cerebras_head_full_of_the_compiler(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    head, _, rest = samples["cerebras"].partition(b"2024-03-14 03:20")
    log = make_log(head + b"INFO: compiling\n" * 10_000 + b"2024-03-14 03:20" + rest)
    assert CerebrasReader().recognizes(log)
    _, table = only(CerebrasReader().read(log))
    assert len(table.columns["loss"].values) == 3


PARAMETERS = """\
trainer:
  init:
    seed: 7
    backend: {backend_type: CSX}
    model: {name: gpt3, hidden_size: 768, max_position_embeddings: 2048, vocab_size: 50257}
    optimizer: {AdamW: {betas: [0.9, 0.95], eps: 1.0e-16, weight_decay: 0.1}}
    schedulers:
    - SequentialLR:
        schedulers:
        - LinearLR: {initial_learning_rate: 0.0, end_learning_rate: 0.015, total_iters: 375}
        - LinearLR: {initial_learning_rate: 0.015, end_learning_rate: 0.0, total_iters: 3380}
    - ConstantWD: {val: 0.3, param_group_tags: hidden}
    loop: {max_steps: 3755, eval_frequency: 500}
  fit:
    train_dataloader: {data_processor: GptHDF5MapDataProcessor, batch_size: 176}
"""


def test_cerebras_run_folder(tmp_path: Path, open_log: Callable[[Path], Log]) -> None:
    (tmp_path / "20260101_000000").mkdir()
    (tmp_path / "20260101_000000" / "trainer_params.yaml").write_text(PARAMETERS)
    log = tmp_path / "cerebras_logs" / "20260101_000000" / "run.log"
    log.parent.mkdir(parents=True)
    log.write_text("| Train Device=CSX, Step=50, Loss=7.90000, Rate=1, GlobalRate=1\n")
    (tmp_path / "cerebras_logs" / "latest").symlink_to("20260101_000000")
    for path in (log, tmp_path / "cerebras_logs" / "latest" / "run.log"):
        run, _ = only(CerebrasReader().read(open_log(path)))
        told = Metadata()
        told.learn(run.config, "log")
        assert told.facts == {
            "seq_len": 2048,
            "batch_tokens": 176 * 2048,
            "total_steps": 3755,
            "warmup_steps": 375,
            "seed": 7,
            "lr": 0.015,
            "min_lr": 0.0,
            "weight_decay": 0.1,
            "beta1": 0.9,
            "beta2": 0.95,
            "eps": 1e-16,
            "optimizer": "AdamW",
            "schedule": "LinearLR+LinearLR",
        }


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"trainer": None},
        {"trainer": [3]},
        {"trainer": {"init": 3}},
        {"trainer": {"init": {"schedulers": [[[{"a": {"learning_rate": "x"}}]]]}}},
    ],
)
def test_cerebras_odd_parameters_say_nothing(value: object) -> None:
    assert run_parameters(value) == {}


# -- nanoGPT, llm.c, modded-nanoGPT


def test_nanogpt(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    run, table = only(NanoGptReader().read(make_log(samples["nanogpt"])))
    assert series(table, "loss") == [(0, 10.9886), (10, 9.7)]
    assert series(table, "val_loss") == [(0, 10.9898)]
    assert series(table, "eval/train/loss") == [(0, 10.9883)]
    assert table.columns["loss"].decimals == 4
    assert run.config == {"tokens_per_step": 491520, "num_parameters": 124318464 + 121344}


def test_nanogpt_overrides(make_log: MakeLog) -> None:
    run, _ = only(
        NanoGptReader().read(
            make_log(
                "Overriding: learning_rate = 0.0006\nOverriding: dataset = openwebtext\n"
                "step 0: train loss 10.9883, val loss 10.9898\n"
            )
        )
    )
    assert run.config == {"learning_rate": 0.0006, "dataset": "openwebtext"}


def test_llmc_screen(make_log: MakeLog) -> None:
    def row(name: str, value: str) -> str:
        return f"| {name:21} | {value:50} |\n"

    text = (
        "+-----------------------+----------------------------------------------------+\n"
        + row("Parameter", "Value")
        + row("sequence length T", "1024")
        + row("total batch size", "524288")
        + row("LR scheduler", "cosine")
        + row("learning rate (LR)", "6.000000e-04")
        + row("weight decay", "1.000000e-01")
        + row("num_parameters", "124475904")
        + "val loss 11.009\n"
        "step    1/19560 | loss 11.009136 (+nanz)| norm 15.3659 (+nanz)| lr 8.57e-07 | 3 ms |\n"
        "step    2/19560 | loss 10.959641 (+0.12z)| norm 15.2 (-0.10z)| lr 1.71e-06 | 3 ms |\n"
        "val loss 10.9\n"
    )
    log = make_log(text)
    assert NanoGptReader().recognizes(log)
    run, table = only(NanoGptReader().read(log))
    assert series(table, "train_loss") == [(1, 11.009136), (2, 10.959641)]
    assert series(table, "grad_norm") == [(1, 15.3659), (2, 15.2)]
    assert series(table, "lr") == [(1, 8.57e-07), (2, 1.71e-06)]
    assert series(table, "val_loss") == [(0, 11.009), (2, 10.9)]
    assert run.config == {
        "sequence_length": 1024,
        "total_batch_size": 524288,
        "lr_scheduler": "cosine",
        "learning_rate": 6e-4,
        "weight_decay": 0.1,
        "num_parameters": 124475904,
        "total_steps": 19560,
    }


SOURCE = """\
import os
import torch

@dataclass
class Hyperparameters:
    # data
    input_bin : str = 'data/fineweb10B/fineweb_train_*.bin' # input .bin to train on
    batch_size : int = 8*64 # batch size, in sequences, across all devices
    device_batch_size : int = 64 # batch size, in sequences, per device
    sequence_length : int = 1024 # sequence length, in tokens
    num_iterations : int = 5100 # number of iterations to run
    learning_rate : float = 0.0036
    weight_decay : float = 0
    nothing : int = 'x' * 10**9
args = Hyperparameters()
"""


def test_modded_nanogpt_prints_its_source_first(make_log: MakeLog) -> None:
    steps = "".join(f"step:{i}/5100 train_loss:{9 - i / 10:.4f} train_time:3ms\n" for i in range(9))
    log = make_log(SOURCE + "# filler\n" * 20_000 + "=" * 100 + "\n" + steps)
    assert NanoGptReader().recognizes(log)
    run, table = only(NanoGptReader().read(log))
    assert len(table.steps) == 9
    told = Metadata()
    told.learn(run.config, "log")
    told.derive()
    assert told.facts == {
        "batch_tokens": 8 * 64 * 1024,
        "seq_len": 1024,
        "total_steps": 5100,
        "lr": 0.0036,
        "weight_decay": 0.0,
        "tokens": 8 * 64 * 1024 * 5100,
    }


def test_code_without_steps_is_no_log(make_log: MakeLog) -> None:
    assert not NanoGptReader().recognizes(make_log(SOURCE * 200))
    assert not NanoGptReader().recognizes(make_log("iter 1: loss 2, and so on\nfoo\nbar\n"))


def test_build_nanogpt(make_log: MakeLog) -> None:
    log = make_log("0 val 10.9511\n0 hella 0.2463\n0 train 10.955029\n1 train 10.600000\n")
    assert NanoGptReader().recognizes(log)
    _, table = only(NanoGptReader().read(log))
    assert series(table, "train_loss") == [(0, 10.955029), (1, 10.6)]
    assert table.columns["train_loss"].decimals == 6
    assert series(table, "val_loss") == [(0, 10.9511)]
    assert series(table, "eval/hellaswag/accuracy") == [(0, 0.2463)]


def test_names_are_bounded(make_log: MakeLog) -> None:
    lines = "".join(f"step:{i}/9 train_loss:1 x{i}:1\n" for i in range(10_001))
    with pytest.raises(LogError, match="more than 10,000 different quantities"):
        NanoGptReader().read(make_log(lines))
    block = "----- arguments -----\n" + "".join(f" a{i} ...... 1\n" for i in range(20_000))
    run, _ = only(MegatronReader().read(make_log(block)))
    assert len(run.config) == 10_000


def test_a_cut_gzip_of_a_long_source_is_told(make_log: MakeLog) -> None:
    noise = "".join(f"# {i * 7919 % 1000003}\n" for i in range(40_000))
    data = gzip.compress((SOURCE + noise).encode())
    with pytest.raises(LogError, match="cut short"):
        NanoGptReader().recognizes(make_log(data[: len(data) * 3 // 4]))


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("data/a/cerebras_logs/2026/run.log", "data/a"),
        ("data/a/cerebras_logs/latest/run.log", "data/a"),
        ("a/cerebras_logs/2026/run.log", "a"),
        ("cerebras_logs/2026/run.log", "cerebras_logs/2026"),
        ("data/a/run.log", "data/a"),
    ],
)
def test_the_starts_of_a_run_folder_are_one_run(source: str, key: str) -> None:
    assert group_key(source) == key
