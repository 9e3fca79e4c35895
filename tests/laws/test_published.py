"""The published laws give the figures that FACTS sections 3 and 8 list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import LawError
from planner.laws import (
    Law,
    batch_trade_off,
    optimal_params,
    optimal_tpp,
    published,
    timescale,
    weight_decay_for,
)

LAWS = published()
positive = st.floats(1e-6, 1e6)


class TestTimescale:
    @pytest.mark.parametrize(
        ("tpp", "tau"),
        [
            (20, 0.224),
            (30, 0.181),
            (80, 0.108),
            (160, 0.0747),
            (200, 0.0664),
            (234, 0.0612),
            (320, 0.0519),
            (1000, 0.0284),
            (1280, 0.0250),
        ],
    )
    def test_power_lines(self, tpp: float, tau: float) -> None:
        """arXiv 2505.13738, tau_opt = 1.084 TPP^-0.527; values of FACTS section 3."""
        assert LAWS["power-lines"].at(tpp) == pytest.approx(tau, rel=0.005)

    @pytest.mark.parametrize(("tpp", "tau"), [(20, 0.175), (80, 0.0875), (234, 0.0512)])
    def test_celerity(self, tpp: float, tau: float) -> None:
        """FACTS A9: 0.7826 TPP^-0.5 through the three bands."""
        assert LAWS["celerity"].at(tpp) == pytest.approx(tau, abs=0.00005)

    @pytest.mark.parametrize(
        ("width", "batch", "tokens", "decay"),
        [(2048, 252, 12.12e9, 0.094), (2048, 504, 34.27e9, 0.066)],
    )
    def test_optimal_weight_decay(
        self, width: int, batch: int, tokens: float, decay: float
    ) -> None:
        """FACTS section 3's examples: 610M and 1.7B at 20 TPP, base rate 1.62e-2, coupled."""
        lr = 1.62e-2 * 256 / width
        tau = LAWS["power-lines"].at(20)
        assert weight_decay_for(tau, batch * 2048, lr, tokens) == pytest.approx(decay, abs=0.0006)

    def test_facts_a1(self) -> None:
        """610M at 80 TPP: B 504, base rate 1.62e-2 on width 2048, decay 0.1 is tau 0.105."""
        tau = timescale(504 * 2048, 1.62e-2 / 8, 0.1, 48.5e9)
        assert tau == pytest.approx(0.105, abs=0.0005)

    @given(tau=positive, batch=positive, lr=positive, tokens=positive)
    def test_weight_decay_is_the_inverse(
        self, tau: float, batch: float, lr: float, tokens: float
    ) -> None:
        decay = weight_decay_for(tau, batch, lr, tokens)
        assert timescale(batch, lr, decay, tokens) == pytest.approx(tau, rel=1e-14)

    def test_nothing_decays(self) -> None:
        assert timescale(1e6, 0.1, 0.0, 1e9) is None


class TestBatch:
    @pytest.mark.parametrize(
        ("tokens", "million"), [(2.19e9, 0.237), (12.1e9, 0.456), (34.3e9, 0.679), (100e9, 1.02)]
    )
    def test_optimal(self, tokens: float, million: float) -> None:
        """B_opt = 0.0306 D^0.383 sequences of 2048, here in tokens."""
        assert LAWS["power-lines-batch"].at(tokens) / 1e6 == pytest.approx(million, rel=0.005)

    @pytest.mark.parametrize(
        ("tokens", "sequences"),
        [(2.19e9, 973), (12.1e9, 2144), (34.3e9, 3470), (66.5e9, 4712), (100e9, 5689)],
    )
    def test_critical(self, tokens: float, sequences: float) -> None:
        law = LAWS["power-lines-critical-batch"]
        assert law.at(tokens) / 2048 == pytest.approx(sequences, rel=0.005)
        assert law.confidence == "recalled"

    def test_a_fifth_of_the_critical_batch(self) -> None:
        """FACTS section 3: 0.2 B_crit at 3.07B tokens is 0.466M tokens."""
        law = LAWS["power-lines-critical-batch"]
        assert 0.2 * law.at(3.07e9) == pytest.approx(0.466e6, rel=0.005)

    @pytest.mark.parametrize(
        ("tokens", "sequences"),
        [(5.4e9, 176), (10.1e9, 240), (18.1e9, 336), (36.2e9, 464), (77.6e9, 672)],
    )
    def test_celeritys_row(self, tokens: float, sequences: int) -> None:
        """Table 2's batch row to 5 %, from the square root of Table 8's tokens at 20 TPP."""
        assert LAWS["celerity-batch"].at(tokens) / 8192 == pytest.approx(sequences, rel=0.05)


