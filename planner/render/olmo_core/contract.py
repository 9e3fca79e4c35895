"""What OLMo-core 3 can run, and what it does unasked."""

from __future__ import annotations

from planner.render.contract import Capability, Contract

CONTRACT = Contract(
    trainer="olmo-core",
    version="OLMo-core 3 (ai2-olmo-core)",
    summary="OLMo-core's transformer and trainer; residual multipliers native, attention absorbed",
    capabilities=(
        Capability("init std per tensor class", "native", "drawn by the rendered script"),
        Capability("learning rate per tensor class", "native", "OptimGroupOverride"),
        Capability("weight decay per tensor class", "native", "likewise"),
        Capability("AdamW epsilon per tensor class", "native", "likewise"),
        Capability("embedding multiplier", "native", "embed_scale"),
        Capability(
            "residual multiplier",
            "native",
            "attention_residual_alpha, feed_forward_residual_alpha",
        ),
        Capability(
            "logits multiplier",
            "absorbed",
            "folded into the head's weights; with tied embeddings into the one table, which "
            "embed_scale then makes up for",
        ),
        Capability(
            "attention multiplier",
            "absorbed",
            "1/sqrt(head_dim) is fixed: the rest is folded into the query weights and biases",
        ),
        Capability("global batch", "native", "micro batch x processes x accumulation, exactly"),
        Capability(
            "gradient clipping",
            "absorbed",
            "sees the factors folded into queries and head, which then warns",
        ),
        Capability("schedule", "native", "a Scheduler of the plan's own pieces"),
        Capability("gated silu", "native", "the only gate that both have"),
        Capability("other activations, no gate", "refused", "its GELU is the tanh approximation"),
        Capability("alibi or learned positions", "refused", "rotary (of base 10000) or none"),
        Capability("mixture of experts", "refused", "routing and balancing are not in the plan"),
        Capability("fp16", "refused", "bf16 and float32 only"),
        Capability("tensor and pipeline parallelism", "refused", "ddp, or fsdp over all processes"),
        Capability(
            "initialization",
            "by itself",
            "one std, cut off at three of them: the script draws every tensor anew",
        ),
        Capability(
            "first update",
            "by itself",
            "counts the update under way from one; the rendered schedule starts at step 0",
        ),
    ),
)
