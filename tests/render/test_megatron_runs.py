"""Rendered files under Megatron's own training loop: its log, end, resumption, data, refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from planner.plan import Plan, Run
from planner.render import check_bundle, render_plan
from planner.render.schedule import learning_rate

from .built import counted_run, script_of
from .plans import make_plan, parametrization
from .test_megatron import LLAMA, changed, llama_plan

pytestmark = [pytest.mark.megatron, pytest.mark.filterwarnings("ignore")]

STEPS = 12
CHECKOUT = Path(__file__).parent / "megatron_checkout"
RULE = parametrization("mup", "coupled", base_lr=0.01)
# Without a GPU: no NCCL, no fused kernel, and no Transformer Engine for the distributed optimizer.
ON_CPU: dict[str, Any] = {
    "megatron_dir": str(CHECKOUT),
    "transformer_impl": "local",
    "distributed_optimizer": False,
    "arguments": "--distributed-backend gloo --no-masked-softmax-fusion --no-bias-dropout-fusion "
    "--no-bias-swiglu-fusion",
}
LINE = re.compile(r"iteration\s+(\d+)/\s*\d+ \|.*learning rate: (\S+) \|.*lm loss: (\S+) \|")


def bundle(folder: Path, data: Path, **options: Any) -> tuple[Run, Path]:
    """Render a small run; return it and its folder."""
    run = counted_run(
        RULE,
        **{**LLAMA, "d_model": 64, "head_dim": 16, "n_layers": 2, "vocab": 97, "name": "small"},
        steps=STEPS,
        warmup=2,
        precision="fp32",
        clip=1.0,
    )
    plan = make_plan(run, rule=RULE)
    options = {**ON_CPU, "data_dir": str(data), "checkpoint_steps": 5, **options}
    render_plan(plan, "megatron+local", folder, options=options)
    return plan.runs[0], folder / "small"


def command(folder: Path, output: Path, processes: int = 1) -> list[str]:
    words = [sys.executable, "-P"]
    if processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    config = folder / "config-seed0.yaml"
    return [*words, str(folder / "train.py"), str(config), "--output", str(output)]


def start(folder: Path, output: Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, output, processes),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=output.parent,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def logged(output: Path) -> dict[int, tuple[float, float]]:
    """Return rate and loss by step."""
    found = LINE.findall((output / "log.txt").read_text())
    return {int(step): (float(rate), float(loss)) for step, rate, loss in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Run, Path, Path]:
    place = tmp_path_factory.mktemp("megatron")
    run, folder = bundle(place / "jobs", data)
    output = place / "runs" / "whole"
    output.parent.mkdir()
    done = start(folder, output)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return run, folder, output


def test_the_log_of_a_whole_run(whole: tuple[Run, Path, Path]) -> None:
    run, folder, output = whole
    steps = logged(output)
    assert list(steps) == list(range(1, STEPS + 1))
    # Megatron logs the rate that the next update takes.
    rates = [learning_rate(run, step) for step in range(1, STEPS)]
    assert [steps[step][0] for step in range(1, STEPS)] == pytest.approx(rates, rel=1e-5)
    assert steps[STEPS][1] < steps[1][1] - 0.3
    assert (output / "finished").read_text() == f"{STEPS}\n"
    kept = [path.name for path in sorted((output / "checkpoints").glob("iter_*"))]
    assert kept == ["iter_0000005", "iter_0000010", "iter_0000012"]
    before = (output / "log.txt").read_bytes()
    assert start(folder, output).returncode == 0  # nothing to do, and no Megatron started
    assert (output / "log.txt").read_bytes() == before


def test_ingest_reads_the_folder_of_runs(whole: tuple[Run, Path, Path], tmp_path: Path) -> None:
    from planner.archive import Archive, ingest, list_runs

    run, _, output = whole
    report = ingest([output.parent], tmp_path / "archive")
    assert report.failed == []
    (found,) = list_runs(Archive(tmp_path / "archive"))
    assert found["run_digest"] == run.digest
    assert (found["seed"], found["params"]) == (0, run.params.total)
    assert (found["total_steps"], found["tokens"]) == (run.steps, run.tokens)
    assert found["metric"] == "train/loss"
    assert found["final"] == logged(output)[STEPS][1]


def test_it_stops_at_a_signal_and_goes_on(whole: tuple[Run, Path, Path]) -> None:
    _, folder, output = whole
    stopped = output.parent / "stopped"
    with subprocess.Popen(
        command(folder, stopped),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=output.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        log = stopped / "log.txt"
        deadline = time.monotonic() + 900
        while not (log.exists() and logged(stopped)) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=900)
    assert process.returncode == 130, said[-3000:]
    last = max(logged(stopped))
    assert last < STEPS
    assert f"ended after {last} of {STEPS} steps" in said
    assert not (stopped / "finished").exists()
    # A line that a crash cut short stays a line of its own.
    with log.open("a") as stream:
        stream.write(" iteration")
    done = start(folder, stopped)
    assert done.returncode == 0, done.stderr[-3000:]
    assert logged(stopped) == logged(output)
    assert log.read_text().count("run_digest") == 2


def test_two_processes_train_the_same(whole: tuple[Run, Path, Path]) -> None:
    _, folder, output = whole
    two = output.parent / "two"
    done = start(folder, two, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    one, both = logged(output), logged(two)
    assert max(abs(one[step][1] - both[step][1]) for step in one) < 1e-4
    assert "processes ....................................... 2" in (two / "log.txt").read_text()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_megatron_reads_what_planner_prepare_made(dtype: str, data: Path, tmp_path: Path) -> None:
    """Its own reader finds the same tokens, and its data set the same windows, each once."""
    import numpy as np
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split
    from megatron.core.tokenizers.text.libraries.null_tokenizer import NullTokenizer

    _, folder = bundle(tmp_path / "jobs", data)
    script = script_of(folder)
    config = script.read_config(folder / "config-seed0.yaml")
    tokens = np.fromfile(data / "tokens.bin", "<u2")
    own = tmp_path / "data"
    own.mkdir()
    tokens.astype(np.dtype(dtype).newbyteorder("<")).tofile(own / "tokens.bin")
    about = json.loads((data / "data.json").read_text())
    (own / "data.json").write_text(json.dumps({**about, "dtype": dtype}))
    prefix, _ = script.index_tokens(own, tmp_path / "out", config)
    again, _ = script.index_tokens(own, tmp_path / "out", config)
    assert prefix == again
    assert sorted(p.name for p in (tmp_path / "out/.data").iterdir()) == [
        "tokens.bin",
        "tokens.idx",
    ]
    read = IndexedDataset(prefix)
    assert np.array_equal(read.get(0), tokens[:19_000])
    length, windows = 64, (19_000 - 1) // 64
    settings = GPTDatasetConfig(
        random_seed=1,
        sequence_length=length,
        blend=([prefix], None),
        split="100,0,0",
        tokenizer=NullTokenizer(97),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        path_to_cache=str(tmp_path / "cache"),
    )
    documents = np.arange(len(read.sequence_lengths), dtype=np.int32)
    made = GPTDataset(read, prefix, documents, windows, Split.train, settings)
    seen = {made[number]["tokens"].numpy().tobytes() for number in range(windows)}
    wanted = tokens[: windows * length].astype(np.int64).reshape(windows, length)
    assert seen == {row.tobytes() for row in wanted}


def problems(plan: Plan, folder: Path, old: str = "", new: str = "") -> tuple[str, ...]:
    """What Megatron's classes say of a configuration in which something was replaced."""
    render_plan(plan, "megatron+local", folder)
    path = folder / "tiny-20tpp/config-seed0.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    (check,) = [c for c in check_bundle(folder) if c.name.startswith("megatron.training")]
    assert check.skipped is None
    return check.problems


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", None),
        ("  hidden-size:", "  hiden-size:", "--hiden-size"),
        ('"linear"\n  lr-warm', '"lineal"\n  lr-warm', "invalid choice: 'lineal'"),
        ("num-attention-heads: 4", "num-attention-heads: 3", "tiny-20tpp/config-seed0.yaml"),
        ("mup-base-hidden-size: 64", "mup-base-hidden-size: 32", "starts hidden matrices with std"),
        ("init-method-std: 0.0867", "init-method-std: 0.02", "starts hidden matrices with std"),
        ("  lr: 0.0162", "  lr: 0.0163", "lr is 0.0163"),
        ("weight-decay: 0.1", "weight-decay: 0.2", "weight_decay is 0.2"),
        ("adam-eps: 1.0e-16", "adam-eps: 1.0e-15", "eps is 1e-15"),
        ("mup-embedding-mult: 9.17", "mup-embedding-mult: 9.0", "embedding is 9.0"),
        ("mup-output-mult: 0.5475", "mup-output-mult: 1.0", "logits is 0.5"),
        ("mup-attn-scale-power: 1.0", "mup-attn-scale-power: 0.5", "attention is"),
        ("ffn-hidden-size: 512", "ffn-hidden-size: 256", "parameters"),
        ("lr-warmup-iters: 10", "lr-warmup-iters: 11", "has learning rate"),
        ("adam-beta2: 0.95", "adam-beta2: 0.99", "betas"),
        ("  swiglu: true", "  squared-relu: true", "tiny-20tpp/config-seed0.yaml"),
    ],
)
def test_megatrons_own_classes_find_errors(
    old: str, new: str, said: str | None, tmp_path: Path
) -> None:
    plan = counted(llama_plan())
    found = problems(plan, tmp_path, old, new)
    assert found == () if said is None else any(said in text for text in found), found


