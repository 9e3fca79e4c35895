"""Whole bundles of a gated, Llama-like family, to be read: Slurm and Kubernetes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.plan import Plan, dump_plan, sealed
from planner.plan.model import Provenance
from planner.render import render_files

from .plans import make_plan, make_run, parametrization
from .test_bundle import compare_with_golden, stable

ACCELERATOR = {"accelerator": "H100", "mfu": 0.4}


def llama_like() -> Plan:
    """Two sizes, gated, with grouped keys, 16 H100 each; the larger with two seeds."""
    rule = parametrization("mup", base_width=256, base_ffn_width=704.0, base_lr=0.004)
    shape: dict[str, Any] = {
        "gated": True,
        "activation": "silu",
        "position": "rope",
        "norm": "rmsnorm",
        "head_dim": 64,
        "n_kv_heads": 4,
        "vocab": 32000,
        "seq_len": 4096,
        "sequences": 256,
        "eps": 1e-8,
        "eps_mode": "exact",
        "clip": 1.0,
    }
    runs = [
        make_run(
            rule, name="110M-20tpp", d_model=768, n_layers=12, d_ffn=2112, steps=2100, **shape
        ),
        make_run(
            rule,
            name="410M-20tpp",
            d_model=1280,
            n_layers=20,
            d_ffn=3520,
            steps=7900,
            seeds=(0, 1),
            **shape,
        ),
    ]
    costed = []
    for run in runs:
        hours = run.flops.total / (9.894e14 * 0.4 * 3600)
        predicted = replace(run.predicted, device_hours=hours, wall_hours=hours / 16)
        batch = replace(run.batch, micro=16, data_parallel=16, accumulation=1)
        costed.append(replace(run, predicted=predicted, batch=batch))
    plan = make_plan(*costed, rule=rule, family="llama-like")
    origin = {"predicted.device_hours": Provenance(inputs=dict(ACCELERATOR))}
    return sealed(replace(plan, provenance={run.name: origin for run in runs}))


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        (
            "slurm",
            {
                "partition": "gpu",
                "account": "pretraining",
                "time": "24:00:00",
                "gpu_type": "h100",
                "exclusive": True,
                "mem": "0",
                "cpus_per_task": 96,
                "activate": "/shared/envs/train/bin/activate",
                "runs_dir": "/shared/runs",
            },
        ),
        (
            "kubernetes",
            {
                "image": "registry.example/trainer:1.0",
                "env": "TRAIN_DATA_DIR=/data/corpus",
                "secrets": "WANDB_API_KEY=wandb/api-key",
                "data_claim": "corpus",
                "queue": "pretraining",
                "shm": "64Gi",
            },
        ),
    ],
)
def test_the_golden_bundles(launcher: str, options: dict[str, Any]) -> None:
    plan = llama_like()
    files = render_files(plan, f"torch+{launcher}", options)
    assert files.pop("plan.json") == dump_plan(plan)
    compare_with_golden(f"llama-like-{launcher}", stable(files, plan))
