"""What the passes work on: the family's context, a size, and the draft of one run.

All are frozen; a pass returns a new draft. A draft carries its trail (where each number came from)
and notes (what a reader should be warned about).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from planner.plan.model import Provenance

if TYPE_CHECKING:
    from planner.laws.law import Law
    from planner.models.accelerators import Accelerator
    from planner.models.architecture import Architecture, ParamCount, Shape
    from planner.models.parametrization import BaseValues
    from planner.plan.model import Experts, Flops, Predicted, Tensor
    from planner.spec.load import Declared
    from planner.spec.model import Spec
    from planner.spec.quantities import BatchSize


@dataclass(frozen=True, slots=True)
class LawBook:
    """The laws a family uses, by role; None where the spec gives a value instead."""

    tau: Law | None
    batch: Law | None
    tau_optimal: Law
    batch_optimal: Law
    batch_critical: Law
    loss: Law
    compression: Law


@dataclass(frozen=True, slots=True)
class Context:
    """What all runs of a family share.

    Attributes:
        declared: The spec and where its values stand.
        architecture: What all sizes share.
        base: Base hyperparameters and base shape.
        decay: Coupled or independent weight decay.
        params_convention: Which parameters N counts.
        laws: The laws in use.
        accelerator: The device costed on, if any.
        mfu: Model FLOPs utilization assumed, if any.
        devices: Devices of one run, if known.
        warnings: What was assumed for the whole family.
    """

    declared: Declared
    architecture: Architecture
    base: BaseValues
    decay: str
    params_convention: str
    laws: LawBook
    accelerator: Accelerator | None
    mfu: float | None
    devices: int | None
    warnings: tuple[str, ...]

    @property
    def spec(self) -> Spec:
        """The validated spec."""
        return self.declared.spec


@dataclass(frozen=True, slots=True)
class SizePlan:
    """One size of the family.

    Attributes:
        name: What it is called.
        shape: Its shape.
        counts: Its parameters.
        n: The parameters that the plan's convention counts.
        asked_params: The count asked for, if it came from one.
        batch: The batch declared for this size, if any.
        trail: Where the shape came from.
        notes: What a reader should be warned about.
    """

    name: str
    shape: Shape
    counts: ParamCount
    n: int
    asked_params: float | None = None
    batch: BatchSize | None = None
    trail: dict[str, Provenance] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """A warning about one run; notes with the same key are told once for all their runs."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Draft:
    """One run while it is compiled; each pass fills its own fields."""

    size: SizePlan
    tpp_asked: float
    tokens_asked: float = 0.0
    batch_asked: float = 0.0
    batch_sequences: int = 0
    data_parallel: int | None = None
    micro: int | None = None
    accumulation: int | None = None
    steps: int = 0
    warmup_steps: int = 0
    final_lr_fraction: float = 0.0
    decay_fraction: float = 1.0
    tau_asked: float | None = None
    weight_decay: float = 0.0
    tensors: tuple[Tensor, ...] = ()
    width_ratio: float = 1.0
    ffn_ratio: float = 1.0
    depth_ratio: float = 1.0
    optimal_batch: float | None = None
    critical_batch: float | None = None
    tau_optimal: float | None = None
    experts: Experts | None = None
    flops: Flops | None = None
    predicted: Predicted | None = None
    trail: dict[str, Provenance] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    def batch_tokens(self, seq_len: int) -> int:
        """Return tokens a step."""
        return self.batch_sequences * seq_len

    def tokens(self, seq_len: int) -> int:
        """Return tokens of the whole run: steps x batch, exactly."""
        return self.steps * self.batch_tokens(seq_len)

    def filled(
        self, trail: dict[str, Provenance], notes: tuple[Note | None, ...] = (), **fields: Any
    ) -> Draft:
        """Return the draft with fields set, and their trail and notes added."""
        kept = tuple(note for note in notes if note is not None)
        return replace(self, trail={**self.trail, **trail}, notes=(*self.notes, *kept), **fields)


def law_note(law: Law, **inputs: float) -> Note | None:
    """Return a note if a law is used outside its fitted range."""
    text = law.outside(**inputs)
    return None if text is None else Note(f"range:{law.name}", text)
