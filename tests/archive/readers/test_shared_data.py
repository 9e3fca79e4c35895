"""The readers on real logs: what the README beside the data states comes out."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.archive.metadata import Metadata
from planner.archive.policies import Policy, Repaired, Series, repair
from planner.archive.readers import Log, choose
from planner.archive.record import LoggedRun

pytestmark = pytest.mark.data

OpenLog = Callable[[Path], Log]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read(path: Path, open_log: OpenLog) -> list[LoggedRun]:
    log = open_log(path)
    reader = choose(log)
    assert reader is not None, path
    return reader.read(log)


def only(path: Path, open_log: OpenLog) -> LoggedRun:
    (run,) = read(path, open_log)
    return run


def repaired(run: LoggedRun) -> tuple[dict[str, Series], list[Repaired]]:
    done = [repair(table, Policy()) for table in run.tables]
    return {name: made for one in done for name, made in one.series.items()}, done


def facts(run: LoggedRun) -> dict[str, Any]:
    told = Metadata()
    told.learn(run.config, "log")
    told.derive()
    return told.facts


CLAIMED = {
    "algoperf_wmt": {"csv": 14, "tensorboard": 7, None: 8},
    "chinchilla_svg": {None: 1},
    "formats": {
        "hf-trainer": 2,
        "jsonl": 2,
        "tensorboard": 2,
        "wandb-chart": 1,
        "wandb-runs": 1,
        None: 5,
    },
    "megatron_blowups": {"megatron": 7, None: 1},
    "multipowerlaw": {"csv": 18, None: 1},
    "nanogpt_speedrun": {"nanogpt": 8, None: 1},
    "olmo_ladder": {"wandb-history": 20, None: 1},
    "overtrain_testbed": {None: 3},
    "wsd_cosine_llama": {"wandb-dump": 91, None: 2},
}


def test_each_file_is_claimed_by_its_reader_alone(data_dir: Path, open_log: OpenLog) -> None:
    claimed: dict[str, Counter[str | None]] = {}
    for folder in sorted(path for path in data_dir.iterdir() if path.is_dir()):
        count: Counter[str | None] = Counter()
        for path in files(folder):
            reader = choose(open_log(path))
            count[reader and reader.name] += 1
            if path.stem in ("LICENSE", "README", "hparams", "grid", "models_c4", "index"):
                assert reader is None, path
        claimed[folder.name] = count
    # another folder of data is another test's
    assert {name: dict(claimed[name]) for name in CLAIMED} == CLAIMED
    assert choose(open_log(data_dir / "README.md")) is None


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100),
        b"# A title\n\nSome prose, with commas, and a step: 1.\n",
        b"PK\x03\x04" + bytes(200),
        b"#!/bin/bash\nfor step in 1 2 3; do echo $step, loss; done\n",
        b"import os, sys\nstep, loss = 1, 2\n",
        b'{"model_type": "llama", "hidden_size": 768}',
        b"<html><body>step,loss</body></html>",
    ],
)
def test_other_files_are_claimed_by_none(content: bytes, make_log: Callable[..., Log]) -> None:
    assert choose(make_log(content)) is None


# -- olmo_ladder

PARAMS = {"190M": 190354176, "370M": 371262464, "760M": 758220288, "1B": 1279395840}
C4 = "eval/c4_en-validation/CrossEntropyLoss"


def test_olmo_ladder(data_dir: Path, open_log: OpenLog) -> None:
    finals, points = {}, []
    runs = files(data_dir / "olmo_ladder")
    for path in (path for path in runs if path.suffix == ".csv"):
        run = only(path, open_log)
        (table,) = run.tables
        size, multiple, *_ = path.stem.split("-")
        points.append(len(table.steps))
        finals[path.stem] = table.columns[C4].values[-1]
        assert table.tokens is not None
        wanted = float(multiple.removesuffix("xC")) * 20 * PARAMS[size]
        assert table.tokens[-1] == pytest.approx(wanted, rel=0.01)
        assert len([n for n in table.columns if n.endswith("CrossEntropyLoss")]) == 11
        told = facts(run)
        assert told["lr"] == pytest.approx(table.columns["learning_rate_peak"].values[0])
        assert table.tokens[-1] == pytest.approx(table.steps[-1] * told["batch_tokens"], rel=0.01)
    assert len(points) == 20
    assert (min(points), max(points)) == (37, 163)
    expected = {"190M-1xC": 3.601, "370M-1xC": 3.394, "760M-1xC": 3.202, "1B-1xC": 3.063}
    assert {name: round(finals[name], 3) for name in expected} == expected


# -- wsd_cosine_llama


def test_wsd_cosine_llama(data_dir: Path, open_log: OpenLog) -> None:
    folder = data_dir / "wsd_cosine_llama"
    with open(folder / "index.csv", encoding="utf-8") as stream:
        index = list(csv.DictReader(stream))
    assert len(index) == 91
    resumed = named = 0
    for row in index:
        run = only(folder / row["file"], open_log)
        # five names tell another decay than the files do
        named += run.name == Path(row["file"]).name.removesuffix(".json.gz")
        series, done = repaired(run)
        train = next(table for table in run.tables if "train_loss" in table.columns)
        assert len(train.steps) == int(row["n_train_points"])
        made = series["train_loss"]
        assert made.steps[0] == int(row["first_logged_iter"])
        assert made.steps[-1] == int(row["max_logged_iter"])
        assert (np.diff(made.steps) > 0).all()
        unsorted = any(one.out_of_order or one.boundaries for one in done)
        assert unsorted == (row["sorted_iters"] == "False")
        resumed += unsorted
        if row["final_val_loss"]:
            final = float(series["final_val_loss"].values[-1])
            assert final == pytest.approx(float(row["final_val_loss"]), rel=1e-14)
        told = facts(run)
        assert told["params"] == int(row["params"])
        assert told["batch_tokens"] == int(row["tokens_per_step"])
        assert told["total_steps"] == int(row["iterations"])
        assert told["warmup_steps"] == int(row["warmup_steps"])
        assert told["lr"] == float(row["peak_lr"])
        assert told["weight_decay"] == 0.1
        assert told["tokenizer"] == "gpt2"
        assert told["tau"] == pytest.approx(float(row["tau"]), rel=1e-4)
        assert told["tpp"] == pytest.approx(float(row["tokens_per_param"]), abs=0.01)
        if "lr0.005" in row["file"]:
            val = series["val_loss"]
            assert round(float(val.values[val.steps == 400][0]), 2) == 4.87
            assert round(float(val.values[-1]), 2) == 7.55
            assert final == pytest.approx(7.58, abs=0.01)
    assert resumed == 8
    assert named == 86


# -- multipowerlaw


def test_multipowerlaw(data_dir: Path, open_log: OpenLog) -> None:
    finals = {}
    for path in files(data_dir / "multipowerlaw"):
        if path.suffix != ".csv":
            continue
        (table,) = only(path, open_log).tables
        assert set(table.columns) == {"lr", "loss"}
        # one row is off where two parts meet
        assert (np.diff(table.steps) != 128).sum() <= 1
        assert table.steps[0] in (2160, 2176)
        finals[path.parent.name, path.stem] = float(table.columns["loss"].values[-1])
    assert len(finals) == 18
    for name, small, large in (
        ("cosine_72000", 3.204, 2.863),
        ("cosine_24000", 3.304, 2.979),
        ("constant_72000", 3.257, 2.941),
        ("wsd_20000_24000", 3.277, 2.951),
    ):
        assert finals["csv_25", name] == pytest.approx(small, abs=6e-4)
        assert finals["csv_100", name] == pytest.approx(large, abs=6e-4)


# -- nanogpt_speedrun

SPEEDRUN = {
    "2024-06-06_AdamW": (9536, 9536, 3.276, 6),
    "2024-10-13_llmc": (19560, 19560, 3.272, 4),
    "2024-10-09_SOAP": (6000, 6000, 3.2763, 4),
    "2024-10-10_Muon": (6200, 6200, 3.2785, 4),
    "2024-10-29_Optimizers_Adam": (5100, 5100, 3.3406, 4),
    "2024-10-29_Optimizers_DistributedShampoo": (5100, 5100, 3.2858, 4),
    "2024-10-29_Optimizers_SOAP": (5100, 5100, 3.2752, 4),
    "2024-10-29_Optimizers_Muon": (5100, 5100, 3.276, 4),
}


@pytest.mark.parametrize("name", SPEEDRUN)
def test_nanogpt_speedrun(name: str, data_dir: Path, open_log: OpenLog) -> None:
    points, last, final, decimals = SPEEDRUN[name]
    (path,) = (data_dir / "nanogpt_speedrun").glob(f"{name}_124M*")
    series, done = repaired(only(path, open_log))
    train, val = series["train_loss"], series["val_loss"]
    assert len(train.steps) == points
    assert val.steps[-1] == last
    assert float(val.values[-1]) == pytest.approx(final, abs=5e-4)
    assert (train.decimals, val.decimals) == (decimals, decimals)
    assert all(not one.boundaries for one in done)
    if "llmc" in name:
        assert len(series["lr"].steps) == len(series["norm"].steps) == points


# -- megatron_blowups


def test_megatron_blowups(data_dir: Path, open_log: OpenLog) -> None:
    runs = {
        path.stem: only(path, open_log)
        for path in files(data_dir / "megatron_blowups")
        if path.suffix == ".out"
    }
    assert len(runs) == 7
    for name, run in runs.items():
        series, done = repaired(run)
        assert (np.diff(series["lm loss"].steps) == 200).all()
        assert (np.diff(series["validation/loss"].steps) == 100).all()
        assert series["lm loss"].window == 200
        assert series["validation/loss"].window is None
        assert series["lm loss"].decimals == 6
        assert ("loss scale" in series) == ("bf16" not in name and "fp32" not in name)
        assert ("grad norm" in series) == ("fp32" not in name)
        told = facts(run)
        assert told["params"] == (353824768 if "alibi" in name else 355919872)
        assert told["seq_len"] == 2048
        assert told["weight_decay"] == 0.1
        assert told["total_steps"] == 148693
        # the batch was ramped up: D is not B times T
        assert told["tokens"] == 73242187 * 2048
        (table,) = run.tables
        assert table.tokens is not None
        samples = table.columns["consumed samples"]
        assert samples.present is not None
        seen = table.tokens[samples.present]
        assert seen.tolist() == (samples.values[samples.present] * 2048).tolist()
        assert all(not one.boundaries for one in done)

    blown, _ = repaired(runs["blowup-4-alibi-nods-1814186"])
    loss = dict(zip(blown["lm loss"].steps.tolist(), blown["lm loss"].values, strict=True))
    assert round(loss[1000], 2) == 5.95
    assert round(loss[1600], 1) == 11.1
    assert round(loss[1800], 1) == 15.7
    norms = [repaired(run)[0].get("grad norm") for run in runs.values()]
    assert max(float(n.values.max()) for n in norms if n is not None) > 1e4


# -- algoperf_wmt

FINALS = [1.504, 1.600, 1.410, 1.414, 1.360]


def trials(data_dir: Path) -> list[Path]:
    return sorted(path.parent for path in (data_dir / "algoperf_wmt").rglob("hparams.json"))


def test_algoperf_events_and_csv_agree(data_dir: Path, open_log: OpenLog) -> None:
    assert len(trials(data_dir)) == 7
    for folder in trials(data_dir):
        (path,) = folder.glob("events.out.tfevents.*")
        events, _ = repaired(only(path, open_log))
        # the CSV's empty training cells are rows of evaluations
        table, _ = repaired(only(folder / "measurements.csv", open_log))
        evaluations, _ = repaired(only(folder / "eval_measurements.csv", open_log))
        for name, source in (
            ("loss", table),
            ("grad_norm", table),
            ("validation/loss", evaluations),
            ("train/loss", evaluations),
        ):
            ours, theirs = events[name], source[name]
            # where a value is not a number, the CSV holds nothing
            finite = np.isfinite(ours.values)
            assert ours.steps[finite].tolist() == theirs.steps.tolist(), (folder, name)
            np.testing.assert_allclose(ours.values[finite], theirs.values, rtol=2e-6)


def test_algoperf_facts(data_dir: Path, open_log: OpenLog) -> None:
    finals = []
    for folder in trials(data_dir):
        (path,) = folder.glob("events.out.tfevents.*")
        series, _ = repaired(only(path, open_log))
        name = folder.relative_to(data_dir / "algoperf_wmt").as_posix()
        if name.startswith("baseline"):
            finals.append(round(float(series["validation/loss"].values[-1]), 3))
            assert set(np.diff(series["loss"].steps)) == {100}
        elif name.startswith("generalized_adam"):
            assert (series["loss"].steps[0], series["loss"].steps[-1]) == (0, 99)
            assert series["validation/loss"].nonfinite > 0
        else:
            assert series["validation/loss"].values[-1] == pytest.approx(5.1, abs=0.1)
            assert round(float(series["grad_norm"].values.max())) == 476
    assert finals == FINALS


# -- formats


def test_wandb_chart(data_dir: Path, open_log: OpenLog) -> None:
    (path,) = (data_dir / "formats" / "wandb_ui_export").glob("*.csv")
    runs = read(path, open_log)
    assert [run.label for run in runs] == [f"Group: k_is_{k}" for k in range(10, 0, -1)]
    for run in runs:
        (table,) = run.tables
        # each group is one run: its band is its line
        assert list(table.columns) == ["test-tokens/avg_loss"]
        assert len(table.steps) == 10
        assert table.steps[0] == 204800
    assert runs[0].tables[0].columns["test-tokens/avg_loss"].values[0] == 7.953187465667725


def test_wandb_runs(data_dir: Path, open_log: OpenLog) -> None:
    (path,) = (data_dir / "formats" / "wandb_runs_table").glob("*.csv")
    runs = read(path, open_log)
    assert len(runs) == 64
    assert len({run.label for run in runs}) == 64
    first = runs[0]
    assert first.name == "G1_ternary_weights"
    assert first.tables[0].steps.tolist() == [5000]
    assert first.tables[0].columns["val/loss"].values.tolist() == [1.4786324501037598]
    told = facts(first)
    assert told["params"] == 10745088
    assert told["lr"] == 0.001
    assert told["min_lr"] == 0.0001
    assert told["total_steps"] == 5000
    assert told["seq_len"] == 256
    assert told["seed"] == 6242


def test_hf_trainer_states(data_dir: Path, open_log: OpenLog) -> None:
    folder = data_dir / "formats"
    run = only(folder / "hf_trainer_state_finetune" / "trainer_state.json", open_log)
    (table,) = run.tables
    assert len(table.steps) == 24_000
    assert table.columns["loss"].values[-1] == 0.0996
    assert table.window == 1
    assert facts(run)["total_steps"] == 155_800
    assert repaired(run)[0]["loss"].decimals == 4

    whisper = only(folder / "hf_trainer_state_whisper" / "trainer_state.json", open_log)
    series, _ = repaired(whisper)
    assert len(series["loss"].steps) == 200
    assert len(series["eval_loss"].steps) == 5
    assert series["eval_loss"].values[-1] == 0.4200145900249481
    assert series["loss"].window == 25
    assert whisper.config["summary/train_loss"] == 0.01890342615880072


def test_jsonl(data_dir: Path, open_log: OpenLog) -> None:
    path = data_dir / "formats" / "jsonl_nmt" / "train_log.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [record["step"] for record in records if "loss" in record and "step" in record]
    series, _ = repaired(only(path, open_log))
    loss = series["loss"]
    # one step is repeated
    assert len(loss.steps) == len(set(steps)) == len(steps) - 1
    assert loss.decimals == 5


def test_tensorboard_of_the_first_version(data_dir: Path, open_log: OpenLog) -> None:
    folder = data_dir / "formats" / "tensorboard_v1"
    (lax,) = (folder / "lax").rglob("events.*")
    (twice,) = (folder / "duplicate_steps").rglob("events.*")
    series, _ = repaired(only(lax, open_log))
    assert {"lax/foo", "lax/bar_1", "lax/bar_2"} <= set(series)
    run = only(twice, open_log)
    assert any(len(set(t.steps.tolist())) < len(t.steps) for t in run.tables)
    again, _ = repaired(run)
    assert all((np.diff(made.steps) > 0).all() for made in again.values())
