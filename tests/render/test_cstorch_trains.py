"""The rendered script with cerebras_pytorch: trains, goes on, lowers (make test-cerebras)."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from planner.plan import Plan, Run
from planner.plan.model import Schedule
from planner.render import check_bundle, render_plan
from planner.render.schedule import learning_rate

from .backend import cpu_backend
from .built import counted_run, log, losses, script_of, start, start_and_stop, write
from .plans import make_plan, parametrization
from .test_equality import ARCHITECTURES

pytestmark = [pytest.mark.cerebras, pytest.mark.filterwarnings("ignore")]

STEPS = 16
CONFIG = "config-seed0.yaml"
RULE = parametrization(base_lr=0.01)


@dataclass(frozen=True)
class Trained:
    """A small run that was trained to its end."""

    plan: Plan
    folder: Path
    output: Path


def small_run(**changes: Any) -> Run:
    shape = {"d_model": 64, "n_layers": 3, "d_ffn": 96, "vocab": 97, "head_dim": 16}
    values = {"steps": STEPS, "warmup": 2, "precision": "fp32", "clip": 1.0, "name": "small"}
    return counted_run(RULE, **{**values, **shape, **changes})


def bundle(folder: Path, data: Path, *runs: Run, **options: Any) -> Plan:
    """Render small runs for the CPU; return the plan."""
    plan = make_plan(*(runs or (small_run(),)), rule=RULE)
    given = {"data_dir": str(data), "backend": "CPU", "checkpoint_steps": 4, **options}
    render_plan(plan, "cstorch", folder, options=given)
    return plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Trained:
    place = tmp_path_factory.mktemp("cstorch")
    plan = bundle(place / "jobs", data)
    found = Trained(plan, place / "jobs" / "small", place / "runs" / "whole")
    found.output.parent.mkdir()
    done = start(found.folder, 0, found.output)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


def test_the_log_of_a_whole_run(whole: Trained) -> None:
    run = whole.plan.runs[0]
    (head,), steps = log(whole.output)
    assert (head["run_digest"], head["backend"], head["precision"]) == (run.digest, "CPU", "fp32")
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(line["tokens"] == line["step"] * run.batch.tokens for line in steps)
    rates = [learning_rate(run, line["step"] - 1) for line in steps]
    assert [line["lr"] for line in steps] == pytest.approx(rates, rel=1e-12)
    assert all(math.isfinite(line["grad_norm"]) for line in steps)
    # Of four checkpoints the last two are kept, each whole.
    kept = sorted(path.name for path in whole.output.glob("checkpoint_*"))
    assert kept == [f"checkpoint_{n}.{end}" for n in (12, 16) for end in ("mdl", "whole")]


def test_ingest_reads_the_folder_of_runs(whole: Trained, tmp_path: Path) -> None:
    """Checkpoints and logs of Cerebras and all: one run, nothing that fails, by its digest."""
    from planner.archive import Archive, ingest, list_runs

    report = ingest([whole.output.parent], tmp_path / "archive")
    assert report.failed == []
    (found,) = list_runs(Archive(tmp_path / "archive"), plans=[whole.plan])
    run = whole.plan.runs[0]
    assert found["run_digest"] == run.digest
    assert found["planned"]["by"] == "digest"
    facts = {
        "seed": 0,
        "total_steps": STEPS,
        "last_step": STEPS,
        "final": losses(whole.output)[-1],
    }
    assert {key: found[key] for key in facts} == facts


def test_a_stopped_run_goes_on_as_if_nothing_had_been(whole: Trained, tmp_path: Path) -> None:
    output = tmp_path / "stopped"
    status, said = start_and_stop(whole.folder, 0, output)
    done = len(losses(output))
    assert done < STEPS  # a run that was faster than the signal would show nothing
    assert done % 4 == 0
    assert status == 130, said[-2000:]
    assert f"stopped after {done} of {STEPS} steps: SIGTERM received" in said
    assert (output / f"checkpoint_{done}.whole").exists()
    # A checkpoint that a crash cut short is not taken for one.
    (output / "checkpoint_15.mdl").write_bytes(b"half")
    again = start(whole.folder, 0, output)
    assert again.returncode == 0, again.stderr[-2000:]
    starts, _ = log(output)
    assert [(line["segment"], line["from_step"]) for line in starts] == [(0, 0), (1, done)]
    assert losses(output) == losses(whole.output)
    before = (output / "log.jsonl").read_bytes()
    last = start(whole.folder, 0, output)
    assert last.returncode == 0
    assert f"all {STEPS} steps are done" in last.stdout
    assert (output / "log.jsonl").read_bytes() == before


def test_checkpoints_of_another_run_are_refused(whole: Trained, tmp_path: Path, data: Path) -> None:
    bundle(tmp_path / "jobs", data, small_run(weight_decay=0.2))
    other = start(tmp_path / "jobs" / "small", 0, whole.output)
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1].endswith("holds checkpoints of another run")


def test_bf16_trains_on_the_cpu(whole: Trained, tmp_path: Path, data: Path) -> None:
    """By --backend, as a bundle for CSX is validated."""
    bundle(tmp_path / "jobs", data, small_run(precision="bf16"), backend="CSX")
    folder = tmp_path / "jobs" / "small"
    command = [sys.executable, "-P", str(folder / "train.py"), str(folder / CONFIG)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--backend", "CPU"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, exact = losses(tmp_path / "out"), losses(whole.output)
    gaps = [abs(a - b) for a, b in zip(found, exact, strict=True)]
    assert 0 < max(gaps) < 0.05


def test_a_run_that_diverges_says_so_and_saves_nothing(tmp_path: Path, data: Path) -> None:
    bundle(tmp_path / "jobs", data, checkpoint_steps=2)
    config = tmp_path / "jobs" / "small" / CONFIG
    text = config.read_text()
    at = text.index("lr: ", text.index('- name: "unembedding"'))
    config.write_text(text[:at] + "lr: 1.0e+37" + text[text.index("\n", at) :])
    done = start(tmp_path / "jobs" / "small", 0, tmp_path / "out")
    assert done.returncode == 1, done.stderr[-2000:]
    assert "error: the loss is not finite at step" in done.stderr
    _, steps = log(tmp_path / "out")
    assert steps[-1]["loss"] is None
    assert 2 <= len(steps) < STEPS
    assert not (tmp_path / "out" / f"checkpoint_{len(steps)}.whole").exists()


# --- CSX, without a cluster ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES["cstorch"])
def test_it_lowers_for_csx(kind: str, tmp_path: Path, data: Path) -> None:
    """The whole step is traced and lowered to CIRH; then there is no cluster to compile on."""
    shape = {"d_model": 96, "n_layers": 6, "head_dim": 16, **ARCHITECTURES["cstorch"][kind]}
    run = counted_run(RULE, vocab=97, steps=STEPS, warmup=2, clip=1.0, name="small", **shape)
    write(run, RULE, "cstorch", tmp_path / "jobs", data_dir=str(data))
    folder = tmp_path / "jobs" / "small"
    command = [sys.executable, "-P", str(folder / "train.py"), str(folder / CONFIG)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--compile-only"],
        cwd=tmp_path,
        # The program that lowers is found beside the interpreter, not on the path.
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1].startswith("error: no cluster to compile and train on")
    program = tmp_path / "out" / "cerebras_logs" / "executors" / "000001" / "cirh.mlir"
    text = program.read_text()
    # All weights and both moments are the program's state, and nothing else is.
    state = set(re.findall(r'resource_name = "([^"]+)"', text))
    weights = {name for name in state if name.startswith("state.model.")}
    shapes = re.findall(r'tensor<([0-9x]+)xf32> \{[^}]*resource_name = "state\.model\.', text)
    assert len(shapes) == len(weights)
    assert sum(math.prod(map(int, s.split("x"))) for s in shapes) == run.params.total
    assert sum("exp_avg_sq" in name for name in state) == len(weights)
    assert not any("placeholder" in name for name in state)
    # The plan's numbers are in it as float32, not rounded to bf16 with the activations.
    numbers = {float(n) for n in re.findall(r"dense<(-?[0-9.]+[Ee]?[+-]?[0-9]*)> : tensor", text)}

    def there(value: float) -> bool:
        return any(math.isclose(value, number, rel_tol=2e-6) for number in numbers)

    for row in run.tensors:
        assert row.forward_multiplier == 1.0 or there(row.forward_multiplier), row
        assert row.weight_decay == 0.0 or there(row.weight_decay), row
        assert there(row.eps), row
        assert there(row.lr), row
    assert there(run.model.attention_multiplier)
    assert there(1.0)  # the limit of the norm


def test_float32_is_refused_on_csx(whole: Trained, tmp_path: Path) -> None:
    command = [sys.executable, "-P", str(whole.folder / "train.py"), str(whole.folder / CONFIG)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--backend", "CSX"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "error: CSX trains in mixed precision only, got fp32" in done.stderr


# Sends what the script reads data by, as cerebras_pytorch does, from a process in which the script
# is the main program.
SEND = """
import sys
source = open(sys.argv[1]).read()
exec(compile(source.partition('if __name__ ==')[0], sys.argv[1], "exec"))
from cerebras.appliance.appliance_client import fw_user_serialize
print(fw_user_serialize(batches, name="DataLoader function", from_usr=True, recurse=True))
"""
# A worker of a cluster, which has the data and cerebras_pytorch, and not the script.
WORK = """
import json, sys
rank, systems, workers, arguments = json.loads(sys.argv[1])
from cerebras.pytorch.distributed.cluster_resolver import ApplianceWorkerClusterResolver as Worker
Worker.configure(rank, systems * workers, systems, workers)
import cerebras.pytorch as cstorch
from cerebras.pytorch.backend import Backend
from cerebras.appliance.appliance_client import fw_user_deserialize
Backend._init_impl = False
cstorch.backend("CSX")
assert cstorch.distributed.is_streamer()
cstorch.distributed._set_streaming_batch_sizes([[arguments[2] // systems]] * systems)
read = fw_user_deserialize(sys.stdin.read().strip(), name="DataLoader function", from_usr=True)
for rows in read(*arguments):
    inputs, labels = rows["input_ids"], rows["labels"]
    print(json.dumps([str(inputs.dtype), inputs.tolist(), labels.tolist()]))
"""


def run_code(code: str, *arguments: str, cwd: Path, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=cwd,
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_workers_stream_the_references_batches(whole: Trained, tmp_path: Path, data: Path) -> None:
    """Two systems with two workers each, going on from step 3: together the reference's batches."""
    import numpy as np

    from planner.train.data import Order, open_data

    run, first, steps = whole.plan.runs[0], 3, 8
    sent = run_code(SEND, str(whole.folder / "train.py"), cwd=tmp_path).splitlines()[-1]
    size, seq_len = run.batch.sequences, run.model.seq_len
    arguments = [str(data), seq_len, size, steps, first, 0, 97, 0]
    tokens = open_data(data)
    order = Order(tokens.windows(seq_len), 0)
    wanted = {
        step: tokens.sequences(order.numbers(step * size, size), seq_len)
        for step in range(first, steps)
    }
    share = size // 2
    for rank in range(4):
        said = run_code(WORK, json.dumps([rank, 2, 2, arguments]), cwd=tmp_path, given=sent)
        found = [json.loads(line) for line in said.splitlines() if line.startswith("[")]
        system, worker = divmod(rank, 2)
        mine = list(range(first + worker, steps, 2))
        assert len(found) == len(mine)
        for step, (kind, inputs, labels) in zip(mine, found, strict=True):
            rows = wanted[step][system * share : (system + 1) * share]
            assert kind == "torch.int32"
            assert np.array_equal(inputs, rows[:, :-1])
            assert np.array_equal(labels, rows[:, 1:])


# --- the classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "floor", "decay", "warmup"),
    [
        ("linear-to-zero", 0.0, 1.0, 0),
        ("linear", 0.1, 1.0, 7),
        ("cosine", 0.1, 1.0, 7),
        ("wsd", 0.05, 0.5, 1),
        ("constant", 1.0, 0.0, 7),
    ],
)
def test_every_update_has_the_learning_rates_of_the_plan(
    kind: Any, floor: float, decay: float, warmup: int, tmp_path: Path
) -> None:
    cpu_backend()
    schedule = Schedule(kind, warmup / 60, floor, decay)
    run = small_run(steps=60, warmup=warmup, schedule=schedule)
    bundle(tmp_path, tmp_path, run)
    script = script_of(tmp_path / "small")
    config = script.read_config(tmp_path / "small" / CONFIG)
    optimizer = script.make_optimizer(script.make_model(config), config)
    scheduler = script.make_schedule(optimizer, config)
    used: dict[str, list[float]] = {group["name"]: [] for group in optimizer.param_groups}
    for _ in range(run.steps):
        for group in optimizer.param_groups:
            used[group["name"]].append(float(group["lr"]))
        optimizer.step()
        scheduler.step()
    base = run.optimizer.base_peak_lr
    for name, rates in used.items():
        peak = run.tensor(name).lr
        wanted = [learning_rate(run, step) / base * peak for step in range(run.steps)]
        # The schedulers compute in float32.
        assert rates == pytest.approx(wanted, rel=1e-6, abs=2e-7 * peak)
        assert (rates[0] == 0.0) is (warmup > 0)


def test_the_real_classes_accept(tmp_path: Path, data: Path) -> None:
    """Also a model of 3.9 billion parameters, which is never held in memory."""
    large = counted_shape(d_model=2304, n_layers=41, d_ffn=18432, head_dim=64, vocab=128256)
    runs = [
        small_run(name=f"{precision}-{biases}", precision=precision, biases=biases, tied=biases)
        for precision in ("bf16", "fp32")
        for biases in (False, True)
    ]
    bundle(tmp_path, data, *runs, large)
    for check in check_bundle(tmp_path):
        assert check.problems == (), check
        assert check.skipped is None or check.name == "shellcheck"


def counted_shape(**shape: int) -> Run:
    """A run whose parameters are counted here, because its model would not fit."""
    from dataclasses import replace

    from planner.plan.model import Params

    from .plans import make_run

    run = make_run(RULE, name="large", steps=STEPS, warmup=2, **shape)
    width, depth = shape["d_model"], shape["n_layers"]
    norms = width * (2 * depth + 1)
    total = run.params.non_embedding + 2 * shape["vocab"] * width + norms
    return replace(run, params=Params(total, run.params.non_embedding, total))


REFUSED = [
    ("num_csx: 1", "num_cs: 1", "num_cs"),
    ("num_csx: 1", "num_csx: -1", "num_csx"),
    ('job_priority: "p2"', 'job_priority: "p9"', "p9"),
    ('- "family=tiny"', '- "family"', "label"),
    ("precision_opt_level: 1", "precision_opt_level: 7", "7"),
    ("micro: null", 'micro: "some"', "some"),
    ("betas: [0.9, 0.95]", "betas: [0.9, 1.0]", "beta"),
    ("attention.out.weight", "attention.o.weight", "out.weight"),
    ("n_layers: 3", "n_layers: 4", "parameters"),
    ('shape: "linear"', 'shape: "linea"', "linea"),
    ("data:\n", "dada:\n", "data: is missing"),
]


def test_the_real_classes_refuse(tmp_path: Path, data: Path) -> None:
    bundle(tmp_path, data, *(small_run(name=f"r{i}") for i in range(len(REFUSED))))
    for number, (old, new, _) in enumerate(REFUSED):
        path = tmp_path / f"r{number}" / CONFIG
        assert old in path.read_text(), old
        path.write_text(path.read_text().replace(old, new, 1))
    checks = {check.name: check for check in check_bundle(tmp_path)}
    problems = checks["cerebras.pytorch's own classes"].problems
    for number, (_, new, said) in enumerate(REFUSED):
        (problem,) = [text for text in problems if text.startswith(f"r{number}/{CONFIG}: ")]
        assert said in problem, (new, problem)


def test_bad_input_is_one_sentence(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle(tmp_path / "jobs", data, data_dir="env:SOME_DATA")
    script = script_of(tmp_path / "jobs" / "small")
    config, output = tmp_path / "jobs" / "small" / CONFIG, tmp_path / "out"
    good = config.read_text()

    def said(text: str, folder: str, *more: str) -> str:
        config.write_text(text)
        monkeypatch.setenv("SOME_DATA", folder)
        assert script.main([str(config), "--output", str(output), *more]) == 2
        assert not output.exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    wanted = "error: wanted the folder of the data in the environment variable SOME_DATA"
    assert said(good, "") == wanted
    nowhere = str(tmp_path / "nowhere")
    assert said(good, nowhere).startswith(f"error: {nowhere}: is not a folder made by `planner")
    odd = good.replace("num_csx: 1", "num_csx: 3")
    assert "8 sequences a step are not divided by 3 processes" in said(odd, str(data))
    few = good.replace("vocab_size: 97", "vocab_size: 96")
    assert "has ids up to 96, the model 96" in said(few, str(data))
    assert "is not YAML" in said("a: [", str(data))
    assert "nothing is compiled for the CPU" in said(
        good, str(data), "--backend", "CPU", "--compile-only"
    )
    assert import_module("cerebras.pytorch") is not None
