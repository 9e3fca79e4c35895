"""Normalized curves, final losses and noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.curves import CurveError, Smoothing, normalize
from planner.curves.noise import long_run_noise, point_noise, stretch_noise
from planner.curves.normalize import BY_SEQUENCES, BY_STEPS, final_loss, irreducible_loss
from tests.curves.made import curve, shape


def test_a_finished_run_ends_at_one() -> None:
    found = normalize(curve(final=2.7))
    assert found.how == "final loss"
    assert found.divisor == pytest.approx(2.7, rel=1e-5)
    np.testing.assert_allclose(found.values, shape(found.fraction), rtol=1e-5)


def test_the_final_loss_of_noisy_batches_has_no_lag() -> None:
    def steep(t: np.ndarray) -> np.ndarray:
        return 0.3 * (1.0 - t)

    finals = [
        final_loss(curve(noise=0.02, seed=i, steps=4000, extra=steep, final=3.0)) for i in range(60)
    ]
    assert np.mean(np.log(finals)) == pytest.approx(np.log(3.0), abs=0.002)
    assert np.std(np.log(finals)) < 0.02 / 5


def test_an_evaluation_loss_is_taken_as_it_is() -> None:
    run = curve(every=50, noise=0.0001)
    assert final_loss(run) == run.values[-1]


def test_a_run_in_progress_says_so() -> None:
    part = curve(until=0.4)
    assert normalize(part).how == "last logged loss"
    given = normalize(part, divisor=3.0)
    assert given.how == "given"
    np.testing.assert_allclose(given.values, shape(given.fraction), rtol=1e-9)


def test_an_offset_is_subtracted_from_both() -> None:
    run = curve(final=3.0)
    found = normalize(run, offset=1.5, divisor=3.0)
    np.testing.assert_allclose(found.values, (run.values - 1.5) / 1.5)
    with pytest.raises(CurveError, match="not above the offset"):
        normalize(run, offset=3.5)


def test_smoothing_is_centred_for_finished_runs_and_trailing_for_others() -> None:
    spike = curve(extra=lambda t: np.where(np.isclose(t, 0.3), 1.0, 0.0))
    plain = curve()
    window = Smoothing("steps", 11)
    moved = normalize(spike, smoothing=window, divisor=3.0).values
    still = normalize(plain, smoothing=window, divisor=3.0).values
    touched = np.flatnonzero(moved - still > 1e-3)
    assert (touched[0] + touched[-1]) / 2 == pytest.approx(299, abs=1)
    part, still = (
        normalize(run.until(0.6), smoothing=window, divisor=3.0).values for run in (spike, plain)
    )
    touched = np.flatnonzero(part - still > 1e-3)
    assert touched[0] == 299  # not before it happened


def test_windows_by_sequences_and_by_fraction() -> None:
    run = curve(batch_tokens=504 * 2048, seq_len=2048)
    assert BY_SEQUENCES.steps(run) == pytest.approx(24.4, abs=0.1)  # FACTS A2
    assert BY_STEPS.steps(run) == 100
    assert Smoothing("fraction", 0.05).steps(run) == pytest.approx(50)
    with pytest.raises(CurveError, match="batch and sequence length"):
        BY_SEQUENCES.steps(curve())
    with pytest.raises(CurveError, match="more than 0"):
        Smoothing("steps", 0.0)


def test_a_fraction_of_tokens_differs_where_the_batch_grew() -> None:
    run = curve(tokens=1_500_000)
    seen = np.where(run.steps <= 500, run.steps * 1000.0, 500_000 + (run.steps - 500) * 2000.0)
    run = replace(run, tokens=seen)
    found = normalize(run, by="tokens")
    assert found.fraction[499] == pytest.approx(1 / 3)
    with pytest.raises(CurveError, match="does not count the training tokens"):
        normalize(curve(), by="tokens")


def test_the_irreducible_loss_of_a_family() -> None:
    sizes = [10**8, 3 * 10**8, 10**9, 3 * 10**9]
    runs = [curve(str(n), params=n, final=1.7 + 400.0 * n**-0.34) for n in sizes]
    assert irreducible_loss(runs) == pytest.approx(1.7, abs=0.02)
    with pytest.raises(CurveError, match="four finished sizes"):
        irreducible_loss(runs[:3])


def test_an_unknown_horizon_is_refused() -> None:
    with pytest.raises(CurveError, match="unknown"):
        normalize(replace(curve(), horizon=None))


def test_point_noise_is_not_fooled_by_trend_or_spikes() -> None:
    rng = np.random.default_rng(1)
    values = np.linspace(3.0, 1.0, 4000) + rng.normal(0.0, 0.01, 4000)
    values[::97] += 2.0
    assert point_noise(values) == pytest.approx(0.01, rel=0.08)
    assert np.isnan(point_noise(np.ones(3)))


def test_stretch_noise_of_white_and_of_correlated_noise() -> None:
    rng = np.random.default_rng(2)
    white = rng.normal(0.0, 1.0, (20, 2048))
    found = stretch_noise(white)
    np.testing.assert_allclose(found.mean(axis=0), 1.0 / np.sqrt([1, 2, 4, 8, 16, 32]), rtol=0.08)
    rho = 0.7
    red = np.empty_like(white)
    red[:, 0] = white[:, 0]
    for i in range(1, red.shape[1]):
        red[:, i] = rho * red[:, i - 1] + white[:, i]
    truth = 1.0 / (1.0 - rho)  # long-run standard deviation
    assert long_run_noise(red).mean() == pytest.approx(truth, rel=0.2)
    assert long_run_noise(white).mean() == pytest.approx(1.0, rel=0.15)
    assert long_run_noise(white).min() > 0.85


def test_noise_with_gaps() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(0.0, 1.0, (4, 400))
    rows[0, 100:130] = np.nan
    rows[1, 20:] = np.nan
    found = stretch_noise(rows)
    assert found[0, 0] == pytest.approx(1.0, rel=0.25)
    assert np.isnan(found[1, 3])
