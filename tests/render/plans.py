"""Small plans for the tests, computed here from the papers' tables and not by the compiler.

The rows follow the table of FACTS section 4 (CompleteP's Table 1), each class written out, so that
they are an oracle independent of `planner.compile`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from planner.plan import Plan, Run, sealed
from planner.plan.model import (
    Batch,
    Conventions,
    Data,
    Experts,
    Flops,
    Model,
    Multipliers,
    Optimizer,
    Parametrization,
    Params,
    Predicted,
    Schedule,
    Tensor,
)


def make_run(
    parametrization: Parametrization,
    *,
    name: str = "tiny-20tpp",
    d_model: int = 128,
    n_layers: int = 4,
    head_dim: int = 32,
    n_kv_heads: int | None = None,
    d_ffn: int | None = None,
    gated: bool = False,
    activation: str = "relu2",
    position: str = "alibi",
    norm: str = "layernorm",
    biases: bool = False,
    tied: bool = False,
    experts: Experts | None = None,
    vocab: int = 1000,
    seq_len: int = 64,
    sequences: int = 8,
    steps: int = 100,
    warmup: int = 10,
    weight_decay: float = 0.1,
    eps: float = 1e-16,
    eps_mode: Any = "negligible",
    betas: tuple[float, float] = (0.9, 0.95),
    clip: float | None = None,
    schedule: Schedule | None = None,
    seeds: tuple[int, ...] = (0,),
    precision: Any = "bf16",
) -> Run:
    """Return one run whose rows follow the parametrization's table."""
    p = parametrization
    n_heads = d_model // head_dim
    d_ffn = d_ffn or 4 * d_model
    standard = p.kind == "standard"
    deep = p.kind == "completep"
    m_n = 1.0 if standard else d_model / p.base_width
    m_f = 1.0 if standard else d_ffn / p.base_ffn_width
    m_l = n_layers / p.base_depth if deep else 1.0
    residual = m_l**-p.depth_exponent if deep else 1.0
    hidden_lr = m_l ** (p.depth_exponent - 1.0) if deep else 1.0
    lam, lr, std = weight_decay, p.base_lr, p.init_std
    hidden_decay = 1.0 if p.decay == "coupled" or standard else m_n
    ffn_out_decay = 1.0 if p.decay == "coupled" or standard else m_f
    hidden_eps = eps * residual / m_n
    tokens = sequences * seq_len * steps
    step_tokens = sequences * seq_len

    def row(
        tensor_class: Any,
        init_std: float | None,
        rate: float,
        decay: float,
        epsilon: float,
        forward: float = 1.0,
    ) -> Tensor:
        tau = step_tokens / (rate * decay * tokens) if rate * decay else None
        return Tensor(tensor_class, init_std, rate, decay, epsilon, forward, tau)

    tensors = [
        row("embedding", std, lr, lam, eps, p.input_multiplier),
        row("attn_qkv", std / math.sqrt(m_n), lr * hidden_lr / m_n, lam * hidden_decay, hidden_eps),
        row(
            "attn_out",
            std / math.sqrt(m_n),
            lr * hidden_lr / m_n,
            lam * hidden_decay,
            hidden_eps,
            residual,
        ),
        row("ffn_in", std / math.sqrt(m_n), lr * hidden_lr / m_n, lam * hidden_decay, hidden_eps),
        row(
            "ffn_out",
            std / math.sqrt(m_f),
            lr * hidden_lr / m_f,
            lam * ffn_out_decay,
            hidden_eps,
            residual,
        ),
        row("norm", None, lr * hidden_lr, 0.0, hidden_eps),
        row("final_norm", None, lr, 0.0, eps),
        row("unembedding", std, lr, lam, eps, p.output_multiplier / m_n),
    ]
    if biases:
        tensors.append(row("bias", None, lr * hidden_lr, 0.0, hidden_eps))
    matrices = n_layers * (4 * d_model**2 + (3 if gated else 2) * d_model * d_ffn)
    total = matrices + vocab * d_model * (1 if tied else 2)
    return Run(
        name=name,
        size=name.split("-")[0],
        tpp=tokens / total,
        digest="",
        model=Model(
            d_model=d_model,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads or n_heads,
            head_dim=head_dim,
            d_ffn=d_ffn,
            gated=gated,
            vocab_size=vocab,
            padded_vocab_size=vocab,
            seq_len=seq_len,
            activation=activation,
            position=position,
            norm=norm,
            biases=biases,
            tied_embeddings=tied,
            experts=experts,
            attention_multiplier=1.0 / math.sqrt(head_dim) if standard else 1.0 / head_dim,
        ),
        params=Params(total, matrices, total),
        multipliers=Multipliers(m_n, m_f, m_l),
        tokens=tokens,
        steps=steps,
        warmup_steps=warmup,
        batch=Batch(sequences, step_tokens, None, None, None, None, None),
        optimizer=Optimizer(lr, lam, betas, eps, eps_mode, clip, tensors[1].tau, None),
        schedule=schedule or Schedule("linear-to-zero", warmup / steps, 0.0, 1.0),
        seeds=seeds,
        precision=precision,
        tensors=tuple(tensors),
        flops=Flops(6.0 * total * tokens, 6.0 * total * tokens, 6.0 * total * tokens, None),
        predicted=Predicted(None, None, None, 0.9, None, None, None, None, None),
        audit=(),
    )


def parametrization(kind: Any = "completep", decay: Any = None, **changes: Any) -> Parametrization:
    """Return a parametrization with the proxy values of FACTS Table 5, except where changed."""
    values: dict[str, Any] = {
        "kind": kind,
        "decay": decay or ("independent" if kind == "completep" else "coupled"),
        "base_width": 64,
        "base_ffn_width": 256.0,
        "base_depth": 2,
        "depth_exponent": 1.0,
        "base_lr": 0.0162,
        "init_std": 0.0867,
        "input_multiplier": 1.0 if kind == "standard" else 9.17,
        "output_multiplier": 1.0 if kind == "standard" else 1.095,
    }
    return Parametrization(**{**values, **changes})


def make_plan(*runs: Run, rule: Parametrization, family: str = "tiny") -> Plan:
    """Return a sealed plan of these runs."""
    return sealed(
        Plan(
            family=family,
            digest="",
            parametrization=rule,
            conventions=Conventions("total", "exact", "causal"),
            data=Data(None, None),
            laws={},
            budget=None,
            audit=(),
            warnings=(),
            runs=runs,
            provenance={},
        )
    )


def tiny_plan(**changes: Any) -> Plan:
    """Return a plan of one tiny CompleteP run."""
    rule = parametrization()
    return make_plan(make_run(rule, **changes), rule=rule)


def rename(plan: Plan, *, family: str | None = None, runs: list[str] | None = None) -> Plan:
    """Return the plan with other names, sealed again."""
    changed = plan.runs
    if runs is not None:
        changed = tuple(replace(run, name=name) for run, name in zip(plan.runs, runs, strict=True))
    return sealed(replace(plan, family=family or plan.family, runs=changed))
