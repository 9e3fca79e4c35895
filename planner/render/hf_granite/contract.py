"""What Granite in Transformers can run, and what it does unasked."""

from __future__ import annotations

from planner.render.contract import Capability, Contract

CONTRACT = Contract(
    trainer="hf-granite",
    version="Transformers 5 (model granite, Trainer) with accelerate",
    summary="A Granite model and a script around Hugging Face's Trainer; every multiplier native",
    capabilities=(
        Capability("init std per tensor class", "native", "drawn by the rendered script"),
        Capability("learning rate per tensor class", "native", "one AdamW group for each class"),
        Capability("weight decay per tensor class", "native", "likewise"),
        Capability("AdamW epsilon per tensor class", "native", "likewise"),
        Capability("embedding multiplier", "native", "embedding_multiplier"),
        Capability("residual multiplier", "native", "residual_multiplier, of both branches"),
        Capability("logits multiplier", "native", "1 / logits_scaling; tied or not"),
        Capability("attention multiplier", "native", "attention_multiplier"),
        Capability("global batch", "native", "micro batch x processes x accumulation, exactly"),
        Capability("gradient clipping", "native", "by the same global norm: nothing is folded"),
        Capability("schedule", "native", "a LambdaLR of the plan's own pieces"),
        Capability("gated feed-forward", "native", "silu, gelu, relu or relu2"),
        Capability("feed-forward without a gate", "refused", "Granite's always has one"),
        Capability("layernorm", "refused", "RMS norm only"),
        Capability("alibi, learned or no positions", "refused", "rotary only, of base 10000"),
        Capability("mixture of experts", "refused", "GraniteMoe is another model"),
        Capability("fp16", "refused", "its loss scaling skips updates that the plan counts"),
        Capability("tensor and pipeline parallelism", "refused", "data parallel (DDP) only"),
        Capability(
            "initializer_range",
            "by itself",
            "one std for all tensors: the script draws every tensor anew",
        ),
        Capability("first update", "by itself", "uses the schedule at step 0: zero with a warm-up"),
        Capability(
            "several GPUs in one process",
            "by itself",
            "Trainer would turn to DataParallel: the script stops and asks for torchrun",
        ),
    ),
)