def counted(plan: Plan, **changes: Any) -> Plan:
    run = counted_run(parametrization("mup", "coupled"), **{**LLAMA, **changes})
    return make_plan(run, rule=plan.parametrization)


@pytest.mark.parametrize("base_depth", [4])
def test_completep_at_its_base_depth(base_depth: int, tmp_path: Path) -> None:
    rule = parametrization("completep", "coupled", base_depth=base_depth)
    assert problems(make_plan(counted_run(rule, **LLAMA), rule=rule), tmp_path) == ()


def test_an_epsilon_that_is_not_negligible(tmp_path: Path) -> None:
    plan = make_plan(counted_run(RULE, **LLAMA, eps=1e-8, eps_mode="exact"), rule=RULE)
    plan = changed(plan, "norm", eps=1e-8)
    assert problems(plan, tmp_path) == ()


def test_parallel_flags_are_validated(tmp_path: Path) -> None:
    plan = counted(llama_plan())
    options = {"tensor_parallel": 2, "pipeline_parallel": 2, "processes": 4, "exit_minutes": 5}
    options |= {"tensorboard": True, "wandb": "a project", "arguments": "--overlap-grad-reduce"}
    render_plan(plan, "megatron+local", tmp_path, options=options)
    for check in check_bundle(tmp_path):
        assert check.problems == (), check
