"""Rendered files in ModelZoo itself: validated, built, read back, trained.

Needs PLANNER_MODELZOO_SRC, the ``src`` folder of a ModelZoo 2.10 checkout, and the packages that it
imports, in an environment with cerebras_pytorch.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from planner.compile import compile_plan
from planner.plan import Plan, Run, sealed
from planner.plan.model import Schedule
from planner.render import check_bundle, render_files, render_plan
from planner.render.modelzoo.readback import owner_class
from planner.spec import parse_spec

from .plans import make_plan, make_run, parametrization, tiny_plan
from .zoo import SOURCE, build, load, zoo

pytestmark = [
    pytest.mark.modelzoo,
    pytest.mark.skipif(not SOURCE, reason="PLANNER_MODELZOO_SRC does not name ModelZoo's src"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module", autouse=True)
def modelzoo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("modelzoo"))
        yield zoo()


def measure(run: Run, text: str, vocabulary: int | None = None) -> dict[str, dict[str, float]]:
    """Build the run in ModelZoo, undo the folding, and compare every tensor with the plan's rows.

    Returns what was measured, for the record: by class, the std over the plan's.
    """
    params = load(text)
    model, optimizer, _ = build(params, vocabulary)
    peak = run.optimizer.base_peak_lr
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.append(name)
            tensor_class = owner_class(name)
            row = run.tensor(tensor_class)
            folded = row.forward_multiplier if tensor_class in ("attn_out", "ffn_out") else 1.0
            if tensor_class == "bias" and ("proj_output" in name or ".ffn.1." in name):
                owner = "attn_out" if "proj_output" in name else "ffn_out"
                folded = run.tensor(owner).forward_multiplier
            scale = group.get("adjust_learning_rate", 1.0)
            assert peak * scale / folded == pytest.approx(row.lr, rel=1e-12), name
            decay = float(group["weight_decay"]) * folded
            assert decay == pytest.approx(row.weight_decay, rel=1e-6), name
            assert group["eps"] == run.optimizer.eps
            assert tuple(group["betas"]) == run.optimizer.betas
            data = parameter.detach().double()
            if tensor_class in ("norm", "final_norm"):
                assert bool((data == (0.0 if name.endswith("bias") else 1.0)).all()), name
            elif tensor_class == "bias":
                assert not data.any(), name
            else:
                std = float(data.std()) / folded
                assert row.init_std is not None
                assert std == pytest.approx(row.init_std, rel=0.03), name
                mean = abs(float(data.mean())) / folded
                assert mean < 6 * row.init_std / math.sqrt(data.numel()), name
                sums[tensor_class][0] += float((data / folded).pow(2).sum())
                sums[tensor_class][1] += data.numel()
    assert sorted(seen) == sorted(names.values())  # each tensor in exactly one group
    inner = model.model
    assert float(inner.embeddings_scale) == run.tensor("embedding").forward_multiplier
    logits = float(inner.output_logits_scale or 1.0)
    assert logits == pytest.approx(run.tensor("unembedding").forward_multiplier, rel=1e-15)
    attention = inner.transformer_decoder.layers[0].self_attn
    own = run.model.head_dim if attention.scale_qk_dot_by_d else math.sqrt(run.model.head_dim)
    assert attention.attention_logits_alpha / own == pytest.approx(
        run.model.attention_multiplier, rel=1e-15
    )
    return {
        name: {"std": (total / count) ** 0.5, "ratio": (total / count) ** 0.5 / std}
        for name, (total, count) in sums.items()
        if (std := run.tensor(name).init_std)
    }


def preset(name: str, **changes: Any) -> Plan:
    plan = compile_plan(parse_spec(f"family: {name}\npreset: {name}\n"))
    if not changes:
        return plan
    runs = tuple(replace(r, optimizer=replace(r.optimizer, **changes)) for r in plan.runs)
    return sealed(replace(plan, runs=runs))


def record(what: str, found: dict[str, dict[str, float]]) -> None:
    """Print what was measured; shown with ``pytest -s``."""
    line = ", ".join(f"{k} {v['std']:.5f} ({v['ratio']:.4f})" for k, v in sorted(found.items()))
    print(f"\n{what}: {line}")


# The whole 300M; of the next sizes the hidden matrices are whole and the vocabulary is cut.
@pytest.mark.parametrize(
    ("name", "vocabulary"), [("300M-20tpp", None), ("300M-234tpp", 4096), ("500M-20tpp", 4096)]
)
def test_celerity_is_built_as_planned(name: str, vocabulary: int | None) -> None:
    plan = preset("celerity")
    files = render_files(plan, "modelzoo")
    text = files[f"{name}/params-seed0.yaml"]
    record(name, measure(plan.run(name), text, vocabulary))
    if vocabulary is None:
        model, _, _ = build(load(text))
        total = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert total == plan.run(name).params.total


@pytest.mark.parametrize("size", ["111M", "256M"])
def test_cerebras_gpt_is_built_as_planned(size: str) -> None:
    """muP; with a negligible epsilon, because the preset's differs by class."""
    plan = compile_plan(
        parse_spec(
            "family: cgpt\npreset: cerebras-gpt\noptimizer: {eps: 1.0e-16, eps_mode: negligible}\n"
        )
    )
    files = render_files(plan, "modelzoo")
    run = next(run for run in plan.runs if run.size == size)
    record(run.name, measure(run, files[f"{run.name}/params-seed0.yaml"]))


