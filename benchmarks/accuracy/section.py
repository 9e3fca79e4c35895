"""What one part of the accuracy report holds; `python benchmarks/accuracy` prints all of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """A figure that was wanted, and what was measured.

    Attributes:
        name: What is measured.
        wanted: In words and numbers, such as "at most 0.20 %".
        got: Likewise.
        met: Whether it is.
    """

    name: str
    wanted: str
    got: str
    met: bool


@dataclass(frozen=True)
class Table:
    """A table; every cell is text."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One part of the report: what was done, tables, and what was wanted of it.

    Attributes:
        title: Heading.
        text: How it was measured, in Markdown.
        tables: Tables in order.
        targets: Targets in order.
        figures: The same as numbers, for whoever reads the JSON.
    """

    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
