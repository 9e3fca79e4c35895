"""The accelerator table: peak dense bf16 FLOP/s and memory of one device, with sources."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from planner.documents import read_document


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device.

    Attributes:
        name: What specs call it.
        peak_flops: Dense bf16 (or fp16) operations a second.
        memory_bytes: Memory on the device.
        weights_external: Whether weights and optimizer state live outside the device.
        source: Where the figures come from.
        confidence: verified or recalled.
    """

    name: str
    peak_flops: float
    memory_bytes: int
    weights_external: bool
    source: str
    confidence: str


@cache
def accelerators() -> dict[str, Accelerator]:
    """Return the accelerators by name."""
    table = read_document(Path(__file__).with_name("accelerators.yaml")).value["accelerators"]
    return {
        name: Accelerator(
            name=name,
            peak_flops=float(row["peak_flops"]),
            memory_bytes=int(row["memory_bytes"]),
            weights_external=bool(row.get("weights_external", False)),
            source=str(row["source"]),
            confidence=str(row["confidence"]),
        )
        for name, row in table.items()
    }
