"""The last iterate's bound of a learning-rate schedule, from convex optimization.

For stochastic subgradient steps of sizes ``eta_1 .. eta_t`` on a convex function whose gradients
have norm at most G, from a start at distance D of the optimum, the loss after t steps is at most
(Theorem 1 of Schaipp et al., arXiv 2501.18965, after Defazio et al., arXiv 2310.07831)::

    D^2 X1 + G^2 X2
    X1 = 1 / (2 sum_s eta_s)
    X2 = sum_s eta_s^2 / (2 sum_s eta_s)
         + 1/2 sum_{k<t} eta_k / (sum_{s>k} eta_s) * (sum_{s>=k} eta_s^2) / (sum_{s>=k} eta_s)

above the optimum. The losses of language models follow its two terms closely, over schedules and
learning rates (same paper): X1 falls with all progress, X2 is the noise that a cooldown removes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def last_iterate_bound(lr: ArrayLike, steps: ArrayLike) -> tuple[Float64, Float64]:
    """Return X1 and X2 after some numbers of steps; see this module.

    Args:
        lr: Learning rate of every step, the first step's first, shape ``(all steps,)``; not
            negative, the first positive.
        steps: Numbers of steps taken, whole, from 1 to ``len(lr)``, shape ``(n,)``.

    Returns:
        X1 in 1 / learning rate and X2 in learning rates, each of shape ``(n,)``. Steps at the end
        whose learning rate is zero change nothing.

    Raises:
        ValueError: A rate or a number of steps is out of range.
    """
    eta = np.asarray(lr, np.float64)
    wanted = np.asarray(steps, np.int64)
    if eta.ndim != 1 or not eta.size or not np.all((eta >= 0) & np.isfinite(eta)) or not eta[0] > 0:
        raise ValueError("learning rates must be finite and not negative, and the first positive.")
    if wanted.ndim != 1 or np.any(wanted < 1) or np.any(wanted > eta.size):
        raise ValueError(f"steps must be whole numbers from 1 to {eta.size}.")
    total = np.concatenate([[0.0], np.cumsum(eta)])
    square = np.concatenate([[0.0], np.cumsum(eta**2)])
    progress, noise = np.empty(wanted.size), np.empty(wanted.size)
    for i, t in enumerate(wanted.tolist()):
        left = total[t] - total[:t]  # from step k on
        left2 = square[t] - square[:t]
        after = left[1:]
        some = after > 1e-12 * left[0]  # what is beyond has no rate left
        mean = left2[:-1][some] / left[:-1][some]
        noise[i] = 0.5 * left2[0] / left[0] + 0.5 * np.sum(eta[: t - 1][some] / after[some] * mean)
        progress[i] = 0.5 / left[0]
    return progress, noise
