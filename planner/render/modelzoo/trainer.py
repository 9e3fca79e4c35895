"""The trainer ``modelzoo``: one parameter file for each run and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.render.cluster import check_systems, job_labels
from planner.render.modelzoo.contract import CONTRACT
from planner.render.modelzoo.lower import lower
from planner.render.modelzoo.options import ModelZooOptions, from_environment, path_text
from planner.render.names import split_words
from planner.render.schedule import pieces
from planner.render.target import Context, Job, Output, Slot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan
    from planner.render.check import Check

_COMMANDS: dict[str, tuple[str | Slot, ...]] = {
    "fit": ("cszoo", "fit", Slot.CONFIG, "--target_device", "CSX", "--model_dir", Slot.OUTPUT),
    "validate": ("cszoo", "config", "validate", Slot.CONFIG),
    "compile": (
        *("cszoo", "fit", Slot.CONFIG, "--target_device", "CSX", "--compile_only"),
        *("--model_dir", Slot.OUTPUT),
    ),
}


class ModelZoo:
    """Renders ModelZoo 2.10 parameter files."""

    name = "modelzoo"
    launchers = ("cs3",)
    options = ModelZooOptions
    contract = CONTRACT

    def render(self, context: Context, options: ModelZooOptions) -> Output:
        """Return ``RUN/params-seedK.yaml`` for every run and seed, and their jobs.

        Raises:
            CannotExpressError: If ModelZoo cannot run what the plan says.
            TemplateError: If a template fails.
        """
        files: dict[str, str] = {}
        jobs: list[Job] = []
        warnings: list[str] = []
        environment = tuple(
            dict.fromkeys(
                name
                for name in map(from_environment, (options.data_dir, options.eval_data_dir))
                if name is not None
            )
        )
        settings = {run.name: lower(run, context.plan.parametrization) for run in context.plan.runs}
        clipping = [name for name, zoo in settings.items() if zoo.warnings]
        if clipping:
            warnings.append(
                f"{len(clipping)} of {len(settings)} runs clip gradients by their global norm, "
                "which sees the residual multiplier folded into the output matrices: the clipping, "
                "and only that, differs from a trainer with native multipliers (each run's file "
                "says by how much; grad_clip: null avoids it)"
            )
        for run in context.plan.runs:
            micro = options.micro_batch if isinstance(options.micro_batch, int) else None
            check_systems(run, options.num_csx, micro)
            folder = context.folders[run.name]
            shared = {
                **context.common(),
                "run": run,
                "zoo": settings[run.name],
                "pieces": pieces(run),
                "options": options,
                "data_dir": path_text(options.data_dir),
                "eval_data_dir": options.eval_data_dir and path_text(options.eval_data_dir),
                "checkpoint_steps": options.checkpoint_steps or max(1, run.steps // 10),
                "eval_frequency": options.eval_frequency or max(1, run.steps // 10),
                "labels": job_labels(context, run),
                "mount_dirs": split_words(options.mount_dirs),
            }
            for seed in run.seeds:
                config = f"{folder}/params-seed{seed}.yaml"
                files[config] = context.engine.render(
                    "modelzoo/params.yaml.j2", {**shared, "seed": seed}
                )
                jobs.append(
                    context.job(
                        run,
                        seed,
                        config=config,
                        finished=f"checkpoint_{run.steps}.mdl",
                        commands=_COMMANDS,
                        program="cszoo",
                        from_environment=environment,
                    )
                )
        files["README.md"] = context.engine.render(
            "modelzoo/README.md.j2",
            {
                **context.common(),
                "settings": settings,
                "folders": context.folders,
                "options": options,
                "contract": CONTRACT,
                "environment": environment,
                "warnings": warnings,
            },
        )
        return Output(files, tuple(jobs), tuple(warnings))

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return what each validator that can run here says about the parameter files."""
        from planner.render.modelzoo.check import check_files

        return check_files(plan, files)
