"""From the files of one run to the run as the archive keeps it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.archive.errors import LogError
from planner.archive.metadata import FACTS, Metadata
from planner.archive.names import canonical_names, default_metric, printable, run_name, unit_of
from planner.archive.points_file import Stored
from planner.archive.policies import Repaired, Series, repair
from planner.archive.readers import reader_named
from planner.archive.readers.protocol import Log
from planner.archive.rules import canonical_json
from planner.archive.survey import unexpected
from planner.archive.unite import Part, unite

if TYPE_CHECKING:
    from planner.archive.ahead import Ahead
    from planner.archive.record import LoggedRun, Values
    from planner.archive.survey import Surveyed

_VERSION = 2  # raised when what readers return becomes other runs, so that logs are read again
_MAX_SERIES = 20_000
_MAX_NOTES = 50


@dataclass(frozen=True, slots=True)
class Group:
    """Files that together tell of the same runs.

    Attributes:
        key: What they have in common: the path without generic file names and endings.
        unit: Digest of the key, as hexadecimal digits; says where the archive keeps the runs.
        files: The files, in order of their names.
    """

    key: str
    unit: str
    files: tuple[Surveyed, ...]

    @property
    def content(self) -> list[str]:
        """Digests of the files."""
        return [item.digest for item in self.files]

    @property
    def settings(self) -> str:
        """Digest of all that decides how the files are read, besides their bytes."""
        parts = [
            (
                (item.reader, item.version, _VERSION),
                (item.applied.facts, item.applied.fields),
                tuple(asdict(item.applied.policy).values()),
                (item.sidecar.declared, item.sidecar.said, item.sidecar.digest),
            )
            for item in self.files
        ]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


@dataclass(slots=True)
class Assembled:
    """What the files of a group hold.

    Attributes:
        runs: The runs, each with points.
        failed: Name and reason of each file that could not be read.
        read: Names of the files that could.
    """

    runs: list[Stored] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    read: list[str] = field(default_factory=list)


def unit_id(key: str, extra: str = "") -> str:
    """Return the unit of a key; with ``extra`` another one of the same bucket."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    if not extra:
        return digest
    other = hashlib.sha256(f"{digest} {extra}".encode()).hexdigest()
    return digest[:2] + other[2:]


def assemble(group: Group, ahead: Ahead | None = None) -> Assembled:
    """Read the files of a group; what cannot be read is said, not raised.

    Args:
        group: The files.
        ahead: What of them, and of other groups, is read together; each is read by itself if None.
    """
    result = Assembled()
    by_label: dict[str, list[tuple[Surveyed, LoggedRun]]] = {}
    for item in group.files:
        name = printable(item.source.name)
        try:
            logged = ahead.take(item) if ahead is not None else None
            if logged is None:
                reader = reader_named(item.reader)
                logged = reader.read(Log(item.source.fresh(), dict(item.applied.fields)))
            if not any(
                len(table.steps) and table.columns for run in logged for table in run.tables
            ):
                raise LogError("holds no points")
        except LogError as error:
            result.failed.append((name, error.message))
            continue
        except Exception as error:  # a hostile file must not stop the others
            result.failed.append((name, f"cannot be read: {unexpected(error)}"))
            continue
        result.read.append(name)
        for run in logged:
            by_label.setdefault(run.label, []).append((item, run))
    for label in sorted(by_label):
        try:
            stored = _run(group, label, by_label[label])
        except Exception as error:
            for item, _ in by_label[label]:
                reason = f"cannot be read: {unexpected(error)}"
                result.failed.append((printable(item.source.name), reason))
            continue
        if stored is not None:
            result.runs.append(stored)
    return result


def _run(group: Group, label: str, logged: list[tuple[Surveyed, LoggedRun]]) -> Stored | None:
    parts, notes, done = _parts(logged)
    series, united = unite(parts)
    notes.extend(united)
    series = {name: kept for name, kept in series.items() if len(kept.series.steps)}
    if not series:
        return None
    if len(series) > _MAX_SERIES:
        raise LogError(f"has {len(series):,} series, wanted at most {_MAX_SERIES:,}")
    names = sorted(series)
    first = [series[name].series for name in names]
    metadata = _metadata(logged, dict(zip(names, first, strict=True)))
    run_id = hashlib.sha256(f"{group.unit}\n{label}".encode("utf-8", "surrogatepass"))
    name = run_name(group.key)
    own = next((run.name for _, run in logged if run.name), None)
    if label:
        name = f"{name}/{label}"
    elif own is not None:
        name = name[: name.rfind("/") + 1] + own
    facts = metadata.facts
    policy = logged[0][0].applied.policy
    starts = [boundary for repaired in done for boundary in repaired.boundaries]
    starts += [boundary for name in names for boundary in series[name].boundaries]
    rows = [_series_row(n, series[n]) for n in names]
    metric = default_metric(names)
    final, diverged_step = (None, None) if metric is None else _ending(series[metric].series)
    row: dict[str, Any] = {
        "run": run_id.hexdigest()[:16],
        "name": printable(name),
        **{fact: facts.get(fact) for fact in FACTS},
        "parent_run": None,
        "branch_step": None,
        "resumed_from": next(
            (printable(r.resumed_from) for _, r in logged if r.resumed_from), None
        ),
        "metric": metric,
        "final": final,
        "diverged_step": diverged_step,
        "points": sum(len(s.steps) for s in first),
        "first_step": min(int(s.steps[0]) for s in first),
        "last_step": max(int(s.steps[-1]) for s in first),
        "every": min(
            ((s.steps[-1] - s.steps[0]) / (len(s.steps) - 1) for s in first if len(s.steps) > 1),
            default=None,
        ),
        "boundaries": sorted(set(starts)),
        "series": rows,
        "unknown": metadata.unknown(),
        "notes": list(dict.fromkeys(notes))[:_MAX_NOTES],
        "sources": [printable(item.source.name) for item, _ in logged],
        "readers": sorted({f"{item.reader}/{item.version}" for item, _ in logged}),
        "policy": canonical_json(
            {
                **asdict(policy),
                "order": "by step",
                "out_of_order": any(repaired.out_of_order for repaired in done),
                "tokens_fell": sum(repaired.tokens_fell for repaired in done),
            }
        ),
        "origins": canonical_json(metadata.origins),
        "config": metadata.config_json(),
        "unit": group.unit,
        "settings": group.settings,
        "content": group.content,
        "sizes": [item.size for item in group.files],
    }
    return Stored(row, *_joined(first))


