"""A decoder-only transformer with a forward multiplier for every tensor class of the plan.

Shapes: B sequences, S tokens a sequence, D model width, F feed-forward width, H query heads, K
key-value heads, C width of a head, V padded vocabulary, E experts, T = B x S tokens.

    h = f_embedding * (E[token] (+ P[position]))
    h = h + f_attn_out * (W_o attention(f_qkv * W_qkv norm(h)) + b_o)     each block
    h = h + f_ffn_out * (W_2 act(f_ffn_in * W_1 norm(h)) + b_2)
    logits = f_unembedding * W_u norm(h)

Attention multiplies q.k by the plan's ``attention_multiplier``. All matrices start from a normal
distribution with the plan's standard deviation for their class, biases from 0, norms from 1.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.train.errors import TrainError
from planner.train.faults import narrowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from planner.plan.model import Model as Shape
    from planner.plan.model import Run
    from planner.train.config import Fault

NORM_EPS = 1e-5
ROPE_BASE = 10_000.0

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": lambda x: F.relu(x).square(),
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
}


class Layer(nn.Module):
    """A module that says which tensor class each of its own parameters belongs to."""

    classes: dict[str, str]


class Linear(Layer):
    """``multiplier * (x W^T + bias_multiplier * b)``, W of shape (out, in)."""

    def __init__(
        self, tensor_class: str, run: Run, inputs: int, outputs: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.classes = {"weight": tensor_class, "bias": "bias"}
        self.multiplier = run.tensor(tensor_class).forward_multiplier
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.bias_multiplier = run.tensor("bias").forward_multiplier if bias else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) for x of shape (..., in)."""
        return _scaled(self.unscaled(x), self.multiplier)

    def unscaled(self, x: Tensor) -> Tensor:
        """Return it without the multiplier, for who can apply it at no cost."""
        return F.linear(x, self.weight, _scaled_bias(self))


class Norm(Layer):
    """Layer norm or RMS norm over the last axis, with a bias where the model has biases."""

    def __init__(self, tensor_class: str, run: Run) -> None:
        super().__init__()
        shape = run.model
        self.classes = {"weight": tensor_class, "bias": tensor_class}
        self.multiplier = run.tensor(tensor_class).forward_multiplier
        self.rms = shape.norm == "rmsnorm"
        self.width = shape.d_model
        self.weight = nn.Parameter(torch.empty(shape.d_model))
        bias = shape.biases and not self.rms
        self.bias = nn.Parameter(torch.empty(shape.d_model)) if bias else None

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """Return ``factor`` times the normalized x, of the same shape (..., D)."""
        factor *= self.multiplier  # on the weights: they are fewer than activations
        weight = _scaled(self.weight, factor)
        if self.rms:
            return F.rms_norm(x, (self.width,), weight, NORM_EPS)
        bias = None if self.bias is None else _scaled(self.bias, factor)
        return F.layer_norm(x, (self.width,), weight, bias, NORM_EPS)


class Embedding(Layer):
    """Token embedding, with learned positions where the plan asks for them."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        shape = run.model
        self.classes = {"weight": "embedding", "positions": "embedding"}
        self.multiplier = run.tensor("embedding").forward_multiplier
        self.weight = nn.Parameter(torch.empty(shape.padded_vocab_size, shape.d_model))
        learned = shape.position == "learned"
        self.positions = (
            nn.Parameter(torch.empty(shape.seq_len, shape.d_model)) if learned else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, S, D) for tokens of shape (B, S)."""
        h = F.embedding(tokens, self.weight)
        if self.positions is not None:
            h = h + self.positions[: tokens.shape[1]]
        return _scaled(h, self.multiplier)


