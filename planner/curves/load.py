"""Curves out of an archive, some runs at a time, so that memory stays bounded."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.archive import list_runs
from planner.curves.cooldown import Cooldown, declared_cooldown
from planner.curves.curve import Curve, RunFacts
from planner.curves.descent import Column, Parents, joined, part_of, read_parents
from planner.curves.errors import CurveError
from planner.curves.run_facts import run_facts, run_schedule
from planner.curves.schedule import Schedule

if TYPE_CHECKING:
    from planner.archive import Archive, Ragged
    from planner.plan import Plan, Run

TRAIN_LOSS = "train/loss"
_LR = "lr"
_FIELDS = (
    *("run", "name", "params", "tokens", "batch_tokens", "seq_len", "total_steps"),
    *("warmup_steps", "lr", "min_lr", "weight_decay", "schedule", "tpp", "tau", "seed"),
    *("parent_run", "branch_step", "boundaries"),
)
_POINTS_AT_A_TIME = 1_000_000


def choose_metric(records: Sequence[dict[str, Any]], asked: str | None = None) -> str:
    """Return the series that curves are made of: the train loss, else the only evaluation loss.

    Args:
        records: Runs with their ``series``, as `planner.archive.list_runs` returns them.
        asked: What the user asked for.

    Raises:
        CurveError: If no run logged what was asked for, or there is more than one choice.
    """
    return choose_series(
        {series["name"] for record in records for series in record["series"] or ()}, asked
    )


def no_run(where: Sequence[str]) -> CurveError:
    """Return what to raise where no run fulfils some conditions."""
    if not where:
        return CurveError("there are no runs")
    return CurveError(
        f"no run matches {' and '.join(where)}; planner runs lists them", field="--where"
    )


def choose_series(names: Collection[str], asked: str | None = None) -> str:
    """Return the series that curves are made of, of the names that were logged.

    Raises:
        CurveError: As `choose_metric`.
    """
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


@dataclass(frozen=True, eq=False, slots=True)
class Loader:
    """What is known of the runs of an archive, before their points are read.

    Attributes:
        archive: The archive.
        metric: The series that curves are made of.
        facts: Of each run that was asked for, by id, in the order of their names.
        floors: Declared last learning rate of each run, by id; None if not known.
        planned: Planned run of each run that was matched to one, by id.
        cooldowns: What the configuration of a run with a cooldown declares of it, by id.
        ended: Whether a run whose length the log does not tell is taken to have ended where its log
            does.
    """

    archive: Archive
    metric: str
    facts: dict[str, RunFacts]
    floors: dict[str, float | None]
    planned: dict[str, Run]
    cooldowns: dict[str, Cooldown]
    ended: bool = False

    @classmethod
    def open(
        cls,
        archive: Archive,
        *,
        metric: str | None = None,
        where: Sequence[str] = (),
        plans: Sequence[Plan] = (),
        ended: bool = False,
    ) -> Loader:
        """Read the facts of runs and choose the metric; arguments as for `load_curves`."""
        records = list_runs(archive, where=where, columns=_FIELDS, plans=plans)
        if not records:
            raise no_run(where)
        chosen = None if not where else {record["run"] for record in records}
        name = choose_series(_logged(archive, chosen), metric)
        known = {run.digest: run for plan in (*archive.plans(), *plans) for run in plan.runs}
        planned = {
            r["run"]: known[r["planned"]["digest"]]
            for r in records
            if r.get("planned") and r["planned"]["digest"] in known
        }
        facts = {r["run"]: run_facts(r, planned.get(r["run"])) for r in records}
        floors = {r["run"]: r["min_lr"] for r in records}
        cooldowns = _cooldowns(archive, facts, floors)
        return cls(archive, name, facts, floors, planned, cooldowns, ended)

    def batches(
        self,
        *,
        runs: Collection[str] | None = None,
        rates: bool = True,
        points: int = _POINTS_AT_A_TIME,
    ) -> Iterator[CurveBatch]:
        """Yield curves in bulk, in the order in which they are stored; each file is read once.

        Branches begin with their parents' steps; parents' points are read first and kept.

        Args:
            runs: Ids of the runs; all if None.
            rates: Whether to read the logged learning rates.
            points: A batch ends with the run that brings it to so many points.
        """
        names = [self.metric, _LR] if rates and self.metric != _LR else [self.metric]
        wanted = self.facts.keys() if runs is None else set(runs) & self.facts.keys()
        parents = read_parents(self.archive, self.facts, wanted, names)
        ids = None if len(wanted) == len(self.facts) and not self._filtered else wanted
        for read in self.archive.batches(names, runs=ids, points_per_batch=points):
            yield self._batch(read.runs, [read.series[name] for name in names], parents, names)

    @property
    def _filtered(self) -> bool:
        return len(self.facts) != len(self.archive.runs(["run"]))

    def _batch(
        self, runs: list[str], series: list[Ragged], parents: Parents, names: list[str]
    ) -> CurveBatch:
        known = [i for i, run in enumerate(runs) if run in self.facts]
        columns = [_series(ragged) for ragged in series]
        if len(known) < len(runs) or any(runs[i] in parents.lines for i in known):
            columns = [
                joined([parents.history(runs[i], name, part_of(column, i)) for i in known])
                for name, column in zip(names, columns, strict=True)
            ]
        ids = [runs[i] for i in known]
        rates = columns[1] if len(columns) > 1 else None
        return CurveBatch(self, ids, *columns[0], rates)


@dataclass(frozen=True, eq=False, slots=True)
class CurveBatch:
    """One metric of R runs, one after the other.

    Attributes:
        loader: What is known of the runs.
        runs: Their ids.
        offsets: ``R + 1`` positions: run ``i`` has the points ``offsets[i]:offsets[i + 1]``; runs
            that did not log the metric have none.
        steps: Rising within a run.
        values: Not-a-number where missing.
        tokens: Training tokens seen, not-a-number where unknown.
        rates: Offsets, steps, and values of the learning rate, if it was read.
    """

    loader: Loader
    runs: list[str]
    offsets: NDArray[np.int64]
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    tokens: NDArray[np.float64]
    rates: Column | None

    @property
    def facts(self) -> list[RunFacts]:
        """What is known of each run."""
        return [self.loader.facts[run] for run in self.runs]

    def horizons(self) -> NDArray[np.float64]:
        """Return the steps of each whole run, not-a-number where unknown, shape ``(R,)``."""
        found = [self._horizon(i, facts) for i, facts in enumerate(self.facts)]
        return np.array([np.nan if h is None else h for h in found], np.float64)

    def _horizon(self, i: int, facts: RunFacts) -> int | None:
        end = self.offsets[i + 1]
        last = int(self.steps[end - 1]) if end > self.offsets[i] else 0
        if facts.total_steps is None:
            return last if self.loader.ended and last else None
        # some trainers log a few steps past the end that they were given
        return max(facts.total_steps, last)

    def lr(self, i: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the logged learning rate of a run: steps and values."""
        if self.rates is None:
            return _NOTHING
        part = slice(self.rates[0][i], self.rates[0][i + 1])
        return self.rates[1][part], self.rates[2][part]

    def schedule(self, i: int) -> Schedule | None:
        """Return the schedule of a run: the planned one, else the logged, else the declared."""
        run = self.runs[i]
        facts = self.loader.facts[run]
        horizon = self._horizon(i, facts)
        planned = self.loader.planned.get(run)
        floor, cooldown = self.loader.floors.get(run), self.loader.cooldowns.get(run)
        return run_schedule(floor, facts, planned, horizon, self.lr(i), cooldown)

    def curve(self, i: int) -> Curve:
        """Return one run as a curve."""
        facts = self.loader.facts[self.runs[i]]
        part = slice(self.offsets[i], self.offsets[i + 1])
        steps, values, tokens = self.steps[part], self.values[part], self.tokens[part]
        every = float(np.median(np.diff(steps))) if steps.size > 1 else 1.0
        counted = tokens if np.isfinite(tokens).any() else None
        return Curve(
            facts,
            self.loader.metric,
            steps,
            values,
            self._horizon(i, facts),
            self.schedule(i),
            every,
            self.lr(i),
            counted,
        )

    def curves(self) -> list[Curve]:
        """Return the runs that logged the metric as curves."""
        logged = np.flatnonzero(np.diff(self.offsets) > 0).tolist()
        return [self.curve(i) for i in logged]


