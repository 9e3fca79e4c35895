"""No bytes crash, hang or mislead a reader: it returns runs or says why not."""

from __future__ import annotations

import gzip
import random
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.archive.errors import LogError
from planner.archive.policies import Policy, repair
from planner.archive.readers import Log, choose, reader_named, reader_names
from planner.archive.record import LoggedRun

MakeLog = Callable[..., Log]

NAMES = (
    "tensorboard",
    "hf-trainer",
    "wandb-dump",
    "jsonl",
    "megatron",
    "cerebras",
    "nanogpt",
    "wandb-runs",
    "wandb-chart",
    "wandb-history",
    "csv",
)


def sound(runs: list[LoggedRun]) -> None:
    """Hold runs to what the archive relies on."""
    assert len({run.label for run in runs}) == len(runs)
    for run in runs:
        for table in run.tables:
            rows = len(table.steps)
            assert table.steps.dtype == np.int64
            assert table.tokens is None or table.tokens.shape == (rows,)
            assert table.window is None or table.window > 0
            for name, column in table.columns.items():
                assert isinstance(name, str)
                assert column.values.dtype == np.float64
                assert column.values.shape == (rows,)
                if column.present is not None:
                    assert column.present.dtype == np.bool_
                    assert column.present.shape == (rows,)
                assert column.decimals is None or 0 <= column.decimals <= 15
            repair(table, Policy())


def attempt(name: str, log: Log) -> None:
    """Read whatever it is, as a plug-in or a mapping file may ask for."""
    reader = reader_named(name)
    refused = ""
    try:
        assert reader.recognizes(log) in (True, False)
        sound(reader.read(log))
    except LogError as error:
        refused = str(error)
    assert "\n" not in refused


def test_every_reader_is_fuzzed() -> None:
    # a run table is read only by a mapping: test_run_table.py fuzzes it
    assert {*NAMES, "run-table"} == set(reader_names())


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_read_by_its_own_reader(
    name: str, samples: dict[str, bytes], make_log: MakeLog
) -> None:
    log = make_log(samples[name])
    chosen = choose(log)
    assert chosen is not None
    assert chosen.name == name
    runs = chosen.read(log)
    sound(runs)
    assert any(len(table.steps) for run in runs for table in run.tables)


def told(runs: list[LoggedRun]) -> list[object]:
    return [
        (
            run.label,
            run.config,
            [
                (t.steps.tolist(), {n: c.values.tobytes() for n, c in t.columns.items()})
                for t in run.tables
            ],
        )
        for run in runs
    ]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


VARIANTS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "no last line end": lambda data: data.rstrip(b"\n"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_packed_and_otherwise_encoded_logs_are_the_same(
    name: str, variant: str, samples: dict[str, bytes], make_log: MakeLog
) -> None:
    if name == "tensorboard" and variant not in ("gzip", "zstd"):
        pytest.skip("no text")
    log = make_log(VARIANTS[variant](samples[name]))
    chosen = choose(log)
    assert chosen is not None
    assert chosen.name == name
    assert told(chosen.read(log)) == told(chosen.read(make_log(samples[name])))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=2000))
