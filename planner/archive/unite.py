"""One series from what several files say of it.

Two files may log the same numbers (a CSV file and TensorBoard events); a restarted run may write a
new file each time. The first are one and the same; the second are parts of one curve.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.archive.policies import Series

if TYPE_CHECKING:
    from collections.abc import Iterable

_AGREE = 1e-5  # relative: single precision, and what a CSV prints of it
_MOST = 0.9


@dataclass(slots=True)
class Part:
    """A series as one file tells it.

    Attributes:
        name: The archive's name of the quantity.
        logged_as: The log's own name.
        source: Name of the file.
        reader: Who read it.
        series: Its values.
        boundaries: Steps at which another file took over.
    """

    name: str
    logged_as: str
    source: str
    reader: str
    series: Series
    boundaries: list[int] = field(default_factory=list)


def unite(parts: Iterable[Part]) -> tuple[dict[str, Part], list[str]]:
    """Return one part for each name, and notes about what was dropped or joined."""
    by_name: dict[str, list[Part]] = {}
    for part in parts:
        by_name.setdefault(part.name, []).append(part)
    result: dict[str, Part] = {}
    notes: list[str] = []
    for name, several in by_name.items():
        filled = [part for part in several if len(part.series.steps)]
        result[name] = _one(filled, notes) if len(filled) > 1 else (filled or several)[0]
    return result, notes


def _one(parts: list[Part], notes: list[str]) -> Part:
    # the earlier part is the one that ends earlier; of two equal ones the longer counts
    kept: list[Part] = []
    for part in sorted(parts, key=lambda p: -len(p.series.steps)):
        fuller = next((k for k in kept if _covered(part.series, k.series)), None)
        if fuller is None:
            kept.append(part)
            continue
        same, both = _agreement(part.series, fuller.series)
        if both and same < both:
            notes.append(
                f"{part.name}: {part.source} and {fuller.source} differ at {both - same} of {both} "
                f"steps; the latter counts"
            )
    if len(kept) == 1:
        return kept[0]
    kept.sort(key=lambda p: (int(p.series.steps[-1]), int(p.series.steps[0]), p.source))
    joined = kept[0]
    for later in kept[1:]:
        joined = _stitched(joined, later)
    sources = list(dict.fromkeys(part.source for part in kept))
    if len(sources) > 1:
        notes.append(f"{joined.name}: stitched from {len(sources)} files")
    return joined


def _covered(part: Series, whole: Series) -> bool:
    """Return whether nearly all steps of a part are logged in another, with the same values."""
    if part.steps[-1] > whole.steps[-1]:
        return False
    same, both = _agreement(part, whole)
    return both >= _MOST * len(part.steps) and same >= _MOST * both


def _agreement(a: Series, b: Series) -> tuple[int, int]:
    """Return at how many common steps two series agree, and how many there are."""
    _, at, bt = np.intersect1d(a.steps, b.steps, return_indices=True)
    x, y = a.values[at], b.values[bt]
    close = np.isclose(x, y, rtol=_AGREE, atol=1e-12, equal_nan=True)
    return int(close.sum()), len(at)


def _stitched(first: Part, later: Part) -> Part:
    a, b = first.series, later.series
    start = int(b.steps[0])
    keep = a.steps < start
    dropped = len(keep) - int(keep.sum())
    segment = int(a.segments.max()) + 1 if a.segments is not None else 1
    series = replace(
        b,
        steps=np.concatenate([a.steps[keep], b.steps]),
        values=np.concatenate([a.values[keep], b.values]),
        tokens=_both(a.tokens, b.tokens, keep, len(b.steps)),
        segments=np.concatenate(
            [
                _or_zeros(a.segments, len(a.steps))[keep],
                _or_zeros(b.segments, len(b.steps)) + np.int32(segment),
            ]
        ),
        nonfinite=a.nonfinite + b.nonfinite - int(np.isnan(a.values[~keep]).sum()),
        duplicates=a.duplicates + b.duplicates,
        superseded=a.superseded + b.superseded + dropped,
        decimals=_coarsest(a.decimals, b.decimals),
        window=a.window if a.window == b.window else None,
    )
    return replace(first, series=series, boundaries=[*first.boundaries, start, *later.boundaries])


def _or_zeros(segments: np.ndarray | None, size: int) -> np.ndarray:
    return np.zeros(size, np.int32) if segments is None else segments


def _both(
    a: np.ndarray | None, b: np.ndarray | None, keep: np.ndarray, size: int
) -> np.ndarray | None:
    if a is None and b is None:
        return None
    first = np.full(int(keep.sum()), np.nan) if a is None else a[keep]
    return np.concatenate([first, np.full(size, np.nan) if b is None else b])


def _coarsest(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else max(a, b)
