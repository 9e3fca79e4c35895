"""The rewriting that carries CompleteP on targets without multipliers is exact, and where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.render.symmetry import Values, fold

BETA1, BETA2 = 0.9, 0.95
STEPS = 40

Weights = dict[str, np.ndarray]


def loss_and_gradients(
    w: Weights, multiplier: dict[str, float], x: np.ndarray, y: np.ndarray
) -> tuple[float, Weights]:
    """Two residual blocks x + f * (W_out relu(W_in x) + b) under the mean square loss."""
    tape = []
    for block in ("a", "b"):
        f = multiplier[block]
        h = np.maximum(x @ w[f"{block}.in"], 0.0)
        tape.append((block, x, h))
        x = x + f * (h @ w[f"{block}.out"] + w[f"{block}.bias"])
    error = x - y
    grad = 2.0 * error / error.size
    gradients: Weights = {}
    for block, before, h in reversed(tape):
        f = multiplier[block]
        gradients[f"{block}.out"] = f * h.T @ grad
        gradients[f"{block}.bias"] = f * grad.sum(0)
        back = (f * grad @ w[f"{block}.out"].T) * (h > 0)
        gradients[f"{block}.in"] = before.T @ back
        grad = grad + back @ w[f"{block}.in"].T
    return float(np.mean(error**2)), gradients


def train(
    values: dict[str, Values], multiplier: dict[str, float], clip: float | None = None
) -> np.ndarray:
    """Return the losses of AdamW in float64, linear decay to zero; the same noise in every call."""
    rng = np.random.default_rng(0)
    shapes = {"in": (8, 16), "out": (16, 8), "bias": (8,)}
    weights = {
        name: (values[name].init_std or 0.0) * rng.standard_normal(shapes[name.split(".")[1]])
        for name in sorted(values)
    }
    x, target = rng.standard_normal((32, 8)), rng.standard_normal((8, 8))
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = {name: np.zeros_like(w) for name, w in weights.items()}
    losses = []
    for step in range(STEPS):
        loss, gradients = loss_and_gradients(weights, multiplier, x, x @ target)
        losses.append(loss)
        if clip is not None:
            norm = np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
            gradients = {n: g * min(1.0, clip / norm) for n, g in gradients.items()}
        for name, g in gradients.items():
            v = values[name]
            first[name] = BETA1 * first[name] + (1 - BETA1) * g
            second[name] = BETA2 * second[name] + (1 - BETA2) * g**2
            m = first[name] / (1 - BETA1 ** (step + 1))
            s = np.sqrt(second[name] / (1 - BETA2 ** (step + 1)))
            rate = v.lr * (1 - step / STEPS)
            weights[name] = weights[name] - rate * (
                m / (s + v.eps) + v.weight_decay * weights[name]
            )
    return np.array(losses)


# eps is large on purpose: folding has to get it right too.
NATIVE = {
    f"{block}.{kind}": Values(std, 0.02, decay, 1e-3, 1.0)
    for block in ("a", "b")
    for kind, std, decay in (("in", 0.4, 0.1), ("out", 0.3, 0.2), ("bias", 0.1, 0.05))
}


def folded(factor: float) -> dict[str, Values]:
    return {
        name: v if name.endswith(".in") else fold(replace(v, forward_multiplier=factor), factor)
        for name, v in NATIVE.items()
    }


@pytest.mark.parametrize("factor", [0.5, 1 / 3, 0.03125, 3.0])
def test_folding_a_residual_multiplier_trains_alike(factor: float) -> None:
    native = train(NATIVE, {"a": factor, "b": factor})
    absorbed = train(folded(factor), {"a": 1.0, "b": 1.0})
    assert native[-1] < 0.95 * native[0]
    np.testing.assert_allclose(absorbed, native, rtol=1e-9)


@pytest.mark.parametrize("field", ["init_std", "lr", "weight_decay", "eps"])
def test_each_part_of_the_rewriting_is_needed(field: str) -> None:
    factor = 0.25
    wrong = {
        name: replace(v, **{field: getattr(NATIVE[name], field)})
        for name, v in folded(factor).items()
    }
    native = train(NATIVE, {"a": factor, "b": factor})
    assert not np.allclose(train(wrong, {"a": 1.0, "b": 1.0}), native, rtol=1e-6)


def test_clipping_by_the_global_norm_breaks_it() -> None:
    """Why a folded target that clips has to warn."""
    factor, clip = 0.25, 0.3
    native = train(NATIVE, {"a": factor, "b": factor}, clip)
    absorbed = train(folded(factor), {"a": 1.0, "b": 1.0}, clip)
    assert np.abs(absorbed / native - 1).max() > 1e-3


@given(st.floats(0.001, 1000.0), st.floats(0.001, 1000.0))
def test_folding_twice_is_folding_the_product(a: float, b: float) -> None:
    values = Values(0.02, 0.01, 0.1, 1e-8, 0.5)
    one, two = fold(fold(values, a), b), fold(values, a * b)
    for field in ("init_std", "lr", "weight_decay", "eps", "forward_multiplier", "folded"):
        assert getattr(one, field) == pytest.approx(getattr(two, field), rel=1e-14)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_factor_must_be_positive(factor: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        fold(Values(0.02, 0.01, 0.1, 1e-8, 1.0), factor)
