"""Timescales and bands that the papers print, from specs through the compiler.

Figures of arXiv 2509.25087 (FACTS A4, A7, A10-A12): batches in sequences of 2048, base muP rates.
"""

from __future__ import annotations

from typing import Any

import pytest

from planner.laws import at_extra_compute, at_params_ratio, at_tpp, published, timescale
from planner.laws.compression import smallest_params_ratio
from planner.plan import Run

from .families import celerity, plan_of

ISO_LOSS = published()["iso-loss"]


def run_of(
    size: str,
    tpp: float,
    batch: int,
    *,
    lr: float | None = None,
    weight_decay: float = 0.1,
    schedule: Any = None,
) -> Run:
    """Plan one run of the paper's GPT-2-like family with a fixed weight decay."""
    spec: dict[str, Any] = {
        "preset": "gpt2-collapse",
        "sizes": [size],
        "tpp": tpp,
        "batch": f"{batch} sequences",
        "timescale": {"weight_decay": weight_decay},
    }
    if lr is not None:
        spec["parametrization"] = {"base_lr": lr}
    if schedule is not None:
        spec["schedule"] = schedule
    (run,) = plan_of(**spec).runs
    # of what will run: steps and the hidden matrices' own rate and decay
    hidden = run.tensor("attn_qkv")
    assert run.optimizer.tau == pytest.approx(
        1 / (hidden.lr * hidden.weight_decay * run.steps), rel=1e-12
    )
    return run


FIG_3 = (0.026, 0.053, 0.105, 0.210, 0.421)


class TestFigure3:
    """610M at 80 TPP: three knobs, the same five timescales."""

    @pytest.mark.parametrize(
        ("batch", "tau"), list(zip((126, 252, 504, 1008, 2016), FIG_3, strict=True))
    )
    def test_batch(self, batch: int, tau: float) -> None:
        assert run_of("610M", 80, batch).optimizer.tau == pytest.approx(tau, abs=0.0006)

    @pytest.mark.parametrize(
        ("lr", "tau"), list(zip((6.48e-2, 3.24e-2, 1.62e-2, 8.09e-3, 4.05e-3), FIG_3, strict=True))
    )
    def test_rate(self, lr: float, tau: float) -> None:
        assert run_of("610M", 80, 504, lr=lr).optimizer.tau == pytest.approx(tau, abs=0.0006)

    @pytest.mark.parametrize(
        ("decay", "tau"), list(zip((0.4, 0.2, 0.1, 0.05, 0.025), FIG_3, strict=True))
    )
    def test_weight_decay(self, decay: float, tau: float) -> None:
        run = run_of("610M", 80, 504, weight_decay=decay)
        assert run.optimizer.tau == pytest.approx(tau, abs=0.0006)

    @pytest.mark.parametrize(
        ("tau", "decay"), list(zip(FIG_3, (0.4, 0.2, 0.1, 0.05, 0.025), strict=True))
    )
    def test_the_inverse(self, tau: float, decay: float) -> None:
        """Asked for the tau, the compiler gives the sweep's weight decay back."""
        (run,) = plan_of(
            preset="gpt2-collapse",
            sizes=["610M"],
            tpp=80,
            batch="504 sequences",
            timescale={"value": tau},
        ).runs
        assert run.optimizer.base_weight_decay == pytest.approx(decay, rel=0.02)
        assert run.optimizer.tau == pytest.approx(tau, rel=1e-12)


class TestFigure4:
    @pytest.mark.parametrize(
        ("size", "batch", "printed", "exact"),
        [
            ("111M", 192, 0.33, 0.333),
            ("266M", 384, 0.27, 0.274),
            ("610M", 252, 0.21, 0.211),
            ("1.7B", 1008, 0.30, 0.297),
            ("3.3B", 2016, 0.31, 0.307),
        ],
    )
    def test_right(self, size: str, batch: int, printed: float, exact: float) -> None:
        """Five sizes at 20 TPP over 1000 times the FLOPs; batches as FACTS A4 derives them."""
        tau = run_of(size, 20, batch).optimizer.tau
        assert tau is not None
        # FACTS divides by the printed D, which has three digits
        assert tau == pytest.approx(exact, rel=0.005)
        assert round(tau, 2) == printed

    def test_right_spans_a_thousand_times_the_flops(self) -> None:
        small, large = run_of("111M", 20, 192), run_of("3.3B", 20, 2016)
        assert 700 < large.flops.six_nd / small.flops.six_nd < 1300

    @pytest.mark.parametrize("tpp", [20, 80, 320, 1280])
    def test_left_111m(self, tpp: int) -> None:
        """The TPP sweep holds tau at 0.021 by its weight decay, for what will run."""
        self.check("111M", tpp, 0.021)

    @pytest.mark.parametrize("tpp", [20, 80, 320])
    def test_left_610m(self, tpp: int) -> None:
        self.check("610M", tpp, 0.105)

    def check(self, size: str, tpp: int, tau: float) -> None:
        spec = {"preset": "gpt2-collapse", "sizes": [size], "tpp": tpp}
        (run,) = plan_of(**spec, batch="192 sequences", timescale=tau).runs
        hidden = run.tensor("ffn_in")
        assert 1 / (hidden.lr * hidden.weight_decay * run.steps) == pytest.approx(tau, rel=1e-12)
        assert run.tpp == pytest.approx(tpp, rel=0.001)
        again = run_of(size, tpp, 192, weight_decay=run.optimizer.base_weight_decay)
        assert again.optimizer.tau == pytest.approx(tau, rel=1e-12)


