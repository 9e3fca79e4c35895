"""What a run is, as the first line of its log says it, by names that readers of logs know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.render.schedule import pieces

if TYPE_CHECKING:
    from planner.plan.model import Plan, Run


def about_run(plan: Plan, run: Run, seed: int) -> dict[str, Any]:
    """Return the facts of a run and seed that its log begins with.

    They are those of the reference trainer's log (`planner.train.loop`), less what is known only
    when it starts.
    """
    return {
        "family": plan.family,
        "run": run.name,
        "size": run.size,
        "plan": plan.digest,
        "run_digest": run.digest,
        "seed": seed,
        "data_seed": seed,
        **settings_of(run),
        "precision": run.precision,
    }


def settings_of(run: Run) -> dict[str, Any]:
    """Return what the plan says of a run in numbers: tokens, rates per step, fractions of training.

    ``peak_lr`` and ``min_lr`` are base rates; ``tau`` is a fraction of training, None where nothing
    decays.
    """
    return {
        "params": run.params.total,
        "tpp": run.tpp,
        "tau": run.optimizer.tau,
        "train_tokens": run.tokens,
        "batch_tokens": run.batch.tokens,
        "seq_len": run.model.seq_len,
        "total_steps": run.steps,
        "warmup_steps": run.warmup_steps,
        "schedule": run.schedule.kind,
        "optimizer": "adamw",
        "peak_lr": run.optimizer.base_peak_lr,
        "min_lr": pieces(run)[-1].end,
        "weight_decay": run.optimizer.base_weight_decay,
        "beta1": run.optimizer.betas[0],
        "beta2": run.optimizer.betas[1],
        "eps": run.optimizer.eps,
        "grad_clip": run.optimizer.grad_clip,
    }
