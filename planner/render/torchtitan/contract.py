"""What torchtitan 0.3 can run, and what it does unasked."""

from __future__ import annotations

from planner.render.contract import Capability, Contract

CONTRACT = Contract(
    trainer="torchtitan",
    version="torchtitan 0.3",
    summary="torchtitan's Llama 3 and trainer; groups native, every multiplier absorbed",
    capabilities=(
        Capability("init std per tensor class", "native", "drawn in the model's init_states"),
        Capability("learning rate per tensor class", "native", "ParamGroupConfig"),
        Capability("weight decay per tensor class", "native", "likewise"),
        Capability("AdamW epsilon per tensor class", "native", "likewise"),
        Capability("embedding multiplier", "absorbed", "folded into the embedding's weights"),
        Capability(
            "residual multiplier",
            "absorbed",
            "folded into the weights and biases that end the two branches",
        ),
        Capability("logits multiplier", "absorbed", "folded into the head's weights"),
        Capability(
            "attention multiplier",
            "absorbed",
            "1/sqrt(head_dim) is fixed: the rest is folded into the query weights and biases",
        ),
        Capability("global batch", "native", "micro batch x processes x accumulation, exactly"),
        Capability(
            "gradient clipping",
            "absorbed",
            "sees the factors folded into all those weights, which then warns",
        ),
        Capability("schedule", "native", "an LRSchedulersContainer of the plan's own pieces"),
        Capability("gated silu", "native", "the only activation of its dense feed-forward"),
        Capability("other activations, no gate", "refused", "gated silu only"),
        Capability("positions other than rotary", "refused", "rotary, of base 10000"),
        Capability("norms other than RMS norm", "refused", "its blocks hold RMS norms"),
        Capability(
            "tied embeddings",
            "absorbed",
            "one table with one multiplier; refused where input and output have different ones, "
            "as under muP and CompleteP",
        ),
        Capability("mixture of experts", "refused", "routing and balancing are not in the plan"),
        Capability("fp16", "refused", "bf16 and float32 only"),
        Capability(
            "tensor, pipeline and context parallelism",
            "refused",
            "fsdp or ddp over all processes; every part of a pipeline would have to hold "
            "parameters of every group",
        ),
        Capability(
            "initialization",
            "by itself",
            "cut off normals of a std by layer: the model draws every tensor by the plan instead",
        ),
        Capability(
            "first update",
            "by itself",
            "its own warm-up of W steps uses 1/W of the peak at the first update and the peak at "
            "the last of them; the rendered schedule starts at zero",
        ),
        Capability(
            "attention kernel",
            "by itself",
            "FlexAttention, masked by document: rendered with its scaled dot product instead, "
            "which is causal over the whole sequence",
        ),
        Capability(
            "no accelerator",
            "by itself",
            "takes CUDA for granted; the script lends it the host instead, for trying a bundle out",
        ),
    ),
)