class TestOtherAnnotations:
    @pytest.mark.parametrize(("lr", "tau"), [(1.01e-3, 1.682), (1.62e-2, 0.105), (3.24e-2, 0.053)])
    def test_figure_10_constant_rate(self, lr: float, tau: float) -> None:
        run = run_of("610M", 80, 504, lr=lr, schedule="constant")
        assert run.optimizer.tau == pytest.approx(tau, rel=0.01)

    @pytest.mark.parametrize(
        ("size", "batch", "tau"), [("111M", 192, 0.33), ("610M", 504, 0.42), ("1.7B", 1008, 0.30)]
    )
    def test_figure_11(self, size: str, batch: int, tau: float) -> None:
        for schedule in ("constant", "linear", "linear-to-zero"):
            run = run_of(size, 20, batch, schedule=schedule)
            assert run.optimizer.tau == pytest.approx(tau, abs=0.005)

    @pytest.mark.parametrize(
        ("size", "batch", "tau"), [("111M", 96, 0.166), ("610M", 252, 0.210), ("1.7B", 504, 0.149)]
    )
    def test_figure_12(self, size: str, batch: int, tau: float) -> None:
        assert run_of(size, 20, batch).optimizer.tau == pytest.approx(tau, abs=0.0015)

    @pytest.mark.parametrize(
        ("size", "tpp", "batch", "tau"), [("1.7B", 20, 8064, 2.38), ("3.3B", 30, 2016, 0.20)]
    )
    def test_early_stopping_sweeps(self, size: str, tpp: int, batch: int, tau: float) -> None:
        """FACTS A7's own arithmetic for the two sweeps."""
        assert run_of(size, tpp, batch).optimizer.tau == pytest.approx(tau, abs=0.006)


# Fig 1 left prints TPP and tau; N, D = 2e12, 4e6 tokens a step, rates and decay 0.1 are those of
# arXiv 2307.09288 (its Table 1 and section 2.2).
LLAMA_2 = [
    ("7B", 7e9, 3e-4, 286, 0.07),
    ("13B", 13e9, 3e-4, 154, 0.07),
    ("34B", 34e9, 1.5e-4, 59, 0.13),
    ("70B", 70e9, 1.5e-4, 29, 0.13),
]


class TestLlama2:
    @pytest.mark.parametrize(("size", "n", "lr", "tpp", "tau"), LLAMA_2)
    def test_by_the_law(self, size: str, n: float, lr: float, tpp: int, tau: float) -> None:
        tokens = 2e12
        assert round(tokens / n) == tpp
        assert round(timescale(4e6, lr, 0.1, tokens) or 0, 2) == tau

    @pytest.mark.parametrize(("size", "n", "lr", "tpp", "tau"), LLAMA_2)
    def test_through_the_compiler(
        self, size: str, n: float, lr: float, tpp: int, tau: float
    ) -> None:
        """The standard parametrization of a gated family, the size from its label."""
        (run,) = plan_of(
            preset="llama-like",
            sizes=[size],
            tpp=2e12 / n,
            parametrization={"kind": "standard", "base_lr": lr},
            batch="4M tokens",
            timescale={"weight_decay": 0.1},
        ).runs
        assert run.params.total == pytest.approx(n, rel=0.01)
        assert run.tokens == pytest.approx(2e12, rel=0.01)
        assert round(run.tpp) == tpp
        assert round(run.optimizer.tau or 0, 2) == tau
        for name in ("embedding", "attn_qkv", "ffn_out"):
            assert run.tensor(name).tau == run.optimizer.tau


