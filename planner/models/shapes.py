"""The default shape rule: width and depth of a size known only by its parameter count."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from planner.models.architecture import Architecture, Shape, count_params, head_dim_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ASPECT = 50
"""Width over depth. Celerity's five sizes lie between 49 and 53 (arXiv 2509.25087 Table 2)."""

MAX_WIDTH = 65536


def rule_depth(d_model: int) -> float:
    """Return the depth, not rounded, that the rule gives a width: d_model / 50."""
    return d_model / ASPECT


def depths_near_rule(d_model: int, slack: float = 0.25) -> range:
    """Return the whole depths within ``slack`` of the rule, at least one."""
    exact = rule_depth(d_model)
    low = max(1, math.ceil(exact * (1 - slack)))
    return range(low, max(low, math.floor(exact * (1 + slack))) + 1)


def widths(architecture: Architecture, *, narrowest: int | None = None) -> Iterator[int]:
    """Yield the widths whose heads (and key-value groups) divide, ascending.

    Args:
        architecture: What the family's sizes share.
        narrowest: Where the head width is free, also offer widths that need heads this narrow.
    """
    width = 0
    while width < MAX_WIDTH:
        step = architecture.head_dim or narrowest or head_dim_for(max(64, width // 1024 * 1024))
        step *= architecture.kv_groups or 1
        width = (width // step + 1) * step
        yield width


def counted(architecture: Architecture, shape: Shape, convention: str) -> int:
    """Return the parameters that a convention counts: total, non_embedding, active or matrices."""
    return int(getattr(count_params(architecture, shape), convention))


@lru_cache(maxsize=4096)
def _thin_and_layer(architecture: Architecture, convention: str, width: int) -> tuple[int, int]:
    """Return the parameters of one layer with all that surrounds it, and of one more layer."""
    thin = counted(architecture, architecture.shape(width, 1), convention)
    return thin, counted(architecture, architecture.shape(width, 2), convention) - thin


def shape_for(
    architecture: Architecture, params: float, convention: str = "total", slack: float = 2.0
) -> Shape:
    """Return the shape nearest to a parameter count.

    The width is the one at which the rule's own depth comes nearest to the count; the depth is
    then the whole number of layers nearest to it that lies within ``slack`` of the rule (tiny
    sizes are mostly embedding, and depth alone would have to make up for too much). From
    Table 10's N this finds all five widths and depths of arXiv 2509.25087 Table 2.

    Args:
        architecture: What the family's sizes share.
        params: Parameters wanted.
        convention: Which parameters are counted.
        slack: How far, relatively, the depth may lie from the rule.

    Raises:
        ValueError: If even the smallest or the largest shape is far from the count.
    """
    best: tuple[float, int] | None = None
    for width in widths(architecture):
        thin, layer = _thin_and_layer(architecture, convention, width)
        count = thin + layer * (rule_depth(width) - 1)
        error = abs(math.log(count / params)) if count > 0 else math.inf
        if best is None or error < best[0]:
            best = (error, width)
        if count > 4 * params and width > 1024:
            break
    assert best is not None
    width = best[1]
    thin, layer = _thin_and_layer(architecture, convention, width)
    depths = depths_near_rule(width, slack)
    depth = min(max(round((params - thin) / layer) + 1, depths[0]), depths[-1])
    shape = architecture.shape(width, depth)
    found = counted(architecture, shape, convention)
    if abs(math.log(found / params)) > math.log(1.5):
        raise ValueError(
            f"no shape comes within half of {params:.4g} parameters: "
            f"the nearest, width {shape.d_model} and depth {shape.n_layers}, has {found:,}"
        )
    return shape