def load_curves(
    archive: Archive,
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    plans: Sequence[Plan] = (),
) -> Iterator[list[Curve]]:
    """Yield the curves of the runs that logged a metric, a batch of runs at a time.

    Args:
        archive: The archive.
        metric: Series; see `choose_metric`.
        where: Conditions, as for `planner.archive.list_runs`.
        plans: Plans to match the runs to, besides those that the archive keeps.

    Yields:
        Curves in the order in which they are stored, which is not that of their names.

    Raises:
        ArchiveError: If the archive is damaged or a condition cannot be read.
        CurveError: If the metric cannot be chosen.
    """
    for batch in Loader.open(archive, metric=metric, where=where, plans=plans).batches():
        yield batch.curves()


_NOTHING = (np.zeros(0, np.int64), np.zeros(0))


def _cooldowns(
    archive: Archive, facts: dict[str, RunFacts], floors: dict[str, float | None]
) -> dict[str, Cooldown]:
    """Return the declared cooldowns; configurations are read only where there may be some."""
    runs = {run for run, known in facts.items() if known.schedule == "wsd" and not known.planned}
    if not runs:
        return {}
    listed = archive.runs(["config"])
    found = {}
    for run, text in zip(
        listed.column("run").to_pylist(), listed.column("config").to_pylist(), strict=True
    ):
        if run in runs and text:
            of = facts[run]
            made = declared_cooldown(
                json.loads(text), of.total_steps, peak=of.lr, floor=floors[run]
            )
            if made is not None:
                found[run] = made
    return found


def _logged(archive: Archive, runs: Collection[str] | None) -> set[str]:
    """Return the names of all series that some runs logged."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = archive.runs(["series"])
    if runs is not None:
        table = table.filter(pc.is_in(table.column("run"), pa.array(sorted(runs), pa.string())))
    flat = pc.list_flatten(table.column("series"))
    return set(pc.unique(pc.struct_field(flat, "name")).to_pylist())


def _series(ragged: Ragged) -> Column:
    return ragged.offsets, ragged.steps, ragged.values, ragged.tokens
