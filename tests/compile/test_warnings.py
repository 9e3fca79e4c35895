"""What a plan warns of: more than one epoch, laws out of range, assumptions, recalled figures."""

from __future__ import annotations

from typing import Any

import pytest

from planner.compile import compile_plan
from planner.errors import SpecError
from planner.plan import Plan
from planner.spec import parse_spec

from .families import plan_of


def plan(**spec: Any) -> Plan:
    return plan_of(**{"preset": "gpt2-collapse", "sizes": ["111M"], "tpp": 20, **spec})


def told(plan: Plan, text: str) -> bool:
    return any(text in warning for warning in plan.warnings)


class TestEpochs:
    def test_more_tokens_than_there_are(self) -> None:
        made = plan(tpp=[20, 80], sizes=["111M", "610M"], data={"unique_tokens": "10B"})
        over = [run for run in made.runs if run.tokens > 10_000_000_000]
        assert len(over) == 2
        assert told(made, "2 of 4 runs need more than one epoch of 10.0B unique tokens")
        worst = max(run.tokens for run in over) / 1e10
        assert told(made, f"(up to {worst:.2f}): collapse assumes one")

    @pytest.mark.parametrize("data", [{}, {"unique_tokens": "3B"}])
    def test_enough(self, data: dict[str, Any]) -> None:
        assert not told(plan(data=data), "epoch")


class TestRanges:
    @pytest.mark.parametrize(
        ("tpp", "warns"), [(20, False), (1280, False), (10, True), (2000, True)]
    )
    def test_tau(self, tpp: int, warns: bool) -> None:
        """Power Lines' tau law was fitted from 20 to 1280 TPP; outside is a warning, no error."""
        assert told(plan(tpp=tpp), f"law 'power-lines' is used at tpp {tpp}") is warns

    def test_out_of_every_laws_range(self) -> None:
        made = plan(tpp=1e6, sizes=["3.3B"])
        for law in ("power-lines", "power-lines-batch", "power-lines-critical-batch", "besiroglu"):
            assert told(made, f"law '{law}' is used at"), law
        assert made.runs[0].tpp == pytest.approx(1e6, rel=1e-6)

    def test_each_law_is_told_once(self) -> None:
        made = plan(tpp=[2, 5, 10], sizes=["111M", "266M"])
        lines = [text for text in made.warnings if "law 'power-lines' is used" in text]
        assert len(lines) == 1
        assert lines[0].endswith("(111M-2tpp and 5 more runs)")

    def test_a_recalled_law(self) -> None:
        assert told(plan(), "law 'power-lines-critical-batch' is recalled")

    def test_beyond_the_critical_batch(self) -> None:
        assert told(plan(batch="4000 sequences"), "exceeds the critical batch")
        assert not told(plan(batch="64 sequences"), "exceeds the critical batch")


class TestAssumed:
    def test_what_a_spec_leaves_out(self) -> None:
        made = plan_of(
            tpp=20,
            sizes=["100M"],
            architecture={"vocab_size": 50257, "context": 2048},
        )
        for field in ("base_width", "base_depth", "base_lr", "init_std", "input_multiplier"):
            assert told(made, f"parametrization.{field} "), field
        assert told(made, "optimizer.betas [0.9, 0.95] is assumed")
        assert told(made, "optimizer.eps 1e-08 is assumed")

    def test_what_it_declares_is_not(self) -> None:
        made = plan_of(
            preset="celerity",
            tpp=20,
            parametrization={"base_width": 128, "init_std": 0.1},
            optimizer={"betas": [0.9, 0.99]},
        )
        for field in ("parametrization.base_width", "parametrization.init_std", "optimizer.betas"):
            assert not told(made, f"{field} is assumed"), field
        assert told(made, "parametrization.base_depth is assumed")

    def test_the_standard_parametrization_wants_a_rate(self) -> None:
        with pytest.raises(SpecError, match="no learning rate holds for all sizes") as caught:
            plan_of(
                tpp=20,
                sizes=["100M"],
                architecture={"vocab_size": 50257, "context": 2048},
                parametrization="standard",
            )
        assert caught.value.field == "parametrization.base_lr"


