"""Curves out of an archive, some runs at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.archive import list_runs
from planner.curves.curve import Curve, RunFacts
from planner.curves.errors import CurveError
from planner.curves.schedule import Schedule, declared_schedule, logged_schedule

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
        ended: Whether a run whose length the log does not tell is taken to have ended where its log
            does.
    """

    archive: Archive
    metric: str
    facts: dict[str, RunFacts]
    floors: dict[str, float | None]
    planned: dict[str, Run]
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
        chosen = None if not where else {record["run"] for record in records}
        name = choose_series(_logged(archive, chosen), metric)
        known = {run.digest: run for plan in (*archive.plans(), *plans) for run in plan.runs}
        planned = {
            r["run"]: known[r["planned"]["digest"]]
            for r in records
            if r.get("planned") and r["planned"]["digest"] in known
        }
        facts = {r["run"]: _facts(r, planned.get(r["run"])) for r in records}
        floors = {r["run"]: r["min_lr"] for r in records}
        return cls(archive, name, facts, floors, planned, ended)

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
        parents = self._parents(wanted, names)
        ids = None if len(wanted) == len(self.facts) and not self._filtered else wanted
        for read in self.archive.batches(names, runs=ids, points_per_batch=points):
            yield self._batch(read.runs, [read.series[name] for name in names], parents, names)

    @property
    def _filtered(self) -> bool:
        return len(self.facts) != len(self.archive.runs(["run"]))

    def _parents(self, wanted: Collection[str], names: list[str]) -> _Parents:
        """Read what runs other than those of a batch began with."""
        lines: dict[str, list[tuple[str, int | None]]] = {}
        listed = None
        for run in wanted:
            facts = self.facts[run]
            if facts.parent is None:
                continue
            if listed is None:
                rows = self.archive.runs(["parent_run", "branch_step"]).to_pylist()
                listed = {row["run"]: (row["parent_run"], row["branch_step"]) for row in rows}
            line: list[tuple[str, int | None]] = []
            child = run
            while (parent := listed[child][0]) in listed and len(line) <= len(listed):
                line.append((parent, listed[child][1]))
                child = parent
            if line:
                lines[run] = line
        points: dict[tuple[str, str], _Points] = {}
        needed = {parent for line in lines.values() for parent, _ in line}
        if needed:
            for read in self.archive.batches(names, runs=needed):
                for name in names:
                    ragged = read.series[name]
                    for i, run in enumerate(read.runs):
                        part = slice(ragged.offsets[i], ragged.offsets[i + 1])
                        points[run, name] = (
                            ragged.steps[part],
                            ragged.values[part],
                            ragged.tokens[part],
                        )
        return _Parents(lines, points)

    def _batch(
        self, runs: list[str], series: list[Ragged], parents: _Parents, names: list[str]
    ) -> CurveBatch:
        known = [i for i, run in enumerate(runs) if run in self.facts]
        columns = [_series(ragged) for ragged in series]
        if len(known) < len(runs) or any(runs[i] in parents.lines for i in known):
            columns = [
                _joined([parents.history(runs[i], name, _part(column, i)) for i in known])
                for name, column in zip(names, columns, strict=True)
            ]
        ids = [runs[i] for i in known]
        rates = columns[1] if len(columns) > 1 else None
        return CurveBatch(self, ids, *columns[0], rates)


_Points = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
_Column = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]
]  # offsets, steps, values, tokens


@dataclass(frozen=True, slots=True)
class _Parents:
    """The runs that others branched off: lines of descent, and points by run and series."""

    lines: dict[str, list[tuple[str, int | None]]] = field(default_factory=dict)
    points: dict[tuple[str, str], _Points] = field(default_factory=dict)

    def history(self, run: str, name: str, own: _Points) -> _Points:
        """Return points from the very start; a parent ends where its child begins or branched."""
        if run not in self.lines:
            return own
        parts = [own]
        first = int(own[0][0]) if own[0].size else None
        for parent, until in self.lines[run]:
            points = self.points.get((parent, name))
            if points is None:
                continue
            ends = [step for step in (until, first) if step is not None]
            if ends:
                count = int(np.searchsorted(points[0], min(ends)))
                points = tuple(column[:count] for column in points)  # type: ignore[assignment]
            if points[0].size:
                first = int(points[0][0])
            parts.append(points)
        return tuple(np.concatenate(column) for column in zip(*reversed(parts), strict=True))  # type: ignore[return-value]


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
    rates: _Column | None

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
        return _schedule(self.loader.floors.get(run), facts, planned, horizon, self.lr(i))

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


def _logged(archive: Archive, runs: Collection[str] | None) -> set[str]:
    """Return the names of all series that some runs logged."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = archive.runs(["series"])
    if runs is not None:
        table = table.filter(pc.is_in(table.column("run"), pa.array(sorted(runs), pa.string())))
    flat = pc.list_flatten(table.column("series"))
    return set(pc.unique(pc.struct_field(flat, "name")).to_pylist())


def _series(ragged: Ragged) -> _Column:
    return ragged.offsets, ragged.steps, ragged.values, ragged.tokens


def _part(column: _Column, i: int) -> _Points:
    part = slice(column[0][i], column[0][i + 1])
    return column[1][part], column[2][part], column[3][part]


def _joined(runs: list[_Points]) -> _Column:
    offsets = np.zeros(len(runs) + 1, np.int64)
    np.cumsum([run[0].size for run in runs], out=offsets[1:])
    if not runs:
        return offsets, np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    steps, values, tokens = (np.concatenate(column) for column in zip(*runs, strict=True))
    return offsets, steps, values, tokens


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


def _schedule(
    floor: float | None,
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
        and floor is not None
        and facts.lr
    ):
        declared = declared_schedule(
            facts.schedule,
            warmup_fraction=facts.warmup_steps / horizon,
            final_lr_fraction=floor / facts.lr,
        )
    return declared or logged
