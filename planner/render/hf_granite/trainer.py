"""The trainer ``hf-granite``: a script around Hugging Face's Trainer, and a file for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.render.groups import row_of
from planner.render.hf_granite.contract import CONTRACT
from planner.render.hf_granite.lower import lower
from planner.render.hf_granite.options import GraniteOptions
from planner.render.script import render_script
from planner.render.script_check import check_script, compare_groups
from planner.render.target import TORCHRUN_LAUNCHERS, Context, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan, Run
    from planner.render.check import Check


class Granite:
    """Renders ``RUN/train.py`` and ``RUN/config-seedK.yaml``."""

    name = "hf-granite"
    launchers = TORCHRUN_LAUNCHERS
    options = GraniteOptions
    contract = CONTRACT

    def render(self, context: Context, options: GraniteOptions) -> Output:
        """Return the scripts and configurations, and their jobs.

        Raises:
            CannotExpressError: If Granite cannot run what the plan says.
            TemplateError: If a template fails.
        """
        return render_script(
            context,
            options,
            contract=CONTRACT,
            lower=lower,
            finished=lambda run: f"checkpoint-{run.steps}/trainer_state.json",
        )

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what our own reading and Transformers' classes say about the files."""
        return check_script(plan, files, against_plan, "transformers")


def against_plan(run: Run, config: dict[str, Any]) -> list[str]:
    """Return where a parsed configuration departs from its run, one sentence each."""
    model, shape = config["model"], run.model
    residual = float(model["residual_multiplier"])
    multipliers = {
        "embedding": float(model["embedding_multiplier"]),
        "attn_qkv": 1.0,
        "attn_out": residual,
        "ffn_in": 1.0,
        "ffn_out": residual,
        "norm": 1.0,
        "final_norm": 1.0,
    }
    if not shape.tied_embeddings:
        multipliers["unembedding"] = 1.0 / float(model["logits_scaling"])
    native = {
        name: value / row_of(run, name).forward_multiplier for name, value in multipliers.items()
    }
    if shape.biases:
        bias = row_of(run, "bias").forward_multiplier
        native |= {
            f"{name}_bias": native[name] / bias
            for name in ("attn_qkv", "attn_out", "ffn_in", "ffn_out")
        }
    wanted: dict[str, object] = {
        "vocab_size": shape.padded_vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ffn,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "attention_multiplier": shape.attention_multiplier,
        "tie_word_embeddings": shape.tied_embeddings,
        "attention_bias": shape.biases,
        "mlp_bias": shape.biases,
    }
    problems = [
        f"model.{key} is {model.get(key)}, the plan says {value}"
        for key, value in wanted.items()
        if model.get(key) != value
    ]
    if shape.tied_embeddings:
        head = 1.0 / float(model["logits_scaling"])
        planned = row_of(run, "unembedding").forward_multiplier
        if abs(head - planned) > 1e-9 * planned:
            problems.append(f"model.logits_scaling divides by 1/{head}, the plan says 1/{planned}")
    if config["training"]["max_steps"] != run.steps:
        problems.append(f"training.max_steps is not the plan's {run.steps}")
    return problems + compare_groups(run, config["tensors"], native)
