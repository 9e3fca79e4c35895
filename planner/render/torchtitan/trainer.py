"""The trainer ``torchtitan``: a script around torchtitan's trainer, and a file for each run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from planner.render.groups import row_of
from planner.render.script import ScriptTrainerOptions, render_script
from planner.render.script_check import check_script, compare_groups
from planner.render.target import TORCHRUN_LAUNCHERS, Context, Output
from planner.render.torchtitan.contract import CONTRACT
from planner.render.torchtitan.lower import lower

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan, Run
    from planner.render.check import Check


class TitanOptions(ScriptTrainerOptions):
    """Options of the trainer ``torchtitan``."""

    keep: int = Field(2, ge=2, description="checkpoints that are kept")
    parallel: Literal["fsdp", "ddp"] = Field(
        "fsdp", description="how several processes share the work"
    )
    activation_checkpoint: Literal["none", "selective", "full"] = Field(
        "selective", description="what is computed again in the backward pass"
    )
    compile: bool = Field(False, description="compile each block with torch.compile")
    cuda_graphs: bool = Field(
        False, description="replay forward and backward pass as a CUDA graph, on GPUs"
    )


class TorchTitan:
    """Renders ``RUN/train.py``, ``RUN/config_registry.py`` and ``RUN/config-seedK.yaml``."""

    name = "torchtitan"
    launchers = TORCHRUN_LAUNCHERS
    options = TitanOptions
    contract = CONTRACT

    def render(self, context: Context, options: TitanOptions) -> Output:
        """Return the scripts and configurations, and their jobs.

        Raises:
            CannotExpressError: If torchtitan cannot run what the plan says.
            TemplateError: If a template fails.
        """
        output = render_script(
            context,
            options,
            contract=CONTRACT,
            lower=lower,
            finished=lambda run: f"checkpoint/step-{run.steps}/.metadata",
        )
        for run in context.plan.runs:
            output.files[f"{context.folders[run.name]}/config_registry.py"] = context.engine.render(
                "torchtitan/config_registry.py.j2", {**context.common(), "run": run}
            )
        return output

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what our own reading and torchtitan's classes say about the files."""
        return check_script(plan, files, against_plan, "torchtitan")


def against_plan(run: Run, config: dict[str, Any]) -> list[str]:
    """Return where a parsed configuration departs from its run, one sentence each."""
    model, shape = config["model"], run.model
    # The model multiplies nothing but queries by keys, which 1/sqrt(head_dim) does.
    query = 1.0 / math.sqrt(model["head_dim"]) / shape.attention_multiplier
    classes = ("embedding", "attn_out", "ffn_in", "ffn_out", "norm", "final_norm")
    native = {name: 1.0 / row_of(run, name).forward_multiplier for name in classes}
    native["attn_kv"] = 1.0 / row_of(run, "attn_qkv").forward_multiplier
    native["attn_q"] = native["attn_kv"] * query
    if not shape.tied_embeddings:
        native["unembedding"] = 1.0 / row_of(run, "unembedding").forward_multiplier
    if shape.biases:
        bias = row_of(run, "bias").forward_multiplier
        branches = ("attn_q", "attn_kv", "attn_out", "ffn_in", "ffn_out")
        native |= {f"{name}_bias": native[name] / bias for name in branches}
    wanted: dict[str, tuple[object, object]] = {
        "model.dim": (model["dim"], shape.d_model),
        "model.vocab_size": (model["vocab_size"], shape.padded_vocab_size),
        "model.n_layers": (model["n_layers"], shape.n_layers),
        "model.n_heads": (model["n_heads"], shape.n_heads),
        "model.n_kv_heads": (model["n_kv_heads"], shape.n_kv_heads),
        "model.head_dim": (model["head_dim"], shape.head_dim),
        "model.hidden_dim": (model["hidden_dim"], shape.d_ffn),
        "model.bias": (model["bias"], shape.biases),
        "model.enable_weight_tying": (model["enable_weight_tying"], shape.tied_embeddings),
        "training.steps": (config["training"]["steps"], run.steps),
    }
    problems = [
        f"{key} is {got}, the plan says {value}"
        for key, (got, value) in wanted.items()
        if got != value
    ]
    return problems + compare_groups(run, config["tensors"], native)
