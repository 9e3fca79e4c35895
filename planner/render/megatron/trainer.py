"""The trainer ``megatron``: flags for Megatron-LM's pretrain_gpt.py, and what starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.render.groups import NEGLIGIBLE_EPS
from planner.render.megatron.contract import CONTRACT
from planner.render.megatron.lower import lower
from planner.render.megatron.options import MegatronOptions
from planner.render.megatron.readback import compare
from planner.render.names import split_words
from planner.render.script import render_script
from planner.render.script_check import check_script, compare_groups
from planner.render.target import TORCHRUN_LAUNCHERS, Context, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan, Run
    from planner.render.check import Check


class Megatron:
    """Renders ``RUN/train.py`` and ``RUN/config-seedK.yaml``."""

    name = "megatron"
    launchers = TORCHRUN_LAUNCHERS
    options = MegatronOptions
    contract = CONTRACT

    def render(self, context: Context, options: MegatronOptions) -> Output:
        """Return the scripts and configurations, and their jobs.

        Raises:
            CannotExpressError: If Megatron cannot run what the plan says.
            TemplateError: If a template fails.
        """
        parallel = options.tensor_parallel * options.pipeline_parallel * options.context_parallel
        given = [options.megatron_dir] + ([] if options.data_path else [options.data_dir])

        def processes(run: Run) -> int | None:
            replicas = run.batch.data_parallel
            if replicas is None:
                return parallel if parallel > 1 else None
            return replicas * parallel

        return render_script(
            context,
            options,
            contract=CONTRACT,
            lower=lambda run: lower(run, options),
            finished=lambda run: "finished",
            reads=tuple(v.removeprefix("env:") for v in given if v.startswith("env:")),
            job=lambda run: {"processes": processes(run), "model_parallel": parallel},
            values={
                "data_path": split_words(options.data_path) if options.data_path else None,
                "further": split_words(options.arguments),
            },
        )

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what our own reading and Megatron's parser, model and optimizer say."""
        return check_script(plan, files, against_plan, "megatron.training")


def against_plan(run: Run, config: dict[str, Any]) -> list[str]:
    """Return where a parsed configuration departs from its run, one sentence each."""
    rows = []
    for row in config["tensors"]:
        plan = run.tensor(row["class"])
        negligible = run.optimizer.eps_mode == "negligible"
        if negligible and row["eps"] <= NEGLIGIBLE_EPS and plan.eps <= NEGLIGIBLE_EPS:
            row = {**row, "eps": plan.eps}
        rows.append(row)
    names = ["embedding", "attn_qkv", "attn_out", "ffn_in", "ffn_out", "norm", "final_norm"]
    if not run.model.tied_embeddings:
        names.append("unembedding")
    if run.model.norm == "layernorm":
        names += ["norm_bias", "final_norm_bias"]
    if run.model.biases:
        names.append("bias")
    multipliers = {
        "embedding": run.tensor("embedding").forward_multiplier,
        "logits": run.tensor("unembedding").forward_multiplier,
        "attention": run.model.attention_multiplier,
    }
    problems = list(compare(run, config["megatron"]))
    if config["multipliers"] != multipliers:
        problems.append(f"multipliers are not the plan's {multipliers}")
    return problems + compare_groups(run, rows, dict.fromkeys(names, 1.0))
