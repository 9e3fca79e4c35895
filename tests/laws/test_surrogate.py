"""The surrogate and the schedule law as pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import LawError
from planner.laws import Law, published
from planner.laws.schedule import multi_power_law, schedule_loss
from planner.laws.surrogate import surrogate_constants, surrogate_curve, surrogate_shape


def to_zero(t: np.ndarray) -> np.ndarray:
    """Linear warm-up over a tenth, then linear to zero."""
    return np.where(t < 0.1, t / 0.1, (1 - t) / 0.9)


# normalized by the value at 1; computed from arXiv 2509.25087, Eq. 4
@pytest.mark.parametrize(
    ("b", "q", "wanted"),
    [
        (0.1, 0.3, [1.114, 1.070, 1.037, 1.017]),
        (0.2, 0.3, [1.152, 1.101, 1.058, 1.028]),
        (0.5, 0.3, [1.249, 1.180, 1.110, 1.055]),
        (0.2, 1.0, [1.234, 1.143, 1.069, 1.027]),
    ],
)
def test_the_figures_of_the_formula(b: float, q: float, wanted: list[float]) -> None:
    t = np.array([0.25, 0.5, 0.75, 0.9])
    found = surrogate_shape(t, to_zero(t), b, q, final_lr_factor=0.0)
    assert found == pytest.approx(wanted, abs=6e-4)


@given(b=st.floats(0, 3), q=st.floats(0.01, 3), end=st.floats(0, 1), seed=st.integers(0, 99))
def test_it_ends_at_one(b: float, q: float, end: float, seed: int) -> None:
    t = np.sort(np.random.default_rng(seed).random(5))
    t[-1] = 1.0
    lr = np.linspace(1, end, 5)
    found = surrogate_shape(t, lr, b, q, final_lr_factor=end)
    assert found[-1] == pytest.approx(1.0)
    assert np.all(np.diff(found) <= 1e-12)


def surrogate(**changes: float) -> Law:
    constants = {"b_coefficient": 0.1, "b_exponent": -0.5, "q_coefficient": 0.8}
    constants |= {"q_exponent": -0.2, "eps1": 1e-3, "eps2": 0.1, "m": 0.05, **changes}
    return Law("s", "curve", "collapse-surrogate", "tau_and_tpp", constants, "here", "fitted")


def test_a_law_gives_b_q_and_the_curve() -> None:
    law = surrogate()
    b, q = surrogate_constants(law, 0.25, 32)
    assert (b, q) == pytest.approx((0.2, 0.4))
    t = np.linspace(0, 1, 11)
    found = surrogate_curve(law, t, to_zero(t), final_lr_factor=0.0, tau=0.25, tpp=32)
    assert found == pytest.approx(surrogate_shape(t, to_zero(t), b, q, final_lr_factor=0.0))
    other = surrogate_curve(surrogate(m=0.1), t, to_zero(t), final_lr_factor=0, tau=0.25, tpp=32)
    assert other[1] > found[1]


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(LawError, match="got tau None, wanted a positive number"):
        surrogate_constants(surrogate(), None, 20)
    with pytest.raises(LawError, match="got tpp -1"):
        surrogate_constants(surrogate(), 0.1, -1)
    with pytest.raises(LawError, match="is of form power"):
        surrogate_constants(published()["celerity"], 0.1, 20)


def test_the_schedule_law_is_the_kernels() -> None:
    # the 25M constants of the authors' README (arXiv 2503.12811)
    constants = {"L0": 3.04, "A": 0.525, "alpha": 0.508, "B": 363.788}
    constants |= {"C": 2.066, "beta": 0.583, "gamma": 0.641}
    law = Law("s", "schedule", "multi-power", "lr_schedule", constants, "here", "fitted")
    lr = 3e-4 * np.minimum(np.arange(3000) / 300, 1.0)
    lr[2000:] = 1e-4
    found = schedule_loss(law, lr, [1999, 2500, 2999])
    assert found == pytest.approx(
        multi_power_law(law).predict(*ragged(lr, [1999, 2500, 2999])).values
    )
    assert found[1] < found[0]
    with pytest.raises(LawError, match="lies outside"):
        schedule_loss(law, lr, [3000])
    with pytest.raises(LawError, match="wanted multi-power"):
        schedule_loss(surrogate(), lr)


def ragged(lr: np.ndarray, steps: list[int]) -> tuple:
    from planner.kernel import Ragged

    return Ragged.from_list([lr]), Ragged.from_list([np.array(steps, float)])
