"""Curves simulated here, so that what the surrogate's fit finds can be held against the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from planner.curves import Curve, RunFacts, declared_schedule
from planner.laws.surrogate import surrogate_shape

# t, learning rate over its peak at t, tau, TPP, parameters -> loss at t
Loss = Callable[[np.ndarray, np.ndarray, float, float, float], np.ndarray]

# arXiv 2509.25087: sizes of Table 3 as computed from the shapes, the TPP of Table 4
SIZES = (109_400_000, 265_100_000, 606_200_000, 1_713_500_000, 3_324_000_000)
TPPS = (20.0, 80.0, 320.0, 1280.0)
# around tau = 0.7826 / sqrt(TPP), which Celerity's bands follow, in the factors of 2 of sweeps
TAU_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
STEPS = 2000
# within the spans of arXiv 2509.25087, Fig. 22
TRUTH = {"b_coefficient": 0.08, "b_exponent": -0.35, "q_coefficient": 0.9, "q_exponent": -0.2}
# arXiv 2404.10102
E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658
# of the loss at each step: that of the llm.c log in nanogpt_speedrun, half a million tokens a step
NOISE = 0.01
BATCH, SEQ_LEN = 256, 2048  # half a million tokens a step
# Excess loss of the weights' noise at a constant rate, times 2 tau TPP: 0.1 nats at 20 TPP and the
# tau above, about what decays gain in the multipowerlaw curves.
_VARIANCE = 0.7


def typical_tau(tpp: float) -> float:
    """Return tau of Celerity's bands (arXiv 2509.25087, Fig. 1 and 6)."""
    return 0.7826 * float(tpp**-0.5)


def by_the_surrogate(seed: int = 0) -> list[Curve]:
    """Curves of the surrogate's own form, with noise: the constants have to come back."""

    def loss(t: np.ndarray, lr: np.ndarray, tau: float, tpp: float, params: float) -> np.ndarray:
        b = TRUTH["b_coefficient"] * tau ** TRUTH["b_exponent"]
        q = TRUTH["q_coefficient"] * tpp ** TRUTH["q_exponent"]
        final = E + A * params**-ALPHA + B * (tpp * params) ** -BETA
        return final * surrogate_shape(t, lr, b, q, final_lr_factor=lr[-1])

    return _curves(loss, seed)


def by_the_noisy_quadratic(seed: int = 0, *, lagging: bool = False) -> list[Curve]:
    """Curves of the loss law at the tokens seen so far, plus the weights' noise under the schedule.

    The noise is the variance of the noisy quadratic model (arXiv 2509.25087, Eq. 10-16), stepped
    under the schedule: v <- (1 - a)^2 v + a^2 s with a = lr / (tau T). N directions, each with the
    noise of one gradient a token, make the excess loss at a constant rate N / (tau D) but for a
    constant, so that it depends on tau and TPP alone. Not of the surrogate's form.

    Args:
        seed: Of the noise.
        lagging: Let the weights also lag behind: the root of the token term is followed by a moving
            average at the same rate a, started at its first value. At large tau the start is then
            never forgotten, which real runs are not seen to do.
    """

    def loss(t: np.ndarray, lr: np.ndarray, tau: float, tpp: float, params: float) -> np.ndarray:
        noise = _VARIANCE / tpp * STEPS
        target = np.sqrt(B) * (tpp * params * t) ** (-BETA / 2)
        rate = lr / (tau * STEPS)
        bias, variance = target[0], 0.0
        out = np.empty(t.size)
        for i, (a, goal) in enumerate(zip(rate.tolist(), target.tolist(), strict=True)):
            bias = (1 - a) * bias + a * goal if lagging else goal
            variance = (1 - a) ** 2 * variance + a * a * noise
            out[i] = bias * bias + variance
        return E + A * params**-ALPHA + out

    return _curves(loss, seed)


def _curves(loss: Loss, seed: int) -> list[Curve]:
    random = np.random.default_rng(seed)
    schedule = declared_schedule("linear-to-zero", warmup_fraction=0.1)
    assert schedule is not None
    steps = np.arange(1, STEPS + 1)
    t = steps / STEPS
    lr = schedule.at(t)
    found = []
    for params in SIZES:
        for tpp in TPPS:
            for factor in TAU_FACTORS:
                tau = factor * typical_tau(tpp)
                noise = 1 + NOISE * random.standard_normal(STEPS)
                values = loss(t, lr, tau, tpp, float(params)) * noise
                name = f"{params // 1_000_000}M-{tpp:g}tpp-tau{tau:g}"
                facts = RunFacts(
                    run=name,
                    name=name,
                    params=params,
                    tokens=int(tpp * params),
                    batch_tokens=BATCH * SEQ_LEN,
                    seq_len=SEQ_LEN,
                    total_steps=STEPS,
                    tpp=tpp,
                    tau=tau,
                )
                nothing = (np.zeros(0, np.int64), np.zeros(0))
                found.append(
                    Curve(facts, "train/loss", steps, values, STEPS, schedule, 1.0, nothing)
                )
    return found
