"""The parametric surrogate of a normalized loss curve (arXiv 2509.25087, Eq. 4 and 5).

``l(t) = ((1 + eps1) / (t + eps1))^m + b (eta(t) + eps2)^q``, divided by its value at ``t = 1``.
``t`` is the fraction of training and ``eta`` the learning rate in units of its peak, warm-up
included. ``b = b_c tau^b_e`` and ``q = q_c TPP^q_e``: the four constants are fitted
(`planner.fitting`); none are published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.errors import LawError

if TYPE_CHECKING:
    from planner.laws.law import Law

Float64 = NDArray[np.float64]

# arXiv 2509.25087 section 5 and D.1
EPS1 = 1e-3
EPS2 = 0.1
M = 0.05


def surrogate_shape(
    fraction: ArrayLike,
    lr_factor: ArrayLike,
    b: ArrayLike,
    q: ArrayLike,
    *,
    final_lr_factor: ArrayLike,
    eps1: float = EPS1,
    eps2: float = EPS2,
    m: float = M,
) -> Float64:
    """Return the normalized loss, 1 at the end of training; arguments broadcast.

    Args:
        fraction: Fraction of training done, t.
        lr_factor: Learning rate there, in units of its peak.
        b: Weight of the learning-rate term.
        q: Its exponent.
        final_lr_factor: Learning rate at the end of training, in units of its peak.
        eps1: Keeps t = 0 finite.
        eps2: Keeps a learning rate of zero finite.
        m: Exponent of the power of t.
    """
    t = np.asarray(fraction, np.float64)
    weight, exponent = np.asarray(b, np.float64), np.asarray(q, np.float64)
    power = ((1.0 + eps1) / (t + eps1)) ** m
    rate = np.asarray(lr_factor, np.float64) + eps2
    end = np.asarray(final_lr_factor, np.float64) + eps2
    shape: Float64 = (power + weight * rate**exponent) / (1.0 + weight * end**exponent)
    return shape


def surrogate_constants(law: Law, tau: float | None, tpp: float | None) -> tuple[float, float]:
    """Return b and q of a law at one timescale and TPP.

    Raises:
        LawError: If the law is of another form, or tau or TPP is unknown or not positive.
    """
    if law.form != "collapse-surrogate":
        raise LawError(f"law {law.name!r} is of form {law.form}, wanted collapse-surrogate")
    for name, value in (("tau", tau), ("tpp", tpp)):
        if value is None or not 0 < value < float("inf"):
            raise LawError(f"law {law.name!r} got {name} {value}, wanted a positive number")
    c = law.constants
    assert tau is not None and tpp is not None
    b = c["b_coefficient"] * tau ** c["b_exponent"]
    q = c["q_coefficient"] * tpp ** c["q_exponent"]
    return float(b), float(q)


def surrogate_curve(
    law: Law,
    fraction: ArrayLike,
    lr_factor: ArrayLike,
    *,
    final_lr_factor: float,
    tau: float | None,
    tpp: float | None,
) -> Float64:
    """Return the normalized loss that a law predicts for one run, shape of ``fraction``.

    Args:
        law: A law of form ``collapse-surrogate``.
        fraction: Fractions of training.
        lr_factor: Learning rate there, in units of its peak.
        final_lr_factor: Learning rate at the end of training, in units of its peak.
        tau: AdamW timescale of the run, fraction of training.
        tpp: Tokens per parameter of the run.

    Raises:
        LawError: As `surrogate_constants`.
    """
    b, q = surrogate_constants(law, tau, tpp)
    c = law.constants
    return surrogate_shape(
        fraction,
        lr_factor,
        b,
        q,
        final_lr_factor=final_lr_factor,
        eps1=c["eps1"],
        eps2=c["eps2"],
        m=c["m"],
    )
