"""The trainer ``olmo-core``: a script around OLMo-core's trainer, and a file for each run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from planner.render.groups import row_of
from planner.render.olmo_core.contract import CONTRACT
from planner.render.olmo_core.lower import lower
from planner.render.script import ScriptTrainerOptions, render_script
from planner.render.script_check import check_script, compare_groups
from planner.render.target import TORCHRUN_LAUNCHERS, Context, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan, Run
    from planner.render.check import Check


class OlmoOptions(ScriptTrainerOptions):
    """Options of the trainer ``olmo-core``."""

    keep: int = Field(2, ge=1, description="checkpoints that are kept")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="how several processes share the work"
    )
    compile: bool = Field(False, description="compile the model with torch.compile, on GPUs")


class OlmoCore:
    """Renders ``RUN/train.py`` and ``RUN/config-seedK.yaml``."""

    name = "olmo-core"
    launchers = TORCHRUN_LAUNCHERS
    options = OlmoOptions
    contract = CONTRACT

    def render(self, context: Context, options: OlmoOptions) -> Output:
        """Return the scripts and configurations, and their jobs.

        Raises:
            CannotExpressError: If OLMo-core cannot run what the plan says.
            TemplateError: If a template fails.
        """
        return render_script(
            context,
            options,
            contract=CONTRACT,
            lower=lower,
            finished=lambda run: f"step{run.steps}/.metadata.json",
        )

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what our own reading and OLMo-core's classes say about the files."""
        return check_script(plan, files, against_plan, "olmo_core")


def against_plan(run: Run, config: dict[str, Any]) -> list[str]:
    """Return where a parsed configuration departs from its run, one sentence each."""
    model, shape = config["model"], run.model
    block = model["block"]
    mixer = block["sequence_mixer"]
    alphas = {
        "attn_out": float(block["attention_residual_alpha"]),
        "ffn_out": float(block["feed_forward_residual_alpha"]),
    }
    embed = float(model["embed_scale"])
    head = row_of(run, "unembedding").forward_multiplier
    query = 1.0 / math.sqrt(mixer["head_dim"]) / shape.attention_multiplier
    into = 1.0 / row_of(run, "attn_qkv").forward_multiplier
    native = {
        "embedding": embed / row_of(run, "embedding").forward_multiplier,
        "attn_q": into * query,
        "attn_kv": into,
        "attn_out": alphas["attn_out"] / row_of(run, "attn_out").forward_multiplier,
        "ffn_in": 1.0 / row_of(run, "ffn_in").forward_multiplier,
        "ffn_out": alphas["ffn_out"] / row_of(run, "ffn_out").forward_multiplier,
        "norm": 1.0 / row_of(run, "norm").forward_multiplier,
        "final_norm": 1.0 / row_of(run, "final_norm").forward_multiplier,
    }
    if not shape.tied_embeddings:
        native["unembedding"] = 1.0 / head
    if shape.biases:
        if shape.norm == "layernorm":
            native |= {f"{name}_bias": native[name] for name in ("norm", "final_norm")}
        bias = row_of(run, "bias").forward_multiplier
        branches = ("attn_q", "attn_kv", "attn_out", "ffn_in", "ffn_out")
        native |= {f"{name}_bias": native[name] / bias for name in branches}
    wanted: dict[str, tuple[object, object]] = {
        "d_model": (model["d_model"], shape.d_model),
        "vocab_size": (model["vocab_size"], shape.padded_vocab_size),
        "n_layers": (model["n_layers"], shape.n_layers),
        "tie_word_embeddings": (model["tie_word_embeddings"], shape.tied_embeddings),
        "block.sequence_mixer.n_heads": (mixer["n_heads"], shape.n_heads),
        "block.sequence_mixer.n_kv_heads": (mixer["n_kv_heads"], shape.n_kv_heads),
        "block.sequence_mixer.head_dim": (mixer["head_dim"], shape.head_dim),
        "block.sequence_mixer.bias": (mixer["bias"], shape.biases),
        "block.feed_forward.hidden_size": (block["feed_forward"]["hidden_size"], shape.d_ffn),
    }
    problems = [
        f"model.{key} is {got}, the plan says {value}"
        for key, (got, value) in wanted.items()
        if got != value
    ]
    if shape.tied_embeddings and abs(native["embedding"] * head - 1.0) > 1e-9:
        problems.append("model.embed_scale does not make up for the head's folded multiplier")
    if config["trainer"]["max_duration"] != {"value": run.steps, "unit": "steps"}:
        problems.append(f"trainer.max_duration is not the plan's {run.steps} steps")
    return problems + compare_groups(run, config["tensors"], native)
