"""Curves out of an archive, some runs at a time, so that memory stays bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive import list_runs
from planner.curves.curve import Curve, RunFacts
from planner.curves.errors import CurveError
from planner.curves.schedule import Schedule, declared_schedule, logged_schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from planner.archive import Archive
    from planner.plan import Plan, Run

TRAIN_LOSS = "train/loss"
_LR = "lr"
_FIELDS = (
    *("run", "name", "params", "tokens", "batch_tokens", "seq_len", "total_steps"),
    *("warmup_steps", "lr", "min_lr", "weight_decay", "schedule", "tpp", "tau", "seed"),
    *("parent_run", "branch_step", "boundaries", "series", "last_step"),
)
_POINTS_AT_A_TIME = 4_000_000


def choose_metric(records: Sequence[dict[str, Any]], asked: str | None = None) -> str:
    """Return the series that curves are made of: the train loss, else the only evaluation loss.

    Args:
        records: Runs with their ``series``, as `planner.archive.list_runs` returns them.
        asked: What the user asked for.

    Raises:
        CurveError: If no run logged what was asked for, or there is more than one choice.
    """
    names: set[str] = {series["name"] for record in records for series in record["series"] or ()}
    losses = sorted(n for n in names if n.startswith("eval/") and n.endswith("/loss"))
    if asked is not None:
        if asked not in names:
            found = ", ".join(sorted(names)[:12]) or "nothing"
            raise CurveError(f"no run logged {asked!r}; logged were {found}", field="--metric")
        return asked
    if TRAIN_LOSS in names:
        return TRAIN_LOSS
    if len(losses) == 1:
        return losses[0]
    if not losses:
        raise CurveError("no run logged a loss")
    raise CurveError(
        f"no run logged {TRAIN_LOSS}, but {len(losses)} evaluation losses: say which by "
        f"--metric, such as {losses[0]}",
        field="--metric",
    )


def load_curves(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    plans: Sequence[Plan] = (),
) -> Iterator[list[Curve]]:
    """Yield the curves of the runs that logged a metric, a batch of runs at a time, by name.

    Args:
        archive: The archive.
        metric: Series; see `choose_metric`.
        where: Conditions, as for `planner.archive.list_runs`.
        plans: Plans to match the runs to, besides those that the archive keeps.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
    """
    records = list_runs(archive, where=where, columns=_FIELDS, plans=plans)
    name = choose_metric(records, metric)
    known = {run.digest: run for plan in (*archive.plans(), *plans) for run in plan.runs}
    chosen = [r for r in records if any(s["name"] == name for s in r["series"] or ())]
    batch: list[dict[str, Any]] = []
    points = 0
    for record in chosen:
        batch.append(record)
        points += sum(s["points"] for s in record["series"] if s["name"] in (name, _LR))
        if points >= _POINTS_AT_A_TIME:
            yield _curves(archive, batch, name, known)
            batch, points = [], 0
    if batch:
        yield _curves(archive, batch, name, known)


def _curves(
    archive: Archive, records: list[dict[str, Any]], metric: str, known: dict[str, Run]
) -> list[Curve]:
    ids = [record["run"] for record in records]
    points = _split(archive.points(ids, (metric, _LR)), ("run", "series"))
    curves = []
    for record in records:
        run = record["run"]
        planned = known.get(record["planned"]["digest"]) if record.get("planned") else None
        if record["parent_run"] is not None:  # a branch: its early part is its parent's
            steps, values = _history(archive, run, metric)
            rates = _history(archive, run, _LR)
        else:
            steps, values = points.get((run, metric), _NOTHING)
            rates = points.get((run, _LR), _NOTHING)
        facts = _facts(record, planned)
        horizon = facts.total_steps
        if horizon is not None and steps.size:
            # some trainers log a few steps past the end that they were given
            horizon = max(horizon, int(steps[-1]))
        every = float(np.median(np.diff(steps))) if steps.size > 1 else 1.0
        schedule = _schedule(record, facts, planned, horizon, rates)
        curves.append(Curve(facts, metric, steps, values, horizon, schedule, every, rates))
    return curves


_NOTHING = (np.zeros(0, np.int64), np.zeros(0))


def _history(archive: Archive, run: str, series: str) -> tuple[Any, Any]:
    table = archive.history(run, series)
    return _columns(table) if table.num_rows else _NOTHING


def _columns(table: Any) -> tuple[Any, Any]:
    return (
        table.column("step").to_numpy(),
        table.column("value").to_numpy(zero_copy_only=False).astype(np.float64, copy=False),
    )


def _split(table: Any, names: tuple[str, ...]) -> dict[Any, Any]:
    """Return steps and values by the names of the columns; equal keys lie side by side."""
    if not table.num_rows:
        return {}
    steps, values = _columns(table)
    columns = [table.column(name).unify_dictionaries().combine_chunks() for name in names]
    codes = [np.asarray(column.indices) for column in columns]
    texts = [column.dictionary.to_pylist() for column in columns]
    change = np.zeros(len(steps), np.bool_)
    for code in codes:
        change[1:] |= code[1:] != code[:-1]
    starts = np.flatnonzero(change).tolist()
    found = {}
    for a, b in zip([0, *starts], [*starts, len(steps)], strict=True):
        key = tuple(text[int(code[a])] for text, code in zip(texts, codes, strict=True))
        found[key] = (steps[a:b], values[a:b])
    return found


def _facts(record: dict[str, Any], planned: Run | None) -> RunFacts:
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
    if planned is not None:
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
    )


def _schedule(
    record: dict[str, Any],
    facts: RunFacts,
    planned: Run | None,
    horizon: int | None,
    rates: tuple[Any, Any],
) -> Schedule | None:
    """Return the planned schedule, else the logged one where it is long enough, else the named."""
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
        and record["min_lr"] is not None
        and facts.lr
    ):
        declared = declared_schedule(
            facts.schedule,
            warmup_fraction=facts.warmup_steps / horizon,
            final_lr_fraction=record["min_lr"] / facts.lr,
        )
    return declared or logged
