"""Tokens per parameter: the bands that are declared, or the one that a rule picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import LawError
from planner.laws.compression import at_extra_compute
from planner.plan.model import Provenance

if TYPE_CHECKING:
    from planner.laws.law import Law
    from planner.spec.load import Declared


def choose_bands(
    declared: Declared, compression: Law
) -> tuple[list[float], Provenance, tuple[str, ...]]:
    """Return the TPP of every band, where they came from, and warnings.

    A rule's pick outside [low, high] is moved to the nearer end, with a warning.

    Raises:
        SpecError: If a value lies outside the band it is declared for.
    """
    tpp = declared.spec.tpp
    origin = str(declared.origin("tpp"))
    if tpp.bands is not None:
        return list(tpp.bands), Provenance(declared=origin), ()
    assert tpp.low is not None and tpp.high is not None and tpp.rule is not None
    rule = tpp.rule
    if rule.value is not None:
        if not tpp.low <= rule.value <= tpp.high:
            raise declared.error(
                "tpp.rule", f"got {rule.value:g}, wanted a TPP in [{tpp.low:g}, {tpp.high:g}]"
            )
        return [rule.value], Provenance(declared=origin), ()
    inputs: dict[str, float | int | str | None]
    if rule.compute_optimal:
        picked = compression.constants["optimal_tpp"]
        formula = "the compute-optimal tokens per parameter"
        inputs = {"optimal_tpp": picked}
    else:
        assert rule.max_extra_compute is not None
        try:
            point = at_extra_compute(compression, rule.max_extra_compute)
        except LawError as error:
            raise declared.error("tpp.rule", error.message) from None
        picked = point.tpp
        formula = "(k_D / k_N) r at C/C_opt = k_N k_D = 1 + max_extra_compute"
        inputs = {
            "max_extra_compute": rule.max_extra_compute,
            "k_N": point.params_ratio,
            "k_D": point.tokens_ratio,
            "r": compression.constants["optimal_tpp"],
        }
    kept = min(max(picked, tpp.low), tpp.high)
    warnings: tuple[str, ...] = ()
    rounding = None
    if kept != picked:
        rounding = f"moved to the end of the band [{tpp.low:g}, {tpp.high:g}]"
        warnings = (f"tpp: the rule picks {picked:.4g}, {rounding}",)
    origin_text = Provenance(
        formula=formula,
        inputs=inputs,
        law=compression.name,
        declared=origin,
        exact=picked,
        rounding=rounding,
    )
    return [kept], origin_text, warnings
