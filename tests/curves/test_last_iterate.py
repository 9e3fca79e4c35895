"""The bound of a schedule against the sums as they are written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.laws.last_iterate import last_iterate_bound


def written(eta: list[float], t: int) -> tuple[float, float]:
    """Theorem 1 of arXiv 2501.18965, sum by sum."""
    eta = eta[:t]
    total = sum(eta)
    noise = sum(e**2 for e in eta) / total / 2
    for k in range(t - 1):
        after = sum(eta[k + 1 :])
        if after > 0:
            left = sum(eta[k:])
            noise += 0.5 * eta[k] / after * sum(e**2 for e in eta[k:]) / left
    return 1 / (2 * total), noise


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=30), st.data())
def test_it_is_what_is_written(eta: list[float], data: st.DataObject) -> None:
    t = data.draw(st.integers(1, len(eta)))
    progress, noise = last_iterate_bound(eta, [t])
    assert (progress[0], noise[0]) == pytest.approx(written(eta, t), rel=1e-9)


@given(st.floats(1e-6, 1e3))
def test_units_of_the_rate(scale: float) -> None:
    eta = np.linspace(1.0, 0.1, 50)
    progress, noise = last_iterate_bound(eta, [10, 50])
    scaled_progress, scaled_noise = last_iterate_bound(scale * eta, [10, 50])
    assert scaled_progress * scale == pytest.approx(progress)
    assert scaled_noise / scale == pytest.approx(noise)


def test_a_cooldown_takes_noise_away() -> None:
    constant = np.full(1000, 1e-3)
    cooled = np.minimum(constant, 1e-3 * (1000 - np.arange(1000)) / 200)
    assert last_iterate_bound(cooled, [1000])[1] < 0.6 * last_iterate_bound(constant, [1000])[1]


def test_steps_without_rate_at_the_end_change_nothing() -> None:
    eta = np.concatenate([np.linspace(1.0, 0.1, 50), np.zeros(5)])
    assert last_iterate_bound(eta, [55])[1] == pytest.approx(last_iterate_bound(eta, [50])[1])


@pytest.mark.parametrize(
    ("eta", "steps"),
    [([], [1]), ([0.0, 1.0], [1]), ([1.0, -1.0], [1]), ([1.0], [0]), ([1.0], [2])],
)
def test_what_is_out_of_range_is_refused(eta: list[float], steps: list[int]) -> None:
    with pytest.raises(ValueError, match=r"learning rates|steps"):
        last_iterate_bound(eta, steps)
