"""Logs in: look at every file, then read and write bucket by bucket.

Nothing is read twice for nothing: what the archive holds of the same bytes, read in the same way,
stays. Each bucket is written once, so memory holds a part of one bucket for each worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from planner.archive.ahead import Ahead
from planner.archive.assemble import Group, assemble, unit_id
from planner.archive.discover import discover
from planner.archive.front import Report
from planner.archive.lineage import link_parents
from planner.archive.names import group_key, printable
from planner.archive.pool import Pool
from planner.archive.rules import Mapping
from planner.archive.sidecar import Beside, why_unread
from planner.archive.store import Archive, bucket_of
from planner.archive.survey import Surveyed, survey
from planner.errors import PlannerError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from planner.archive.discover import Found
    from planner.archive.front import Progress
    from planner.archive.points_file import Stored
    from planner.archive.source import Source

_BATCH = 64


def take_in(
    found: Found,
    archive: str | os.PathLike[str],
    mapping: Mapping | None,
    policy: dict[str, str] | None,
    pool: Pool,
    progress: Progress | None,
) -> Report:
    """Read the files that were found into an archive; `planner.archive.ingest` says how."""
    rules = (mapping or Mapping()).with_policy(policy)
    target = Archive.create(archive)
    report = Report(files=len(found.sources), failed=list(found.failed))
    tell = progress or _silent
    surveyed = _survey_all(found.sources, rules, found.named, pool, tell)
    _keep_plans(surveyed, target, report)
    groups = _groups(surveyed, report)
    waiting = _new(groups, target, report)
    _read_all(waiting, target, pool, tell, report)
    link_parents(target)
    report.added.sort()
    report.replaced.sort()
    report.skipped.sort()
    report.failed.sort()
    return report


@dataclass(slots=True)
class Inspected:
    """What an ingest would read.

    Attributes:
        surveyed: Every file, looked at.
        runs: The runs that would be in the archive.
        failed: Name and reason of each file that should be a log and cannot be read.
    """

    surveyed: list[Surveyed]
    runs: list[Stored]
    failed: list[tuple[str, str]]


def inspect(
    paths: Sequence[str | os.PathLike[str]],
    *,
    mapping: Mapping | None = None,
    policy: dict[str, str] | None = None,
) -> Inspected:
    """Say what would be read, and why not, changing nothing.

    Raises:
        LogError: If a path does not exist.
        MappingError: If a policy has an unknown name or value.
    """
    rules = (mapping or Mapping()).with_policy(policy)
    found = discover(paths)
    report = Report(failed=list(found.failed))
    with Pool(1) as pool:
        surveyed = _survey_all(found.sources, rules, found.named, pool, _silent)
    runs: list[Stored] = []
    for group in _groups(surveyed, report):
        assembled = assemble(group)
        for stored in assembled.runs:
            # a row is what is shown; the points of many runs would fill the memory
            runs.append(replace(stored, steps=stored.steps[:0], values=stored.values[:0]))
        report.failed.extend(assembled.failed)
    runs.sort(key=lambda stored: (stored.row["name"], stored.row["run"]))
    return Inspected(surveyed, runs, sorted(report.failed))


def _silent(stage: str, done: int, total: int, /) -> None:
    pass


def _keep_plans(surveyed: list[Surveyed], archive: Archive, report: Report) -> None:
    for item in surveyed:
        if item.status == "plan":
            from planner.plan import read_plan

            try:
                archive.keep_plan(read_plan(item.source.path))
            except PlannerError as error:
                report.failed.append((printable(item.source.name), error.message))
            else:
                report.plans += 1


def _survey_all(
    sources: list[Source], mapping: Mapping, named: set[str], pool: Pool, tell: Progress
) -> list[Surveyed]:
    result: list[Surveyed] = []
    parts = [sources[i : i + _BATCH] for i in range(0, len(sources), _BATCH)]
    jobs = [(part, mapping, {s.path for s in part} & named) for part in parts]
    done: dict[int, list[Surveyed]] = {}
    for number, found in pool.run(_survey_some, jobs):
        done[number] = found
        tell("looking", sum(map(len, done.values())), len(sources))
    for number in sorted(done):
        result.extend(done[number])
    return _unread_told(result)


def _unread_told(surveyed: list[Surveyed]) -> list[Surveyed]:
    """Return what was looked at; a sidecar that describes no log is one that fails."""
    if not any(item.status == "beside" for item in surveyed):
        return surveyed
    logs = {item.source.path for item in surveyed if item.status in ("log", "failed")}
    told = []
    for item in surveyed:
        reason = why_unread(item.source.path, logs) if item.status == "beside" else None
        told.append(item if reason is None else replace(item, status="failed", reason=reason))
    return told


def _survey_some(job: tuple[list[Source], Mapping, set[str]]) -> list[Surveyed]:
    sources, mapping, named = job
    beside = Beside()
    return [survey(source, mapping, source.path in named, beside) for source in sources]


def _groups(surveyed: Iterable[Surveyed], report: Report) -> list[Group]:
    """Return the logs, those of one run together, in order of their keys; note the others."""
    together: dict[str, list[Surveyed]] = {}
    for item in surveyed:
        name = printable(item.source.name)
        if item.status == "failed":
            report.failed.append((name, item.reason))
        elif item.status == "skipped":
            report.skipped.append((name, item.reason))
        elif item.status == "log":
            key = item.applied.run or group_key(item.source.name)
            together.setdefault(key, []).append(item)
    return [Group(key, unit_id(key), tuple(together[key])) for key in sorted(together)]


def _new(groups: list[Group], archive: Archive, report: Report) -> list[Group]:
    """Return what the archive does not hold yet, under the unit it is to have there."""
    rows = archive.rows(["unit", "settings", "content"])
    units: dict[str, tuple[frozenset[str], str, int]] = {}
    owners: dict[str, set[str]] = {}
    for row in rows:
        unit, settings, digests = row["unit"], row["settings"], frozenset(row["content"])
        runs = units[unit][2] + 1 if unit in units else 1
        units[unit] = (digests, settings, runs)
        for digest in digests:
            owners.setdefault(digest, set()).add(unit)
    waiting: list[Group] = []
    seen: dict[frozenset[str], str] = {}
    for group in groups:
        digests = frozenset(group.content)
        if digests in seen:
            names = ", ".join(printable(item.source.name) for item in group.files)
            report.skipped.append((names, f"holds the same bytes as {printable(seen[digests])}"))
            continue
        seen[digests] = group.key
        candidates = set().union(*(owners.get(digest, ()) for digest in digests))
        for unit in sorted(candidates, key=lambda u: (u != group.unit, u)):
            held, settings, runs = units[unit]
            if held == digests and settings == group.settings:
                report.unchanged += runs
                break
            if held <= digests or digests < held:
                # the same files, wherever they lie now; more of them, or read in another way
                if digests < held:
                    report.unchanged += runs
                else:
                    waiting.append(replace(group, unit=unit))
                break
        else:
            waiting.append(group)
    return waiting


@dataclass(slots=True)
class _Done:
    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    points: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    files: int = 0
    others: list[Group] = field(default_factory=list)


def _read_all(
    waiting: list[Group], archive: Archive, pool: Pool, tell: Progress, report: Report
) -> None:
    total = sum(len(group.files) for group in waiting)
    finished = 0
    while waiting:
        buckets: dict[int, list[Group]] = {}
        for group in waiting:
            buckets.setdefault(bucket_of(group.unit), []).append(group)
        jobs = [(str(archive.path), bucket, buckets[bucket]) for bucket in sorted(buckets)]
        waiting = []
        for _, done in pool.run(_read_bucket, jobs):
            report.added.extend(done.added)
            report.replaced.extend(done.replaced)
            report.failed.extend(done.failed)
            report.points += done.points
            finished += done.files
            waiting.extend(done.others)
            tell("reading", finished, total)


def _read_bucket(job: tuple[str, int, list[Group]]) -> _Done:
    path, bucket, groups = job
    done = _Done()
    groups = sorted(groups, key=lambda group: group.unit)  # as the archive asks for them
    ahead = Ahead(groups)
    readers = {group.unit: _reading(group, done, ahead) for group in groups}
    Archive(path).update(bucket, readers)
    return done


def _reading(group: Group, done: _Done, ahead: Ahead) -> Any:
    def read(held: list[dict[str, Any]]) -> list[Stored] | None:
        assembled = assemble(group, ahead)
        runs = assembled.runs
        same_bytes = any(set(row["content"]) & set(group.content) for row in held)
        if runs and held and not same_bytes and not _continues(held, runs):
            # another run whose files have the same names: it gets a place of its own
            other = unit_id(group.key, " ".join(sorted(group.content)))
            done.others.append(replace(group, unit=other))
            return None
        done.failed.extend(assembled.failed)
        done.files += len(group.files)
        if not runs:
            return None
        names = [stored.row["name"] for stored in runs]
        (done.replaced if held else done.added).extend(names)
        done.points += sum(stored.row["points"] for stored in runs)
        return runs

    return read


def _continues(held: list[dict[str, Any]], runs: list[Stored]) -> bool:
    """Return whether runs begin as those of the archive do: the same log, that has grown."""
    before = {row["run"]: row for row in held}
    common = [stored.row for stored in runs if stored.row["run"] in before]
    return any(_begins_alike(before[row["run"]], row) for row in common)


def _begins_alike(old: dict[str, Any], new: dict[str, Any]) -> bool:
    first = {s["name"]: (s["first_step"], s["first"]) for s in old["series"]}
    both = [s for s in new["series"] if s["name"] in first]
    # other runs may well begin at the same learning rate, none at the same loss
    telling = [s for s in both if s["name"].endswith("loss")] or both
    return bool(telling) and all(first[s["name"]] == (s["first_step"], s["first"]) for s in telling)
