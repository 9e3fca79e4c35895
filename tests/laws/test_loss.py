"""The loss law's interval against samples of its covariance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from planner.errors import LawError
from planner.laws import LossPrediction, predict_loss, published

BESIROGLU = published()["besiroglu"]
RUNS = [(2.7e8, 5.4e9), (1.8e9, 3.6e10), (3.9e9, 9.1e11), (7e10, 1.4e12), (5e7, 1e9)]


def sampled(n: float, d: float, level: float, scatter: float) -> tuple[float, float]:
    """Return the interval of single runs, by sampling (log E, log A, log B, alpha, beta)."""
    c = BESIROGLU.constants
    mean = [math.log(c["E"]), math.log(c["A"]), math.log(c["B"]), c["alpha"], c["beta"]]
    rng = np.random.default_rng(20250922)
    draws = rng.multivariate_normal(mean, np.array(BESIROGLU.covariance), 40_000)
    e, a, b, alpha, beta = draws.T
    loss = np.exp(e) + np.exp(a) * n**-alpha + np.exp(b) * d**-beta
    loss *= np.exp(scatter * rng.standard_normal(len(loss)))
    low, high = np.quantile(loss, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@pytest.mark.parametrize(("n", "d"), RUNS)
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_interval_is_that_of_samples(n: float, d: float, level: float) -> None:
    """First order in the constants is enough: the width agrees to 6 %, the ends to 0.2 %."""
    got = predict_loss(BESIROGLU, n, d, level)
    low, high = sampled(n, d, level, BESIROGLU.scatter or 0)
    assert got.low is not None
    assert got.high is not None
    assert got.high - got.low == pytest.approx(high - low, rel=0.06)
    assert (got.low, got.high) == pytest.approx((low, high), rel=0.002)


def test_loss_is_the_law() -> None:
    got = predict_loss(BESIROGLU, 1e9, 2e10)
    assert got.loss == pytest.approx(
        1.8172 + 482.01 * 1e9**-0.3478 + 2085.43 * 2e10**-0.3658, rel=1e-12
    )
    assert got.low is not None
    assert got.high is not None
    assert got.low * got.high == pytest.approx(got.loss**2, rel=1e-12)


def test_standard_errors_are_about_the_papers() -> None:
    """E .03, A 124.58, B 1293.23, alpha .02, beta .02 (arXiv 2404.10102), from the covariance."""
    assert BESIROGLU.covariance is not None
    sd = [math.sqrt(row[i]) for i, row in enumerate(BESIROGLU.covariance)]
    c = BESIROGLU.constants
    found = [sd[0] * c["E"], sd[1] * c["A"], sd[2] * c["B"], sd[3], sd[4]]
    # the paper prints E, alpha and beta to one digit
    assert found == pytest.approx([0.03, 124.58, 1293.23, 0.02, 0.02], rel=0.35)
    assert found[1:3] == pytest.approx([124.58, 1293.23], rel=0.35)


def test_the_interval_grows_with_the_level() -> None:
    narrow, wide = predict_loss(BESIROGLU, 1e9, 2e10, 0.5), predict_loss(BESIROGLU, 1e9, 2e10, 0.95)
    assert wide.low is not None
    assert narrow.low is not None
    assert wide.low < narrow.low < narrow.loss == wide.loss


def test_without_a_covariance_there_is_no_interval() -> None:
    got = predict_loss(published()["hoffmann"], 1e9, 2e10)
    assert got == LossPrediction(got.loss, None, None)


def test_scatter_alone() -> None:
    """With exact constants the interval is exp(z s), s the scatter: 1.645 for 90 %."""
    zero = tuple((0.0,) * 5 for _ in range(5))
    got = predict_loss(replace(BESIROGLU, covariance=zero), 1e9, 2e10, 0.9)
    assert got.high is not None
    assert math.log(got.high / got.loss) == pytest.approx(1.6449 * 0.0075, rel=1e-4)


def test_another_form_is_refused() -> None:
    with pytest.raises(LawError, match="wanted a loss law"):
        predict_loss(published()["power-lines"], 1e9, 2e10)
