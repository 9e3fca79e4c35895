"""The trainer ``torch``: run files for this project's own reference trainer, ``planner train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from planner.errors import PlannerError
from planner.plan.runfile import RunFile, dump_run_file, load_run_file
from planner.render.check import Check
from planner.render.contract import Capability, Contract
from planner.render.errors import CannotExpressError
from planner.render.target import TORCHRUN_LAUNCHERS, Context, Job, Output, Slot
from planner.render.training_options import TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.plan.model import Plan

CONTRACT = Contract(
    trainer="torch",
    version="this project's reference trainer, PyTorch 2.6 or newer",
    summary="Plain PyTorch that applies the plan's table as it stands; CPU or GPU, DDP or FSDP2",
    capabilities=(
        Capability("init std per tensor class", "native", "normal, drawn from seed and name"),
        Capability("learning rate per tensor class", "native", "one AdamW group for each class"),
        Capability("weight decay per tensor class", "native", "likewise"),
        Capability("AdamW epsilon per tensor class", "native", "likewise"),
        Capability("forward multiplier per tensor class", "native", "explicit in the model"),
        Capability("attention multiplier", "native", "scale of the attention product"),
        Capability("global batch", "native", "micro batch x processes x accumulation, exactly"),
        Capability(
            "mixture of experts",
            "native",
            "softmax over all experts, top k renormalized, no token dropped; a balance term whose "
            "factor is the trainer's own setting, not the plan's",
        ),
        Capability("fp16", "refused", "needs loss scaling; bf16 and float32 are there"),
        Capability("tensor and pipeline parallelism", "refused", "data parallel only"),
        Capability("first update", "by itself", "uses the schedule at step 0: zero with a warm-up"),
    ),
)

_TRAIN = ("train", Slot.CONFIG, "-o", Slot.OUTPUT)


class ReferenceOptions(TrainingOptions):
    """Options of the trainer ``torch``."""

    parallel: Literal["ddp", "fsdp"] | None = Field(
        None, description="how several processes share the work; default ddp"
    )
    compile: bool = Field(False, description="compile the model with torch.compile")
    threads: int | None = Field(None, ge=1, description="CPU threads of a process")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints; default a tenth of all"
    )
    log_steps: int | None = Field(None, ge=1, description="steps between log lines; default 1")
    eval_steps: int | None = Field(
        None, ge=1, description="steps between evaluations on held-out data; default never"
    )
    update_norms: bool = Field(False, description="log norms of weights and updates by class")


class Reference:
    """Renders ``RUN/run-seedK.json`` for each run and seed."""

    name = "torch"
    launchers = TORCHRUN_LAUNCHERS
    options = ReferenceOptions
    contract = CONTRACT

    def render(self, context: Context, options: ReferenceOptions) -> Output:
        """Return the run files and their jobs.

        Raises:
            CannotExpressError: If a run asks for fp16, or is planned for more than data parallel.
        """
        plan = context.plan
        files: dict[str, str] = {}
        jobs: list[Job] = []
        chosen = options.model_dump(exclude_unset=True, exclude_none=True)
        chosen.pop("data_dir", None)
        variable = options.data_dir.removeprefix("env:")
        reads = (variable,) if options.data_dir.startswith("env:") else ()
        for run in plan.runs:
            if run.precision == "fp16" and options.precision is None:
                raise CannotExpressError(
                    "got fp16, which needs loss scaling that this trainer does not do; wanted bf16 "
                    "or fp32 (--set precision=bf16 overrides it)",
                    field=f"{run.name}.precision",
                )
            if options.micro_batch and run.batch.sequences % options.micro_batch:
                raise CannotExpressError(
                    f"run {run.name} has a global batch of {run.batch.sequences} sequences, which "
                    f"a micro batch of {options.micro_batch} does not divide",
                    field="micro_batch",
                )
            folder = context.folders[run.name]
            for seed in run.seeds:
                config = f"{folder}/run-seed{seed}.json"
                settings = {"data": options.data_dir, "seed": seed, **chosen}
                files[config] = dump_run_file(RunFile(plan.family, plan.digest, settings, run))
                jobs.append(
                    context.job(
                        run,
                        seed,
                        config=config,
                        finished=f"checkpoints/step-{run.steps:08d}.pt",
                        commands={"fit": ("planner", *_TRAIN)},
                        program="planner",
                        torchrun=("-m", "planner.cli.main", *_TRAIN),
                        reads=reads,
                        processes=run.batch.data_parallel,
                    )
                )
        files["README.md"] = context.engine.render(
            "torch/README.md.j2",
            {
                **context.common(),
                "options": options,
                "contract": CONTRACT,
            },
        )
        return Output(files, tuple(jobs))

    def check(self, plan: Plan, files: Mapping[str, str]) -> Sequence[Check]:
        """Return whether each run file holds a run of the plan, unchanged."""
        problems = []
        digests = {run.name: run.digest for run in plan.runs}
        for path, text in files.items():
            if not path.endswith(".json") or "/run-seed" not in path:
                continue
            try:
                file = load_run_file(text, path)
            except PlannerError as error:
                problems.append(str(error))
                continue
            if file is None:
                problems.append(f"{path} is not a run file")
            elif digests.get(file.run.name) != file.run.digest:
                problems.append(f"{path}: run {file.run.name} is not the plan's")
        return (Check("run files against the plan", tuple(problems)),)
