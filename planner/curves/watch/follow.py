"""A growing log, read again when it has changed.

The log is read by the archive's readers, whatever its format, so what is watched is what would be
scored. A log that was cut short or rotated away keeps what was seen of it; one that starts over at
an earlier step replaces what it had logged from that step on, as the archive stitches restarts.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.archive import Archive, LogError, ingest, list_runs
from planner.archive.discover import discover
from planner.archive.store import is_archive
from planner.curves.curve import Curve, RunFacts
from planner.curves.errors import CurveError
from planner.curves.load import choose_metric, load_curves

if TYPE_CHECKING:
    from planner.archive import Mapping
    from planner.plan import Plan

# Reading may take this share of the time at most.
_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Told:
    """What the log does not say, told by the user.

    Attributes:
        metric: Series; see `planner.curves.choose_metric`.
        run: Id or name of the run, where the log holds several.
        steps: Steps of the whole run.
        params: N.
    """

    metric: str | None = None
    run: str | None = None
    steps: int | None = None
    params: int | None = None


class Follower:
    """Reads a log as it grows.

    Attributes:
        problem: Why the log could not be read when last looked at; empty if it could.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        told: Told | None = None,
        mapping: Mapping | None = None,
        plans: Sequence[Plan] = (),
    ) -> None:
        for path in paths:
            if is_archive(path):
                raise LogError(
                    "is an archive, wanted a log that grows; planner score judges archived runs",
                    file=os.fspath(path),
                )
        self._empty = LogError(
            "holds no run yet", file=", ".join(os.fspath(path) for path in paths)
        )
        self.problem = str(self._empty)
        self._paths = paths
        self._told = told or Told()
        self._mapping = mapping
        self._plans = plans
        self._signature: tuple[tuple[str, int, int, int], ...] = ()
        self._kept: Curve | None = None
        self._not_before = 0.0

    def poll(self) -> Curve | None:
        """Return the curve so far, or None if nothing can be read or nothing has changed.

        Raises:
            CurveError: The log holds several runs, or no usable metric: waiting will not help.
        """
        if time.monotonic() < self._not_before:
            return None
        try:
            signature = self._look()
        except LogError as error:
            self.problem = str(error)
            return None
        if signature == self._signature:
            return None
        started = time.monotonic()
        try:
            curve = self._read()
        except LogError as error:  # half of a document, while it is written
            self.problem = str(error)
            return None
        finally:
            now = time.monotonic()
            self._not_before = now + (now - started) / _SHARE
        self._signature = signature
        if curve is None:
            return None
        self.problem = ""
        self._kept = curve if self._kept is None else _stitched(self._kept, curve)
        return self._kept

    def _look(self) -> tuple[tuple[str, int, int, int], ...]:
        found = []
        for source in discover(self._paths).sources:
            if source.is_remote:
                found.append((source.path, -1, time.monotonic_ns(), 0))
                continue
            try:
                info = os.stat(source.path)
            except OSError:  # rotated away since
                continue
            found.append((source.path, info.st_size, info.st_mtime_ns, info.st_ino))
        return tuple(found)

    def _read(self) -> Curve | None:
        with tempfile.TemporaryDirectory(prefix="planner-watch-") as folder:
            report = ingest(self._paths, folder, mapping=self._mapping)
            archive = Archive(folder)
            records = list_runs(archive, columns=("run", "name", "series"), plans=self._plans)
            if not records:
                reasons = [*report.failed, *report.skipped]
                why = "; ".join(f"{name}: {reason}" for name, reason in reasons[:2])
                raise LogError(why) if why else self._empty
            metric = choose_metric(records, self._told.metric)
            batches = load_curves(archive, metric=metric, plans=self._plans)
            curves = [curve for batch in batches for curve in batch]
        return self._completed(self._chosen(curves))

    def _chosen(self, curves: list[Curve]) -> Curve:
        wanted = self._told.run
        if wanted is not None:
            curves = [c for c in curves if wanted in (c.facts.run, c.facts.name)]
            if not curves:
                raise CurveError(f"the log holds no run {wanted!r}", field="--run")
        if len(curves) > 1:
            names = ", ".join(c.facts.name for c in curves[:4])
            raise CurveError(
                f"the log holds {len(curves)} runs ({names}): say which by --run", field="--run"
            )
        return curves[0]

    def _completed(self, curve: Curve) -> Curve:
        told = self._told
        facts: RunFacts = curve.facts
        if told.params is not None:
            facts = replace(facts, params=told.params)
        if told.steps is None:
            return replace(curve, facts=facts)
        last = int(curve.steps[-1]) if curve.steps.size else 0
        if told.steps < last:
            raise CurveError(
                f"got {told.steps:,}, but the log is at step {last:,} already", field="--steps"
            )
        facts = replace(facts, total_steps=told.steps)
        return replace(curve, facts=facts, horizon=told.steps)


def _stitched(old: Curve, new: Curve) -> Curve:
    """Return what was seen before a log was cut, and what it holds now."""
    if not new.steps.size:
        return old
    if not old.steps.size or new.steps[0] <= old.steps[0]:
        return new
    keep = old.steps < new.steps[0]
    if not keep.any():
        return new
    rates = old.lr[0] < (new.lr[0][0] if new.lr[0].size else new.steps[0])
    facts = replace(new.facts, boundaries=tuple(sorted({*new.facts.boundaries, int(new.steps[0])})))
    return replace(
        new,
        facts=facts,
        steps=np.concatenate([old.steps[keep], new.steps]),
        values=np.concatenate([old.values[keep], new.values]),
        lr=(
            np.concatenate([old.lr[0][rates], new.lr[0]]),
            np.concatenate([old.lr[1][rates], new.lr[1]]),
        ),
        horizon=new.horizon or old.horizon,
        schedule=new.schedule or old.schedule,
    )
