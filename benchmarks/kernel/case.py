"""What a workload's module offers: `cases(quick) -> list[Case]`.

Or, where the cases need rounds of their own: `program(quick) -> Program`, which prints its table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

OURS = "planner"


@dataclass(frozen=True)
class Case:
    """One peer on one task. Cases of the same `name` do the same task.

    run: does the work once and returns the result; it uses one thread.
    units: work done by one call (points, fits, ...), so that a slow peer may do a part of it.
    check: the result's agreement with the reference, or its objective; one number, in `checks`.
    target: how many times our throughput must be this peer's; None: shown, not demanded.
    limit: the largest value that `check` may return; None: no limit.
    """

    name: str
    peer: str
    run: Callable[[], Any]
    units: float
    check: Callable[[Any], float] = lambda result: float("nan")
    unit: str = "points"
    checks: str = "largest difference"
    target: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Goal:
    """How many times a peer's throughput ours was, and how many times it was to be."""

    name: str
    peer: str
    ratio: float
    target: float

    @property
    def met(self) -> bool:
        return self.ratio >= self.target


@dataclass(frozen=True)
class Program:
    """What a workload with rounds of its own measured: rows for JSON, and what was demanded."""

    rows: list[dict[str, Any]]
    goals: list[Goal]


class Peers:
    """Packages to compare with; those that do not import are skipped, with the reason."""

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}

    def get(self, name: str) -> ModuleType | None:
        """The package, or None when it does not import."""
        try:
            return importlib.import_module(name)
        except Exception as error:  # a peer may fail in any way
            self.skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            return None


peers = Peers()
