"""What scoring finds of each run and of the archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from planner.curves.verdict import Cause, Verdict

if TYPE_CHECKING:
    from planner.curves.bands import Alone, Band
    from planner.curves.family import Collapse, Outsider
    from planner.curves.outliers import HardBatch
    from planner.curves.reference import Reference


@dataclass(frozen=True, slots=True)
class RunScore:
    """What is said of a run.

    Attributes:
        run: Id in the archive.
        name: Name.
        metric: The series that was judged.
        band: Label of its band.
        reference: What it was compared with; None if with nothing.
        alpha: Probability of calling a healthy run deviating.
        verdict: ``healthy``, ``deviating`` or ``undecidable``.
        since: Fraction of training at which a deviation began.
        reason: Why, in a sentence.
        at: Fraction of training that is logged; None where the run's length is not known.
        divisor: What it is divided by, nats a token.
        divisor_from: ``final loss`` or ``alignment``.
        deviation: Size of the residual, smoothed, as a share of the loss, where it is largest
            against what is allowed.
        direction: ``above`` or ``below`` the reference there.
        deviation_at: The fraction of training there.
        noise: Standard deviation of the residual there by chance.
        allowed: What a healthy run may reach there.
        tau: AdamW timescale, if known.
        tpp: Tokens per parameter, if known.
        causes: Most likely first; empty unless something was seen.
    """

    run: str
    name: str
    metric: str
    band: str
    alpha: float
    verdict: Verdict
    reason: str
    reference: str | None = None
    since: float | None = None
    at: float | None = None
    divisor: float | None = None
    divisor_from: Literal["final loss", "alignment"] | None = None
    deviation: float | None = None
    direction: Literal["above", "below"] | None = None
    deviation_at: float | None = None
    noise: float | None = None
    allowed: float | None = None
    tau: float | None = None
    tpp: float | None = None
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """What `score_archive` found.

    Attributes:
        metric: The series that was judged.
        alpha: Probability of calling a healthy run deviating.
        runs: Scores, by name.
        bands: Bands of the runs, by label.
        references: The reference of each band that has one, by label.
        collapse: How well each band of two or more finished runs collapses, by label.
        outsiders: Runs that will not collapse, by name.
        hard_batches: Steps at which several runs have an outlier, by step.
        alone: What to do where most runs are alone in their bands; None where they are not.
    """

    metric: str
    alpha: float
    runs: tuple[RunScore, ...]
    bands: tuple[Band, ...]
    references: dict[str, Reference]
    collapse: dict[str, Collapse]
    outsiders: tuple[Outsider, ...]
    hard_batches: tuple[HardBatch, ...]
    alone: Alone | None = None

    @property
    def deviating(self) -> tuple[RunScore, ...]:
        """The runs that deviate."""
        return tuple(run for run in self.runs if run.verdict == "deviating")
