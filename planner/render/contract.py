"""What a target can express: by itself, by an exact rewriting, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

How = Literal["native", "absorbed", "refused", "by itself"]


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a plan can ask for and what the target does about it.

    Attributes:
        feature: What is asked for.
        how: ``native`` if the target has a setting for it; ``absorbed`` if an exact rewriting
            carries it (AdamW's symmetry, see `planner.render.symmetry`); ``refused`` if rendering
            stops with a reason; ``by itself`` for what the target does unasked and the rendering
            therefore takes out or states.
        note: How, in one sentence.
    """

    feature: str
    how: How
    note: str


@dataclass(frozen=True, slots=True)
class Contract:
    """What one trainer, in the version named, can run."""

    trainer: str
    version: str
    summary: str
    capabilities: tuple[Capability, ...]

    def of(self, how: How) -> tuple[Capability, ...]:
        """Return the capabilities of one kind."""
        return tuple(item for item in self.capabilities if item.how == how)
