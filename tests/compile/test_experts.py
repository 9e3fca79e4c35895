"""Experts: total and active parameters, what each expert sees (arXiv 2509.25087 B.4)."""

from __future__ import annotations

import pytest

from planner.plan import Run

from . import oracle
from .families import plan_of


def run_of(count: int, top_k: int = 1) -> Run:
    """Plan the paper's 111M with every feed-forward block turned into experts."""
    (run,) = plan_of(
        preset="gpt2-collapse",
        sizes=["111M"],
        tpp=20,
        batch="192 sequences",
        timescale={"weight_decay": 0.1},
        conventions={"params": "active"},
        architecture={"experts": {"count": count, "top_k": top_k}},
    ).runs
    return run


@pytest.mark.parametrize("count", [2, 4, 8, 16, 32])
class TestOneExpertPerToken:
    def test_tpp_per_expert_is_tpp_over_experts(self, count: int) -> None:
        """Figure 13: an expert sees D / E tokens, so the effective TPP is 20 / E."""
        run = run_of(count)
        experts = run.model.experts
        assert experts is not None
        assert experts.tokens_per_expert == run.tokens / count
        assert experts.tpp_per_expert == pytest.approx(run.tpp / count, rel=1e-12)
        assert experts.tpp_per_expert == pytest.approx(20 / count, rel=0.005)

    def test_tau_does_not_change(self, count: int) -> None:
        """Per-expert B and D shrink alike; 0.33 as annotated."""
        run = run_of(count)
        assert run.optimizer.tau == pytest.approx(0.33, abs=0.005)
        assert run.tensor("ffn_in").tau == run.tensor("attn_qkv").tau

    def test_total_and_active(self, count: int) -> None:
        """Every expert is stored, one is passed through: active is the dense model and a router."""
        run = run_of(count)
        (dense,) = plan_of(preset="gpt2-collapse", sizes=["111M"], tpp=20).runs
        router = 10 * 768 * count
        expert = 10 * 3 * 768 * 2048
        assert run.params.active == dense.params.total + router
        assert run.params.total == dense.params.total + router + (count - 1) * expert
        assert run.params.total == oracle.counts(run.model)["total"]


@pytest.mark.parametrize(("count", "top_k"), [(8, 2), (16, 4), (4, 4)])
def test_several_experts_a_token(count: int, top_k: int) -> None:
    run = run_of(count, top_k)
    experts = run.model.experts
    assert experts is not None
    assert experts.tokens_per_expert == run.tokens * top_k / count
    with_one = oracle.counts(run_of(count).model)["active"]
    assert experts.tpp_per_expert == pytest.approx(experts.tokens_per_expert / with_one, rel=1e-12)


def test_what_is_not_published_warns() -> None:
    plan = plan_of(
        preset="gpt2-collapse",
        sizes=["111M"],
        tpp=20,
        architecture={"experts": {"count": 4}},
    )
    assert any("experts and router is assumed" in text for text in plan.warnings)
    assert any("fitted on dense models" in text for text in plan.warnings)


def test_router_row() -> None:
    run = run_of(4)
    m = run.model.d_model / 256
    router = run.tensor("router")
    assert router.forward_multiplier == pytest.approx(1 / m)
    assert router.lr == run.optimizer.base_peak_lr
