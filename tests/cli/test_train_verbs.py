"""prepare, train and coordinate-check from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SPEC = """
family: tiny
tpp: 0.5
sizes:
  - {name: small, d_model: 32, n_layers: 1, head_dim: 16}
  - {name: large, d_model: 64, n_layers: 2, head_dim: 16}
architecture: {vocab_size: 256, context: 16, ffn_multiplier: 2}
parametrization: {base_width: 32, base_depth: 1}
timescale: {value: 0.2}
batch: {value: 8 sequences}
precision: fp32
"""


@pytest.fixture
def plan(command: Callable, tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    assert command("plan", "tiny.yaml", "-o", "plan.json").code == 0
    return "plan.json"


@pytest.fixture
def data(command: Callable, tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200)
    (folder / "b.bin").write_bytes(b"\0")
    result = command("prepare", "texts", "-o", "data")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "texts: 8,911 training and 90 held-out tokens of 1 file, vocabulary 256\n"
        "left out, as not UTF-8 text: 1 file\n"
        "wrote data\n"
    )
    return "data"


def small_steps(plan: Path) -> int:
    return int(json.loads(plan.read_text())["runs"][0]["steps"])


def test_a_run_trains_and_is_not_trained_twice(
    command: Callable, plan: str, data: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch", minversion="2.6")
    words = ("train", plan, "--run", "small-0.5tpp", "--data", data, "-o", "run", "--threads", "1")
    first = command(*words, "--device", "cpu")
    steps = small_steps(tmp_path / plan)
    assert first.code == 0
    assert first.err.startswith("note: the whole run sees its data 1.38 times; ")
    assert first.out.startswith(f"small-0.5tpp: {steps} of {steps} steps, loss ")
    again = command(*words, "--device", "cpu")
    assert (again.code, again.out) == (0, f"small-0.5tpp: {steps} of {steps} steps; run\n")
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(lines) == steps + 1


def test_prepare_prints_json(command: Callable, data: str) -> None:
    done = command("prepare", "texts", "-o", "data", "--force", "--json")
    document = json.loads(done.out)
    assert (document["schema"], document["skipped"]) == ("planner.prepare/1", 1)
    assert document["data"]["train"] == 8911


def test_coordinate_check(command: Callable, plan: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", minversion="2.6")
    words = ("coordinate-check", plan, "--seeds", "1", "--threads", "1", "--sequences", "4")
    shown = command(*words, "--factors", "1,2", "--steps", "3", "--tolerance", "5")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("completep, 3 updates at the peak learning rate, 1 seed; ")
    assert "keeps its scale over width" in shown.out
    words = (*words, "--factors", "1,8", "--parametrization", "standard", "--json", "-o", "c.json")
    failed = command(*words)
    document = json.loads(failed.out)
    assert failed.code == 1
    assert (document["schema"], document["ok"]) == ("planner.coordinates/1", False)
    assert json.loads((tmp_path / "c.json").read_text()) == document
    assert [(p["axis"], p["d_model"], p["n_layers"]) for p in document["points"]] == [
        ("width", 32, 1),
        ("width", 256, 1),
        ("depth", 32, 1),
        ("depth", 32, 8),
    ]


def test_coordinate_check_says_that_a_model_diverged(command: Callable, tmp_path: Path) -> None:
    pytest.importorskip("torch", minversion="2.6")
    spec = SPEC.replace("base_depth: 1", "base_depth: 1, base_lr: 1e25")
    (tmp_path / "tiny.yaml").write_text(spec)
    assert command("plan", "tiny.yaml", "-o", "plan.json").code == 0
    words = ("coordinate-check", "plan.json", "--seeds", "1", "--threads", "1", "--factors", "1,2")
    failed = command(*words, "--json", "-o", "-")
    document = json.loads(failed.out, parse_constant=pytest.fail)
    assert (failed.code, document["ok"], document["spread"]["width"]) == (1, False, None)
    assert "does not keep its scale over width: a model diverged" in command(*words).out


def test_coordinate_check_of_mup_is_decided_by_width(command: Callable, tmp_path: Path) -> None:
    pytest.importorskip("torch", minversion="2.6")
    spec = SPEC.replace("base_width: 32, base_depth: 1", "kind: mup, base_width: 32")
    (tmp_path / "tiny.yaml").write_text(spec)
    assert command("plan", "tiny.yaml", "-o", "plan.json").code == 0
    words = ("--seeds", "1", "--threads", "1", "--factors", "1,32", "--steps", "1", "--json")
    done = command("coordinate-check", "plan.json", "--width", "16", "--sequences", "1", *words)
    document = json.loads(done.out)
    assert [p["n_layers"] for p in document["points"]] == [1, 1, 1, 32]
    assert document["promised"] == ["width"]
    assert document["ok"] == (document["spread"]["width"] <= 0.2) == (done.code == 0)
    assert document["spread"]["depth"] > 0.2


# (words, all that is printed after "error: "); files are made by the fixtures
BAD = [
    (("train", "none.json", "-o", "x"), "none.json: no such file"),
    (
        ("train", "plan.json", "-o", "x"),
        "plan.json: wanted --run with one of: small-0.5tpp, large-0.5tpp",
    ),
    (
        ("train", "plan.json", "--run", "smal-0.5tpp", "-o", "x"),
        "plan.json: has no run 'smal-0.5tpp'; did you mean 'small-0.5tpp'?",
    ),
    (
        ("train", "plan.json", "--run", "small-0.5tpp", "-o", "x", "--precision", "fp8"),
        "--precision: got 'fp8', wanted 'bf16', 'fp32' or 'fp64'",
    ),
    (
        ("train", "plan.json", "--run", "small-0.5tpp", "-o", "x", "--micro-batch", "0"),
        "--micro-batch: got 0, wanted greater than or equal to 1",
    ),
    (
        ("train", "texts/a.txt", "-o", "x"),
        "texts/a.txt:1: is not a plan: it is not JSON (expecting value)",
    ),
    (("prepare", "-o", "x"), "wanted one of a folder of texts and --corpus python"),
    (("prepare", "--corpus", "c4", "-o", "x"), "--corpus: got 'c4', wanted python"),
    (("prepare", "nowhere", "-o", "x"), "nowhere: is not a folder of texts"),
    (("prepare", "texts", "-o", "data"), "data: exists; overwrite a data folder with --force"),
    (
        ("prepare", "texts", "-o", "x", "--validation", "1.5"),
        "validation: got 1.5, wanted a share of 0 or more, below 1",
    ),
    (
        ("prepare", "texts", "-o", "x", "--vocab-size", "1000"),
        "vocab_size: got 1000, wanted 256 for bytes",
    ),
    (
        ("prepare", "texts", "-o", "x", "--pattern", "/texts/*"),
        "pattern: got '/texts/*', wanted names such as '*.txt'",
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=lambda value: None)
def test_bad_input(
    command: Callable, plan: str, data: str, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = command(*words)
    assert (result.code, result.out, result.err) == (2, "", f"error: {message}\n")
    assert not (tmp_path / "x").exists()


# The same, of what is only known once PyTorch is there.
BAD_WITH_TORCH = [
    ((), "data: wanted --data FOLDER, made by `planner prepare`"),
    (
        ("--data", "env:NO_SUCH_VARIABLE"),
        "data: wanted the folder of the data in the environment variable NO_SUCH_VARIABLE, or "
        "--data",
    ),
    (
        ("--data", "texts"),
        "texts: is no data folder: data.json is missing; make one with `planner prepare`",
    ),
    (
        ("--data", "data", "--micro-batch", "3"),
        "--micro-batch: a micro batch of 3 does not divide the 8 sequences of a process",
    ),
    (
        ("--data", "data", "--parallel", "fsdp"),
        "--parallel: sharding needs several processes; start with torchrun",
    ),
]


BAD_CHECKS = [
    (("--tolerance", "nan"), "--tolerance: got nan, wanted a positive number"),
    (("--tolerance", "-1"), "--tolerance: got -1, wanted a positive number"),
    (
        ("--factors", "2,1"),
        "--factors: got '2,1', wanted rising whole numbers such as 1,2,4,8, at least two",
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD_CHECKS, ids=lambda value: None)
def test_bad_input_to_the_coordinate_check(
    command: Callable, plan: str, words: tuple[str, ...], message: str
) -> None:
    pytest.importorskip("torch", minversion="2.6")
    result = command("coordinate-check", plan, *words)
    assert (result.code, result.out, result.err) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "got WORLD_SIZE='two', wanted a whole number"),
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE is 2, but RANK is not set; start with torchrun, or unset it",
        ),
    ],
)
def test_half_of_torchruns_environment(
    command: Callable,
    plan: str,
    data: str,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    message: str,
) -> None:
    pytest.importorskip("torch", minversion="2.6")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = command("train", plan, "--run", "small-0.5tpp", "--data", data, "-o", "x")
    assert (result.code, result.err) == (2, f"error: environment: {message}\n")


@pytest.mark.parametrize(("words", "message"), BAD_WITH_TORCH, ids=lambda value: None)
def test_bad_input_to_training(
    command: Callable, plan: str, data: str, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    pytest.importorskip("torch", minversion="2.6")
    result = command("train", plan, "--run", "small-0.5tpp", "-o", "x", *words)
    assert (result.code, result.out, result.err) == (2, "", f"error: {message}\n")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "words",
    [("train", "plan.json", "--run", "small-0.5tpp", "-o", "x"), ("coordinate-check", "plan.json")],
    ids=lambda words: words[0],
)
def test_without_pytorch_one_sentence_says_what_to_install(
    command: Callable, plan: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = command(*words)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "error: training needs PyTorch, which is not installed; install it with: "
        'pip install "collapse-planner[train]"\n'
    )


def test_bpe_without_its_package(
    command: Callable, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    result = command("prepare", "texts", "-o", "x", "--tokenizer", "bpe")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("error: BPE needs the package tokenizers, which is not installed;")


@pytest.mark.parametrize("words", [("plan", "tiny.yaml"), ("prepare", "texts", "-o", "more")])
def test_other_verbs_do_not_load_pytorch(
    command: Callable, plan: str, data: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("torch", "tokenizers")]:
        monkeypatch.delitem(sys.modules, name)
    assert command(*words).code == 0
    assert "torch" not in sys.modules


def test_transfer_check(command: Callable, plan: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", minversion="2.6")
    words = ("transfer-check", plan, "--threads", "1", "--sequences", "2", "--steps", "4")
    words = (*words, "--factors", "1,2", "--rates", "0.5,1,1e30")
    failed = command(*words, "-o", "t.json")
    assert failed.code == 1
    assert failed.out.startswith("completep, runs of 4 updates, 1 seed; final loss")
    assert "the best learning rate is not known at width 32, 64: " in failed.out
    document = json.loads((tmp_path / "t.json").read_text(), parse_constant=pytest.fail)
    assert (document["schema"], document["spread"]) == ("planner.transfer/1", None)
    assert [point["loss"] is None for point in document["rates"]] == [False, False, True] * 2
    assert json.loads(command(*words, "--json").out) == document


def test_a_check_is_shown_even_if_its_file_cannot_be_written(command: Callable, plan: str) -> None:
    pytest.importorskip("torch", minversion="2.6")
    small = ("--threads", "1", "--sequences", "2", "--steps", "2", "--factors", "1,2")
    result = command("coordinate-check", plan, *small, "--seeds", "1", "-o", f"{plan}/c.json")
    assert (result.code, result.out.count(" its scale over ")) == (2, 2)
    assert (
        result.err == f"error: {plan}/c.json: cannot be written: it lies in a file, not a folder\n"
    )


def test_checks_leave_pictures(command: Callable, plan: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", minversion="2.6")
    pytest.importorskip("matplotlib", minversion="3.8")
    small = ("--threads", "1", "--sequences", "2", "--steps", "2", "--factors", "1,2")
    command("transfer-check", plan, *small, "--rates", "0.5,1,2", "--picture", "t.svg")
    command("coordinate-check", plan, *small, "--seeds", "1", "--picture", "c.png")
    assert "best learning rate" in (tmp_path / "t.svg").read_text()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


BAD_TRANSFER = [
    (("--rates", "1,2"), "--rates: got '1,2', wanted rising positive numbers such as 0.5,1,2, at "),
    (("--rates", "1,x,3"), "--rates: got '1,x,3', wanted rising positive numbers"),
    (("--rates", "0,1,2"), "--rates: got '0,1,2', wanted rising positive numbers"),
    (("--rates", "1,3,2"), "--rates: got '1,3,2', wanted rising positive numbers"),
    (("--rates", "1,2,inf"), "--rates: got '1,2,inf', wanted rising positive numbers"),
    (("--tolerance", "1"), "--tolerance: got 1, wanted a number above 1"),
    (("--picture", "x.gif"), "got 'x.gif', wanted a name that ends in .png, .svg, .pdf"),
]


@pytest.mark.parametrize(("words", "message"), BAD_TRANSFER, ids=lambda value: None)
def test_bad_input_to_the_transfer_check(
    command: Callable, plan: str, words: tuple[str, ...], message: str
) -> None:
    pytest.importorskip("torch", minversion="2.6")
    result = command("transfer-check", plan, *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {message}")