class TestTradeOff:
    """McCandlish et al., arXiv 1812.06162."""

    @given(batch=st.floats(1e3, 1e9), tokens=st.floats(1e6, 1e14))
    def test_identity(self, batch: float, tokens: float) -> None:
        """(S/S_min - 1)(D/D_min - 1) = 1, with B_crit = D_min / S_min at the run's own D_min."""
        law = LAWS["power-lines-critical-batch"]
        trade = batch_trade_off(batch, tokens, law)
        assert trade.critical_batch == law.at(trade.minimum_tokens)
        assert trade.minimum_tokens / trade.minimum_steps == pytest.approx(
            trade.critical_batch, rel=1e-12
        )
        assert trade.minimum_tokens * (1 + batch / trade.critical_batch) == pytest.approx(
            tokens, rel=1e-12
        )
        steps, least = tokens / batch, trade.minimum_steps
        assert steps == pytest.approx(least * (1 + trade.critical_batch / batch), rel=1e-12)
        # far from the critical batch one of the two differences has lost its digits
        if 1e-3 < batch / trade.critical_batch < 1e3:
            product = (steps / least - 1) * (tokens / trade.minimum_tokens - 1)
            assert product == pytest.approx(1, rel=1e-9)

    def test_at_the_critical_batch_both_double(self) -> None:
        flat = Law(
            "flat",
            "critical_batch",
            "power",
            "tokens",
            {"coefficient": 1e6, "exponent": 0.0},
            "made up",
            "declared",
        )
        trade = batch_trade_off(1e6, 1e9, flat)
        assert trade.minimum_tokens == pytest.approx(0.5e9)
        assert trade.minimum_steps == pytest.approx(500)


class TestComputeOptimal:
    """FACTS section 8, at C = 6 N D."""

    @pytest.mark.parametrize(
        ("flops", "tpp"), [(1e19, 24.2), (1e20, 22.9), (1e21, 21.6), (5.76e23, 18.4)]
    )
    def test_besiroglu(self, flops: float, tpp: float) -> None:
        assert optimal_tpp(LAWS["besiroglu"], flops) == pytest.approx(tpp, abs=0.06)

    def test_besiroglus_exponent(self) -> None:
        c = LAWS["besiroglu"].constants
        assert c["beta"] / (c["alpha"] + c["beta"]) == pytest.approx(0.5126, abs=0.00005)

    @pytest.mark.parametrize(("flops", "tpp"), [(1e19, 32), (5.76e23, 93)])
    def test_hoffmann_as_printed(self, flops: float, tpp: float) -> None:
        """The drift of 32 to 93 is that of the two-digit constants, not of the TeX's."""
        c = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
        printed = Law("printed", "loss", "chinchilla", "params_and_tokens", c, "", "secondary")
        assert optimal_tpp(printed, flops) == pytest.approx(tpp, rel=0.02)

    @given(flops=st.floats(1e18, 1e26), part=st.floats(0.5, 2.0))
    def test_it_is_the_least_loss(self, flops: float, part: float) -> None:
        from planner.laws import predict_loss

        for name in ("besiroglu", "hoffmann"):
            law = LAWS[name]
            n = optimal_params(law, flops)
            best = predict_loss(law, n, flops / 6 / n).loss
            assert predict_loss(law, n * part, flops / 6 / (n * part)).loss >= best * (1 - 1e-12)
            assert optimal_tpp(law, flops) == pytest.approx(flops / 6 / n**2, rel=1e-12)


class TestLaw:
    def test_every_law_says_where_it_is_from(self) -> None:
        for name, law in LAWS.items():
            assert law.name == name
            assert "arXiv" in law.source

    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_law_takes_positive_numbers(self, value: float) -> None:
        with pytest.raises(LawError, match="wanted a positive number"):
            LAWS["power-lines"].at(value)

    def test_only_power_laws_have_one_input(self) -> None:
        with pytest.raises(LawError, match="wanted a power law"):
            LAWS["besiroglu"].at(1e9)

    @pytest.mark.parametrize(
        ("tpp", "outside"), [(20, False), (19.99, False), (19.9, True), (1281, False), (1290, True)]
    )
    def test_range(self, tpp: float, outside: bool) -> None:
        told = LAWS["power-lines"].outside(tpp=tpp)
        assert (told is not None) is outside
        assert LAWS["power-lines"].outside(width=1.0) is None
