"""Stands in for the pretrain_gpt.py of a checkout of Megatron-LM, which its wheel comes without.

It starts what that starts, Megatron's own training loop, on a CPU: model, data sets, optimizer,
schedule, checkpoints, signals and the log are Megatron's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from gpu_is_cpu import gpu_is_cpu
from megatron.core.datasets import utils as dataset_utils
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.enums import ModelType
from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer
from megatron.training import get_args, training
from megatron.training.argument_utils import gpt_config_from_args, pretrain_cfg_container_from_args
from megatron.training.arguments import parse_and_validate_args
from megatron.training.utils import get_blend_and_blend_per_split


def forward_step(batches: Any, model: Any) -> Any:
    batch = next(batches)
    losses = model(
        batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"]
    )
    return losses, partial(loss_function, batch["loss_mask"])


def loss_function(mask: torch.Tensor, losses: torch.Tensor) -> Any:
    total = (losses.float() * mask).sum()
    count = mask.sum().int()
    return total, count, {"lm loss": torch.stack([total.detach(), count.float()])}


def datasets(samples: Any, vp_stage: Any = None) -> Any:
    args = get_args()
    config = GPTDatasetConfig(
        random_seed=args.seed,
        sequence_length=args.seq_length,
        blend=get_blend_and_blend_per_split(args)[0],
        split=args.split,
        tokenizer=build_tokenizer(args),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    return BlendedMegatronDatasetBuilder(GPTDataset, samples, lambda: True, config).build()


if __name__ == "__main__":
    vars(datasets)["is_distributed"] = True
    with gpu_is_cpu():
        # What is compiled is compiled, and there are no kernels to warm up.
        dataset_utils.compile_helpers = lambda: None
        training.set_jit_fusion_options = lambda **_: None
        training.initialize_megatron = partial(training.initialize_megatron, allow_no_cuda=True)
        args = parse_and_validate_args()
        config = pretrain_cfg_container_from_args(args, gpt_config_from_args(args))
        training.pretrain(config, datasets, ModelType.encoder_or_decoder, forward_step)
