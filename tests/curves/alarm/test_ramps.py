"""The drift statistic against least squares written out, and its error by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.curves.alarm.drift import calibration_points
from planner.curves.alarm.ramps import _first_ratio, bank, ramp_scores
from planner.curves.alarm.tame import tame
from planner.curves.alarm.threshold import threshold


def by_hand(values, noise, end, window, total, shape, shape_sd):
    """The slope of a ramp over its standard error, level and shape projected out, by matrices."""
    u, sigma = values[:end], noise[:end]
    ramp = np.maximum(0.0, np.arange(1, end + 1) - (end - window)) / total
    columns = [ramp, np.ones(end)]
    prior = [0.0, 0.0]
    if shape is not None:
        columns.append(shape[:end])
        prior.append(1.0 / shape_sd**2)
    design = np.column_stack(columns) / sigma[:, None]
    covariance = np.linalg.inv(design.T @ design + np.diag(prior))
    slope = (covariance @ (design.T @ (u / sigma)))[0]
    return slope / math.sqrt(covariance[0, 0])


@pytest.mark.parametrize("with_shape", [False, True])
def test_against_matrices(with_shape: bool) -> None:
    rng = np.random.default_rng(1)
    total, count = 200, 20
    values = rng.normal(0.3, 1.0, total)
    noise = np.linspace(1.5, 1.9, total)  # above what the values have: the ratio stays 1
    shape = np.linspace(1.0, 0.0, total) ** 2 if with_shape else None
    # so many looks are inherited that the variance ratio stays 1
    found = ramp_scores(
        values, noise, total, count, shape=shape, shape_sd=0.5, prior_looks=1e12, growth=1.0
    )
    assert np.allclose(_first_ratio(values - values[:count].mean(), 1 / noise**2, count)[50:], 1.0)
    for end in (60, 137, 200):
        expected = max(
            by_hand(values, noise, end, w, total, shape, 0.5) - math.sqrt(2 * math.log(total / w))
            for w in bank(total)
            if w + count // 2 <= end
        )
        assert found.score[end - 1] == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(40, 300), st.floats(-5, 5), st.floats(0.01, 100))
def test_level_and_scale_do_not_matter(seed: int, n: int, level: float, scale: float) -> None:
    values = np.random.default_rng(seed).standard_normal(n)
    count = calibration_points(n)
    one = ramp_scores(*tame(values, count), n, count).score
    other = ramp_scores(*tame(scale * (values + level), count), n, count).score
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(40, 300), st.floats(0.2, 0.9))
def test_a_point_is_judged_by_what_was_logged_before_it(seed: int, n: int, share: float) -> None:
    values = np.random.default_rng(seed).standard_t(3, n)
    count = calibration_points(n)
    part = max(int(share * n), count)
    whole = ramp_scores(*tame(values, count), n, count).score
    early = ramp_scores(*tame(values[:part], count), n, count).score
    np.testing.assert_allclose(early, whole[:part], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "kind", ["white", "heavy tails", "correlated", "very correlated", "slowly changing"]
)
def test_false_alarms_over_whole_runs(kind: str) -> None:
    rng = np.random.default_rng(5)
    runs, n = 1500, 400
    noise = rng.standard_normal((runs, n))
    if kind == "heavy tails":
        noise = rng.standard_t(3, (runs, n))
    elif "correlated" in kind:
        for i in range(1, n):
            noise[:, i] += (0.9 if "very" in kind else 0.5) * noise[:, i - 1]
    elif kind == "slowly changing":
        noise *= np.linspace(1.0, 1.2, n)  # as real logs do from first to last quarter
    count = calibration_points(n)
    highest = ramp_scores(*tame(noise, count), n, count).score.max(axis=1)
    for alpha in (0.01, 0.05):
        rate = float(np.mean(highest > threshold(alpha, n)))
        assert rate <= alpha + 3.0 * math.sqrt(alpha * (1 - alpha) / runs), (kind, alpha)


def test_threshold_is_what_its_noise_reaches() -> None:
    rng = np.random.default_rng(7)
    runs, n = 4000, 120
    count = calibration_points(n)
    noise = rng.standard_t(4, (runs, n)) * np.linspace(1.0, 1.25, n)
    highest = ramp_scores(*tame(noise, count), n, count).score.max(axis=1)
    for alpha in (0.02, 0.1):
        rate = float(np.mean(highest > threshold(alpha, n)))
        # the table itself comes from as many runs
        assert abs(rate - alpha) <= 5.0 * math.sqrt(alpha * (1 - alpha) / runs)


def test_threshold_rises_with_length_and_rarity() -> None:
    scores = [[threshold(a, n) for n in (200, 1000, 9000, 40000)] for a in (0.2, 0.05, 0.01, 0.001)]
    assert np.all(np.diff(scores, axis=0) > 0)
    assert np.all(np.diff(scores, axis=1) >= 0)
    for alpha in (0.0005, 0.3):
        with pytest.raises(ValueError, match="alpha must be"):
            threshold(alpha, 100)
    with pytest.raises(ValueError, match="points"):
        threshold(0.01, 0)


def test_outliers_are_bounded() -> None:
    values = np.random.default_rng(2).standard_normal(500)
    values[300] = 40.0
    tamed, noise = tame(values, 50)
    assert tamed[300] < 4.0
    assert noise[-1] == pytest.approx(1.0, abs=0.1)
