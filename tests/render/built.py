"""Trainers built from rendered files, tensor by tensor: what the shared tests compare.

Each target has one function that builds its model and optimizer with the target's own classes from
a rendered bundle, and says of every parameter which of the reference model's weights it is, what
the built model multiplies it by, and what the optimizer does with it. All that is read from the
built objects, not from the file.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from planner.plan import Plan, Run, sealed
from planner.plan.model import Parametrization, Params
from planner.render import Bundle, render_plan

from .backend import cpu_backend
from .plans import make_plan, make_run

CEREBRAS = ("cstorch", "modelzoo")


@dataclass(frozen=True)
class Part:
    """One parameter of a built model.

    Attributes:
        name: The target's name for it.
        tensor_class: The plan's row.
        weight: The parameter.
        reference: Name of the reference model's parameter; None if it has none.
        rows: Which rows of that parameter it is, a slice or the number of each.
        native: What the built model multiplies it by; for a bias, also the product it is added to.
        group: The optimizer's group.
        owner: Class of the weights that a bias is added to.
        attention: What the built model multiplies q.k by, for what makes up q.
    """

    name: str
    tensor_class: str
    weight: Any
    reference: str
    rows: Any
    native: float
    group: dict[str, Any] = field(repr=False)
    owner: str | None = None
    attention: float | None = None

    def factor(self, run: Run) -> float:
        """How many times the plan's weights the built model holds."""
        wanted = run.tensor(self.tensor_class).forward_multiplier
        native = self.native
        if self.owner is not None:
            wanted *= run.tensor(self.owner).forward_multiplier
        if self.attention is not None:
            wanted *= run.model.attention_multiplier
            native *= self.attention
        return wanted / native


@dataclass(frozen=True)
class Built:
    """A model and optimizer built from rendered files.

    Attributes:
        model: The target's model.
        parts: Its parameters.
        betas: Of the optimizer.
        factor: Share of the peak learning rate that update number i uses.
        logits: What logits are multiplied by.
        eps: ``exact`` if every class can have its own epsilon.
        rounding: Of learning rates, as a share of the peak.
        engine: The target's optimizer and schedule, where a test steps them itself.
    """

    model: Any
    parts: tuple[Part, ...]
    betas: tuple[float, float]
    factor: Callable[[int], float]
    logits: float
    eps: str = "exact"
    rounding: float = 0.0
    engine: Any = None


def counted_run(rule: Parametrization, **changes: Any) -> Run:
    """Return a run whose parameter count is that of the reference model."""
    from planner.train.model import Transformer

    run = make_run(rule, **changes)
    total = sum(p.numel() for p in Transformer(run, 0).parameters())
    return replace(run, params=Params(total, run.params.non_embedding, total))


def write(run: Run, rule: Parametrization, target: str, folder: Path, **options: Any) -> Plan:
    """Render a plan of one run into a folder; return the plan."""
    plan = sealed(make_plan(run, rule=rule))
    launcher = "cs3" if target in CEREBRAS else "local"
    render_plan(plan, f"{target}+{launcher}", folder, options=options)
    return plan


