"""Megatron's own model, optimizer and schedule, built from rendered files on a CPU."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planner.plan import Run

from .built import Built, Part, groups_by_parameter, script_of


def qkv_rows(run: Run) -> Any:
    """Where each row of Megatron's linear_qkv is in the reference's q, k and v."""
    import torch

    shape, c = run.model, run.model.head_dim
    share = shape.n_heads // shape.n_kv_heads
    width, kv = shape.n_heads * c, shape.n_kv_heads * c
    found: list[int] = []
    for group in range(shape.n_kv_heads):
        found += range(group * share * c, (group + 1) * share * c)
        found += range(width + group * c, width + (group + 1) * c)
        found += range(width + kv + group * c, width + kv + (group + 1) * c)
    return torch.tensor(found)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    import logging

    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def megatron(run: Run, bundle: Path, seed: int = 0) -> Built:
    """Build with Megatron's GPTModel, optimizer and schedule."""
    import torch
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.optimizer import get_megatron_optimizer
    from megatron.training.global_vars import set_args
    from megatron.training.training import get_optimizer_param_scheduler

    from .megatron_checkout.gpu_is_cpu import gpu_is_cpu

    folder = bundle / run.name
    script = script_of(folder)
    config = script.read_config(folder / f"config-seed{seed}.yaml")
    with quiet(), gpu_is_cpu():
        args, model, _ = script.make_model(config, "cpu")
        settings, overrides = script.make_overrides(args, model)
        settings.timers = None
        model.ddp_config = DistributedDataParallelConfig()
        optimizer = get_megatron_optimizer(settings, [model], config_overrides=overrides)
        set_args(args)
        scheduler = get_optimizer_param_scheduler(optimizer)
    assert args.params_dtype == torch.float32
    groups = groups_by_parameter(optimizer)
    shape = model.config
    embedding = shape.mup_embedding_mult if shape.use_mup else 1.0
    logits = shape.mup_output_mult if shape.use_mup else 1.0
    (attention,) = {
        layer.self_attention.core_attention.softmax_scale for layer in model.decoder.layers
    }
    every, rows = slice(None), qkv_rows(run)
    places = {
        "self_attention.linear_qkv": ("attn_qkv", "attention.qkv", rows),
        "self_attention.linear_proj": ("attn_out", "attention.out", every),
        "mlp.linear_fc1": ("ffn_in", "ffn.inner", every),
        "mlp.linear_fc2": ("ffn_out", "ffn.out", every),
        "input_layernorm": ("norm", "attention_norm", every),
        "pre_mlp_layernorm": ("norm", "ffn_norm", every),
    }
    top = {
        "embedding.word_embeddings.weight": ("embedding", "embedding.weight", embedding),
        "embedding.position_embeddings.weight": ("embedding", "embedding.positions", embedding),
        "decoder.final_layernorm.weight": ("final_norm", "norm.weight", 1.0),
        "decoder.final_layernorm.bias": ("final_norm", "norm.bias", 1.0),
        "output_layer.weight": ("unembedding", "unembedding.weight", logits),
    }

    def parts() -> Iterator[Part]:
        for name, weight in model.named_parameters():
            group = {**groups[id(weight)], "lr": groups[id(weight)]["max_lr"]}
            if name in top:
                tensor_class, reference, native = top[name]
                yield Part(name, tensor_class, weight, reference, every, native, group)
                continue
            match = re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
            assert match is not None, name
            owner, place, where = places[match[2]]
            bias = match[3] == "bias" and owner != "norm"
            yield Part(
                name,
                "bias" if bias else owner,
                weight,
                f"blocks.{match[1]}.{place}.{match[3]}",
                where,
                1.0,
                group,
                owner=owner if bias else None,
                attention=attention if owner == "attn_qkv" else None,
            )

    def factor(update: int) -> float:
        scheduler.num_steps = update * args.global_batch_size
        scheduler.step(0)
        shares = {round(group["lr"] / group["max_lr"], 12) for group in optimizer.param_groups}
        assert len(shares) == 1
        return float(optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["max_lr"])

    betas = {tuple(group["betas"]) for group in optimizer.param_groups}
    assert len(betas) == 1
    return Built(
        model,
        tuple(parts()),
        betas.pop(),
        factor,
        logits,
        eps="negligible",
        engine=(optimizer, scheduler),
    )
