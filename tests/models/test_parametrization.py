"""CompleteP's Table 1 (arXiv 2505.01618), cell by cell, as FACTS section 4 has it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from planner.models.parametrization import (
    BaseValues,
    TensorValues,
    attention_multiplier,
    tensor_rules,
    tensor_values,
)

SIGMA, ETA, LAMBDA, EPS = 0.0867, 0.0162, 0.1, 1e-8
A_IN, A_OUT = 9.17, 1.095
M_N, M_F, M_L = 8.0, 7.9995, 2.5
HIDDEN = ("attn_qkv", "attn_out", "ffn_in", "ffn_out")


def values(kind: Any, decay: Any = "independent", alpha: float = 1.0) -> dict[str, TensorValues]:
    """Return every class's values at fixed ratios; standard and muP do not see the depth."""
    rules = tensor_rules(kind, decay, alpha, biases=True, experts=True)
    base = BaseValues(256, 1024.0, 2, alpha, ETA, SIGMA, A_IN, A_OUT)
    return {
        name: tensor_values(rule, base, weight_decay=LAMBDA, eps=EPS, width=M_N, ffn=M_F, depth=M_L)
        for name, rule in rules.items()
    }


def m(name: str) -> float:
    """Return the width ratio of a class's fan-in."""
    return M_F if name == "ffn_out" else M_N


def approx(value: float) -> Any:
    return pytest.approx(value, rel=1e-14)


ALPHAS = [("standard", 1.0), ("mup", 1.0), ("completep", 1.0), ("completep", 0.5)]


@pytest.mark.parametrize(("kind", "alpha"), ALPHAS)
class TestRows:
    def test_embedding(self, kind: str, alpha: float) -> None:
        """Variance sigma^2, rate eta; decay lambda and no factors (official code)."""
        row = values(kind, alpha=alpha)["embedding"]
        assert row == TensorValues(SIGMA, ETA, LAMBDA, EPS, A_IN)

    def test_block_norm_rate(self, kind: str, alpha: float) -> None:
        row = values(kind, alpha=alpha)["norm"]
        wanted = ETA * M_L ** (alpha - 1) if kind == "completep" else ETA
        assert row.lr == approx(wanted)
        assert (row.weight_decay, row.init_std) == (0, None)

    def test_hidden_variance(self, kind: str, alpha: float) -> None:
        for name in HIDDEN:
            variance = SIGMA**2 if kind == "standard" else SIGMA**2 / m(name)
            assert values(kind, alpha=alpha)[name].init_std == approx(math.sqrt(variance))

    def test_hidden_rate(self, kind: str, alpha: float) -> None:
        for name in HIDDEN:
            wanted = {
                "standard": ETA,
                "mup": ETA / m(name),
                "completep": ETA / m(name) * M_L ** (alpha - 1),
            }[kind]
            assert values(kind, alpha=alpha)[name].lr == approx(wanted)

    def test_hidden_bias_rate(self, kind: str, alpha: float) -> None:
        row = values(kind, alpha=alpha)["bias"]
        wanted = ETA * M_L ** (alpha - 1) if kind == "completep" else ETA
        assert row.lr == approx(wanted)
        assert (row.weight_decay, row.init_std, row.forward_multiplier) == (0, None, 1)

    def test_hidden_decay(self, kind: str, alpha: float) -> None:
        """lambda m_N if independent; lambda for all if coupled (DESIGN section 7)."""
        for name in HIDDEN:
            raised = LAMBDA if kind == "standard" else LAMBDA * m(name)
            assert values(kind, "independent", alpha)[name].weight_decay == approx(raised)
            assert values(kind, "coupled", alpha)[name].weight_decay == LAMBDA

    def test_residual(self, kind: str, alpha: float) -> None:
        """X + m_L^-alpha F(LN X): on the matrices that end a branch, no others."""
        rows = values(kind, alpha=alpha)
        wanted = M_L**-alpha if kind == "completep" else 1.0
        assert rows["attn_out"].forward_multiplier == approx(wanted)
        assert rows["ffn_out"].forward_multiplier == approx(wanted)
        assert rows["attn_qkv"].forward_multiplier == rows["ffn_in"].forward_multiplier == 1

    def test_final_norm(self, kind: str, alpha: float) -> None:
        row = values(kind, alpha=alpha)["final_norm"]
        assert (row.lr, row.eps, row.weight_decay) == (ETA, EPS, 0)

    def test_unembedding(self, kind: str, alpha: float) -> None:
        row = values(kind, alpha=alpha)["unembedding"]
        assert (row.init_std, row.lr, row.weight_decay, row.eps) == (SIGMA, ETA, LAMBDA, EPS)
        forward = A_OUT if kind == "standard" else A_OUT / M_N
        assert row.forward_multiplier == approx(forward)

    def test_epsilon(self, kind: str, alpha: float) -> None:
        """eps / m_N / m_L^alpha in the blocks, also where the fan-in is d_ffn."""
        wanted = {"standard": EPS, "mup": EPS / M_N, "completep": EPS / M_N * M_L**-alpha}[kind]
        rows = values(kind, alpha=alpha)
        for name in (*HIDDEN, "bias", "norm", "router"):
            assert rows[name].eps == approx(wanted)
        for name in ("embedding", "final_norm", "unembedding"):
            assert rows[name].eps == EPS

    def test_rate_times_decay(self, kind: str, alpha: float) -> None:
        """Independent decay keeps eta lambda at every width: what tau is exact for."""
        products = {
            name: row.lr * row.weight_decay
            for name, row in values(kind, "independent", alpha).items()
            if row.weight_decay
        }
        depth = M_L ** (alpha - 1) if kind == "completep" else 1.0
        for name, product in products.items():
            assert product == approx(ETA * LAMBDA * (depth if name in HIDDEN else 1))


