"""What ModelZoo 2.10's GPT models can run, and what they do unasked."""

from __future__ import annotations

from planner.render.contract import Capability, Contract

CONTRACT = Contract(
    trainer="modelzoo",
    version="ModelZoo 2.10 (model gpt3) with cerebras-pytorch 2.10",
    summary="Cerebras ModelZoo trainer files; muP natively, CompleteP exactly by folding 1/m_L",
    capabilities=(
        Capability("init std per tensor class", "native", "five initializers, all of them normal"),
        Capability("learning rate per tensor class", "native", "lr_adjustment_groups"),
        Capability("weight decay per tensor class", "native", "ConstantWD schedulers by tag"),
        Capability(
            "global batch",
            "native",
            "batch_size, in sequences; systems and micro batch are options",
        ),
        Capability("embedding multiplier", "native", "embeddings_scale"),
        Capability("logits multiplier", "native", "output_logits_alpha / m_N; tied or not"),
        Capability("attention multiplier", "native", "scale_qk_dot_by_d, attention_logits_alpha"),
        Capability(
            "residual multiplier",
            "absorbed",
            "folded into attn_out and ffn_out weights and biases; exact unless gradients are "
            "clipped by their global norm, which then warns",
        ),
        Capability(
            "AdamW epsilon per tensor class",
            "refused",
            "one epsilon for all: needs eps_mode negligible and eps <= 1e-12, or rows that agree",
        ),
        Capability(
            "mixture of experts",
            "refused",
            "the router starts from the attention's unscaled initializer and cannot have its own; "
            "the plan does not state routing and balancing",
        ),
        Capability("float32 training", "refused", "CSX turns mixed precision on whatever is asked"),
        Capability("gated relu2", "refused", "no such activation; swiglu, geglu and reglu exist"),
        Capability(
            "muP initialization",
            "by itself",
            "std * m_N^-1/2 (m_F^-1/2 for ffn_out), and (2L)^-1/2 on both outputs: taken out",
        ),
        Capability(
            "muP learning rates",
            "by itself",
            "1/m_N and 1/m_F on hidden weights: replaced by the plan's own ratios",
        ),
        Capability(
            "untied head's initializer",
            "by itself",
            "always N(0, initializer_range), whatever the other initializers say",
        ),
        Capability("weight decay of biases and norms", "by itself", "0 unless tagged otherwise"),
        Capability("first update", "by itself", "uses the schedule at step 0: zero with a warm-up"),
        Capability(
            "epsilon",
            "by itself",
            "added before bias correction (PyTorch adds it after), so larger in the first steps",
        ),
    ),
)