class TestChosenBand:
    """234 TPP from 67 % more compute, with 38 % of the parameters (arXiv 2509.25087 C.1)."""

    def test_by_the_law(self) -> None:
        point = at_extra_compute(ISO_LOSS, 0.67)
        assert point.tpp == pytest.approx(234, rel=0.005)
        assert round(point.params_ratio, 2) == 0.38
        assert point.compute_ratio == pytest.approx(1.67, rel=1e-12)

    def test_by_a_spec(self) -> None:
        rule = {"low": 20, "high": 1000, "rule": {"max_extra_compute": 0.67}}
        plan = plan_of(preset="celerity", tpp=rule, timescale="celerity")
        wanted = at_extra_compute(ISO_LOSS, 0.67).tpp
        for run in plan.runs:
            assert run.tpp == pytest.approx(wanted, rel=0.0005)
            assert run.tpp == pytest.approx(234, rel=0.005)
            assert run.optimizer.tau == pytest.approx(0.051, abs=0.0005)
        chosen = plan.provenance[plan.runs[0].name]["tpp asked"]
        assert round(float(chosen.inputs["k_N"] or 0), 2) == 0.38
        assert chosen.law == "iso-loss"
        # the same shapes and steps within half a percent as the family at 234
        for run in plan.runs:
            other = celerity().run(f"{run.size}-234tpp")
            assert run.steps == pytest.approx(other.steps, rel=0.005)

    def test_the_papers_equations(self) -> None:
        """k_D = (2 - k_N^-a)^(-1/a), C/C_opt = k_N k_D, TPP = r k_D / k_N: the loss stays."""
        a, r = 0.35, 20.0
        for k in (1.0, 0.7, 0.378, 0.3, 0.2):
            point = at_params_ratio(ISO_LOSS, k)
            assert point.tokens_ratio == pytest.approx((2 - k**-a) ** (-1 / a), rel=1e-12)
            assert point.compute_ratio == pytest.approx(k * point.tokens_ratio, rel=1e-12)
            assert point.tpp == pytest.approx(r * point.tokens_ratio / k, rel=1e-12)
            # reducible loss A N^-a + A r^a D^-a, in units of N_opt and A
            loss = k**-a + r**a * (r * point.tokens_ratio) ** -a
            assert loss == pytest.approx(2.0, rel=1e-12)

    def test_facts_a11(self) -> None:
        """k_N .378 gives k_D 4.42 and 1.671; 3.34 times the FLOPs .267 and 940 TPP; wall .138."""
        point = at_params_ratio(ISO_LOSS, 0.378)
        assert point.tokens_ratio == pytest.approx(4.42, abs=0.005)
        assert point.compute_ratio == pytest.approx(1.671, abs=0.0005)
        assert point.tpp == pytest.approx(234.0, abs=0.2)
        double = at_extra_compute(ISO_LOSS, 2.34)
        assert double.params_ratio == pytest.approx(0.267, abs=0.0005)
        assert double.tpp == pytest.approx(940, rel=0.01)
        assert smallest_params_ratio(ISO_LOSS) == pytest.approx(0.138, abs=0.0005)
        # doubling the FLOPs buys only about 11 more points of N_opt
        assert at_tpp(ISO_LOSS, 234).params_ratio - double.params_ratio == pytest.approx(
            0.11, abs=0.005
        )

    def test_other_rules(self) -> None:
        spec = {"preset": "celerity", "sizes": ["300M"], "timescale": "celerity"}
        for rule, tpp in (("compute-optimal", 20), (150, 150)):
            plan = plan_of(**spec, tpp={"low": 10, "high": 300, "rule": rule})
            assert plan.runs[0].tpp == pytest.approx(tpp, rel=0.005)

    def test_a_pick_outside_the_band_moves_to_its_end(self) -> None:
        rule = {"low": 20, "high": 100, "rule": {"max_extra_compute": 0.67}}
        plan = plan_of(preset="celerity", sizes=["300M"], tpp=rule, timescale="celerity")
        assert plan.runs[0].tpp == pytest.approx(100, rel=0.005)
        assert any("moved to the end of the band [20, 100]" in text for text in plan.warnings)


# Tables 3 and 4 of arXiv 2509.25087, D in 1e9 tokens; N in 1e9 as FACTS A10 derives it
TABLE_4 = {
    "111M": (0.1094, {20: 2.19, 80: 8.76, 200: 21.9, 320: 35.0, 1280: 140.1}),
    "266M": (0.2651, {20: 5.31, 80: 21.2, 320: 85.0, 1280: 339.8}),
    "610M": (0.6062, {20: 12.1, 80: 48.5, 200: 121.3, 320: 194.1}),
    "1.7B": (1.7135, {20: 34.3, 80: 137.2, 160: 274.3, 320: 548.6}),
    "3.3B": (3.3240, {20: 66.5, 23: 76.5, 30: 99.8}),
}
TABLE_3 = {
    "111M": (768, 10, 2048, 64),
    "266M": (768, 32, 2048, 64),
    "610M": (2048, 10, 5461, 64),
    "1.7B": (2048, 32, 5461, 64),
    "3.3B": (2048, 64, 5461, 64),
}


@pytest.mark.parametrize("size", TABLE_4)
def test_the_gpt2_like_family_is_tables_3_and_4s(size: str) -> None:
    """Shape, N (embedding once, gated) and D at every band."""
    n, tokens = TABLE_4[size]
    plan = plan_of(preset="gpt2-collapse", sizes=[size], tpp=list(tokens))
    for run, (tpp, wanted) in zip(plan.runs, tokens.items(), strict=True):
        model = run.model
        assert (model.d_model, model.n_layers, model.d_ffn, model.head_dim) == TABLE_3[size]
        counted = 50257 * model.d_model + model.n_layers * (
            4 * model.d_model**2 + 3 * model.d_model * model.d_ffn
        )
        assert counted / 1e9 == pytest.approx(n, abs=0.00006)
        assert run.tokens == pytest.approx(tpp * counted, rel=0.001)
        assert run.tokens / 1e9 == pytest.approx(wanted, rel=0.0025)
        assert run.params.total == pytest.approx(counted, rel=0.002)
