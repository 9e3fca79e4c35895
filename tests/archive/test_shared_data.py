"""The shared data is read without configuration, but for one mapping file; its facts come out."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from planner.archive import Archive, ingest, list_runs, read_mapping

ROOT = Path(__file__).resolve().parents[2]
MAPPINGS = ROOT / "examples" / "mappings"
LADDER = ROOT / "examples" / "mappings" / "olmo_ladder.yaml"
C4 = "eval/c4_en-validation/loss"

pytestmark = pytest.mark.data


def runs_of(folder: Path, tmp_path: Path, mapping: Path | None = None) -> dict[str, dict[str, Any]]:
    report = ingest(
        [folder], tmp_path / "archive", mapping=read_mapping(mapping) if mapping else None
    )
    assert report.ok, report.failed
    return {run["name"]: run for run in list_runs(Archive(tmp_path / "archive"))}


def last(run: dict[str, Any], series: str) -> float:
    return next(float(s["last"]) for s in run["series"] if s["name"] == series)


def test_olmo_ladder(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "olmo_ladder", tmp_path, LADDER)
    assert len(runs) == 20
    sizes = {"190M": 190354176, "370M": 371262464, "760M": 758220288, "1B": 1279395840}
    tau = {"0.5xC": (2.4, 2.8), "1xC": (1.19, 1.41), "2xC": (0.60, 0.71), "5xC": (0.24, 0.28)}
    tpp = {"0.5xC": 10, "1xC": 20, "2xC": 40, "5xC": 100}
    for name, run in runs.items():
        size, multiple = name.split("-")[:2]
        assert (run["params"], run["tpp"]) == (sizes[size], tpp[multiple])
        assert run["tokens"] == tpp[multiple] * sizes[size]
        assert (
            sum(
                s["name"].startswith("eval/") and s["name"].endswith("/loss") for s in run["series"]
            )
            == 11
        )
        low, high = tau[multiple]
        assert 0.988 * low <= run["tau"] <= 1.012 * high
        assert run["seq_len"] == 4096
        assert run["metric"] is None
    finals = [round(last(runs[f"{size}-1xC"], C4), 3) for size in sizes]
    assert finals == [3.601, 3.394, 3.202, 3.063]


def test_olmo_ladder_tokens_are_of_the_points(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "olmo_ladder", tmp_path, LADDER)
    run = runs["190M-1xC"]
    tokens = Archive(tmp_path / "archive").points([run["run"]], [C4]).column("tokens").to_pylist()
    assert len(tokens) == 37
    assert tokens[-1] == pytest.approx(20 * 190354176, rel=0.01)


def test_multipowerlaw(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "multipowerlaw", tmp_path)
    assert len(runs) == 18
    finals = {
        "cosine_72000": (3.204, 2.863),
        "cosine_24000": (3.304, 2.979),
        "constant_72000": (3.257, 2.941),
        "wsd_20000_24000": (3.277, 2.951),
    }
    for name, both in finals.items():
        for size, final in zip(("csv_25", "csv_100"), both, strict=True):
            assert runs[f"{size}/{name}"]["final"] == pytest.approx(final, abs=6e-4)
    for run in runs.values():
        assert run["lr"] == 3e-4
        steps = next(s for s in run["series"] if s["name"] == "train/loss")
        assert steps["first_step"] >= 2160
        assert steps["decimals"] == 4


def test_nanogpt_speedrun(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "nanogpt_speedrun", tmp_path)
    steps = {
        "2024-06-06_AdamW_124M": 9536,
        "2024-10-13_llmc_124M_main": 19560,
        "2024-10-09_SOAP_124M": 6000,
        "2024-10-10_Muon_124M": 6200,
    }
    steps |= {
        f"2024-10-29_Optimizers_{name}_124M": 5100
        for name in ("Adam", "DistributedShampoo", "SOAP", "Muon")
    }
    assert {name: run["last_step"] for name, run in runs.items()} == steps
    validation = "eval/validation/loss"
    assert last(runs["2024-06-06_AdamW_124M"], validation) == pytest.approx(3.276, abs=1e-3)
    llmc = runs["2024-10-13_llmc_124M_main"]
    assert last(llmc, validation) == pytest.approx(3.272, abs=1e-3)
    assert {"lr", "grad_norm"} <= {s["name"] for s in llmc["series"]}


def test_jsonl(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "formats" / "jsonl_nmt", tmp_path)
    assert len(runs) == 2
    run = runs["jsonl_nmt"]
    loss = next(s for s in run["series"] if s["name"] == "train/loss")
    assert loss["duplicates"] + loss["superseded"] >= 1


def test_wsd_cosine_llama(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "wsd_cosine_llama", tmp_path)
    assert len(runs) == 91
    assert sum(run["policy"]["out_of_order"] for run in runs.values()) == 8
    for name, run in runs.items():
        assert run["batch_tokens"] == 102_400, name
        assert run["tpp"] == pytest.approx(run["tokens"] / run["params"])
    (diverged,) = (run for name, run in runs.items() if "lr0.005" in name)
    assert last(diverged, "final_val_loss") == pytest.approx(7.58, abs=0.006)


def test_cooldowns_are_linked_to_the_runs_they_branch_off(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "wsd_cosine_llama", tmp_path)
    by_id = {run["run"]: run for run in runs.values()}
    late = [run for run in runs.values() if run["first_step"] > 1000]
    assert len(late) == 36
    for run in late:
        parent = by_id[run["parent_run"]]
        assert (parent["params"], parent["lr"]) == (run["params"], run["lr"])
        assert parent["parent_run"] is None
        assert run["branch_step"] == run["first_step"]
    assert all(run["parent_run"] is None for run in runs.values() if run not in late)
    whole = Archive(tmp_path / "archive").history(late[0]["run"], "train/loss")
    steps = whole.column("step").to_pylist()
    assert steps == sorted(set(steps))
    assert steps[0] == 50


def test_megatron_blowups(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "megatron_blowups", tmp_path)
    assert len(runs) == 7
    healthy = runs["blowup-4-alibi-nods-1814186"]
    table = Archive(tmp_path / "archive").points([healthy["run"]], ["train/loss"])
    at = dict(zip(*(table.column(name).to_pylist() for name in ("step", "value")), strict=True))
    assert at[1000] == pytest.approx(5.95, abs=0.01)
    assert at[1600] == pytest.approx(11.1, abs=0.05)
    assert at[1800] == pytest.approx(15.7, abs=0.05)


def test_algoperf_wmt(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "algoperf_wmt", tmp_path)
    assert len(runs) == 7
    validation = {1: 1.504, 2: 1.600, 3: 1.410, 4: 1.414, 5: 1.360}
    for trial, loss in validation.items():
        run = runs[f"baseline/wmt_jax/trial_{trial}"]
        assert last(run, "eval/validation/loss") == pytest.approx(loss, abs=6e-4)
        # TensorBoard and CSV agree: nothing is stitched, nothing differs
        assert run["readers"] == ["csv/2", "tensorboard/1"]
        assert not [note for note in run["notes"] if "differ" in note or "stitched" in note]
    nan = runs["generalized_adam/wmt_glu_tanh_jax/trial_1"]
    assert any(s["nonfinite"] for s in nan["series"] if s["name"] == "eval/validation/loss")
    never = runs["nadamp/wmt_glu_tanh_jax/trial_4"]
    assert last(never, "eval/validation/loss") == pytest.approx(5.1, abs=0.1)


def test_all_formats_in_one_ingest(data_dir: Path, tmp_path: Path) -> None:
    runs = runs_of(data_dir / "formats", tmp_path)
    assert len(runs) == 80
    readers = {name for run in runs.values() for name in run["readers"]}
    assert readers >= {"tensorboard/1", "hf-trainer/1", "jsonl/1", "wandb-runs/1", "wandb-chart/2"}


def test_the_table_in_the_docs_is_what_comes_out(data_dir: Path) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "shared_data_table.py"))
    page = tool["PAGE"].read_text(encoding="utf-8")
    written = page.partition(tool["START"])[2].partition(tool["END"])[0].strip()
    assert written == tool["table"](data_dir), "run tools/shared_data_table.py DATA --write"


def test_chinchilla_points(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "chinchilla_svg"
    runs = runs_of(folder, tmp_path, MAPPINGS / "chinchilla_svg.yaml")
    assert len(runs) == 245
    with open(folder / "svg_extracted_data.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows, 1):
        run = runs[f"svg_extracted_data/{number:03}"]
        n, c = float(row["Model Size"]), float(row["Training FLOP"])
        assert (run["params"], run["final"]) == (round(n), float(row["loss"]))
        assert run["tokens"] == pytest.approx(c / (6 * n), abs=1)
    # the five highest losses are commonly dropped: 240 are below the fifth largest
    finals = sorted((run["final"] for run in runs.values()), reverse=True)
    assert sum(final < finals[4] for final in finals) == 240


def test_overtrain_testbed(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "overtrain_testbed"
    runs = runs_of(folder, tmp_path, MAPPINGS / "overtrain_testbed.yaml")
    assert len(runs) == 34 + 435
    grid = {name: run for name, run in runs.items() if name.startswith("grid/")}
    values = json.loads((folder / "grid.json").read_text())
    assert {name.removeprefix("grid/"): run["final"] for name, run in grid.items()} == values
    assert {(run["lr"], run["weight_decay"]) for run in grid.values()} == {(0.003, 0.033)}
    for fact in ("batch_tokens", "tokens", "warmup_steps"):
        assert len({run[fact] for run in grid.values()}) > 1
    runs = {name: run for name, run in runs.items() if name not in grid}
    sizes = [run["params"] for run in runs.values()]
    assert (round(min(sizes) / 1e6, 1), round(max(sizes) / 1e9, 1)) == (10.6, 6.9)
    assert (min(run["tpp"] for run in runs.values()), max(run["tpp"] for run in runs.values())) == (
        pytest.approx(5),
        pytest.approx(640),
    )
    with open(folder / "models_c4.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        run = runs[f"models_c4/{row['name']}"]
        loss = float(row["loss__c4_val_shard_0000000_0000010_tar"])
        assert last(run, "eval/c4/loss") == loss
        assert run["tokens"] == 20 * float(row["chinchilla_multiplier"]) * run["params"]
        assert (run["lr"], run["weight_decay"]) == (
            float(row["peak_lr"]),
            float(row["weight_decay"]),
        )
    largest = runs["models_c4/c4_original-open_lm_7b-1.0"]
    assert (largest["batch_tokens"], largest["last_step"]) == (2048 * 2048, 32851)
