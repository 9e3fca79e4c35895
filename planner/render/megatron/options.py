"""What a user may set about Megatron's files beyond what the plan says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from planner.render.names import split_words
from planner.render.script import ScriptTrainerOptions
from planner.render.target import VARIABLE

# What the plan or the script decides, besides all that is rendered; by flags' names.
_DECIDED = """
adam-beta1 adam-beta2 adam-eps add-qkv-bias apply-layernorm-1p apply-query-key-layer-scaling
apply-residual-connection-post-layernorm attention-dropout attention-output-gate bf16
ckpt-format clip-grad context-parallel-size data-args-path data-path decoupled-lr
decoupled-min-lr disable-bias-linear embedding-init-method-std end-weight-decay
exit-duration-in-mins exit-signal exit-signal-handler ffn-hidden-size fp16 global-batch-size
group-query-attention hidden-dropout hidden-size init-method-std init-method-xavier-uniform
kv-channels layernorm-epsilon load log-interval lr lr-decay-iters lr-decay-samples
lr-decay-style lr-warmup-fraction lr-warmup-init lr-warmup-iters lr-warmup-samples
lr-wsd-decay-iters lr-wsd-decay-samples lr-wsd-decay-style make-vocab-size-divisible-by
max-position-embeddings micro-batch-size min-lr mock-data mtp-num-layers
multi-latent-attention mup-attn-scale-power mup-base-head-dim mup-base-hidden-size
mup-embedding-mult mup-output-mult no-weight-decay-cond-type norm-epsilon normalization
num-attention-heads num-experts num-layers num-query-groups
num-virtual-stages-per-pipeline-rank openai-gelu optimizer override-opt-param-scheduler
padded-vocab-size per-split-data-args-path pipeline-model-parallel-size
position-embedding-type qk-l2-norm qk-layernorm quick-geglu rampup-batch-size rotary-base
rotary-interleaved rotary-percent save save-interval seed seq-length spec split squared-relu
start-weight-decay swiglu tensor-model-parallel-size tensorboard-dir tokenizer-type
train-data-path train-iters train-samples transformer-impl
untie-embeddings-and-output-weights use-mup use-rope-scaling valid-data-path vocab-size
weight-decay weight-decay-incr-style window-size yaml-cfg
"""


class MegatronOptions(ScriptTrainerOptions):
    """Options of the trainer ``megatron``."""

    megatron_dir: str = Field(
        "env:MEGATRON_LM_DIR",
        min_length=1,
        description="checkout of Megatron-LM with pretrain_gpt.py; env:NAME takes it from the "
        "environment",
    )
    data_path: str | None = Field(
        None,
        min_length=1,
        description="instead of data_dir: words of Megatron's --data-path, prefixes of indexed "
        "data sets or weights and prefixes in turn",
    )
    transformer_impl: Literal["transformer_engine", "local"] = Field(
        "transformer_engine", description="Megatron's layers: Transformer Engine's or its own"
    )
    tensor_parallel: int = Field(1, ge=1, description="processes that share each matrix")
    pipeline_parallel: int = Field(1, ge=1, description="processes that share the layers")
    context_parallel: int = Field(1, ge=1, description="processes that share each sequence")
    distributed_optimizer: bool = Field(
        True, description="shard the optimizer's state over data-parallel processes"
    )
    gradient_accumulation_fusion: bool = Field(
        False, description="accumulate gradients in fused kernels, which need APEX"
    )
    exit_minutes: int | None = Field(
        None, ge=1, description="end with a checkpoint and status 130 after so many minutes"
    )
    tensorboard: bool = Field(False, description="write TensorBoard's events too")
    wandb: str | None = Field(None, min_length=1, description="Weights & Biases project")
    arguments: str = Field(
        "", description="further flags of Megatron, such as --overlap-grad-reduce, as shell words"
    )

    @field_validator("megatron_dir")
    @classmethod
    def _checkout(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a path cannot hold a NUL character")
        if value.startswith("env:") and not VARIABLE.match(value.removeprefix("env:")):
            raise ValueError("wanted env:NAME with a name of letters, digits and underscores")
        return value

    @field_validator("data_path", "wandb")
    @classmethod
    def _no_nul(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("cannot hold a NUL character")
        return value

    @field_validator("data_path")
    @classmethod
    def _prefixes(cls, value: str | None) -> str | None:
        if value is not None and not split_words(value):
            raise ValueError("wanted at least one prefix")
        return value

    @field_validator("arguments")
    @classmethod
    def _further(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("cannot hold a NUL character")
        words = split_words(value)
        if words and not words[0].startswith("--"):
            raise ValueError(f"{words[0]!r} is not a flag such as --overlap-grad-reduce")
        for word in words:
            name = word.removeprefix("--").partition("=")[0].replace("_", "-")
            if word.startswith("--") and name in _DECIDED.split():
                raise ValueError(f"--{name} is decided by the plan, the bundle or another option")
        return value