class Attention(nn.Module):
    """Causal self-attention: multi-head or grouped queries, with ALiBi, RoPE or neither."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        shape = run.model
        self.heads, self.kv_heads, self.head_dim = shape.n_heads, shape.n_kv_heads, shape.head_dim
        self.scale = shape.attention_multiplier
        self.rope = shape.position == "rope"
        width = self.heads * self.head_dim
        qkv = width + 2 * self.kv_heads * self.head_dim
        self.qkv = Linear("attn_qkv", run, shape.d_model, qkv, bias=shape.biases)
        self.out = Linear("attn_out", run, width, shape.d_model, bias=shape.biases)

    @property
    def multiplier(self) -> float:
        """What the residual stream takes the output times."""
        return self.out.multiplier

    def forward(self, x: Tensor, position: Tensor | None) -> Tensor:
        """Return (B, S, D) before the multiplier; ``position`` is RoPE's table or ALiBi's bias."""
        b, s, _ = x.shape
        split = (self.heads, self.kv_heads, self.kv_heads)
        parts = self.qkv(x).view(b, s, sum(split), self.head_dim).transpose(1, 2)
        q, k, v = parts.split(split, dim=1)  # (B, heads, S, C)
        mask = None
        if self.rope:
            assert position is not None
            q, k = _rotated(q, position), _rotated(k, position)
        elif position is not None:
            mask = position.to(q.dtype)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=self.kv_heads != self.heads,
        )
        return self.out.unscaled(y.transpose(1, 2).reshape(b, s, -1))


class FeedForward(nn.Module):
    """The dense feed-forward block; gated where the plan asks for it."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        shape = run.model
        self.act, self.gated = _ACTIVATIONS[shape.activation], shape.gated
        inner = shape.d_ffn * (2 if shape.gated else 1)
        self.inner = Linear("ffn_in", run, shape.d_model, inner, bias=shape.biases)
        self.out = Linear("ffn_out", run, shape.d_ffn, shape.d_model, bias=shape.biases)

    @property
    def multiplier(self) -> float:
        """What the residual stream takes the output times."""
        return self.out.multiplier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (B, S, D) before the multiplier, and None: there is nothing to balance."""
        return self.out.unscaled(_activated(self.inner(x), self.act, self.gated)), None


class Experts(Layer):
    """A mixture of experts: each token goes to its top k, weighted by their renormalized shares.

    No token is dropped. Router scores, and a softmax of them over all experts, are float32.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        shape = run.model
        assert shape.experts is not None
        self.count, self.top_k = shape.experts.count, shape.experts.top_k
        self.act, self.gated = _ACTIVATIONS[shape.activation], shape.gated
        self.classes = {"inner": "ffn_in", "outer": "ffn_out"}
        self.classes |= {"inner_bias": "bias", "outer_bias": "bias"}
        self.inner_multiplier = run.tensor("ffn_in").forward_multiplier
        self.multiplier = run.tensor("ffn_out").forward_multiplier
        self.bias_multiplier = run.tensor("bias").forward_multiplier if shape.biases else 1.0
        self.router = Linear("router", run, shape.d_model, self.count, bias=False)
        inner, e = shape.d_ffn * (2 if shape.gated else 1), self.count
        self.inner = nn.Parameter(torch.empty(e, inner, shape.d_model))
        self.outer = nn.Parameter(torch.empty(e, shape.d_model, shape.d_ffn))
        self.inner_bias = nn.Parameter(torch.empty(e, inner)) if shape.biases else None
        self.outer_bias = nn.Parameter(torch.empty(e, shape.d_model)) if shape.biases else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (B, S, D) before the multiplier, and the balance.

        The balance is E sum_e used_e share_e, 1 if all are used alike, of each sequence and their
        mean: one of a whole micro batch would make the gradient depend on how a batch is divided.
        """
        tokens = x.reshape(-1, x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            scores = self.router(tokens if tokens.dtype == torch.float64 else tokens.float())
        shares = scores.softmax(dim=-1)  # (T, E)
        best, chosen = shares.topk(self.top_k, dim=-1)  # (T, k)
        weights = best / best.sum(dim=-1, keepdim=True)
        result = torch.zeros_like(tokens)
        for expert in range(self.count):
            row, slot = (chosen == expert).nonzero(as_tuple=True)
            y = self._expert(expert, tokens[row]) * weights[row, slot, None]
            result = result.index_add(0, row, y.to(result.dtype))
        used = torch.zeros_like(shares).scatter_(1, chosen, 1.0) / self.top_k
        used, share = (of.view(*x.shape[:2], -1).mean(dim=1) for of in (used, shares))  # (B, E)
        return result.view_as(x), self.count * (used * share).sum(dim=1).mean()

    def _expert(self, expert: int, x: Tensor) -> Tensor:
        b1 = None if self.inner_bias is None else self.bias_multiplier * self.inner_bias[expert]
        b2 = None if self.outer_bias is None else self.bias_multiplier * self.outer_bias[expert]
        h = _scaled(F.linear(x, self.inner[expert], b1), self.inner_multiplier)
        return F.linear(_activated(h, self.act, self.gated), self.outer[expert], b2)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.attention_norm, self.attention = Norm("norm", run), Attention(run)
        self.ffn_norm = Norm("norm", run)
        self.ffn = FeedForward(run) if run.model.experts is None else Experts(run)

    def forward(self, h: Tensor, position: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the residual stream (B, S, D) after the block, and the experts' balance."""
        y = self.attention(self.attention_norm(h), position)
        h = torch.add(h, y, alpha=self.attention.multiplier)
        y, balance = self.ffn(self.ffn_norm(h))
        return torch.add(h, y, alpha=self.ffn.multiplier), balance


