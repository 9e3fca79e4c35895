"""Parametrizations: how init, rate, decay, epsilon and forward scale scale with width and depth.

The rules are those of CompleteP (arXiv 2505.01618 Table 1 and its official code): standard, muP
(width) and CompleteP (width and depth, with exponent alpha). m_N is the width ratio, m_F the
feed-forward width ratio and m_L the depth ratio to the base shape. Every rule is a base value
times powers of these, so one table both computes and explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["standard", "mup", "completep"]
Decay = Literal["coupled", "independent"]

QUANTITIES = ("init_std", "lr", "weight_decay", "eps", "forward_multiplier")
BASES = {
    "init_std": "init_std",
    "lr": "base_lr",
    "weight_decay": "base_weight_decay",
    "eps": "eps",
    "forward_multiplier": "",
}


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor base * m^width * m_L^depth; m is m_N or, for ffn_out, m_F. Zero base is zero."""

    width: float = 0.0
    depth: float = 0.0
    zero: bool = False
    base: str | None = None

    def value(self, width: float, depth: float) -> float:
        """Return the factor, without its base, at width and depth ratios."""
        if self.zero:
            return 0.0
        return float(width**self.width * depth**self.depth)

    def formula(self, base: str, width_name: str) -> str:
        """Return the formula as text, such as ``base_lr * m_N^-1``."""
        if self.zero:
            return "0"
        parts = [self.base or base] if (self.base or base) else []
        if self.width:
            parts.append(f"{width_name}^{self.width:.15g}")
        if self.depth:
            parts.append(f"m_L^{self.depth:.15g}")
        return " * ".join(parts) or "1"


@dataclass(frozen=True, slots=True)
class TensorRule:
    """How one tensor class scales; `width_name` says which ratio m is."""

    init_std: Factor | None
    lr: Factor
    weight_decay: Factor
    eps: Factor
    forward_multiplier: Factor
    width_name: str = "m_N"


@dataclass(frozen=True, slots=True)
class BaseValues:
    """The hyperparameters at the base shape, and the base shape itself.

    Attributes:
        width: d_model at which the base values hold.
        ffn_width: d_ffn at which they hold; need not be whole.
        depth: n_layers at which they hold.
        depth_exponent: CompleteP's alpha; 1 is CompleteP, 0.5 the square-root variant.
        lr: Peak learning rate.
        init_std: Standard deviation of the initial weights.
        input_multiplier: Factor on the token embedding, alpha_input.
        output_multiplier: Factor on the logits, alpha_output.
    """

    width: int
    ffn_width: float
    depth: int
    depth_exponent: float
    lr: float
    init_std: float
    input_multiplier: float
    output_multiplier: float


@dataclass(frozen=True, slots=True)
class TensorValues:
    """Effective values of one tensor class."""

    init_std: float | None
    lr: float
    weight_decay: float
    eps: float
    forward_multiplier: float


_PLAIN = Factor()
_NONE = Factor(zero=True)


def tensor_rules(
    kind: Kind,
    decay: Decay,
    depth_exponent: float = 1.0,
    *,
    biases: bool = True,
    experts: bool = False,
) -> dict[str, TensorRule]:
    """Return the rule of every tensor class.

    Rows follow arXiv 2505.01618 Table 1: hidden matrices have init variance / m, rate / m (and
    m_L^(alpha-1)), decay * m if independent; residual branches end in m_L^-alpha; epsilon of all
    tensors inside the blocks is divided by m_N (and m_L^alpha); the logits are divided by m_N.
    The biases of attn_out and ffn_out lie inside their branch's forward multiplier. A router is
    treated as an output layer, experts as dense matrices; neither is published there.

    Args:
        kind: The parametrization.
        decay: ``coupled``: one decay for all, riding on each tensor's rate. ``independent``:
            decay of hidden matrices times m, so that rate times decay does not change.
        depth_exponent: CompleteP's alpha.
        biases: Whether the model has biases.
        experts: Whether it has experts, and so a router.
    """
    n = 0.0 if kind == "standard" else 1.0
    alpha = depth_exponent if kind == "completep" else 0.0
    lr_depth = alpha - 1 if kind == "completep" else 0.0
    block_eps = Factor(width=-n, depth=-alpha)
    logits = Factor(width=-n, base="output_multiplier")

    def hidden(forward: Factor, width_name: str = "m_N") -> TensorRule:
        return TensorRule(
            init_std=Factor(width=-n / 2),
            lr=Factor(width=-n, depth=lr_depth),
            weight_decay=Factor(width=n if decay == "independent" else 0.0),
            # epsilon follows m_N in every block tensor, also where fan-in is d_ffn
            eps=block_eps,
            forward_multiplier=forward,
            width_name=width_name,
        )

    small = TensorRule(
        init_std=None,
        lr=Factor(depth=lr_depth),
        weight_decay=_NONE,
        eps=block_eps,
        forward_multiplier=_PLAIN,
    )
    branch = Factor(depth=-alpha)
    rules = {
        "embedding": TensorRule(_PLAIN, _PLAIN, _PLAIN, _PLAIN, Factor(base="input_multiplier")),
        "attn_qkv": hidden(_PLAIN),
        "attn_out": hidden(branch),
    }
    if experts:
        rules["router"] = TensorRule(_PLAIN, _PLAIN, _PLAIN, block_eps, Factor(width=-n))
    rules["ffn_in"] = hidden(_PLAIN)
    rules["ffn_out"] = hidden(branch, "m_F")
    if biases:
        rules["bias"] = small
    rules["norm"] = small
    rules["final_norm"] = TensorRule(None, _PLAIN, _NONE, _PLAIN, _PLAIN)
    rules["unembedding"] = TensorRule(_PLAIN, _PLAIN, _PLAIN, _PLAIN, logits)
    return rules


def tensor_values(
    rule: TensorRule,
    base: BaseValues,
    *,
    weight_decay: float,
    eps: float,
    width: float,
    ffn: float,
    depth: float,
) -> TensorValues:
    """Return the effective values of a tensor class at width, feed-forward and depth ratios."""
    m = ffn if rule.width_name == "m_F" else width
    factors = {
        "input_multiplier": base.input_multiplier,
        "output_multiplier": base.output_multiplier,
    }
    forward = rule.forward_multiplier
    return TensorValues(
        init_std=None if rule.init_std is None else base.init_std * rule.init_std.value(m, depth),
        lr=base.lr * rule.lr.value(m, depth),
        weight_decay=weight_decay * rule.weight_decay.value(m, depth),
        # every epsilon rule is in m_N
        eps=eps * rule.eps.value(width, depth),
        forward_multiplier=factors.get(forward.base or "", 1.0) * forward.value(m, depth),
    )


def attention_multiplier(kind: Kind, head_dim: int) -> float:
    """Return the factor on q.k: 1/head_dim under muP and CompleteP, else 1/sqrt(head_dim)."""
    return float(1 / head_dim if kind != "standard" else head_dim**-0.5)