class TestAbsurdNumbers:
    """Numbers that no machine can run are refused in a sentence, not by an arithmetic error."""

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"tpp": 1e300}, "tpp"),
            ({"tpp": 1e13, "batch": "1 sequences"}, "tpp"),
            ({"tpp": 1e-9}, "batch"),
            ({"parametrization": {"base_lr": 1e-320}}, "parametrization"),
            ({"parametrization": {"base_lr": 1e300}, "timescale": 1e-300}, "parametrization"),
            ({"tpp": {"low": 20, "high": 30, "rule": {"max_extra_compute": 1e300}}}, "tpp.rule"),
            ({"sizes": ["1T"], "tpp": 1e9}, "tpp"),
        ],
    )
    def test_refused(self, spec: dict[str, Any], field: str) -> None:
        with pytest.raises(SpecError) as caught:
            plan(**spec)
        assert str(caught.value.field).startswith(field)
        assert caught.value.line == 1

    def test_odd_heads_and_rope(self) -> None:
        size = {"name": "odd", "d_model": 130, "n_layers": 2, "n_heads": 2}
        with pytest.raises(SpecError, match="rope wants an even head width"):
            plan(sizes=[size], architecture={"position": "rope"})

    def test_wsd_that_overlaps_its_warmup(self) -> None:
        with pytest.raises(SpecError, match="overlap") as caught:
            plan(schedule={"kind": "wsd", "warmup": 0.5, "decay_fraction": 0.6})
        assert caught.value.field == "schedule"


def test_tau_for_a_tpp_that_is_no_band_warns() -> None:
    values = "timescale: {law: celerity, values: {20: 0.2, 50: 0.1}}"
    plan = compiled(f"preset: celerity\ntpp: 20\n{values}")
    told = [line for line in plan.warnings if "no band" in line]
    assert told == ["timescale.values: 50 TPP is no band, so its tau is not used"]
    # the preset's own list is longer than the bands in use, and that is fine
    plain = compiled("preset: celerity\ntpp: 20")
    assert not [line for line in plain.warnings if "no band" in line]


def test_band_without_tau_and_without_law_is_refused() -> None:
    with pytest.raises(SpecError, match=r"gives no tau for 80 TPP; add it, or name a law"):
        compiled("preset: celerity\ntpp: [20, 80]\ntimescale: {values: {20: 0.2}}")
    with pytest.raises(SpecError, match="got 20 TPP twice"):
        compiled("preset: celerity\ntpp: 20\ntimescale: {values: {20: 0.2, 2e1: 0.1}}")


def test_cap_of_the_batch_is_told_and_no_failure() -> None:
    plan = compiled("preset: celerity\ntpp: 20\nbatch: {law: celerity-batch, max: 1M tokens}")
    assert plan.ok
    assert {run.batch.sequences for run in plan.runs} == {122}
    assert any("capped at 122 by batch.max" in line for line in plan.warnings)


def test_name_that_states_another_count_is_told() -> None:
    sizes = (
        "sizes: [{name: 300M, d_model: 64, n_layers: 2}, {name: small, d_model: 64, n_layers: 1}]"
    )
    told = [line for line in compiled(f"preset: llama-like\n{sizes}").warnings if "has" in line]
    assert told == ["size '300M' has 4.18M parameters (300M-20tpp)"]
    assert not [line for line in compiled("preset: celerity").warnings if "has" in line]


def test_heads_are_not_chosen_absurdly_narrow() -> None:
    with pytest.raises(SpecError, match="no heads of 16 to 128 divide width 650"):
        compiled("preset: celerity\nsizes: [{name: b, d_model: 650, n_layers: 4}]")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("{devices: 88, pipeline: 88}", "88 stages cannot share the 13 layers of size 300M"),
        ("{devices: 8, tensor: 8}", "8 devices cannot share heads 10 of size 300M"),
    ],
)
def test_cluster_that_cannot_share_the_model_is_refused(cluster: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        compiled(f"preset: celerity\ntpp: 20\ncluster: {cluster}")


def test_preset_tuned_for_another_kind_is_told() -> None:
    plan = compiled("preset: celerity\nparametrization: mup")
    assert (
        "parametrization: the preset's base values are for completep, not for mup" in plan.warnings
    )
    origin = plan.provenance["300M-20tpp"]["optimizer.base_peak_lr"].declared
    assert origin == "preset celerity"


def compiled(text: str) -> Plan:
    return compile_plan(parse_spec(f"family: x\n{text}\n"))
