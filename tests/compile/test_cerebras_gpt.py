"""Cerebras-GPT's muP sizes and multipliers from a spec (public configurations; FACTS A10b)."""

from __future__ import annotations

import pytest

from planner.plan import Plan

from . import oracle
from .families import plan_of

# d_model, layers, heads, d_ffn, and parameters to about 1 %
SHAPES = {
    "111M": (768, 10, 12, 3072),
    "256M": (1088, 14, 17, 4352),
    "590M": (1536, 18, 12, 6144),
}
BASE_WIDTH, BASE_FFN, SCALE, ALPHA, RATE, STD, DECAY = 256, 1024, 10.0, 1.0, 0.006, 0.08, 0.1


@pytest.fixture(scope="module")
def family() -> Plan:
    return plan_of(preset="cerebras-gpt", tpp=20)


@pytest.mark.parametrize("size", SHAPES)
def test_shape_and_parameters(family: Plan, size: str) -> None:
    run = family.run(f"{size}-20tpp")
    model = run.model
    assert (model.d_model, model.n_layers, model.n_heads, model.d_ffn) == SHAPES[size]
    assert model.n_heads * model.head_dim == model.d_model
    assert model.seq_len == 2048
    assert run.params.total == pytest.approx(float(size[:-1]) * 1e6, rel=0.01)
    assert run.params.total == oracle.counts(model)["total"]


@pytest.mark.parametrize("size", SHAPES)
def test_multipliers(family: Plan, size: str) -> None:
    run = family.run(f"{size}-20tpp")
    m, f = run.model.d_model / BASE_WIDTH, run.model.d_ffn / BASE_FFN
    assert m == f  # 4 x width at every size
    assert (run.multipliers.width, run.multipliers.ffn, run.multipliers.depth) == (m, f, 1)
    assert run.tensor("embedding").forward_multiplier == SCALE
    assert run.tensor("unembedding").forward_multiplier == pytest.approx(ALPHA / m, rel=1e-12)
    assert run.model.attention_multiplier == 1 / run.model.head_dim
    for name in ("attn_qkv", "attn_out", "ffn_in", "ffn_out"):
        row = run.tensor(name)
        assert row.lr == pytest.approx(RATE / m, rel=1e-12)
        assert row.init_std == pytest.approx(STD / m**0.5, rel=1e-12)
        assert row.weight_decay == DECAY  # coupled: one lambda for all
        assert row.forward_multiplier == 1
        assert row.tau == pytest.approx(m / (RATE * DECAY * run.steps), rel=1e-12)
    for name in ("embedding", "unembedding"):
        row = run.tensor(name)
        assert (row.lr, row.init_std, row.weight_decay) == (RATE, STD, DECAY)
    for name in ("bias", "norm", "final_norm"):
        row = run.tensor(name)
        assert (row.lr, row.weight_decay, row.tau) == (RATE, 0, None)


def test_the_rest(family: Plan) -> None:
    p = family.parametrization
    assert (p.kind, p.decay, p.base_width, p.base_ffn_width) == ("mup", "coupled", 256, 1024)
    for run in family.runs:
        assert run.optimizer.betas == (0.9, 0.95)
        assert run.schedule.final_lr_fraction == 0.1
    assert any("truncated at two sigma" in text for text in family.warnings)
