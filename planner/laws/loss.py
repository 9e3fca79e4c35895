"""Loss laws L(N, D) = E + A/N^alpha + B/D^beta: prediction with an interval, optimal split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from planner.errors import LawError

if TYPE_CHECKING:
    from planner.laws.law import Law


@dataclass(frozen=True, slots=True)
class LossPrediction:
    """Final loss in nats a token; the interval is null where the law states no uncertainty."""

    loss: float
    low: float | None
    high: float | None


def predict_loss(law: Law, params: float, tokens: float, level: float = 0.9) -> LossPrediction:
    """Evaluate a loss law, with an interval for the final loss of one run.

    First order (delta method) in the law's covariance of (log E, log A, log B, alpha, beta), in
    the logarithm of the loss, with the scatter of single runs about the law added: without it the
    interval would be that of the fitted curve, several times narrower.

    Args:
        law: A law of form ``chinchilla``.
        params: N, as the law counts it (total parameters).
        tokens: D.
        level: Coverage of the interval.

    Raises:
        LawError: If the law is of another form, or states an uncertainty without meaning.
    """
    if law.form != "chinchilla":
        raise LawError(f"law {law.name!r} is of form {law.form}, wanted a loss law")
    c = law.constants
    of_params = c["A"] * params ** -c["alpha"]
    of_tokens = c["B"] * tokens ** -c["beta"]
    loss = c["E"] + of_params + of_tokens
    if law.covariance is None:
        return LossPrediction(loss, None, None)
    gradient = (
        c["E"],
        of_params,
        of_tokens,
        -of_params * math.log(params),
        -of_tokens * math.log(tokens),
    )
    variance = sum(
        gi * gj * vij
        for gi, row in zip(gradient, law.covariance, strict=True)
        for gj, vij in zip(gradient, row, strict=True)
    )
    log_variance = max(variance, 0.0) / loss**2 + (law.scatter or 0.0) ** 2
    log_spread = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(log_variance)
    if not log_spread < 100:
        raise LawError(f"law {law.name!r} states an uncertainty too wide to predict with")
    spread = math.exp(log_spread)
    return LossPrediction(loss, loss / spread, loss * spread)


def optimal_params(law: Law, flops: float) -> float:
    """Return the N that minimizes a loss law at C = 6 N D (arXiv 2203.15556 Eq. 4).

    N = G (C/6)^(beta/(alpha+beta)) with G = (alpha A / (beta B))^(1/(alpha+beta)).
    """
    c = law.constants
    both = c["alpha"] + c["beta"]
    ratio = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / both)
    return float(ratio * (flops / 6) ** (c["beta"] / both))


def optimal_tpp(law: Law, flops: float) -> float:
    """Return the compute-optimal tokens per parameter D/N of a loss law at C = 6 N D."""
    params = optimal_params(law, flops)
    return flops / 6 / params**2
