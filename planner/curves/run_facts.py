"""What is known of a run besides its points: from its log, its configuration and its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.curves.cooldown import Cooldown
from planner.curves.curve import RunFacts
from planner.curves.schedule import Schedule, declared_schedule, logged_schedule

if TYPE_CHECKING:
    from planner.plan import Run


def run_facts(record: dict[str, Any], planned: Run | None) -> RunFacts:
    """Return what is known of a run: from its log, else from its plan.

    Args:
        record: As `planner.archive.list_runs` returns it.
        planned: What it was meant to be, if known.
    """
    said = {
        "params": record["params"],
        "tokens": record["tokens"],
        "batch_tokens": record["batch_tokens"],
        "seq_len": record["seq_len"],
        "total_steps": record["total_steps"],
        "warmup_steps": record["warmup_steps"],
        "tpp": record["tpp"],
        "tau": record["tau"],
    }
    implied_tpp, implied_tau = said["tpp"], said["tau"]
    differs: tuple[str, ...] = ()
    if planned is not None:
        implied_tpp, implied_tau, differs = _against_plan(record, planned)
        meant = {
            "params": planned.params.total,
            "tokens": planned.tokens,
            "batch_tokens": planned.batch.tokens,
            "seq_len": planned.model.seq_len,
            "total_steps": planned.steps,
            "warmup_steps": planned.warmup_steps,
            "tpp": planned.tpp,
        }
        said = {k: v if v is not None else meant.get(k) for k, v in said.items()}
        # tau of a plan is that of the hidden matrices, whatever the trainer's convention
        said["tpp"], said["tau"] = planned.tpp, planned.optimizer.tau
    return RunFacts(
        run=record["run"],
        name=record["name"],
        **said,
        lr=record["lr"],
        weight_decay=record["weight_decay"],
        schedule=planned.schedule.kind if planned is not None else record["schedule"],
        seed=record["seed"],
        parent=record["parent_run"],
        branch_step=record["branch_step"],
        boundaries=tuple(record["boundaries"] or ()),
        planned=planned.name if planned is not None else None,
        implied_tpp=implied_tpp,
        implied_tau=implied_tau,
        differs=differs,
    )


def _against_plan(
    record: dict[str, Any], planned: Run
) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Return the TPP and tau that a log implies of a planned run, and what it says differently.

    tau = B / (eta lambda D) = 1 / (eta lambda T): what width multiplies is in the planned one.
    """
    optimizer = planned.optimizer
    pairs = {
        "params": (record["params"], planned.params.total, 0.01),
        "tokens": (record["tokens"], planned.tokens, 0.02),
        "steps": (record["total_steps"], planned.steps, 0.002),
        "batch": (record["batch_tokens"], planned.batch.tokens, 0.001),
        "warmup steps": (record["warmup_steps"], planned.warmup_steps, 0.02),
        "learning rate": (record["lr"], optimizer.base_peak_lr, 0.001),
        "weight decay": (record["weight_decay"], optimizer.base_weight_decay, 0.001),
    }
    differs = tuple(
        f"{name} {got:.4g} for {wanted:.4g}"
        for name, (got, wanted, tolerance) in pairs.items()
        if got is not None and wanted is not None and abs(got - wanted) > tolerance * abs(wanted)
    )
    tau = optimizer.tau
    for name in ("learning rate", "weight decay", "steps"):
        got, wanted, _ = pairs[name]
        if tau is not None and got and wanted:
            tau *= wanted / got
    tpp = planned.tpp
    if record["tokens"]:
        tpp *= record["tokens"] / planned.tokens
    return tpp, tau, differs


def run_schedule(
    floor: float | None,
    facts: RunFacts,
    planned: Run | None,
    horizon: int | None,
    rates: tuple[Any, Any],
    cooldown: Cooldown | None = None,
) -> Schedule | None:
    """Return the planned schedule, else the logged one where it is long enough, else the named.

    Args:
        floor: Declared last learning rate, if known.
        facts: What is known of the run.
        planned: What it was meant to be, if known.
        horizon: Steps of the whole run, if known.
        rates: Steps and values of the logged learning rate.
        cooldown: What its configuration declares of its end.
    """
    if planned is not None:
        of = planned.schedule
        return declared_schedule(
            of.kind,
            warmup_fraction=of.warmup_fraction,
            final_lr_fraction=of.final_lr_fraction,
            decay_fraction=of.decay_fraction,
            source="planned",
        )
    logged = None
    if horizon and rates[0].size:
        logged = logged_schedule(rates[0] / horizon, rates[1], peak=facts.lr)
        if logged is not None and logged.covers(1.0):
            return logged
    declared = None
    # without the floor of a cosine, or the cooldown of a WSD, the name alone does not tell
    if (
        horizon
        and facts.schedule in ("constant", "linear-to-zero")
        and facts.warmup_steps is not None
    ):
        declared = declared_schedule(facts.schedule, warmup_fraction=facts.warmup_steps / horizon)
    elif (
        horizon
        and facts.schedule in ("cosine", "linear")
        and facts.warmup_steps is not None
        and floor is not None
        and facts.lr
    ):
        declared = declared_schedule(
            facts.schedule,
            warmup_fraction=facts.warmup_steps / horizon,
            final_lr_fraction=floor / facts.lr,
        )
    elif horizon and facts.schedule == "wsd" and facts.warmup_steps is not None and cooldown:
        declared = declared_schedule(
            "wsd" if cooldown.share > 0 else "constant",
            warmup_fraction=facts.warmup_steps / horizon,
            final_lr_fraction=cooldown.final,
            decay_fraction=cooldown.share,
        )
    return declared or logged
