"""Reading laws files: the published laws that ship with the package, and users' own."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path
from typing import Any

from planner.documents import Document, Place, read_document
from planner.errors import LawError, did_you_mean
from planner.laws.law import CONFIDENCES, CONSTANTS, FORMULAS, QUANTITIES, Law

SCHEMA = "planner.laws/1"
_FIELDS = (
    "quantity",
    "form",
    "input",
    "constants",
    "fitted_range",
    "source",
    "confidence",
    "covariance",
    "scatter",
)
_OPTIONAL_CONSTANTS = ("sequence_length",)


@cache
def published() -> dict[str, Law]:
    """Return the laws that ship with the package, by name."""
    return load_laws(Path(__file__).with_name("published.yaml"))


def load_laws(path: str | os.PathLike[str]) -> dict[str, Law]:
    """Read a laws file (``planner.laws/1``).

    Raises:
        SpecError: If the file is not readable YAML.
        LawError: If a law lacks a field, has an unknown one, or states no finite constants.
    """
    document = read_document(path)
    return _Reader(document).laws()


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document

    def fail(self, place: Place, message: str) -> LawError:
        return LawError(
            message,
            file=self.document.name,
            line=self.document.line(place),
            field=".".join(place) or None,
        )

    def laws(self) -> dict[str, Law]:
        value = self.document.value
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise self.fail((), f"is not a laws file: wanted 'schema: {SCHEMA}'")
        entries = value.get("laws")
        if not isinstance(entries, dict):
            raise self.fail(("laws",), "wanted a mapping of law names")
        return {name: self.law(name, entry) for name, entry in entries.items()}

    def law(self, name: str, entry: Any) -> Law:
        place = ("laws", name)
        if not isinstance(entry, dict):
            raise self.fail(place, "wanted a mapping")
        for key in entry:
            if key not in _FIELDS:
                raise self.fail((*place, key), f"is unknown; {did_you_mean(key, _FIELDS)}")
        form = self.choice(entry, place, "form", FORMULAS)
        constants = self.numbers(entry, (*place, "constants"))
        wanted = CONSTANTS[form]
        for key in wanted:
            if key not in constants:
                raise self.fail((*place, "constants"), f"lacks {key!r}")
        for key in constants:
            if key not in wanted and key not in _OPTIONAL_CONSTANTS:
                raise self.fail(
                    (*place, "constants", key), f"is unknown; {did_you_mean(key, wanted)}"
                )
        return Law(
            name=name,
            quantity=self.choice(entry, place, "quantity", QUANTITIES),
            form=form,
            input=self.text(entry, place, "input"),
            constants=constants,
            source=self.text(entry, place, "source"),
            confidence=self.choice(entry, place, "confidence", CONFIDENCES),
            fitted_range=self.ranges(entry, (*place, "fitted_range")),
            covariance=self.covariance(entry, (*place, "covariance")),
            scatter=(
                self.number(entry["scatter"], (*place, "scatter")) if "scatter" in entry else None
            ),
        )

    def text(self, entry: dict[str, Any], place: Place, key: str) -> str:
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise self.fail((*place, key), f"got {entry.get(key)!r}, wanted text")
        return str(entry[key])

    def choice(self, entry: dict[str, Any], place: Place, key: str, known: Any) -> str:
        got = self.text(entry, place, key)
        if got not in known:
            raise self.fail((*place, key), f"got {got!r}; {did_you_mean(got, known)}")
        return got

    def number(self, value: Any, place: Place) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(place, f"got {value!r}, wanted a number")
        if not math.isfinite(value):
            raise self.fail(place, f"got {value!r}, wanted a finite number")
        return float(value)

    def numbers(self, entry: dict[str, Any], place: Place) -> dict[str, float]:
        value = entry.get(place[-1])
        if not isinstance(value, dict):
            raise self.fail(place, "wanted a mapping of names to numbers")
        return {key: self.number(item, (*place, key)) for key, item in value.items()}

    def ranges(self, entry: dict[str, Any], place: Place) -> dict[str, tuple[float, float]]:
        value = entry.get(place[-1], {})
        if not isinstance(value, dict):
            raise self.fail(place, "wanted a mapping of input names to [low, high]")
        result = {}
        for key, pair in value.items():
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.fail((*place, key), f"got {pair!r}, wanted [low, high]")
            low, high = (self.number(item, (*place, key)) for item in pair)
            if low > high:
                raise self.fail((*place, key), f"got [{low:g}, {high:g}], wanted low first")
            result[key] = (low, high)
        return result

    def covariance(
        self, entry: dict[str, Any], place: Place
    ) -> tuple[tuple[float, ...], ...] | None:
        value = entry.get(place[-1])
        if value is None:
            return None
        size = len(CONSTANTS["chinchilla"])
        if (
            not isinstance(value, list)
            or len(value) != size
            or any(not isinstance(row, list) or len(row) != size for row in value)
        ):
            raise self.fail(place, f"wanted {size} rows of {size} numbers")
        return tuple(
            tuple(self.number(item, (*place, str(i))) for item in row)
            for i, row in enumerate(value)
        )