@pytest.mark.parametrize("position", ["alibi", "rope", "learned", "none"])
@pytest.mark.parametrize(
    ("gated", "activation"),
    [(False, "relu2"), (False, "relu"), (False, "gelu"), (False, "silu"), (True, "relu")],
)
def test_every_architecture_is_accepted(position: str, gated: bool, activation: str) -> None:
    rule = parametrization()
    run = make_run(rule, position=position, gated=gated, activation=activation)
    files = render_files(make_plan(run, rule=rule), "modelzoo")
    measure(run, files[f"{run.name}/params-seed0.yaml"])


@pytest.mark.parametrize("biases", [False, True])
def test_folded_and_native_multipliers_train_alike(biases: bool) -> None:
    """ModelZoo's own model, once from the file and once with 1/m_L applied natively by hooks."""
    torch: Any = import_module("torch")
    rule = parametrization("completep", "independent", base_lr=0.01)
    run = make_run(rule, d_model=128, n_layers=6, biases=biases, steps=30, warmup=3, vocab=97)
    params = load(
        render_files(make_plan(run, rule=rule), "modelzoo")[f"{run.name}/params-seed0.yaml"]
    )
    c = run.tensor("attn_out").forward_multiplier
    assert c == pytest.approx(1 / 3)

    def native_params(wrong: float = 1.0) -> dict[str, Any]:
        """The same file without the folding; the hooks below apply ``c`` instead."""
        changed = copy.deepcopy(params)
        adam = changed["trainer"]["init"]["optimizer"]["AdamW"]["adjust_learning_rate"]
        for key in adam:
            if "output" in key:
                adam[key] *= wrong / c
        for item in changed["trainer"]["init"]["schedulers"]:
            if "output" in item.get("ConstantWD", {}).get("param_group_tags", ""):
                item["ConstantWD"]["val"] *= c
        return changed

    def train(params: dict[str, Any], native: bool) -> list[float]:
        model, optimizer, schedulers = build(params)
        if native:
            for name, parameter in model.named_parameters():
                if "proj_output" in name or ".ffn.1." in name:
                    parameter.data.div_(c)  # W' = W / c, from the same random numbers
            for layer in model.model.transformer_decoder.layers:
                for branch in (layer.self_attn.proj_output_dense_layer, layer.ffn):
                    branch.register_forward_hook(lambda _module, _inputs, output: output * c)
        generator = torch.Generator().manual_seed(1)
        rows = torch.randint(0, 97, (8, 65), generator=generator, dtype=torch.int32)
        data = {
            "input_ids": rows[:, :-1].contiguous(),
            "labels": rows[:, 1:].contiguous(),
            "attention_mask": torch.ones(8, 64, dtype=torch.int32),
        }
        losses = []
        model.train()
        for _ in range(run.steps):
            optimizer.zero_grad()
            loss = model(data)
            loss.backward()
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
            losses.append(float(loss.detach()))
        return losses

    folded = train(params, native=False)
    native = train(native_params(), native=True)
    gap = max(abs(a - b) for a, b in zip(folded, native, strict=True))
    wrong = train(native_params(wrong=0.5), native=True)
    control = max(abs(a - b) for a, b in zip(folded, wrong, strict=True))
    print(
        f"\nbiases={biases}: loss {folded[0]:.4f} -> {folded[-1]:.4f}, "
        f"folded against native {gap:.2e}, control {control:.2e}"
    )
    assert folded[-1] < folded[0] - 0.5
    assert gap < 2e-4
    assert control > 50 * gap


