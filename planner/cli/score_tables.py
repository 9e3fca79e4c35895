"""What ``planner score`` prints."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from planner.cli.columns import cut, fitted, print_text, terminal_width
from planner.units import count_of, format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.curves.bands import Alone, Band
    from planner.curves.scored import RunScore, Scored

_LISTED = 40  # runs of a band that are listed one by one
_NAME = 44
_INDENT = "  "
_VERDICT = 5  # its column
_SPARE = ("divisor", "allowed", "logged", "off by")  # left out where room is short, in this order
_SHARED = 3  # a reason that so many runs share is said once
_NUMBER = re.compile(r"\d[\d.,]*|\([^()]*\)")


def print_scores_json(scored: Scored) -> None:
    """Print the document of the schema ``planner.score/1``, a run a line: there may be many."""
    encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False).encode
    family = encode(_family(scored))
    sys.stdout.write(f'{{"schema": "planner.score/1", "family": {family}, "runs": [\n')
    last = len(scored.runs) - 1
    for i, run in enumerate(scored.runs):
        sys.stdout.write(encode(_run(run)) + (",\n" if i < last else "\n"))
    sys.stdout.write("]}\n")


def _run(score: RunScore) -> dict[str, Any]:
    found = {name: getattr(score, name) for name in score.__dataclass_fields__}
    found["causes"] = [asdict(cause) for cause in score.causes]
    return found


def _family(scored: Scored) -> dict[str, Any]:
    verdicts = Counter(run.verdict for run in scored.runs)
    by_band: dict[str, Counter[str]] = {}
    for run in scored.runs:
        by_band.setdefault(run.band, Counter())[run.verdict] += 1
    bands = []
    for band in scored.bands:
        counts = by_band.get(band.label, Counter())
        quality = scored.collapse.get(band.label)
        reference = scored.references.get(band.label)
        bands.append(
            {
                "band": band.label,
                "runs": len(band.rows),
                "healthy": counts["healthy"],
                "deviating": counts["deviating"],
                "undecidable": counts["undecidable"],
                "tpp": band.tpp,
                "tau": band.tau,
                "unknown": list(band.unknown),
                "reference": None if reference is None else [m.run for m in reference.members],
                "collapse": None if quality is None else asdict(quality),
            }
        )
    return {
        "metric": scored.metric,
        "alpha": scored.alpha,
        "runs": len(scored.runs),
        "healthy": verdicts["healthy"],
        "deviating": verdicts["deviating"],
        "undecidable": verdicts["undecidable"],
        "alone": None if scored.alone is None else asdict(scored.alone),
        "bands": bands,
        "outsiders": [asdict(outsider) for outsider in scored.outsiders],
        "hard_batches": [asdict(batch) for batch in scored.hard_batches],
    }


def print_scores(scored: Scored) -> None:
    """Print the bands with their runs, those that need attention first, and a summary."""
    names = _short_names([run.name for run in scored.runs])
    shown = dict(zip((run.run for run in scored.runs), names, strict=True))
    by_band: dict[str, list[RunScore]] = {}
    for run in scored.runs:
        by_band.setdefault(run.band, []).append(run)
    shared = _shared_reasons(scored.runs)
    numbers = {run: i for i, (_, runs) in enumerate(shared, 1) for run in runs}
    alone = []
    for band in scored.bands:
        runs = by_band.get(band.label, [])
        if len(runs) == 1 and len(scored.bands) > 5 and runs[0].verdict == "undecidable":
            alone.append(runs[0])
            continue
        _print_band(scored, band, runs, shown, numbers)
    if alone:
        print(f"alone in their bands, and undecidable: {count_of(len(alone), 'run')}\n")
    apart = [o for o in scored.outsiders if o.reasons and "its log differs" in o.reasons[0]]
    if apart:
        print("will not collapse, because the logs differ from the plan:")
        for outsider in apart[:_LISTED]:
            text = f"{shown[outsider.run]}: {outsider.reasons[0].partition(': ')[2]}"
            print_text(text, first=_INDENT, then=3 * _INDENT)
        print()
    if scored.hard_batches:
        steps = ", ".join(str(batch.step) for batch in scored.hard_batches[:8])
        more = f" and {len(scored.hard_batches) - 8} more" if len(scored.hard_batches) > 8 else ""
        print_text(f"hard batches, outliers that several runs share: steps {steps}{more}")
        print()
    counts = Counter(run.verdict for run in scored.runs)
    parts = [f"{counts[v]:,} {v}" for v in ("deviating", "healthy", "undecidable") if counts[v]]
    print(f"{scored.metric}, {count_of(len(scored.runs), 'run')}: {', '.join(parts)}")
    for i, (reason, those) in enumerate(shared, 1):
        text = f"[{i}] {count_of(len(those), 'run')} undecidable: {reason}"
        print_text(text, first=_INDENT, then=3 * _INDENT)
    if scored.alone is not None:
        print_text(_advice(scored.alone))


def _advice(alone: Alone) -> str:
    have = "has" if alone.runs == 1 else "have"
    text = (
        f"{count_of(alone.runs, 'run')} {have} no other of the same TPP, tau and schedule to be "
        "compared with"
    )
    if alone.group_by is None:
        return text
    return (
        f"{text}; --group-by {alone.group_by} would compare {alone.together:,} of them, across "
        "what differs"
    )


def _print_band(
    scored: Scored,
    band: Band,
    runs: Sequence[RunScore],
    shown: dict[str, str],
    numbers: dict[str, int],
) -> None:
    print(f"{band.label}: {count_of(len(runs), 'run')}")
    reference = scored.references.get(band.label)
    if reference is not None:
        sizes = reference.sizes
        text = ", ".join(format_count(size) for size in sizes) or "size unknown"
        print(f"  reference: {reference.name if reference.source != 'runs' else text}", end="")
        of = count_of(len(reference.members), "run")
        print(f" ({of})" if reference.source == "runs" else "")
    quality = scored.collapse.get(band.label)
    if quality is not None:
        interval = "" if quality.low is None else f" ({quality.low:.2%} to {quality.high:.2%})"
        floor = "" if quality.floor is None else f", noise floor {quality.floor:.2%}"
        print(f"  collapse: {quality.runs} finished runs within {quality.deviation:.2%}", end="")
        print(f"{interval}{floor}")
    order = {"deviating": 0, "undecidable": 1, "healthy": 2}
    listed = sorted(runs, key=lambda r: (order[r.verdict], r.name, r.run))
    if len(listed) > _LISTED:
        listed = [run for run in listed if run.verdict == "deviating"][:_LISTED]
    header = ("run", "logged", "divisor", "off by", "allowed", "verdict", "")
    rows: list[tuple[str, ...]] = [header]
    for run in listed:
        sign = "-" if run.direction == "below" else "+"
        rows.append(
            (
                shown[run.run],
                "" if run.at is None else f"{run.at:.0%}",
                "" if run.divisor is None else f"{run.divisor:.4f}",
                "" if run.deviation is None else f"{sign}{run.deviation:.2%}",
                "" if run.allowed is None else f"{run.allowed:.2%}",
                run.verdict if run.since is None else f"{run.verdict} since {run.since:.0%}",
                f"[{numbers[run.run]}]" if run.run in numbers else _why(run),
            )
        )
    if listed:
        _print_rows(rows)
    left = len(runs) - len(listed)
    if left:
        counts = Counter(run.verdict for run in runs)
        more = ", ".join(f"{n:,} {v}" for v, n in sorted(counts.items()) if v != "deviating")
        print(f"  and {more}" if more else f"  and {left:,} more")
    print()


def _shared_reasons(runs: Sequence[RunScore]) -> list[tuple[str, list[str]]]:
    """Return the reasons that several undecidable runs share, numbers aside, and whose they are.

    Said once below the tables; where the numbers differ, with those of the first run.
    """
    groups: dict[str, list[RunScore]] = {}
    for run in runs:
        if run.verdict == "undecidable":
            groups.setdefault(_NUMBER.sub("#", run.reason), []).append(run)
    found = []
    for group in groups.values():
        if len(group) < _SHARED:
            continue
        same = len({run.reason for run in group}) == 1
        reason = group[0].reason + ("" if same else " (the first of them)")
        found.append((reason, [run.run for run in group]))
    return sorted(found, key=lambda one: -len(one[1]))


def _why(run: RunScore) -> str:
    if run.causes:
        first = run.causes[0]
        return f"{first.cause} ({first.weight:.0%}): {first.evidence}"
    off = run.deviation is not None and run.deviation > (run.allowed or 0.0)
    return run.reason if run.verdict != "healthy" or off else ""


def _print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    """Print runs, one a line; what is said of one goes below it where there is no room beside."""
    width = terminal_width()
    room = None if width is None else width - len(_INDENT)
    kept, widths = fitted([row[:-1] for row in rows], room, name=0, spare=_SPARE)
    for row in rows:
        cells = []
        for i, w in zip(kept, widths, strict=True):
            cells.append(cut(row[i], w).ljust(w) if i in (0, _VERDICT) else row[i].rjust(w))
        line, why = _INDENT + "  ".join(cells), row[-1]
        if width is None or len(f"{line}  {why}".rstrip()) <= width:
            print(f"{line}  {why}".rstrip())
            continue
        print(line.rstrip())
        print_text(why, first=3 * _INDENT, then=3 * _INDENT)


def _short_names(names: Sequence[str]) -> list[str]:
    """Return names without the folders that all have in common, and without their middles."""
    parts = [name.split("/") for name in names]
    common = 0
    while parts and all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts):
        common += 1
    found = []
    for part in parts:
        name = "/".join(part[common:])
        found.append(name if len(name) <= _NAME else f"{name[:20]}...{name[23 - _NAME :]}")
    return found
