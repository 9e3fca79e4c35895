"""What the tests hold the compiler to, written out by hand and independent of `planner`.

Tensors as a list of shapes, matrix products one by one, and the parametrization's table row by row
(arXiv 2505.01618 Table 1, as FACTS section 4 has it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from planner.plan.model import Model, Plan, Run


@dataclass(frozen=True)
class Weight:
    """One tensor: ``kind`` is matrix, lookup (an embedding table) or vector; experts apart."""

    name: str
    dims: tuple[int, ...]
    kind: str
    expert: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.dims)


def weights(model: Model) -> list[Weight]:
    """List every tensor of a model, as a trainer would allocate them."""
    d, ffn = model.d_model, model.d_ffn
    queries, keys = model.n_heads * model.head_dim, model.n_kv_heads * model.head_dim
    found = [Weight("wte", (model.padded_vocab_size, d), "lookup")]
    if model.position == "learned":
        found.append(Weight("wpe", (model.seq_len, d), "lookup"))

    def norm(name: str) -> None:
        found.append(Weight(f"{name}.gain", (d,), "vector"))
        if model.norm == "layernorm" and model.biases:
            found.append(Weight(f"{name}.bias", (d,), "vector"))

    def matrix(name: str, rows: int, columns: int, *, bias: bool, expert: bool = False) -> None:
        found.append(Weight(name, (rows, columns), "matrix", expert))
        if bias:
            found.append(Weight(f"{name}.bias", (rows,), "vector", expert))

    for layer in range(model.n_layers):
        norm(f"{layer}.ln1")
        matrix(f"{layer}.q", queries, d, bias=model.biases)
        matrix(f"{layer}.k", keys, d, bias=model.biases)
        matrix(f"{layer}.v", keys, d, bias=model.biases)
        matrix(f"{layer}.o", d, queries, bias=model.biases)
        norm(f"{layer}.ln2")
        if model.experts is not None:
            matrix(f"{layer}.router", model.experts.count, d, bias=False)
        for expert in range(model.experts.count if model.experts else 1):
            inside = f"{layer}.{expert}"
            sparse = model.experts is not None
            matrix(f"{inside}.in", ffn, d, bias=model.biases, expert=sparse)
            if model.gated:
                matrix(f"{inside}.gate", ffn, d, bias=model.biases, expert=sparse)
            matrix(f"{inside}.out", d, ffn, bias=model.biases, expert=sparse)
    norm("ln_f")
    if not model.tied_embeddings:
        found.append(Weight("lm_head", (model.padded_vocab_size, d), "matrix"))
    return found


def counts(model: Model) -> dict[str, int]:
    """Count the tensors of `weights` by each convention."""
    found = weights(model)
    share = Fraction(model.experts.top_k, model.experts.count) if model.experts else Fraction(1)

    def total(keep: list[Weight], part: Fraction = Fraction(1)) -> int:
        count = sum(w.count * (part if w.expert else 1) for w in keep)
        assert count == int(count)
        return int(count)

    outside = ("wte", "wpe", "lm_head")
    return {
        "total": total(found),
        "non_embedding": total([w for w in found if w.name not in outside]),
        "active": total(found, share),
        "matrices": total([w for w in found if w.kind != "vector"]),
    }


def forward_flops(model: Model, *, causal: bool) -> int:
    """Add up the operations of every matrix product of one sequence's forward pass."""
    s, d, ffn = model.seq_len, model.d_model, model.d_ffn
    queries, keys = model.n_heads * model.head_dim, model.n_kv_heads * model.head_dim

    def product(m: int, k: int, n: int) -> int:
        return 2 * m * k * n

    operations = 0
    for _ in range(model.n_layers):
        operations += product(s, d, queries) + 2 * product(s, d, keys) + product(s, queries, d)
        # scores and their use: token i sees i + 1 positions if causal, else all
        seen = s * (s + 1) // 2 if causal else s * s
        for _ in range(model.n_heads):
            operations += 2 * 2 * model.head_dim * seen
        used = 1
        if model.experts is not None:
            operations += product(s, d, model.experts.count)
            used = model.experts.top_k
        for _ in range(used):
            operations += (2 if model.gated else 1) * product(s, d, ffn) + product(s, ffn, d)
    return operations + product(s, d, model.padded_vocab_size)


@dataclass(frozen=True)
class Row:
    """Effective values of one tensor class."""

    init_std: float | None
    lr: float
    weight_decay: float
    eps: float
    forward: float


def rows(plan: Plan, run: Run) -> dict[str, Row]:
    """Write out FACTS section 4's table for one run, each class on its own line."""
    p = plan.parametrization
    scales = p.kind != "standard"
    m = run.model.d_model / p.base_width if scales else 1.0
    f = run.model.d_ffn / p.base_ffn_width if scales else 1.0
    deep = run.model.n_layers / p.base_depth if p.kind == "completep" else 1.0
    alpha = p.depth_exponent
    rate = deep ** (alpha - 1)  # eta m_L^(alpha - 1) in every block
    branch = deep**-alpha  # X + m_L^-alpha F(X)
    eta, lam, eps, sd = p.base_lr, run.optimizer.base_weight_decay, run.optimizer.eps, p.init_std
    raised = p.decay == "independent"
    small = eps / m * branch
    table = {
        "embedding": Row(sd, eta, lam, eps, p.input_multiplier),
        "attn_qkv": Row(sd / m**0.5, eta / m * rate, lam * (m if raised else 1), small, 1.0),
        "attn_out": Row(sd / m**0.5, eta / m * rate, lam * (m if raised else 1), small, branch),
        "ffn_in": Row(sd / m**0.5, eta / m * rate, lam * (m if raised else 1), small, 1.0),
        "ffn_out": Row(sd / f**0.5, eta / f * rate, lam * (f if raised else 1), small, branch),
        "norm": Row(None, eta * rate, 0.0, small, 1.0),
        "final_norm": Row(None, eta, 0.0, eps, 1.0),
        "unembedding": Row(sd, eta, lam, eps, p.output_multiplier / m),
    }
    if run.model.biases:
        table["bias"] = Row(None, eta * rate, 0.0, small, 1.0)
    if run.model.experts is not None:
        table["router"] = Row(sd, eta, lam, small, 1 / m)
    return table
