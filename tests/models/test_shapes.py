"""The shape rule: near the count asked for, depth near width / 50, whole heads and groups."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.models.architecture import Architecture, count_params, head_dim_for
from planner.models.shapes import depths_near_rule, rule_depth, shape_for, widths

CELERITY = Architecture(128256, 8192, ffn_multiplier=Fraction(8))
LLAMA = Architecture(
    32000, 4096, ffn_multiplier=Fraction(8, 3), ffn_multiple=128, gated=True, head_dim=64
)
GPT = Architecture(50257, 2048, tied_embeddings=True)


@pytest.mark.parametrize("family", [CELERITY, LLAMA, GPT], ids=["celerity", "llama", "gpt"])
@settings(max_examples=100, deadline=None)
@given(exponent=st.floats(7.8, 12))
def test_near_the_count(family: Architecture, exponent: float) -> None:
    """Within half a layer, unless the depth is held at the edge of what is let near the rule."""
    params = 10**exponent
    shape = shape_for(family, params)
    found = count_params(family, shape).total
    layer = found - count_params(family, family.shape(shape.d_model, shape.n_layers + 1)).total
    rule = rule_depth(shape.d_model)
    assert 0 < shape.n_layers <= 3 * rule + 1
    held = shape.n_layers == 1 or shape.n_layers + 1 > 3 * rule
    assert held or abs(found - params) <= abs(layer) / 2 * (1 + 1e-9)
    assert shape.n_heads * shape.head_dim == shape.d_model


@pytest.mark.parametrize("family", [CELERITY, LLAMA, GPT], ids=["celerity", "llama", "gpt"])
@settings(max_examples=100, deadline=None)
@given(exponent=st.floats(8.5, 12))
def test_near_the_rule(family: Architecture, exponent: float) -> None:
    """From about 300M the steps in width are fine enough for the depth to stay within 25 %."""
    shape = shape_for(family, 10**exponent)
    assert 0.75 <= shape.n_layers / rule_depth(shape.d_model) <= 1.25


def test_a_tiny_size_is_not_made_of_depth() -> None:
    """With a vocabulary of 128,256 a width of 64 has 16M; 23M was once 81 layers of it."""
    shape = shape_for(CELERITY, 23e6)
    assert shape.n_layers <= 3 * rule_depth(shape.d_model) + 1


@pytest.mark.parametrize("slack", [0.0, 0.1, 0.25])
@settings(max_examples=60, deadline=None)
@given(exponent=st.floats(8, 12))
def test_slack_bounds_the_depth(slack: float, exponent: float) -> None:
    shape = shape_for(GPT, 10**exponent, "total", slack)
    rule = rule_depth(shape.d_model)
    assert shape.n_layers in depths_near_rule(shape.d_model, slack)
    low, high = rule * (1 - slack), rule * (1 + slack)
    assert low <= shape.n_layers <= high or shape.n_layers == math.ceil(low) > high


@pytest.mark.parametrize("params", [1e3, 1e6, 1e16])
def test_no_shape(params: float) -> None:
    with pytest.raises(ValueError, match="no shape comes within half"):
        shape_for(CELERITY, params)


@pytest.mark.parametrize("convention", ["total", "non_embedding", "active", "matrices"])
def test_conventions(convention: str) -> None:
    family = Architecture(50257, 2048, experts=8, top_k=2, biases=True, position="learned")
    shape = shape_for(family, 2e9, convention)
    assert getattr(count_params(family, shape), convention) == pytest.approx(2e9, rel=0.03)


@pytest.mark.parametrize("groups", range(1, 13))
@pytest.mark.parametrize("narrowest", [None, 64, 32])
def test_every_width_has_whole_groups_of_heads(groups: int, narrowest: int | None) -> None:
    family = Architecture(50257, 2048, kv_groups=groups)
    found = list(widths(family, narrowest=narrowest))
    assert found == sorted(set(found))
    for width in found:
        shape = family.shape(width, 1)
        assert shape.n_heads == groups * shape.n_kv_heads
        assert shape.n_heads * shape.head_dim == width
        assert shape.head_dim in (32, 64, 128)


@pytest.mark.parametrize(
    ("width", "groups", "head_dim"),
    [(640, 1, 64), (896, 1, 64), (1152, 1, 128), (1088, 1, 64), (100, 1, 4), (1280, 4, 64)],
)
def test_head_width(width: int, groups: int, head_dim: int) -> None:
    assert head_dim_for(width, groups) == head_dim


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="heads of 128 do not divide width 1000"):
        GPT.shape(1000, 10, 128)
    with pytest.raises(ValueError, match="groups of 3 do not divide 8 heads"):
        Architecture(100, 16, kv_groups=3).shape(1024, 1, 128)