def script_of(folder: Path) -> Any:
    """Import the rendered ``train.py`` of a run's folder."""
    spec = importlib.util.spec_from_file_location("rendered_train", folder / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where torchtitan looks for the source of its configuration
    spec.loader.exec_module(module)
    return module


def start(
    folder: Path, seed: int, output: Path, *, processes: int = 1, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a rendered script in a process of its own, by torchrun if there are several."""
    command = [sys.executable, "-P"]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    config = folder / f"config-seed{seed}.yaml"
    return subprocess.run(
        [*command, str(folder / "train.py"), str(config), "--output", str(output)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        cwd=output.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start_and_stop(folder: Path, seed: int, output: Path) -> tuple[int, str]:
    """Run a rendered script, ask it to stop once it has logged a loss; its status and stderr."""
    command = [sys.executable, "-P", str(folder / "train.py")]
    log = output / "log.jsonl"
    with subprocess.Popen(
        [*command, str(folder / f"config-seed{seed}.yaml"), "--output", str(output)],
        cwd=output.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until = time.monotonic() + 240
        while not log.exists() or '"loss"' not in log.read_text():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=240)
    return process.returncode, said


def log(output: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the heads and the steps of a rendered script's log."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    return [line for line in lines if "step" not in line], steps


def losses(output: Path) -> list[float]:
    """Return the losses of a rendered script's log."""
    return [line["loss"] for line in log(output)[1]]


def shell_and_manifests(bundle: Bundle) -> str:
    """Return what a bundle's launcher reads, all of it; not the runs' configurations."""
    return "\n".join(
        text
        for path, text in bundle.rendered.files.items()
        if path.endswith((".sh", ".yaml")) and "config-seed" not in path
    )


def groups_by_parameter(optimizer: Any) -> dict[int, dict[str, Any]]:
    """Return the optimizer's group of every parameter, by identity; no parameter is in two."""
    found: dict[int, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = group
    return found


def hf_granite(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with Transformers' Granite and torch's AdamW."""
    folder = bundle / run.name
    script = script_of(folder)
    config = script.read_config(folder / f"config-seed{seed}.yaml")
    model = script.make_model(config)
    optimizer = script.make_optimizer(model, config)
    schedule = script.make_schedule(optimizer, config)
    shape, inner = run.model, model.model
    residual = {layer.residual_multiplier for layer in inner.layers}
    scale = {layer.self_attn.scaling for layer in inner.layers}
    (multiplier,), (attention,) = residual, scale
    groups = groups_by_parameter(optimizer)
    peaks = {id(group): group["initial_lr"] for group in optimizer.param_groups}
    kv, width = shape.n_kv_heads * shape.head_dim, shape.n_heads * shape.head_dim
    places = {
        "self_attn.q_proj": ("attn_qkv", "attention.qkv", slice(0, width)),
        "self_attn.k_proj": ("attn_qkv", "attention.qkv", slice(width, width + kv)),
        "self_attn.v_proj": ("attn_qkv", "attention.qkv", slice(width + kv, width + 2 * kv)),
        "self_attn.o_proj": ("attn_out", "attention.out", slice(None)),
        "mlp.gate_proj": ("ffn_in", "ffn.inner", slice(0, shape.d_ffn)),
        "mlp.up_proj": ("ffn_in", "ffn.inner", slice(shape.d_ffn, 2 * shape.d_ffn)),
        "mlp.down_proj": ("ffn_out", "ffn.out", slice(None)),
        "input_layernorm": ("norm", "attention_norm", slice(None)),
        "post_attention_layernorm": ("norm", "ffn_norm", slice(None)),
    }
    top = {
        "model.embed_tokens.weight": ("embedding", "embedding.weight", inner.embedding_multiplier),
        "model.norm.weight": ("final_norm", "norm.weight", 1.0),
        "lm_head.weight": ("unembedding", "unembedding.weight", 1 / model.config.logits_scaling),
    }

    def parts() -> Iterator[Part]:
        for name, weight in model.named_parameters():
            group = {**groups[id(weight)], "lr": peaks[id(groups[id(weight)])]}
            if name in top:
                tensor_class, reference, native = top[name]
                yield Part(name, tensor_class, weight, reference, slice(None), native, group)
                continue
            match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
            assert match is not None, name
            owner, place, rows = places[match[2]]
            native = multiplier if owner in ("attn_out", "ffn_out") else 1.0
            reference = f"blocks.{match[1]}.{place}.{match[3]}"
            bias = match[3] == "bias"
            yield Part(
                name,
                "bias" if bias else owner,
                weight,
                reference,
                rows,
                native,
                group,
                owner=owner if bias else None,
                attention=attention if match[2].endswith("q_proj") else None,
            )

    return Built(
        model,
        tuple(parts()),
        tuple(optimizer.defaults["betas"]),
        schedule.lr_lambdas[0],
        1 / model.config.logits_scaling,
    )


def torch_reference(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with this project's reference trainer."""
    from planner.train.config import read_job
    from planner.train.model import Transformer
    from planner.train.optimizer import make_optimizer, table_values
    from planner.train.schedule import rate_factor

    job = read_job(str(bundle / run.name / f"run-seed{seed}.json"), None, {})
    model = Transformer(job.run, job.seed)
    values = table_values(model, job.run)
    optimizer = make_optimizer(model.tensors(), values, job.run.optimizer.betas)
    groups = groups_by_parameter(optimizer)
    modules = dict(model.named_modules())
    found = []
    for name, tensor_class, weight in model.tensors():
        module = modules[name.rpartition(".")[0]]
        owner = module.classes["weight"] if tensor_class == "bias" else None
        native = module.multiplier
        if owner is not None:
            native *= module.bias_multiplier
        group = groups[id(weight)]
        attention = model.blocks[0].attention.scale if tensor_class == "attn_qkv" else None
        found.append(
            Part(name, tensor_class, weight, name, slice(None), native, group, owner, attention)
        )
    return Built(
        model,
        tuple(found),
        tuple(optimizer.defaults["betas"]),
        lambda update: rate_factor(job.run, update),
        model.logit_multiplier,
    )


def olmo_core(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with OLMo-core's transformer, train module and AdamW."""
    import torch

    folder = bundle / run.name
    script = script_of(folder)
    config = script.read_config(folder / f"config-seed{seed}.yaml")
    micro, _ = script.split_batch(config["batch"], 1)
    module = script.make_train_module(config, micro, device=torch.device("cpu"))
    model, shape = module.model, run.model
    blocks = list(model.blocks.values())
    (attention,) = {block.attention.backend.scale for block in blocks}
    attention = attention or 1 / math.sqrt(blocks[0].attention.head_dim)
    (first,) = {block.attention_residual_stream.alpha for block in blocks}
    (second,) = {block.feed_forward_residual_stream.alpha for block in blocks}
    embedding = 1.0 if model.embed_scale is None else model.embed_scale
    groups = groups_by_parameter(module.optim)
    kv, width = shape.n_kv_heads * shape.head_dim, shape.n_heads * shape.head_dim
    every = slice(None)
    places = {
        "attention.w_q": ("attn_qkv", "attention.qkv", slice(0, width), 1.0),
        "attention.w_k": ("attn_qkv", "attention.qkv", slice(width, width + kv), 1.0),
        "attention.w_v": ("attn_qkv", "attention.qkv", slice(width + kv, width + 2 * kv), 1.0),
        "attention.w_out": ("attn_out", "attention.out", every, first),
        "feed_forward.w1": ("ffn_in", "ffn.inner", slice(0, shape.d_ffn), 1.0),
        "feed_forward.w3": ("ffn_in", "ffn.inner", slice(shape.d_ffn, 2 * shape.d_ffn), 1.0),
        "feed_forward.w2": ("ffn_out", "ffn.out", every, second),
        "attention_norm": ("norm", "attention_norm", every, 1.0),
        "feed_forward_norm": ("norm", "ffn_norm", every, 1.0),
    }
    top = {
        "embeddings.weight": ("embedding", "embedding.weight", embedding),
        "lm_head.norm.weight": ("final_norm", "norm.weight", 1.0),
        "lm_head.norm.bias": ("final_norm", "norm.bias", 1.0),
        "lm_head.w_out.weight": ("unembedding", "unembedding.weight", 1.0),
    }

    def parts() -> Iterator[Part]:
        for name, weight in model.named_parameters():
            group = groups[id(weight)]
            if name in top:
                tensor_class, reference, native = top[name]
                yield Part(name, tensor_class, weight, reference, every, native, group)
                continue
            match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
            assert match is not None, name
            owner, place, rows, native = places[match[2]]
            bias = match[3] == "bias" and owner != "norm"
            yield Part(
                name,
                "bias" if bias else owner,
                weight,
                f"blocks.{match[1]}.{place}.{match[3]}",
                rows,
                native,
                group,
                owner=owner if bias else None,
                attention=attention if match[2] == "attention.w_q" else None,
            )

    betas = {tuple(group["betas"]) for group in module.optim.param_groups}
    assert len(betas) == 1
    return Built(
        model,
        tuple(parts()),
        betas.pop(),
        lambda update: module.scheduler.get_lr(1.0, update + 1, run.steps),
        1.0,
    )


def torchtitan(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with torchtitan's Llama 3, optimizers and schedulers, as its trainer does."""
    folder = bundle / run.name
    script = script_of(folder)
    found, model, _ = script.build(script.read_config(folder / f"config-seed{seed}.yaml"))
    model.to_empty(device="cpu")
    model.init_weights(buffer_device=None)
    optimizers = found.optimizer.build(model_parts=[model])
    schedulers = found.lr_scheduler.build(optimizers=optimizers, training_steps=run.steps)
    (optimizer,), (scheduler,) = optimizers.optimizers, schedulers.schedulers
    shape = run.model
    # None leaves the product to PyTorch, which divides it by the root of the head's dimension.
    (attention,) = {
        layer.attention.scaling or 1 / math.sqrt(layer.attention.head_dim)
        for layer in model.layers.values()
    }
    groups = groups_by_parameter(optimizer)
    kv, width = shape.n_kv_heads * shape.head_dim, shape.n_heads * shape.head_dim
    every = slice(None)
    places = {
        "attention.qkv_linear.wq": ("attn_qkv", "attention.qkv", slice(0, width)),
        "attention.qkv_linear.wk": ("attn_qkv", "attention.qkv", slice(width, width + kv)),
        "attention.qkv_linear.wv": ("attn_qkv", "attention.qkv", slice(width + kv, None)),
        "attention.wo": ("attn_out", "attention.out", every),
        "feed_forward.w1": ("ffn_in", "ffn.inner", slice(0, shape.d_ffn)),
        "feed_forward.w3": ("ffn_in", "ffn.inner", slice(shape.d_ffn, None)),
        "feed_forward.w2": ("ffn_out", "ffn.out", every),
        "attention_norm": ("norm", "attention_norm", every),
        "ffn_norm": ("norm", "ffn_norm", every),
    }
    top = {
        "tok_embeddings.weight": ("embedding", "embedding.weight"),
        "norm.weight": ("final_norm", "norm.weight"),
        "lm_head.weight": ("unembedding", "unembedding.weight"),
    }

    def parts() -> Iterator[Part]:
        for name, weight in model.named_parameters():
            group = {**groups[id(weight)], "lr": groups[id(weight)]["initial_lr"]}
            if name in top:
                tensor_class, reference = top[name]
                yield Part(name, tensor_class, weight, reference, every, 1.0, group)
                continue
            match = re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", name)
            assert match is not None, name
            owner, place, rows = places[match[2]]
            bias = match[3] == "bias"
            yield Part(
                name,
                "bias" if bias else owner,
                weight,
                f"blocks.{match[1]}.{place}.{match[3]}",
                rows,
                1.0,
                group,
                owner=owner if bias else None,
                attention=attention if match[2].endswith("wq") else None,
            )

    betas = {tuple(group["betas"]) for group in optimizer.param_groups}
    assert len(betas) == 1
    return Built(model, tuple(parts()), betas.pop(), scheduler.lr_lambdas[0], 1.0)


def cstorch(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with the script's own model and cerebras_pytorch's AdamW and schedulers."""
    cpu_backend()
    folder = bundle / run.name
    script = script_of(folder)
    config = script.read_config(folder / f"config-seed{seed}.yaml")
    model, shape = script.make_model(config), run.model
    script.draw(model, config)
    optimizer = script.make_optimizer(model, config)
    schedule = script.make_schedule(optimizer, config)
    groups = groups_by_parameter(optimizer)
    peaks = {
        id(group): scale
        for group, scale in zip(optimizer.param_groups, schedule.adjustment_scalars, strict=True)
    }
    (attention,) = {block.attention.scale for block in model.blocks}
    kv, width = shape.n_kv_heads * shape.head_dim, shape.n_heads * shape.head_dim
    gate = shape.d_ffn if shape.gated else 0
    every = slice(None)
    places = {
        "attention.q": ("attn_qkv", "attention.qkv", slice(0, width)),
        "attention.k": ("attn_qkv", "attention.qkv", slice(width, width + kv)),
        "attention.v": ("attn_qkv", "attention.qkv", slice(width + kv, width + 2 * kv)),
        "attention.out": ("attn_out", "attention.out", every),
        "ffn.gate": ("ffn_in", "ffn.inner", slice(0, gate)),
        "ffn.inner": ("ffn_in", "ffn.inner", slice(gate, gate + shape.d_ffn)),
        "ffn.out": ("ffn_out", "ffn.out", every),
        "attention_norm": ("norm", "attention_norm", every),
        "ffn_norm": ("norm", "ffn_norm", every),
    }
    top = {"embedding": "embedding", "norm": "final_norm", "unembedding": "unembedding"}

    def multiplier(block: Any, path: str) -> float:
        if path in ("attention.out", "ffn.out"):
            return float(block.factors[path == "ffn.out"])
        owner = block.get_submodule(path if path.endswith("norm") else path.partition(".")[0])
        return float(owner.factor)

    def parts() -> Iterator[Part]:
        for name, weight in model.named_parameters():
            path, _, last = name.rpartition(".")
            group = {**groups[id(weight)], "lr": peaks[id(groups[id(weight)])]}
            if path in top:
                native = model.head_factor if path == "unembedding" else getattr(model, path).factor
                yield Part(name, top[path], weight, name, every, native, group)
                continue
            _, number, place = path.split(".", 2)
            block = model.blocks[int(number)]
            owner, reference, rows = places[place]
            native, bias = multiplier(block, place), last == "bias" and owner != "norm"
            if bias:
                native *= block.get_submodule(place).bias_factor
            yield Part(
                name,
                "bias" if bias else owner,
                weight,
                f"blocks.{number}.{reference}.{last}",
                rows,
                native,
                group,
                owner=owner if bias else None,
                attention=attention if place == "attention.q" else None,
            )

    return Built(
        model,
        tuple(parts()),
        tuple(optimizer.defaults["betas"]),
        stepped(run, optimizer, [schedule], lambda group: group["lr"] / peaks[id(group)]),
        model.head_factor,
        rounding=2e-7,
    )


def stepped(
    run: Run, optimizer: Any, schedulers: list[Any], share: Callable[[Any], Any]
) -> Callable[[int], float]:
    """Return the share of the peak by update, found by stepping cerebras_pytorch's schedulers."""

    @cache
    def rates() -> list[float]:
        found = []
        for _ in range(run.steps):
            found.append(float(share(optimizer.param_groups[0])))
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        return found

    return lambda update: rates()[update]


def modelzoo(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with ModelZoo's GPT, and its parameter groups, optimizer and schedulers."""
    from .zoo import build_zoo

    params = bundle / run.name / f"params-seed{seed}.yaml"
    model, optimizer, schedulers = build_zoo(params.read_text())
    shape, inner = run.model, model.model
    layers = inner.transformer_decoder.layers
    (attention,) = {
        layer.self_attn.attention_logits_alpha
        / (shape.head_dim if layer.self_attn.scale_qk_dot_by_d else math.sqrt(shape.head_dim))
        for layer in layers
    }
    rate, *decays = schedulers
    nested = getattr(rate, "_scheduler_nested", rate)
    peak = max(
        getattr(part, name)
        for part in getattr(nested, "_schedulers", [nested])
        for name in ("initial_learning_rate", "end_learning_rate", "learning_rate")
        if hasattr(part, name)
    )
    groups = groups_by_parameter(optimizer)

    def trained(weight: Any) -> dict[str, Any]:
        """What the optimizer does, in float64; the schedulers set it in float32."""
        group = groups[id(weight)]
        decay = group["weight_decay"]
        for scheduler in decays:
            if scheduler._should_apply_to_param_group(group):
                assert math.isclose(float(decay), scheduler.val, rel_tol=1e-6)
                decay = scheduler.val
        scale = group.get("adjust_learning_rate", 1.0)
        return {"lr": peak * scale, "weight_decay": decay, "eps": group["eps"]}

    kv, width = shape.n_kv_heads * shape.head_dim, shape.n_heads * shape.head_dim
    gate = shape.d_ffn if shape.gated else 0
    every = slice(None)
    places = {
        "self_attn.proj_q_dense_layer": ("attn_qkv", "attention.qkv", slice(0, width)),
        "self_attn.proj_k_dense_layer": ("attn_qkv", "attention.qkv", slice(width, width + kv)),
        "self_attn.proj_v_dense_layer": (
            "attn_qkv",
            "attention.qkv",
            slice(width + kv, width + 2 * kv),
        ),
        "self_attn.proj_output_dense_layer": ("attn_out", "attention.out", every),
        "ffn.ffn.0.linear_layer_for_glu": ("ffn_in", "ffn.inner", slice(0, gate)),
        "ffn.ffn.0.linear_layer": ("ffn_in", "ffn.inner", slice(gate, gate + shape.d_ffn)),
        "ffn.ffn.1.linear_layer": ("ffn_out", "ffn.out", every),
        "norm1": ("norm", "attention_norm", every),
        "norm3": ("norm", "ffn_norm", every),
    }
    logits, embeddings = float(inner.output_logits_scale or 1.0), float(inner.embeddings_scale)
    top = {
        "embedding_layer.word_embeddings": ("embedding", "embedding", embeddings),
        "ln_f": ("final_norm", "norm", 1.0),
        "lm_head": ("unembedding", "unembedding", logits),
    }

    def parts() -> Iterator[Part]:
        for name, weight in model.named_parameters():
            if not weight.requires_grad:  # ALiBi's slopes
                continue
            path, _, last = name.removeprefix("model.").rpartition(".")
            if path in top:
                tensor_class, reference, native = top[path]
                name = f"{reference}.{last}"
                yield Part(name, tensor_class, weight, name, every, native, trained(weight))
                continue
            _, _, number, place = path.split(".", 3)
            owner, reference, rows = places[place]
            bias = last == "bias" and owner != "norm"
            yield Part(
                name,
                "bias" if bias else owner,
                weight,
                f"blocks.{number}.{reference}.{last}",
                rows,
                1.0,
                trained(weight),
                owner=owner if bias else None,
                attention=attention if "proj_q" in place else None,
            )

    scale = optimizer.param_groups[0].get("adjust_learning_rate", 1.0)
    return Built(
        model,
        tuple(parts()),
        tuple(optimizer.defaults["betas"]),
        stepped(run, optimizer, schedulers, lambda group: group["lr"] / (peak * scale)),
        logits,
        eps="negligible",
        rounding=2e-7,
    )


def megatron(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with Megatron's model, optimizer and schedule, on a CPU."""
    from .megatron_cpu import megatron

    return megatron(run, bundle, seed)


BUILDERS: dict[str, Callable[..., Built]] = {
    "cstorch": cstorch,
    "megatron": megatron,
    "modelzoo": modelzoo,
    "torch": torch_reference,
    "hf-granite": hf_granite,
    "olmo-core": olmo_core,
    "torchtitan": torchtitan,
}


def compare_with_table(run: Run, built: Built) -> dict[str, float]:
    """Compare every tensor with the plan's table after undoing what was folded.

    Exact (1e-12) for learning rate, decay and epsilon; 3 % for the measured standard deviation of
    a class, and for each tensor with at least 20,000 entries.

    Returns:
        By class: the measured standard deviation over the plan's.
    """
    close = {"rel_tol": 1e-12, "abs_tol": 0.0}
    squares: dict[str, tuple[float, int]] = {}
    for part in built.parts:
        row, c = run.tensor(part.tensor_class), part.factor(run)
        assert math.isclose(part.group["lr"] / c, row.lr, **close), part
        assert math.isclose(part.group["weight_decay"] * c, row.weight_decay, **close), part
        eps = part.group["eps"]
        if not math.isclose(eps * c, row.eps, **close):
            assert built.eps == "negligible", part
            assert run.optimizer.eps_mode == "negligible"
            assert 0 < eps <= run.optimizer.eps <= 1e-12
        data = part.weight.detach().double() / c
        if row.init_std is None:
            constant = 0.0 if part.name.endswith("bias") else 1.0
            assert bool((abs(data - constant) < 1e-6).all()), part
            continue
        total, count = squares.get(part.tensor_class, (0.0, 0))
        own = float(data.square().sum())
        squares[part.tensor_class] = total + own, count + data.numel()
        assert abs(float(data.mean())) < 6 * row.init_std / math.sqrt(data.numel()), part
        if data.numel() >= 20_000:
            assert math.isclose(math.sqrt(own / data.numel()), row.init_std, rel_tol=0.03), part
    assert len({id(part.weight) for part in built.parts}) == len(built.parts)
    trained = [weight for weight in built.model.parameters() if weight.requires_grad]
    assert len(built.parts) == len(trained)
    assert built.betas == run.optimizer.betas
    if run.model.tied_embeddings:
        (table,) = [part for part in built.parts if part.tensor_class == "embedding"]
        head = run.tensor("unembedding").forward_multiplier
        assert math.isclose(built.logits * table.factor(run), head, **close)
    ratios = {}
    for name, (total, count) in squares.items():
        std = run.tensor(name).init_std
        assert std is not None
        ratios[name] = math.sqrt(total / count) / std
        assert math.isclose(ratios[name], 1.0, rel_tol=0.03), (name, ratios[name])
    return ratios


def copy_to_reference(run: Run, built: Built) -> Any:
    """Return the reference model with the built model's weights, what was folded undone."""
    import torch

    from planner.train.model import Transformer

    reference = Transformer(run, 0)
    tensors = {name: parameter for name, _, parameter in reference.tensors()}
    filled = dict.fromkeys(tensors, 0)
    with torch.no_grad():
        for part in built.parts:
            tensors[part.reference][part.rows] = (part.weight / part.factor(run)).detach()
            filled[part.reference] += part.weight.numel()
    assert filled == {name: parameter.numel() for name, parameter in tensors.items()}
    return reference
