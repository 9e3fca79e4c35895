"""The model against a plain NumPy forward pass, and the properties of its parts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.errors import PlannerError
from planner.plan import Run

from .families import SMALL, family, only

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.usefixtures("one_thread")

from planner.train.model import Transformer, alibi_slopes  # noqa: E402

WIDE = {"name": "wide", "d_model": 64, "n_layers": 2, "head_dim": 16}
OPTIONS: dict[str, dict[str, Any]] = {
    "alibi-relu2": {},
    "rope-swiglu-rms-gqa": {
        "position": "rope",
        "activation": "silu",
        "gated": True,
        "norm": "rmsnorm",
        "kv_groups": 2,
    },
    "learned-gelu-biases-tied": {
        "position": "learned",
        "activation": "gelu",
        "biases": True,
        "tied_embeddings": True,
    },
    "alibi-gqa-rms-geglu-tied": {
        "activation": "gelu",
        "gated": True,
        "norm": "rmsnorm",
        "kv_groups": 1,
        "tied_embeddings": True,
    },
    "none-relu-padded": {"position": "none", "activation": "relu", "vocab_multiple": 100},
    "experts": {"position": "rope", "experts": {"count": 4, "top_k": 2}, "biases": True},
    "gated-experts": {"experts": {"count": 3, "top_k": 1}, "gated": True, "activation": "silu"},
}
every_option = pytest.mark.parametrize("name", OPTIONS)


def run_of(name: str) -> Run:
    """A run of these options with a multiplier other than 1 in every row, to see each applied."""
    run = only(family(WIDE, architecture=OPTIONS[name]))
    rows = [
        replace(row, forward_multiplier=row.forward_multiplier * (0.9 + 0.05 * place))
        for place, row in enumerate(run.tensors)
    ]
    return replace(run, tensors=tuple(rows))


def model_of(run: Run, seed: int = 0) -> Transformer:
    """A model in float64 with biases and norms away from where they start."""
    model = Transformer(run, seed).double()
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, _, parameter in model.tensors():
            parameter += 0.05 * torch.randn(parameter.shape, generator=stream).double()
    return model


def tokens_for(run: Run, sequences: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(7)
    return torch.from_numpy(rng.integers(0, 256, (sequences, run.model.seq_len)))


# --- the same model once more, written from the formulas ---------------------------------------


def reference_logits(run: Run, weights: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    m = run.model
    f = {row.tensor_class: row.forward_multiplier for row in run.tensors}

    def linear(x: np.ndarray, name: str, kind: str) -> np.ndarray:
        y = x @ weights[f"{name}.weight"].T
        if f"{name}.bias" in weights:
            y = y + f["bias"] * weights[f"{name}.bias"]
        return f[kind] * y

    def norm(x: np.ndarray, name: str, kind: str) -> np.ndarray:
        if m.norm == "layernorm":
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return f[kind] * (x * weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0.0))

    def act(x: np.ndarray) -> np.ndarray:
        erf = np.vectorize(math.erf)
        return {
            "relu2": lambda z: np.maximum(z, 0) ** 2,
            "relu": lambda z: np.maximum(z, 0),
            "gelu": lambda z: z * 0.5 * (1 + erf(z / math.sqrt(2))),
            "silu": lambda z: z / (1 + np.exp(-z)),
        }[m.activation](x)

    def gate(x: np.ndarray) -> np.ndarray:
        return act(x[..., : m.d_ffn]) * x[..., m.d_ffn :] if m.gated else act(x)

    def attend(x: np.ndarray, name: str) -> np.ndarray:
        qkv = linear(x, f"{name}.qkv", "attn_qkv")
        c, groups = m.head_dim, m.n_heads // m.n_kv_heads
        heads = [qkv[:, i * c : (i + 1) * c] for i in range(m.n_heads + 2 * m.n_kv_heads)]
        found = []
        for h in range(m.n_heads):
            q = heads[h]
            k = heads[m.n_heads + h // groups]
            v = heads[m.n_heads + m.n_kv_heads + h // groups]
            s = np.arange(len(x))
            if m.position == "rope":
                angle = s[:, None] * 10000.0 ** (-2 * np.arange(c // 2) / c)
                turn = np.exp(1j * angle)
                q, k = ((z[:, : c // 2] + 1j * z[:, c // 2 :]) * turn for z in (q, k))
                scores = np.real(q @ k.conj().T)
            else:
                scores = q @ k.T
            scores = scores * m.attention_multiplier
            if m.position == "alibi":
                slope = 2.0 ** (-8.0 * (h + 1) / m.n_heads)  # for a power of two
                scores = scores - slope * (s[:, None] - s[None, :])
            scores = np.where(s[None, :] <= s[:, None], scores, -np.inf)
            p = np.exp(scores - scores.max(-1, keepdims=True))
            found.append(p / p.sum(-1, keepdims=True) @ v)
        return linear(np.concatenate(found, -1), f"{name}.out", "attn_out")

    def feed(x: np.ndarray, name: str) -> np.ndarray:
        if m.experts is None:
            return linear(gate(linear(x, f"{name}.inner", "ffn_in")), f"{name}.out", "ffn_out")
        scores = linear(x, f"{name}.router", "router")
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.zeros_like(x)
        for t, row in enumerate(shares):
            best = np.argsort(-row)[: m.experts.top_k]
            for e in best:
                w = {key: weights[f"{name}.{key}"][e] for key in ("inner", "outer")}
                b = {
                    key: f["bias"] * weights[f"{name}.{key}_bias"][e] if m.biases else 0.0
                    for key in ("inner", "outer")
                }
                h = gate(f["ffn_in"] * (w["inner"] @ x[t] + b["inner"]))
                z = f["ffn_out"] * (w["outer"] @ h + b["outer"])
                y[t] += row[e] / row[best].sum() * z
        return y

    logits = []
    for row in tokens:
        h = weights["embedding.weight"][row]
        if m.position == "learned":
            h = h + weights["embedding.positions"][: len(row)]
        h = f["embedding"] * h
        for i in range(m.n_layers):
            block = f"blocks.{i}"
            normed = norm(h, f"{block}.attention_norm", "norm")
            h = h + attend(normed, f"{block}.attention")
            h = h + feed(norm(h, f"{block}.ffn_norm", "norm"), f"{block}.ffn")
        table = weights["embedding.weight" if m.tied_embeddings else "unembedding.weight"]
        logits.append(f["unembedding"] * (norm(h, "norm", "final_norm") @ table.T))
    return np.stack(logits)


@every_option
def test_forward_is_what_the_formulas_say(name: str) -> None:
    run = run_of(name)
    model, tokens = model_of(run), tokens_for(run)
    weights = {n: p.detach().numpy() for n, _, p in model.tensors()}
    with torch.no_grad():
        logits = model.logits(model.hidden(tokens)[0]).numpy()
        loss = model(tokens[:, :-1], tokens[:, 1:])[0].item()
    wanted = reference_logits(run, weights, tokens.numpy())
    # The tables of positions are float32.
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)
    shifted = wanted[:, :-1] - wanted[:, :-1].max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p, tokens.numpy()[:, 1:, None], -1)
    assert loss == pytest.approx(-picked.mean(), rel=1e-6)


@every_option
def test_later_tokens_do_not_reach_back(name: str) -> None:
    run = run_of(name)
    model, tokens = model_of(run), tokens_for(run)
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 256
    with torch.no_grad():
        one, two = (model.hidden(t)[0] for t in (tokens, changed))
    assert torch.equal(one[:, :9], two[:, :9])
    assert not torch.equal(one[:, 9:], two[:, 9:])


@every_option
def test_every_parameter_is_counted_and_trained(name: str) -> None:
    run = run_of(name)
    model = Transformer(run, 0)
    assert sum(p.numel() for _, _, p in model.tensors()) == run.params.total
    assert sum(p.numel() for p in model.parameters()) == run.params.total
    tokens = tokens_for(run, 8)
    loss, balance = model(tokens[:, :-1], tokens[:, 1:])
    (loss if balance is None else loss + balance).backward()
    assert all(p.grad is not None for p in model.parameters())


@every_option
def test_initial_weights_come_from_seed_and_name(name: str) -> None:
    run = run_of(name)
    one, same, other = (dict(Transformer(run, seed).state_dict()) for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    drawn = [key for key in one if "norm" not in key and "bias" not in key and key != "position"]
    assert not any(torch.equal(one[key], other[key]) for key in drawn)
    assert len({float(one[key].flatten()[0]) for key in drawn}) == len(drawn)


def test_balance_is_one_where_all_experts_are_used_alike() -> None:
    run = run_of("experts")
    model = model_of(run)
    with torch.no_grad():
        for block in model.blocks:
            block.ffn.router.weight.zero_()
        even = model.hidden(tokens_for(run))[1]
        for block in model.blocks:
            block.ffn.router.weight.normal_(generator=torch.Generator().manual_seed(0))
        uneven = model.hidden(tokens_for(run))[1]
    assert float(even) == pytest.approx(1.0)
    assert float(uneven) > 1.01


def test_balance_is_that_of_each_sequence() -> None:
    """The mean over parts of a batch, so that a step does not depend on how it is divided."""
    run = run_of("experts")
    model, tokens = model_of(run), tokens_for(run, 4)
    with torch.no_grad():
        one, three, whole = (float(model.hidden(x)[1]) for x in (tokens[:1], tokens[1:], tokens))
    assert whole == pytest.approx((one + 3 * three) / 4, rel=1e-9)


def test_router_scores_are_float32_under_autocast() -> None:
    run = run_of("experts")
    model, seen = Transformer(run, 0), []
    for block in model.blocks:
        block.ffn.router.register_forward_hook(lambda _, ins, out: seen.append((ins[0], out)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.hidden(tokens_for(run))
    assert seen
    assert all(x.dtype == y.dtype == torch.float32 for x, y in seen)


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 20])
def test_alibi_slopes(heads: int) -> None:
    slopes = alibi_slopes(heads)
    assert len(slopes) == heads
    assert all(0 < slope < 1 for slope in slopes)
    assert len(set(slopes)) == heads
    if heads == 8:
        assert slopes == [2.0**-i for i in range(1, 9)]
    if heads == 12:  # arXiv 2108.12409's code: those of 8, then every second one of 16
        assert slopes[8:] == [2.0 ** (-i / 2) for i in (1, 3, 5, 7)]


def test_what_the_trainer_does_not_know_is_refused() -> None:
    run = only(family())
    odd = replace(run, model=replace(run.model, position="rope", head_dim=15))
    with pytest.raises(PlannerError, match="RoPE turns pairs, got heads of 15"):
        Transformer(odd, 0)
    tied = only(family(SMALL, architecture={"tied_embeddings": True}))
    rows = tuple(
        replace(row, lr=row.lr * 2) if row.tensor_class == "unembedding" else row
        for row in tied.tensors
    )
    with pytest.raises(PlannerError, match="are one table, but their lr differ"):
        Transformer(replace(tied, tensors=rows), 0)
    short = replace(run, tensors=run.tensors[1:])
    with pytest.raises(PlannerError, match="tensors: has no row for class embedding"):
        Transformer(short, 0)
