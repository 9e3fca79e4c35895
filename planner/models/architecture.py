"""Decoder-only transformer shapes and their exact parameter counts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

NARROWEST_HEAD = 16
"""Heads narrower than this are not chosen, only taken if declared."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What all sizes of a family share.

    Attributes:
        vocab_size: Tokens of the tokenizer.
        vocab_multiple: The embedding tables are padded up to a multiple of this.
        seq_len: Context, tokens a sequence.
        tied_embeddings: Whether input and output embedding are one table.
        ffn_multiplier: d_ffn / d_model, before rounding to `ffn_multiple`.
        ffn_multiple: d_ffn is rounded to the nearest multiple of this; 1 rounds down instead.
        gated: Whether the feed-forward block has a gate matrix (SwiGLU and its kin).
        activation: relu2, relu, gelu or silu.
        position: alibi, rope, learned or none.
        norm: layernorm or rmsnorm.
        biases: Whether matrices and layer norms have biases.
        head_dim: Width of a head; None lets `head_dim_for` choose.
        kv_groups: Query heads that share one key-value head; None is plain multi-head attention.
        experts: Experts of each feed-forward block; None is dense.
        top_k: Experts that each token uses.
    """

    vocab_size: int
    seq_len: int
    vocab_multiple: int = 1
    tied_embeddings: bool = False
    ffn_multiplier: Fraction = Fraction(4)
    ffn_multiple: int = 1
    gated: bool = False
    activation: str = "gelu"
    position: str = "rope"
    norm: str = "layernorm"
    biases: bool = False
    head_dim: int | None = None
    kv_groups: int | None = None
    experts: int | None = None
    top_k: int = 1

    @property
    def padded_vocab_size(self) -> int:
        """The vocabulary, padded up to its multiple."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    def d_ffn(self, d_model: int) -> int:
        """Return the feed-forward width of a model width.

        A multiple of 1 rounds down, as 8/3 x 2048 = 5461 in arXiv 2509.25087 Table 3.
        """
        exact = self.ffn_multiplier * d_model
        if self.ffn_multiple == 1:
            return max(1, int(exact))
        return max(1, round(exact / self.ffn_multiple)) * self.ffn_multiple

    def shape(self, d_model: int, n_layers: int, head_dim: int | None = None) -> Shape:
        """Return the shape of a width and depth by the family's rules.

        Raises:
            ValueError: If the heads do not divide the width.
        """
        if head_dim is None and self.head_dim is None:
            head_dim = head_dim_for(d_model, self.kv_groups or 1)
            if head_dim < NARROWEST_HEAD:
                groups = f" in groups of {self.kv_groups}" if self.kv_groups else ""
                raise ValueError(
                    f"no heads of {NARROWEST_HEAD} to 128{groups} divide width {d_model}; wanted "
                    "another width, or n_heads or head_dim"
                )
        head_dim = head_dim or self.head_dim
        assert head_dim is not None
        n_heads, rest = divmod(d_model, head_dim)
        if rest:
            raise ValueError(f"heads of {head_dim} do not divide width {d_model}")
        n_kv_heads, rest = divmod(n_heads, self.kv_groups or 1)
        if rest:
            raise ValueError(f"groups of {self.kv_groups} do not divide {n_heads} heads")
        return Shape(d_model, n_layers, n_heads, n_kv_heads, head_dim, self.d_ffn(d_model))


@dataclass(frozen=True, slots=True)
class Shape:
    """One size: widths, depth and heads."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ffn: int

    @property
    def d_attn(self) -> int:
        """Width of the queries, n_heads x head_dim."""
        return self.n_heads * self.head_dim

    @property
    def d_kv(self) -> int:
        """Width of the keys, n_kv_heads x head_dim."""
        return self.n_kv_heads * self.head_dim


def head_dim_for(d_model: int, kv_groups: int = 1) -> int:
    """Return the default head width: 64 below a model width of 1024, 128 from there.

    The pattern of Celerity's five sizes (arXiv 2509.25087 Table 2). Where groups of ``kv_groups``
    such heads do not divide the width, the largest smaller power of two whose groups do (or 1).
    """
    head_dim = 64 if d_model < 1024 else 128
    while head_dim > 1 and d_model % (head_dim * kv_groups):
        head_dim //= 2
    return head_dim


@dataclass(frozen=True, slots=True)
class ParamCount:
    """Exact parameter counts.

    Attributes:
        total: Everything that is trained; tied tables once.
        non_embedding: Without token and position embeddings and without the unembedding.
        active: What one token passes through: of the experts only its own, the rest as total.
        active_matrices: Weights that multiply a token's vector: hidden matrices in use, router
            and unembedding (also where it is tied), without look-ups, norms and biases.
        matrices: Weight matrices and embedding tables, without norms and biases: the N of
            arXiv 2509.25087.
    """

    total: int
    non_embedding: int
    active: int
    active_matrices: int
    matrices: int


def count_params(architecture: Architecture, shape: Shape) -> ParamCount:
    """Count the parameters of one size exactly.

    With N = 2 V d + L (4 d^2 + 16 d^2) plus norms this gives arXiv 2509.25087 Table 10.
    """
    d = shape.d_model
    attention = 2 * d * shape.d_attn + 2 * d * shape.d_kv
    expert = (3 if architecture.gated else 2) * d * shape.d_ffn
    count = architecture.experts or 1
    router = d * count if architecture.experts else 0
    norm = 2 * d if architecture.biases and architecture.norm == "layernorm" else d
    layer_small = 2 * norm
    expert_small = 0
    if architecture.biases:
        layer_small += shape.d_attn + 2 * shape.d_kv + d
        expert_small = (2 if architecture.gated else 1) * shape.d_ffn + d
    in_use = min(architecture.top_k, count)

    def body(experts: int) -> int:
        layer = attention + router + layer_small + experts * (expert + expert_small)
        return shape.n_layers * layer + norm

    table = architecture.padded_vocab_size * d
    embeddings = table if architecture.tied_embeddings else 2 * table
    if architecture.position == "learned":
        embeddings += architecture.seq_len * d
    return ParamCount(
        total=body(count) + embeddings,
        non_embedding=body(count),
        active=body(in_use) + embeddings,
        active_matrices=shape.n_layers * (attention + router + in_use * expert) + table,
        matrices=shape.n_layers * (attention + router + count * expert) + embeddings,
    )
