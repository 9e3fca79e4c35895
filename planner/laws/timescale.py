"""The AdamW timescale tau = B / (eta * lambda * D) and its inverse.

tau is the fraction of training over which AdamW averages its updates (Wang & Aitchison,
arXiv 2405.13698; as a fraction of the run: arXiv 2509.25087 Eq. 2). eta is the schedule's peak of
the learning rate that the tensor really sees (width-adjusted), B and D are in tokens.
"""

from __future__ import annotations


def timescale(batch_tokens: float, lr: float, weight_decay: float, tokens: float) -> float | None:
    """Return tau, or None where nothing decays.

    Args:
        batch_tokens: Tokens a step.
        lr: Peak learning rate of the tensor, after width and depth adjustment.
        weight_decay: Weight decay of the tensor, multiplied by the rate at each step.
        tokens: Tokens of the whole run.
    """
    product = lr * weight_decay * tokens
    return batch_tokens / product if product > 0 else None


def weight_decay_for(tau: float, batch_tokens: float, lr: float, tokens: float) -> float:
    """Return the weight decay at which a tensor with peak rate ``lr`` has timescale ``tau``.

    The inverse of `timescale`: lambda = B / (tau * eta * D).
    """
    return batch_tokens / (tau * lr * tokens)