class Transformer(nn.Module):
    """The whole model of one run.

    Args:
        run: A run of a plan.
        seed: Seed of the initial weights. Each tensor draws from its own stream, named by the seed
            and the tensor, so that it does not depend on what else is there.

    Raises:
        TrainError: If the plan asks for something that this trainer does not know.
    """

    def __init__(self, run: Run, seed: int) -> None:
        super().__init__()
        check_trainable(run)
        self.shape = run.model
        self.embedding = Embedding(run)
        self.blocks = nn.ModuleList(Block(run) for _ in range(self.shape.n_layers))
        self.norm = Norm("final_norm", run)
        self.logit_multiplier = run.tensor("unembedding").forward_multiplier
        self.unembedding = (
            None
            if self.shape.tied_embeddings
            else Linear(
                "unembedding", run, self.shape.d_model, self.shape.padded_vocab_size, bias=False
            )
        )
        self.register_buffer("position", _position_table(self.shape), persistent=False)
        self.fault: Fault | None = None
        self.initialize(run, seed)

    @torch.no_grad()
    def initialize(self, run: Run, seed: int) -> None:
        """Draw the initial weights."""
        for name, tensor_class, parameter in self.tensors():
            if tensor_class in ("norm", "final_norm"):
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif tensor_class == "bias":
                parameter.zero_()
            else:
                std = run.tensor(tensor_class).init_std
                assert std is not None
                word = hashlib.sha256(f"{seed}:{name}".encode()).digest()
                stream = torch.Generator().manual_seed(int.from_bytes(word[:8], "big"))
                parameter.normal_(0.0, std, generator=stream)

    def tensors(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """Yield (name, tensor class, parameter) of every parameter; tied tables once."""
        for path, module in self.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                yield f"{path}.{name}" if path else name, module.classes[name], parameter

    def hidden(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the residual stream (B, S, D) after the last block, and the mean balance."""
        h = self.embedding(tokens)
        s = tokens.shape[1]
        position: Tensor | None = self.position
        if position is not None:
            position = position[..., :s, :s] if self.shape.position == "alibi" else position[:, :s]
        balances = []
        for block in self.blocks:
            h, balance = block(h, position)
            if balance is not None:
                balances.append(balance)
        return h, torch.stack(balances).mean() if balances else None

    def logits(self, h: Tensor) -> Tensor:
        """Return the logits (B, S, V) of a residual stream (B, S, D)."""
        h = self.norm(h, self.logit_multiplier)
        table = self.embedding if self.unembedding is None else self.unembedding
        return F.linear(h, table.weight)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mean cross-entropy in nats a token, and the experts' balance if any.

        Args:
            tokens: Token ids (B, S), int64.
            targets: The token after each, (B, S).
        """
        h, balance = self.hidden(tokens)
        logits = self.logits(h)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.fault is not None:
            logits = narrowed(logits, self.fault)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return loss, balance


def check_trainable(run: Run) -> None:
    """Check that this trainer knows all that a run asks for.

    Raises:
        TrainError: If it does not.
    """
    shape = run.model
    known = {
        "activation": tuple(_ACTIVATIONS),
        "position": ("alibi", "rope", "learned", "none"),
        "norm": ("layernorm", "rmsnorm"),
    }
    for field, names in known.items():
        got = getattr(shape, field)
        if got not in names:
            raise TrainError(
                f"got {got!r}, wanted one of {', '.join(names)}", field=f"{run.name}.model.{field}"
            )
    if shape.position == "rope" and shape.head_dim % 2:
        raise TrainError(
            f"RoPE turns pairs, got heads of {shape.head_dim}, wanted an even width",
            field=f"{run.name}.model.head_dim",
        )
    wanted = ["embedding", "attn_qkv", "attn_out", "ffn_in", "ffn_out", "norm", "final_norm"]
    wanted += ["unembedding"]
    wanted += ["bias"] * shape.biases + ["router"] * (shape.experts is not None)
    there = {row.tensor_class for row in run.tensors}
    for name in wanted:
        if name not in there:
            raise TrainError(f"has no row for class {name}", field=f"{run.name}.tensors")
    if shape.tied_embeddings:
        one, two = run.tensor("embedding"), run.tensor("unembedding")
        for field in ("init_std", "lr", "weight_decay", "eps"):
            if getattr(one, field) != getattr(two, field):
                raise TrainError(
                    f"embedding and unembedding are one table, but their {field} differ "
                    f"({getattr(one, field)!r} and {getattr(two, field)!r})",
                    field=f"{run.name}.tensors",
                )


def _scaled(x: Tensor, multiplier: float) -> Tensor:
    return x if multiplier == 1.0 else x * multiplier


def _scaled_bias(layer: Linear) -> Tensor | None:
    return None if layer.bias is None else _scaled(layer.bias, layer.bias_multiplier)


def _activated(x: Tensor, act: Callable[[Tensor], Tensor], gated: bool) -> Tensor:
    if not gated:
        return act(x)
    gate, up = x.chunk(2, dim=-1)
    return act(gate) * up


def _position_table(shape: Shape) -> Tensor | None:
    """Return RoPE's cosines and sines (2, S, C/2), ALiBi's causal bias (H, S, S), or None."""
    s = shape.seq_len
    if shape.position == "rope":
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        angle = torch.outer(torch.arange(s, dtype=torch.float64), ROPE_BASE**-half)
        return torch.stack((angle.cos(), angle.sin())).float()
    if shape.position == "alibi":
        place = torch.arange(s)
        distance = (place[:, None] - place[None, :]).float()
        bias = -torch.tensor(alibi_slopes(shape.n_heads))[:, None, None] * distance
        return bias.masked_fill(distance < 0, -math.inf)
    return None


def alibi_slopes(heads: int) -> list[float]:
    """Return ALiBi's slope of each head (arXiv 2108.12409): 2^(-8 i / n) for n a power of two.

    Other counts take the slopes of the power of two below, then every second one of the next.
    """
    below = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * i / below) for i in range(1, below + 1)]
    between = [2.0 ** (-4.0 * i / below) for i in range(1, 2 * below + 1, 2)]
    return slopes + between[: heads - below]


def _rotated(x: Tensor, table: Tensor) -> Tensor:
    """Return x (B, heads, S, C) with RoPE; pairs are (i, i + C/2)."""
    cos, sin = table.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
