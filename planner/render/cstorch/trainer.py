"""The trainer ``cstorch``: a script on cerebras_pytorch, and a file for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.render.cluster import check_systems, job_labels
from planner.render.cstorch.contract import CONTRACT
from planner.render.cstorch.lower import Settings, lower, model_of
from planner.render.cstorch.options import CstorchOptions
from planner.render.groups import row_of
from planner.render.names import split_words
from planner.render.script import render_script
from planner.render.script_check import check_script, compare_groups
from planner.render.target import Context, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan, Run
    from planner.render.check import Check


class Cstorch:
    """Renders ``RUN/train.py`` and ``RUN/config-seedK.yaml``."""

    name = "cstorch"
    launchers = ("cs3",)
    options = CstorchOptions
    contract = CONTRACT

    def render(self, context: Context, options: CstorchOptions) -> Output:
        """Return the scripts and configurations, and their jobs.

        Raises:
            CannotExpressError: If the script cannot run what the plan says.
            TemplateError: If a template fails.
        """

        def lowered(run: Run) -> Settings:
            check_systems(run, options.num_csx, options.micro_batch or run.batch.micro)
            return lower(run, options.backend, options.precision or run.precision)

        return render_script(
            context,
            options,
            contract=CONTRACT,
            lower=lowered,
            finished=lambda run: f"checkpoint_{run.steps}.whole",
            modes={"compile": ("--compile-only",)},
            torchrun=False,
            run_values=lambda run: {
                "labels": job_labels(context, run),
                "mount_dirs": split_words(options.mount_dirs),
            },
        )

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what our own reading and cerebras_pytorch's classes say about the files."""
        return check_script(plan, files, against_plan, "cerebras.pytorch")


def against_plan(run: Run, config: dict[str, Any]) -> list[str]:
    """Return where a parsed configuration departs from its run, one sentence each."""
    model, multipliers = config["model"], config["multipliers"]
    problems = [
        f"model.{key} is {model.get(key)}, the plan says {value}"
        for key, value in model_of(run).items()
        if model.get(key) != value
    ]
    native = {
        name: float(value) / row_of(run, name).forward_multiplier
        for name, value in multipliers.items()
    }
    if run.model.tied_embeddings and abs(native.pop("unembedding") - 1.0) > 1e-9:
        got = multipliers["unembedding"]
        planned = row_of(run, "unembedding").forward_multiplier
        problems.append(f"multipliers.unembedding is {got}, the plan says {planned}")
    if run.model.biases and run.model.norm == "layernorm":
        native |= {f"{name}_bias": native[name] for name in ("norm", "final_norm")}
    if config["loop"]["steps"] != run.steps:
        problems.append(f"loop.steps is {config['loop']['steps']}, the plan says {run.steps}")
    return problems + compare_groups(run, config["tensors"], native)
