"""What the script on cerebras_pytorch 2.10 can run, and what that does unasked."""

from __future__ import annotations

from planner.render.contract import Capability, Contract

CONTRACT = Contract(
    trainer="cstorch",
    version="cerebras-pytorch 2.10, with a transformer of the script's own",
    summary="CS-3 by one script on cerebras_pytorch; every multiplier native, nothing folded",
    capabilities=(
        Capability("init std per tensor class", "native", "drawn by the rendered script"),
        Capability(
            "learning rate per tensor class", "native", "adjust_learning_rate, ScalePerParamLR"
        ),
        Capability("weight decay per tensor class", "native", "AdamW's parameter groups"),
        Capability("AdamW epsilon per tensor class", "native", "likewise"),
        Capability("embedding multiplier", "native", "in the model"),
        Capability("residual multiplier", "native", "likewise: CompleteP is as the paper has it"),
        Capability("logits multiplier", "native", "likewise; tied or not"),
        Capability("attention multiplier", "native", "likewise"),
        Capability(
            "gradient clipping",
            "native",
            "by the norm of the plan's own weights",
        ),
        Capability(
            "global batch",
            "native",
            "streamed to all systems in the reference's order, whatever their number",
        ),
        Capability("schedule", "native", "SequentialLR of LinearLR, ConstantLR, CosineDecayLR"),
        Capability("architecture", "native", "any of the plan's dense ones"),
        Capability("CPU", "native", "--backend CPU trains without a cluster, for validation"),
        Capability("mixture of experts", "refused", "the script's model is dense"),
        Capability("fp16", "refused", "loss scaling skips updates, which the plan counts"),
        Capability(
            "float32 on CSX", "refused", "CSX turns mixed precision on whatever is asked: CPU only"
        ),
        Capability(
            "epsilon",
            "by itself",
            "added before bias correction (PyTorch adds it after), so 1/sqrt(1 - beta2^t) times "
            "larger at update t: warned of above 1e-12",
        ),
        Capability("first update", "by itself", "uses the schedule at step 0: zero with a warm-up"),
        Capability("learning rates", "by itself", "computed in float32"),
        Capability(
            "checkpoints",
            "by itself",
            "only at the steps that were asked for in advance: a signal ends a run at the next one",
        ),
    ),
)
