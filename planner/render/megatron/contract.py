"""What Megatron-LM with megatron-core 0.19 can run, and what it does unasked."""

from __future__ import annotations

from planner.render.contract import Capability, Contract

CONTRACT = Contract(
    trainer="megatron",
    version="Megatron-LM with megatron-core 0.19 (model GPT, --use-mup)",
    summary="Megatron-LM's pretrain_gpt.py by its own flags; muP in width with coupled decay",
    capabilities=(
        Capability(
            "muP in width",
            "native",
            "--use-mup: init std m_N^-1/2, learning rate and epsilon 1/m_N on hidden matrices, "
            "the base values on embedding, head, norms and biases",
        ),
        Capability("embedding multiplier", "native", "--mup-embedding-mult"),
        Capability(
            "logits multiplier", "native", "--mup-output-mult, which replaces 1/m_N; tied or not"
        ),
        Capability("attention multiplier", "native", "--mup-attn-scale-power, --mup-base-head-dim"),
        Capability(
            "weight decay", "native", "one for all matrices, which each one's rate multiplies"
        ),
        Capability("schedule", "native", "linear, cosine, WSD or constant, with linear warm-up"),
        Capability("global batch", "native", "micro batch x data parallel x accumulation, exactly"),
        Capability("gradient clipping", "native", "by the same global norm: nothing is folded"),
        Capability("tensor, pipeline and context parallelism", "native", "options"),
        Capability(
            "residual multiplier, depth ratio",
            "refused",
            "its muP knows width only: a run whose depth ratio is not 1 needs another target",
        ),
        Capability("independent weight decay", "refused", "decay has no setting by tensor class"),
        Capability(
            "feed-forward ratio of its own",
            "refused",
            "ffn_out is scaled by m_N: m_F has to be the same",
        ),
        Capability(
            "AdamW epsilon per tensor class",
            "refused",
            "1/m_N on hidden matrices alone: where the plan's differs, on norms and biases, it "
            "needs eps_mode negligible and eps <= 1e-12",
        ),
        Capability(
            "activations",
            "refused",
            "only gated silu, and relu2 or gelu without a gate, are exact",
        ),
        Capability("alibi positions", "refused", "rotary (of base 10000), learned or none"),
        Capability("layernorm without biases", "refused", "its layer norm always has one"),
        Capability("mixture of experts", "refused", "routing and balancing are not in the plan"),
        Capability("fp16", "refused", "its loss scaling skips updates that the plan counts"),
        Capability(
            "initial std of attn_out and ffn_out",
            "by itself",
            "divided by sqrt(2L), without a flag: the rendered script hands Megatron an "
            "initializer that does not",
        ),
        Capability(
            "logits multiplier of exactly 1",
            "by itself",
            "counts as not given: the next float is given",
        ),
        Capability("seed", "by itself", "has to be positive: the plan's, plus one"),
        Capability("GELU", "by itself", "the fused one is an approximation: fusion is off"),
        Capability("dropout", "by itself", "0.1 unless told otherwise: 0"),
        Capability(
            "padding of the vocabulary", "by itself", "to 128 x tensor parallel: the plan's"
        ),
        Capability("first update", "by itself", "uses the schedule at step 0: zero with a warm-up"),
        Capability(
            "learning rate in the log",
            "by itself",
            "is the one after the update: that of the next",
        ),
        Capability(
            "second line of the log",
            "by itself",
            "after each start the mean of two steps where every step is logged: the rendered "
            "script takes that out",
        ),
        Capability(
            "end by a signal",
            "by itself",
            "a checkpoint and exit status 0: the rendered script makes it 130",
        ),
        Capability("checkpoints", "by itself", "all are kept"),
        Capability(
            "order of the data",
            "by itself",
            "the windows of planner train in an order of its own, drawn from the seed",
        ),
    ),
)
