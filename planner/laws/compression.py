"""Smaller models at equal loss: what fewer parameters cost in tokens and compute.

arXiv 2509.25087 Eq. 22-23: with L = E + A N^-a + B D^-a and N = k_N N_opt at the loss of the
compute-optimal pair, k_D = (2 - k_N^-a)^(-1/a), C/C_opt = k_N k_D and TPP = (k_D/k_N) r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import LawError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from planner.laws.law import Law

_MAX_LOG = 512.0  # e^512 times the optimal tokens


@dataclass(frozen=True, slots=True)
class Compression:
    """One point of the iso-loss curve, each as a ratio to the compute-optimal model.

    Attributes:
        params_ratio: k_N = N/N_opt.
        tokens_ratio: k_D = D/D_opt.
        compute_ratio: C/C_opt.
        tpp: Tokens per parameter of the compressed model.
    """

    params_ratio: float
    tokens_ratio: float
    compute_ratio: float
    tpp: float


def smallest_params_ratio(law: Law) -> float:
    """Return the k_N at which no amount of data reaches the loss: 2^(-1/a)."""
    return float(2 ** (-1 / law.constants["exponent"]))


def at_params_ratio(law: Law, params_ratio: float) -> Compression:
    """Return the iso-loss point at k_N.

    Raises:
        LawError: If ``params_ratio`` is not above the wall 2^(-1/a), or is above 1.
    """
    a, r = law.constants["exponent"], law.constants["optimal_tpp"]
    wall = smallest_params_ratio(law)
    if not wall < params_ratio <= 1:
        raise LawError(
            f"got a parameter ratio of {params_ratio:.4g}, wanted more than {wall:.4g} "
            "(below it no amount of data reaches the loss) and at most 1"
        )
    tokens_ratio = float((2 - params_ratio**-a) ** (-1 / a))
    return Compression(
        params_ratio, tokens_ratio, params_ratio * tokens_ratio, tokens_ratio / params_ratio * r
    )


def at_tpp(law: Law, tpp: float) -> Compression:
    """Return the iso-loss point whose tokens per parameter is ``tpp``.

    Raises:
        LawError: If ``tpp`` lies below the compute-optimal one.
    """
    optimal = law.constants["optimal_tpp"]
    if not tpp >= optimal:
        raise LawError(f"got {tpp:.4g} TPP, wanted at least the compute-optimal {optimal:.4g}")
    return _solve(law, lambda point: point.tpp < tpp)


def at_extra_compute(law: Law, extra: float) -> Compression:
    """Return the iso-loss point that costs ``1 + extra`` times the optimal compute.

    Raises:
        LawError: If ``extra`` is negative.
    """
    if not extra >= 0:
        raise LawError(f"got extra compute of {extra:.4g}, wanted zero or more")
    return _solve(law, lambda point: point.compute_ratio < 1 + extra)


def trade_off(
    law: Law,
    *,
    tpp: Sequence[float] | None = None,
    extra_compute: Sequence[float] | None = None,
    params_ratio: Sequence[float] | None = None,
) -> list[Compression]:
    """Return points of the iso-loss curve, by rising TPP.

    Args:
        law: A law of form ``iso-loss``.
        tpp: Points with these tokens per parameter.
        extra_compute: Points that cost this much more than the optimum.
        params_ratio: Points with this share of the optimal parameters.
            If nothing is asked for, parameters from 100 % down towards the wall.

    Raises:
        LawError: If a point does not exist.
    """
    points = [at_tpp(law, value) for value in tpp or ()]
    points += [at_extra_compute(law, value) for value in extra_compute or ()]
    points += [at_params_ratio(law, value) for value in params_ratio or ()]
    if not points:
        wall = smallest_params_ratio(law)
        shares = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15]
        points = [at_params_ratio(law, share) for share in shares if share > wall]
    return sorted(points, key=lambda point: point.tpp)


def _solve(law: Law, short: Callable[[Compression], bool]) -> Compression:
    """Return the first point that is not ``short``: TPP and compute both grow with k_D.

    Bisects log k_D, not k_N: the curve is symmetric in the two, and near its wall k_N has no digits
    left to tell points apart.
    """
    a, r = law.constants["exponent"], law.constants["optimal_tpp"]

    def point(log_tokens: float) -> Compression:
        tokens_ratio = math.exp(log_tokens)
        params_ratio = float((2 - tokens_ratio**-a) ** (-1 / a))
        return Compression(
            params_ratio, tokens_ratio, params_ratio * tokens_ratio, tokens_ratio / params_ratio * r
        )

    low, high = 0.0, 1.0
    if not short(point(low)):
        return point(low)
    while short(point(high)):
        low, high = high, 2 * high
        if high > _MAX_LOG:
            raise LawError("the point asked for is too far from the compute-optimal one")
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if short(point(middle)):
            low = middle
        else:
            high = middle
    return point(high)
