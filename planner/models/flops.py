"""Training FLOPs: exact, by the paper's own rule, and 6ND.

Forward plus backward is three times forward; a multiply-add is two operations. Recomputation is
not counted.
"""

from __future__ import annotations

from planner.models.architecture import Architecture, ParamCount, Shape


def exact_flops_per_token(
    architecture: Architecture, shape: Shape, params: ParamCount, *, causal: bool
) -> float:
    """Return training FLOPs a token: 6 x active matrix parameters plus attention.

    Attention scores and their use take 2 x 2 x d_attn operations for each pair of positions,
    three times over: 12 d_attn S a token and layer with full attention (the convention of
    arXiv 2204.02311 appendix B), 12 d_attn (S + 1)/2 when only the causal pairs are counted.
    """
    pairs = attended(architecture, causal=causal)
    return 6.0 * params.active_matrices + 12.0 * shape.n_layers * shape.d_attn * pairs


def attended(architecture: Architecture, *, causal: bool) -> float:
    """Return the positions that a token attends to on average: S, or (S + 1)/2 if causal."""
    return (architecture.seq_len + 1) / 2 if causal else float(architecture.seq_len)


def paper_flops_per_token(
    architecture: Architecture, shape: Shape, params: ParamCount
) -> float | None:
    """Return FLOPs a token by the rule of arXiv 2509.25087 Table 9.

    6N - 2Vd + 3L(4Sd + 3S + 2d^2 + d). It is stated for untied, dense, non-gated blocks with
    plain multi-head attention; None for any other.
    """
    if (
        architecture.gated
        or architecture.experts
        or architecture.tied_embeddings
        or shape.n_kv_heads != shape.n_heads
    ):
        return None
    d, s = shape.d_model, architecture.seq_len
    per_layer = 4 * s * d + 3 * s + 2 * d * d + d
    vocab = architecture.padded_vocab_size
    return float(6 * params.matrices - 2 * vocab * d + 3 * shape.n_layers * per_layer)
