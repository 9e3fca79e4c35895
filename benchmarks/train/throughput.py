"""Tokens per CPU second of `planner train` and of a plain loop of the same model, step by step.

python benchmarks/train/throughput.py [STEPS]; needs the extra `train`. The plain loop is what
people start from: a GPT with learned positions, GELU and tied embeddings, random windows of a
memory map, AdamW in two groups, gradient clipping; no multipliers, no log, no checkpoints. One
thread each, time of this process only. A step of one follows a step of the other, because the
machine's own speed drifts by a tenth within seconds; the ratio is the median over pairs of steps,
with the standard error of that median.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from planner.compile import compile_plan
from planner.spec import parse_spec
from planner.train.config import Job, Settings
from planner.train.corpus import prepare, python_source, python_texts
from planner.train.loop import train

D, LAYERS, HEADS, CONTEXT, BATCH = 256, 4, 4, 256, 8
SPEC = {
    "family": "bench",
    "tpp": 1,
    "sizes": [{"name": "bench", "d_model": D, "n_layers": LAYERS, "n_heads": HEADS}],
    "architecture": {
        "vocab_size": 256,
        "context": CONTEXT,
        "activation": "gelu",
        "position": "learned",
        "tied_embeddings": True,
    },
    "parametrization": {"base_width": 64, "base_depth": 2},
    "timescale": {"value": 0.2},
    "batch": {"value": f"{BATCH} sequences"},
    "optimizer": {"grad_clip": 1.0},
    "precision": "fp32",
}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.proj = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, s, _ = x.shape
        q, k, v = (
            y.view(b, s, HEADS, D // HEADS).transpose(1, 2)
            for y in self.qkv(self.n1(x)).split(D, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).contiguous().view(b, s, D))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, D), nn.Embedding(CONTEXT, D)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(D, bias=False), nn.Linear(D, 256, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() > 1:  # PyTorch's defaults would saturate the softmax
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        logits = self.head(self.norm(h))
        return F.cross_entropy(logits.view(-1, 256), y.reshape(-1))


class PlainLoop:
    def __init__(self, folder: Path) -> None:
        self.data = np.memmap(folder / "tokens.bin", dtype="<u1", mode="r")
        self.model = Plain()
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        rest = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95))

    def step(self) -> None:
        starts = torch.randint(len(self.data) - CONTEXT - 1, (BATCH,)).tolist()
        rows = [torch.from_numpy(self.data[i : i + CONTEXT + 1].astype(np.int64)) for i in starts]
        tokens = torch.stack(rows)
        loss = self.model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()


class Pairs:
    """Does a plain step after each step of `planner train`, and keeps the times of both."""

    def __init__(self, plain: PlainLoop) -> None:
        self.plain, self.times, self.mark = plain, [], None

    def __call__(self, *_: object) -> None:
        there = time.process_time()
        self.plain.step()
        back = time.process_time()
        if self.mark is not None:  # the first step has to start up
            self.times.append((there - self.mark, back - there))
        self.mark = time.process_time()


def main() -> None:
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        source, licence = python_source()
        prepare(python_texts(), folder, source=source, licence=licence)
        plan = compile_plan(parse_spec(json.dumps(SPEC), "bench.yaml"))
        settings = Settings(data=str(folder), threads=1, device="cpu", stop_after=steps + 1)
        job = Job(plan.family, plan.digest, plan.runs[0], settings)
        plain = PlainLoop(folder)
        assert sum(p.numel() for p in plain.model.parameters()) == plan.runs[0].params.total
        pairs = Pairs(plain)
        train(job, Path(scratch) / "run", pairs)
    times = np.array(pairs.times)
    for name, seconds in zip(
        ("planner train", "plain loop"), np.median(times, axis=0), strict=True
    ):
        print(f"{name:14} {BATCH * CONTEXT / seconds:8.0f} tokens per CPU second")
    ratios = np.log(times[:, 1] / times[:, 0])
    error = 1.25 * ratios.std(ddof=1) / np.sqrt(ratios.size)
    print(f"ratio {np.exp(np.median(ratios)):.3f} +- {error:.3f} ({ratios.size} pairs of steps)")


if __name__ == "__main__":
    main()