def test_at_alpha_one_no_rate_depends_on_depth() -> None:
    """FACTS section 4: at alpha = 1 the LR depth factors are 1."""
    mup, complete = values("mup"), values("completep")
    for name in mup:
        assert complete[name].lr == approx(mup[name].lr)
        assert complete[name].init_std == mup[name].init_std


def test_at_the_base_shape_all_kinds_agree() -> None:
    base = BaseValues(256, 1024.0, 2, 1.0, ETA, SIGMA, A_IN, A_OUT)
    tables = []
    for kind, decay in (("standard", "coupled"), ("mup", "coupled"), ("completep", "independent")):
        rules = tensor_rules(kind, decay)  # type: ignore[arg-type]
        tables.append(
            {
                name: tensor_values(
                    rule, base, weight_decay=LAMBDA, eps=EPS, width=1.0, ffn=1.0, depth=1.0
                )
                for name, rule in rules.items()
            }
        )
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(("biases", "experts"), [(False, False), (True, False), (False, True)])
def test_classes(biases: bool, experts: bool) -> None:
    rules = tensor_rules("mup", "coupled", biases=biases, experts=experts)
    assert ("bias" in rules, "router" in rules) == (biases, experts)
    assert len(rules) == 8 + biases + experts


def test_formulas_name_what_they_multiply() -> None:
    rules = tensor_rules("completep", "independent", 0.5)
    assert rules["attn_qkv"].lr.formula("base_lr", "m_N") == "base_lr * m_N^-1 * m_L^-0.5"
    assert rules["ffn_out"].forward_multiplier.formula("", "m_F") == "m_L^-0.5"
    assert rules["norm"].weight_decay.formula("base_weight_decay", "m_N") == "0"
    assert rules["embedding"].init_std is not None
    assert rules["embedding"].init_std.formula("init_std", "m_N") == "init_std"


def test_attention() -> None:
    """1/d_head under muP and CompleteP (the official code), 1/sqrt(d_head) under standard."""
    assert attention_multiplier("mup", 64) == attention_multiplier("completep", 64) == 1 / 64
    assert attention_multiplier("standard", 64) == 1 / 8