@settings(max_examples=30)
def test_noise(name: str, data: bytes, make_log: MakeLog) -> None:
    attempt(name, make_log(data))


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(max_size=500))
@settings(max_examples=25)
def test_text(name: str, text: str, make_log: MakeLog) -> None:
    attempt(name, make_log(text.encode("utf-8", "surrogatepass")))


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_mutations(name: str, seed: int, samples: dict[str, bytes], make_log: MakeLog) -> None:
    rng = random.Random(seed)
    data = bytearray(samples[name])
    tokens = [b"nan", b"inf", b"-", b"1e999", b"9" * 30, b"null", b"{", b"[", b'"', b",", b"\n"]
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randint(0, 40))
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at:at] = data[at:end]
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = rng.choice(tokens)
        else:
            del data[at:]
    attempt(name, make_log(bytes(data)))


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation(name: str, samples: dict[str, bytes], make_log: MakeLog) -> None:
    data = samples[name]
    for size in range(0, len(data), max(1, len(data) // 80)):
        attempt(name, make_log(data[:size]))


HOSTILE = {
    "nested arrays": b"[" * 500_000,
    "nested objects": b'{"log_history":' * 200_000,
    "nested history": b'{"config": {}, "summary": {}, "history": ' + b"[" * 100_000,
    "one quote each": b'{"' + b'\\"' * 300_000,
    "a line without end": b"step:1/2 train_loss:" + b"1" * 3_000_000,
    "word characters": b"step:1/2 val_loss:1 " + b"a" * 3_000_000,
    "pairs": b"| Train Device=CSX, Step=1, " + b"a" * 3_000_000,
    "spaces": b"iteration 1/ 2 |" + b" " * 3_000_000 + b"lm loss: 1 |",
    "many long lines": (b"iteration 1/ 2 | " + b"loss a" * 1000 + b"\n") * 500,
    "many loads": (b"successfully loaded checkpoint from " * 200 + b"\n") * 500,
    "checkpoints": (b"load " + b"checkpoint_" * 700 + b"\n") * 500,
    "table rows": (b"| a" + b" " * 100 + b"| b" + b" " * 300 + b"\n") * 5000,
    "a million columns": b"step," + b"a," * 1_000_000 + b"b\n1," + b"1," * 1_000_000 + b"1\n",
    "long literal": b'config,summary,name\n"' + b"{" * 100_000 + b'","{}",a\n',
    "deep literal": b"config,summary,name\n\"{'a':" + b"[" * 150 + b"]" * 150 + b'}","{}",a\n',
    "minus signs": b"config,summary,name\n\"{'a':" + b"-" * 50_000 + b'1}","{}",a\n',
    "huge integer": b'{"step": ' + b"9" * 100_000 + b', "loss": 1}\n',
    "empty": b"",
    "a claimed length": b"\xff" * 8 + b"\0" * 100,
    "zeros": b"\0" * 3_000_000,
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("name", NAMES)
def test_hostile_input_takes_no_time(name: str, what: str, make_log: MakeLog) -> None:
    started = time.process_time()
    attempt(name, make_log(HOSTILE[what]))
    assert time.process_time() - started < 5


def test_a_document_of_many_values_is_refused_before_it_takes_memory(make_log: MakeLog) -> None:
    log = make_log(b'{"global_step": 1, "log_history": [' + b"{}," * 12_000_000 + b"{}]}")
    tracemalloc.start()
    with pytest.raises(LogError, match="holds more than 8,000,000 values"):
        reader_named("hf-trainer").read(log)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


def test_a_table_that_is_mostly_empty_is_refused(make_log: MakeLog) -> None:
    # each line logs a quantity of its own: what is held is rows times quantities
    lines = b"".join(b'{"step": %d, "x%d": 1}\n' % (i, i) for i in range(9_000))
    lines += b"".join(b'{"step": %d, "x0": 1}\n' % i for i in range(9_000))
    with pytest.raises(LogError, match="18,000 rows of 9,000 quantities"):
        reader_named("jsonl").read(make_log(lines))


def test_a_table_of_runs_of_many_cells_is_refused(make_log: MakeLog) -> None:
    text = b"Name,State,Created,Tags\n" + b"a,b,c,d\n" * 1_100_000
    with pytest.raises(LogError, match="more than 4,000,000 cells"):
        reader_named("wandb-runs").read(make_log(text))


@given(names=st.lists(st.sampled_from(["a", "a.1", "a.2", "a.1.1", "b", " "]), max_size=6))
def test_columns_of_the_same_name_are_told_apart(names: list[str], make_log: MakeLog) -> None:
    header = ",".join(["step", *names])
    rows = "".join(",".join(str(i) for _ in range(len(names) + 1)) + "\n" for i in range(3))
    log = make_log(f"{header}\n{rows}")
    if names and " " not in names:
        (run,) = reader_named("csv").read(log)
        assert len(run.tables[0].columns) == len(names)
    attempt("csv", log)
