"""Which run branched off which: cooldowns off a run at constant learning rate."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from planner.archive.store import bucket_of

if TYPE_CHECKING:
    from planner.archive.store import Archive

# What a branch shares with the run that it branches off.
_SHARED = (
    "params",
    "batch_tokens",
    "seq_len",
    "lr",
    "weight_decay",
    "warmup_steps",
    "seed",
    "optimizer",
    "tokenizer",
)
# Settings that a shared model and data order cannot differ in, where a log says them.
_ALIKE = ("model", "dataset", "data_seed", "n_layer", "n_embd", "n_head", "vocab_size", "dropout")
_COLUMNS = ("run", "unit", "first_step", "last_step", "every", "warmup_steps", "schedule")
_LINKS = ("parent_run", "branch_step")
_FULL = ("name", "total_steps", "resumed_from", "config")
_CONSTANT = {"wsd", "constant", "trapezoidal", "stable", "wsd_linear", "constant_with_warmup"}


def link_parents(archive: Archive) -> int:
    """Link each run that starts late to the run that it branched off; return how many changed.

    A run starts late if its first step is beyond twice the distance of its first two logged steps
    and beyond its warmup. Its parent is the one that it says it was resumed from; or else the one
    run with the same model, batch, peak LR, decay and seeds that was logged up to that step from
    the start, at constant LR: if several were, the one that was logged longest.

    Raises:
        ArchiveError: If the archive is damaged or cannot be written.
    """
    light = archive.rows([*_COLUMNS, *_LINKS])
    if not any(_late(row) or row["parent_run"] is not None for row in light):
        return 0  # as most archives: their configurations need not be read
    rows = archive.rows([*_COLUMNS, *_SHARED, *_LINKS, *_FULL])
    for row in rows:
        row["config"] = json.loads(row["config"] or "{}")
    starts: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        starts.setdefault(_traits(row), []).append(row)
    changes: dict[int, dict[str, tuple[str | None, int | None]]] = {}
    by_name: dict[str, dict[str, Any]] = {}
    for row in rows:
        by_name.setdefault(row["name"].rpartition("/")[2], row)
    for row in rows:
        found = _parent(row, starts, by_name)
        link = (found["run"], _branch_step(row)) if found is not None else (None, None)
        if link != (row["parent_run"], row["branch_step"]):
            changes.setdefault(bucket_of(row["unit"]), {})[row["run"]] = link
    for bucket in sorted(changes):
        archive.link(bucket, changes[bucket])
    return sum(map(len, changes.values()))


def _traits(row: dict[str, Any]) -> tuple[Any, ...]:
    config = row["config"]
    return (
        *(row[name] for name in _SHARED),
        *(json.dumps(config.get(name), sort_keys=True) for name in _ALIKE),
    )


def _branch_step(row: dict[str, Any]) -> int:
    return int(row["first_step"])


def _late(row: dict[str, Any]) -> bool:
    first, every = row["first_step"], row["every"]
    return bool(every and first > 2 * every and first > (row["warmup_steps"] or 0))


def _parent(
    row: dict[str, Any],
    starts: dict[tuple[Any, ...], list[dict[str, Any]]],
    by_name: dict[str, dict[str, Any]],
) -> dict[str, Any] | None:
    if not _late(row):
        return None
    said = row["resumed_from"] or row["config"].get("resume_from") or ""
    for part in reversed(str(said).split("/")):
        named = by_name.get(part)
        if named is not None and named["run"] != row["run"] and _reaches(named, row):
            return named
    if row["params"] is None or row["lr"] is None:
        return None  # too little is known to tell runs from one another
    able = [
        other
        for other in starts[_traits(row)]
        if other["run"] != row["run"]
        and not _late(other)
        and (other["schedule"] or "").lower() in _CONSTANT
        and _reaches(other, row)
        and _constant_until(other) >= row["first_step"]
    ]
    return min(able, key=lambda o: (-o["last_step"], o["name"], o["run"]), default=None)


def _reaches(other: dict[str, Any], row: dict[str, Any]) -> bool:
    apart = max(1, row["first_step"] // 10)
    return bool(
        other["first_step"] < row["first_step"] and other["last_step"] + apart >= row["first_step"]
    )


def _constant_until(row: dict[str, Any]) -> float:
    """Return the step at which a run's cooldown begins, as far as its configuration says."""
    config = row["config"]
    total = row["total_steps"]
    for name in ("cooldown_fraction", "wsd_fract_decay", "fract_decay", "decay_fraction"):
        fraction = config.get(name)
        if isinstance(fraction, (int, float)) and total:
            return float(total) * (1 - min(1.0, max(0.0, float(fraction)))) + 1
    return float(row["last_step"])
