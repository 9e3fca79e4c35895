"""Which laws of a laws file give the shape of a curve, and which of them are meant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from planner.curves.errors import CurveError
from planner.errors import did_you_mean

if TYPE_CHECKING:
    from planner.laws.law import Law

SURROGATE = "surrogate"
MULTI_POWER = "multi-power-law"
FORMS = {"collapse-surrogate": SURROGATE, "multi-power": MULTI_POWER}
"""What a law's form is called as a method."""
_ASKED = {SURROGATE: SURROGATE, MULTI_POWER: MULTI_POWER, "schedule": MULTI_POWER}


def choose_laws(laws: Mapping[str, Law], asked: str | None = None) -> tuple[Law, ...]:
    """Return the laws of one form that references are made of.

    Several laws of the schedule are those of several sizes: each run takes the nearest.

    Args:
        laws: By name.
        asked: ``surrogate``, ``schedule`` (or ``multi-power-law``), or the name of a law, or a
            pattern of names; None: what there is, if that is of one form.

    Raises:
        CurveError: There is none, or more than one choice.
    """
    curves = {name: law for name, law in laws.items() if law.form in FORMS}
    if not curves:
        raise CurveError(
            "holds no law of a curve's shape: planner fit surrogate and planner fit schedule "
            "write one",
            field="--laws",
        )
    found = list(curves.values())
    if asked is not None:
        form = _ASKED.get(asked)
        found = [
            law
            for name, law in curves.items()
            if fnmatchcase(name, asked) or (asked not in curves and FORMS[law.form] == form)
        ]
        if not found and form is not None:
            there = ", ".join(f"{name} ({FORMS[law.form]})" for name, law in curves.items())
            raise CurveError(f"there is no law of the kind {asked!r}, only {there}", field="--law")
        if not found:
            known = [*_ASKED, *curves]
            raise CurveError(
                f"no law is called {asked!r}; {did_you_mean(asked, known)}", field="--law"
            )
    found.sort(key=lambda law: law.name)
    names = ", ".join(f"{law.name} ({FORMS[law.form]})" for law in found[:6])
    metrics = {law.metric for law in found}
    many = len(found) > 1
    if many and (
        len({law.form for law in found}) > 1 or found[0].form != "multi-power" or len(metrics) > 1
    ):
        raise CurveError(f"there are {names}: say which by --law", field="--laws")
    if many and not all("params" in law.fitted_range for law in found):
        raise CurveError(
            f"there are {names}, and for which sizes is not known: say which by --law",
            field="--laws",
        )
    return tuple(found)


def nearest_law(laws: Sequence[Law], params: int | None) -> Law | None:
    """Return the law of one form that was fitted on the sizes nearest to N = ``params``.

    None if there are several and N is not known. Laws that name no sizes come last.
    """
    if len(laws) == 1:
        return laws[0]
    if params is None:
        return None

    def apart(law: Law) -> float:
        if "params" not in law.fitted_range:
            return math.inf
        low, high = law.fitted_range["params"]
        return abs(math.log(params / min(max(float(params), low), high)))

    return min(laws, key=apart)
