"""The iso-loss curve: solved points lie on it, also at its ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import LawError
from planner.laws import at_extra_compute, at_params_ratio, at_tpp, published, trade_off
from planner.laws.compression import smallest_params_ratio

LAW = published()["iso-loss"]
A = 0.35


@given(tpp=st.floats(20, 1e12))
def test_at_tpp(tpp: float) -> None:
    point = at_tpp(LAW, tpp)
    assert point.tpp == pytest.approx(tpp, rel=1e-11)
    assert point.params_ratio**-A + point.tokens_ratio**-A == pytest.approx(2, rel=1e-12)
    assert point.compute_ratio == pytest.approx(point.params_ratio * point.tokens_ratio, rel=1e-12)


@given(extra=st.floats(1e-6, 1e9))
def test_at_extra_compute(extra: float) -> None:
    point = at_extra_compute(LAW, extra)
    assert point.compute_ratio == pytest.approx(1 + extra, rel=1e-12)
    assert point.params_ratio < 1 < point.tokens_ratio


@given(share=st.floats(0.139, 1.0))
def test_the_two_ways_agree(share: float) -> None:
    """From k_N directly and from its TPP, k_N comes back."""
    there = at_params_ratio(LAW, share)
    assert at_tpp(LAW, there.tpp).params_ratio == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("tpp", [1e30, 1e60])
def test_far_out(tpp: float) -> None:
    """Near the wall k_N has no digits left; the TPP is still the one asked for."""
    assert at_tpp(LAW, tpp).tpp == pytest.approx(tpp, rel=1e-9)


def test_the_optimum() -> None:
    for point in (at_tpp(LAW, 20), at_extra_compute(LAW, 0), at_params_ratio(LAW, 1)):
        assert (point.params_ratio, point.tokens_ratio, point.tpp) == (1, 1, 20)


def test_what_does_not_exist() -> None:
    with pytest.raises(LawError, match="wanted at least the compute-optimal 20"):
        at_tpp(LAW, 19.9)
    with pytest.raises(LawError, match="wanted zero or more"):
        at_extra_compute(LAW, -0.1)
    with pytest.raises(LawError, match="below it no amount of data reaches the loss"):
        at_params_ratio(LAW, smallest_params_ratio(LAW))
    with pytest.raises(LawError, match="at most 1"):
        at_params_ratio(LAW, 1.01)
    with pytest.raises(LawError, match="too far"):
        at_extra_compute(LAW, 1e300)


def test_trade_off_lists_points_by_tpp() -> None:
    points = trade_off(LAW)
    assert points[0].params_ratio == 1
    assert [point.tpp for point in points] == sorted(point.tpp for point in points)
    assert [point.compute_ratio for point in points] == sorted(p.compute_ratio for p in points)
    mixed = trade_off(LAW, tpp=[234], extra_compute=[0.1], params_ratio=[0.5])
    assert len(mixed) == 3
    assert any(point.tpp == pytest.approx(234) for point in mixed)