def _parts(
    logged: list[tuple[Surveyed, LoggedRun]],
) -> tuple[list[Part], list[str], list[Repaired]]:
    """Repair each table and give its series their names."""
    own = {name for _, run in logged for table in run.tables for name in table.columns}
    mapped = {ours: theirs for item, _ in logged for ours, theirs in item.applied.fields}
    names = canonical_names(own, {k: v for k, v in mapped.items() if k not in ("step", "tokens")})
    parts, notes, done = [], [], []
    for item, run in logged:
        source = printable(item.source.name)
        notes.extend(run.notes)
        for table in run.tables:
            repaired = repair(table, item.applied.policy)
            done.append(repaired)
            if repaired.boundaries:
                at = ", ".join(map(str, repaired.boundaries[:5]))
                more = len(repaired.boundaries) - 5
                notes.append(f"restarted at step {at}" + (f" and {more} more" if more > 0 else ""))
            if repaired.out_of_order:
                notes.append("parts stood out of order")
            if repaired.tokens_fell:
                notes.append(f"tokens went back {repaired.tokens_fell} times")
            for name, series in repaired.series.items():
                parts.append(Part(names[name], name, source, item.reader, series))
    return parts, notes, done


def _metadata(logged: list[tuple[Surveyed, LoggedRun]], series: dict[str, Series]) -> Metadata:
    metadata = Metadata()
    for item, _ in logged:
        metadata.override(dict(item.applied.facts), "mapping file")
        metadata.override(dict(item.sidecar.declared), "sidecar")
    for _, run in logged:
        metadata.learn(run.config, "log")
    for item, _ in logged:
        for beside, said in item.sidecar.said:
            metadata.learn(dict(said), beside)
    rate = series.get("lr")
    if rate is not None and "lr" not in metadata.facts:
        known = rate.values[np.isfinite(rate.values)]
        # while it still rises, its peak is to come
        if len(known) and (known[-1] < known.max() or known.max() == known.min() > 0):
            metadata.state("lr", float(known.max()), "derived: largest logged lr")
    metadata.derive()
    return metadata


def _series_row(name: str, kept: Part) -> dict[str, Any]:
    series = kept.series
    return {
        "name": name,
        "logged_as": printable(kept.logged_as),
        "source": kept.source,
        "unit": unit_of(name),
        "points": len(series.steps),
        "nonfinite": series.nonfinite,
        "duplicates": series.duplicates,
        "superseded": series.superseded,
        "first_step": int(series.steps[0]),
        "last_step": int(series.steps[-1]),
        "first": _first_finite(series.values),
        "last": _first_finite(series.values[::-1]),
        "decimals": series.decimals,
        "window": series.window,
    }


def _ending(series: Series) -> tuple[float | None, int | None]:
    """Return the last value, or else the step from which on no value is finite."""
    lost = ~np.isfinite(series.values)
    if not lost[-1]:
        return float(series.values[-1]), None
    finite = np.flatnonzero(~lost)
    return None, int(series.steps[finite[-1] + 1 if len(finite) else 0])


def _first_finite(values: Values) -> float | None:
    if math.isfinite(values[0]):
        return float(values[0])
    finite = np.flatnonzero(np.isfinite(values))
    return float(values[finite[0]]) if len(finite) else None


def _joined(series: list[Series]) -> tuple[Any, Any, Any, Any]:
    steps = np.concatenate([s.steps for s in series])
    values = np.concatenate([s.values for s in series])
    tokens = segments = None
    if any(s.tokens is not None and np.isfinite(s.tokens).any() for s in series):
        tokens = np.concatenate(
            [np.full(len(s.steps), np.nan) if s.tokens is None else s.tokens for s in series]
        )
    if any(s.segments is not None and s.segments.any() for s in series):
        segments = np.concatenate(
            [np.zeros(len(s.steps), np.int32) if s.segments is None else s.segments for s in series]
        )
    return steps, tokens, values, segments
