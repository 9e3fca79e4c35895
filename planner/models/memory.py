"""Memory that one device needs, by counting tensors.

Weights in the training precision with float32 master copies, gradients, AdamW's two float32
moments, and the activations that backward reads. The activation count is that of arXiv 2205.05198
section 4 without dropout, with attention scores recomputed (flash attention): for a plain block
with d_ffn = 4 d it is 32 bytes times sequence, batch and width, the paper's 34 less its two dropout
masks. Communication buffers, fragmentation and the framework itself are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.models.architecture import Architecture, Shape, count_params

Sharding = Literal["none", "optimizer", "full"]
_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def device_memory(
    architecture: Architecture,
    shape: Shape,
    *,
    micro_batch: int,
    precision: str = "bf16",
    checkpointing: bool = False,
    sharding: Sharding = "none",
    data_parallel: int = 1,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
) -> DeviceMemory:
    """Count the bytes that one device needs.

    Args:
        architecture: What the family's sizes share.
        shape: The size.
        micro_batch: Sequences that pass through at once.
        precision: bf16 or fp16 (with float32 master weights) or fp32.
        checkpointing: Keep only each layer's input and recompute the rest.
        sharding: What data-parallel ranks share out: nothing, the optimizer's state, or all.
        data_parallel: Ranks over which sharding spreads.
        tensor_parallel: Devices that split each layer; sequence parallel, so activations too.
        pipeline_parallel: Stages that split the layers; a stage holds as many micro batches as
            there are stages (one forward, one backward), so its activations do not shrink.
    """
    held = count_params(architecture, shape).total / (tensor_parallel * pipeline_parallel)
    width = _BYTES[precision]
    state_ranks = data_parallel if sharding in ("optimizer", "full") else 1
    weight_ranks = data_parallel if sharding == "full" else 1
    master = 4 if width < 4 else 0
    activations = _activation_bytes(architecture, shape, micro_batch, width, checkpointing)
    return DeviceMemory(
        weights=round(held * width / weight_ranks),
        gradients=round(held * width / weight_ranks),
        optimizer=round(held * (8 + master) / state_ranks),
        activations=round(activations / tensor_parallel),
    )


def _activation_bytes(
    architecture: Architecture, shape: Shape, micro_batch: int, width: int, checkpointing: bool
) -> int:
    """Return the activation bytes of a whole model replica's micro batch."""
    d, tokens = shape.d_model, micro_batch * architecture.seq_len
    in_use = architecture.top_k if architecture.experts else 1
    # inputs of: norm, q/k/v; q, k, v themselves; input of the output matrix
    attention = 2 * d + shape.d_attn + 2 * shape.d_kv + shape.d_attn
    # inputs of: norm, ffn_in; of the activation (and gate); of ffn_out
    ffn = 2 * d + in_use * shape.d_ffn * (3 if architecture.gated else 2)
    layer = attention + ffn
    layers = shape.n_layers * d + layer if checkpointing else shape.n_layers * layer
    # final norm and unembedding inputs, and float32 logits
    head = 2 * d * width + 4 * architecture.padded_vocab_size
    return tokens * (layers * width + head)
