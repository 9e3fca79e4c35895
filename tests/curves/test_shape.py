"""How the sizes of a band are weighed at another size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.curves.shape import size_weights

SIZES = st.lists(st.floats(1e6, 1e12), min_size=1, max_size=6, unique=True)


@given(SIZES, st.floats(1e6, 1e12), st.floats(0.0, 1.0))
def test_weights_sum_to_one(sizes: list[float], size: float, curvature: float) -> None:
    weights = size_weights(sizes, size, curvature=curvature)
    assert weights.sum() == pytest.approx(1.0, abs=1e-6 * (1 + np.abs(weights).sum()))


@given(st.floats(0.5, 2.0), st.floats(-0.2, 0.2))
def test_what_is_a_line_in_log_n_is_met(level: float, slope: float) -> None:
    sizes = np.array([1e8, 3e8, 1e9, 3e9])
    value = size_weights(sizes, 1e10) @ (level + slope * np.log(sizes))
    assert value == pytest.approx(level + slope * np.log(1e10), abs=1e-9)


def test_half_the_curvature_is_believed() -> None:
    sizes = np.array([1e8, 3e8, 1e9])
    values = np.log(sizes / 1e8) ** 2
    line = size_weights(sizes, 3e9, curvature=0.0) @ values
    parabola = size_weights(sizes, 3e9, curvature=1.0) @ values
    assert parabola == pytest.approx(np.log(30.0) ** 2)
    assert size_weights(sizes, 3e9) @ values == pytest.approx((line + parabola) / 2)


def test_one_size_is_its_mean_and_two_are_a_line() -> None:
    assert size_weights([1e8, 1e8, 1e8], 1e9) == pytest.approx([1 / 3] * 3)
    assert size_weights([1e8, 1e9], 1e10) == pytest.approx([-1.0, 2.0])


def test_what_is_known_better_counts_more() -> None:
    assert size_weights([1e8, 1e8], 1e9, precision=[1, 3]) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("sizes", [[], [0.0, 1.0], [-1.0]])
def test_bad_sizes_are_refused(sizes: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        size_weights(sizes, 1e9)


def test_bad_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision"):
        size_weights([1e8, 1e9], 1e10, precision=[1.0, 0.0])