def test_modelzoos_validator_passes_and_refuses(tmp_path: Path) -> None:
    for target, options in (
        ("a", {}),
        ("b", {"wandb": "true", "eval_data_dir": "env:EVAL", "num_csx": "2", "micro_batch": "2"}),
    ):
        if options and not _has("wandb"):
            options.pop("wandb")
        render_plan(tiny_plan(seeds=(0, 1)), "modelzoo", tmp_path / target, options=options)
        checks = {check.name: check for check in check_bundle(tmp_path / target)}
        assert checks["ModelZoo's validator"].skipped is None
        assert checks["ModelZoo's validator"].problems == ()
    path = tmp_path / "a" / "tiny-20tpp" / "params-seed0.yaml"
    good = path.read_text()
    for old, new in [
        ("squared_relu", "relu2"),
        ("hidden_size: 128", "hidden_sise: 128"),
        ("total_iters: 10", "total_itres: 10"),
        ("      mup_base_filter_size: 256.0\n", ""),
    ]:
        assert old in good
        path.write_text(good.replace(old, new))
        checks = {check.name: check for check in check_bundle(tmp_path / "a")}
        assert len(checks["ModelZoo's validator"].problems) == 1, new


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd", "constant"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedules_and_precisions_are_accepted(kind: Any, precision: str, warmup: int) -> None:
    rule = parametrization()
    schedule = Schedule(kind, warmup / 100, 0.1, 0.2)
    run = make_run(rule, schedule=schedule, precision=precision, warmup=warmup, clip=1.0)
    text = render_files(make_plan(run, rule=rule), "modelzoo")[f"{run.name}/params-seed0.yaml"]
    _, optimizer, _ = build(load(text))
    first = float(optimizer.param_groups[0]["lr"])
    assert (first == 0.0) is (warmup > 0)


def _has(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


@pytest.mark.slow
def test_the_launcher_trains_resumes_and_stops(tmp_path: Path) -> None:
    """The bundle's own script, ModelZoo's own command, on the CPU."""
    h5py: Any = import_module("h5py")
    numpy: Any = import_module("numpy")
    data = tmp_path / "it's data"
    data.mkdir()
    rows = numpy.random.default_rng(0).integers(0, 97, (256, 65))
    sample = numpy.stack([rows[:, :-1], numpy.ones((256, 64)), rows[:, 1:]], axis=1)
    with h5py.File(data / "data-00000.h5", "w") as file:
        file.attrs["n_examples"] = 256
        file.create_dataset("data", data=sample.astype("int32"), chunks=(1, 3, 64))
    plan = tiny_plan(vocab=97, d_model=64, steps=25, warmup=2)
    options = {"data_workers": 0, "checkpoint_steps": 10, "log_steps": 1}
    render_plan(plan, "modelzoo", tmp_path / "jobs", options=options)
    program = tmp_path / "cszoo"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.append({SOURCE!r})\n"
        "from cerebras.modelzoo.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    bin_folder = Path(sys.executable).parent
    env = {
        "PATH": f"{tmp_path}:{bin_folder}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "TRAIN_DATA_DIR": str(data),
        "PLANNER_RUNS_DIR": str(tmp_path / "runs"),
    }

    def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tmp_path / "jobs" / "launch.sh"), *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    done = launch("validate")
    assert done.returncode == 0, done.stderr[-3000:]
    done = launch("fit", "--target_device", "CPU")
    assert done.returncode == 0, done.stderr[-3000:]
    (place,) = (tmp_path / "runs" / "tiny").glob("*/tiny-20tpp/seed0")
    assert (place / "checkpoint_25.mdl").exists()
    assert (place / "done").read_text().strip() == plan.runs[0].digest
    again = launch("fit", "--target_device", "CPU")
    assert again.returncode == 0
    assert "done, nothing to start" in again.stdout
    # As if stopped after step 20.
    (place / "checkpoint_25.mdl").unlink()
    (place / "done").unlink()
    index = place / "checkpoints_index.yaml"
    index.write_text(
        "".join(line for line in index.read_text().splitlines(True) if "checkpoint_25" not in line)
    )
    resumed = launch("fit", "--target_device", "CPU")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert (place / "checkpoint_25.mdl").exists()
    assert "Processed 40 training sample(s)" in resumed.stdout + resumed.stderr  # 5 steps of 8
