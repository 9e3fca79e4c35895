"""Reading laws files: the published laws that ship with the package, and users' own."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from planner.documents import Document, Place, read_document
from planner.errors import LawError, did_you_mean
from planner.laws.law import (
    CONFIDENCES,
    CONSTANTS,
    CURVE_FORMS,
    QUANTITIES,
    FittedSchedule,
    Law,
)
from planner.units import show

SCHEMA = "planner.laws/1"
_LARGEST = 1e30  # of any number in a law: beyond it arithmetic would leave what a float holds
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
    "intervals",
    "level",
    "unidentified",
    "curve_errors",
    "curve_settings",
    "schedules",
    "metric",
)
# constants that a law may have beyond its form's: batches stated in sequences
_OPTIONAL = {"batch": ("sequence_length",), "critical_batch": ("sequence_length",)}
_ANY_SIGN = ("exponent", "E", "b_exponent", "q_exponent", "L0", "gamma")


@cache
def published() -> dict[str, Law]:
    """Return the laws that ship with the package, by name."""
    return load_laws(Path(__file__).with_name("published.yaml"))


def load_laws(path: str | os.PathLike[str]) -> dict[str, Law]:
    """Read a laws file (``planner.laws/1``).

    Raises:
        SpecError: If the file is not readable YAML.
        LawError: If a law lacks a field, has an unknown one, states no finite constants, or has a
            form, an input or constants that its quantity cannot have.
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
        quantity = self.choice(entry, place, "quantity", QUANTITIES)
        form, argument = QUANTITIES[quantity]
        for key, wanted in (("form", form), ("input", argument)):
            got = self.text(entry, place, key)
            if got != wanted:
                raise self.fail((*place, key), f"got {got!r}; a law for {quantity} has {wanted!r}")
        constants = self.constants(entry, (*place, "constants"), quantity, form)
        return Law(
            name=name,
            quantity=quantity,
            form=form,
            input=argument,
            constants=constants,
            source=self.text(entry, place, "source"),
            confidence=self.choice(entry, place, "confidence", CONFIDENCES),
            fitted_range=self.ranges(entry, (*place, "fitted_range")),
            covariance=self.covariance(entry, (*place, "covariance"), form),
            scatter=self.scatter(entry, (*place, "scatter"), form),
            intervals=self.intervals(entry, (*place, "intervals"), constants),
            level=self.level(entry, (*place, "level")),
            unidentified=self.unidentified(entry, (*place, "unidentified"), constants),
            **self.curves(entry, place, form),
        )

    def constants(
        self, entry: dict[str, Any], place: Place, quantity: str, form: str
    ) -> dict[str, float]:
        constants = self.numbers(entry, place)
        wanted = CONSTANTS[form]
        for key in wanted:
            if key not in constants:
                raise self.fail(place, f"lacks {key!r}")
        for key, value in constants.items():
            if key not in (*wanted, *_OPTIONAL.get(quantity, ())):
                raise self.fail((*place, key), f"is unknown; {did_you_mean(key, wanted)}")
            if value <= 0 and (key not in _ANY_SIGN or form == "iso-loss"):
                raise self.fail((*place, key), f"got {value:g}, wanted more than 0")
        # beyond it a run's least tokens are not defined
        if quantity == "critical_batch" and not 0 <= constants["exponent"] < 1:
            raise self.fail(
                (*place, "exponent"), f"got {constants['exponent']:g}, wanted at least 0, below 1"
            )
        return constants

    def text(self, entry: dict[str, Any], place: Place, key: str) -> str:
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise self.fail((*place, key), f"got {show(entry.get(key))}, wanted text")
        return str(entry[key])

    def choice(self, entry: dict[str, Any], place: Place, key: str, known: Any) -> str:
        got = self.text(entry, place, key)
        if got not in known:
            raise self.fail((*place, key), f"got {show(got)}; {did_you_mean(got, known)}")
        return got

    def number(self, value: Any, place: Place) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(place, f"got {show(value)}, wanted a number")
        if not abs(value) <= _LARGEST:
            raise self.fail(place, f"got {show(value)}, wanted a finite number up to 1e30")
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
                raise self.fail((*place, key), f"got {show(pair)}, wanted [low, high]")
            low, high = (self.number(item, (*place, key)) for item in pair)
            if low > high:
                raise self.fail((*place, key), f"got [{low:g}, {high:g}], wanted low first")
            result[key] = (low, high)
        return result

    def covariance(
        self, entry: dict[str, Any], place: Place, form: str
    ) -> tuple[tuple[float, ...], ...] | None:
        value = entry.get(place[-1])
        if value is None:
            return None
        size = len(CONSTANTS["chinchilla"])
        if form != "chinchilla":
            raise self.fail(place, "only a loss law has one")
        if (
            not isinstance(value, list)
            or len(value) != size
            or any(not isinstance(row, list) or len(row) != size for row in value)
        ):
            raise self.fail(place, f"wanted {size} rows of {size} numbers")
        rows = tuple(
            tuple(self.number(item, (*place, str(i))) for item in row)
            for i, row in enumerate(value)
        )
        for i, row in enumerate(rows):
            for k, item in enumerate(row):
                if rows[k][i] != item or item**2 > row[i] * rows[k][k] * (1 + 1e-9):
                    raise self.fail(
                        (*place, str(i)), "wanted a symmetric matrix that is a covariance"
                    )
        return rows

    def scatter(self, entry: dict[str, Any], place: Place, form: str) -> float | None:
        if entry.get(place[-1]) is None:
            return None
        value = self.number(entry[place[-1]], place)
        if value < 0:
            raise self.fail(place, f"got {value:g}, wanted 0 or more")
        return value

    def intervals(
        self, entry: dict[str, Any], place: Place, constants: dict[str, float]
    ) -> dict[str, tuple[float, float]]:
        found = self.ranges(entry, place)
        for key in found:
            if key not in constants:
                raise self.fail((*place, key), f"is unknown; {did_you_mean(key, constants)}")
        return found

    def level(self, entry: dict[str, Any], place: Place) -> float | None:
        if entry.get(place[-1]) is None:
            return None
        value = self.number(entry[place[-1]], place)
        if not 0 < value < 1:
            raise self.fail(place, f"got {value:g}, wanted a probability between 0 and 1")
        return value

    def unidentified(
        self, entry: dict[str, Any], place: Place, constants: dict[str, float]
    ) -> tuple[str, ...]:
        value = entry.get(place[-1], [])
        if not isinstance(value, list):
            raise self.fail(place, f"got {show(value)}, wanted a list of constants")
        for i, item in enumerate(value):
            if item not in constants:
                raise self.fail(
                    (*place, str(i)),
                    f"got {show(item)}; {did_you_mean(str(item), constants)}",
                )
        return tuple(value)

    def curves(self, entry: dict[str, Any], place: Place, form: str) -> dict[str, Any]:
        """Read what a law of curves says of its error and of the schedules that it knows."""
        found: dict[str, Any] = {}
        for key in ("curve_errors", "curve_settings", "schedules", "metric"):
            value = entry.get(key)
            if value is None:
                continue
            at = (*place, key)
            if form not in CURVE_FORMS:
                raise self.fail(at, "only a law of curves has it")
            if key == "metric":
                found[key] = self.text(entry, place, key)
                continue
            if key == "schedules":
                found[key] = self.schedules(value, at)
                continue
            if key == "curve_errors":
                if not isinstance(value, list) or not value:
                    raise self.fail(at, f"got {show(value)}, wanted a list of numbers")
                found[key] = tuple(self.number(item, at) for item in value)
                if min(found[key]) < 0:
                    raise self.fail(at, f"got {min(found[key]):g}, wanted 0 or more")
                continue
            number = self.number(value, at)
            if number < 1 or number % 1:
                raise self.fail(at, f"got {show(value)}, wanted a positive whole number")
            found[key] = int(number)
        if ("curve_errors" in found) != ("curve_settings" in found):
            raise self.fail(place, "curve_errors and curve_settings belong together")
        return found

    def schedules(self, value: Any, place: Place) -> tuple[FittedSchedule, ...]:
        if not isinstance(value, list):
            raise self.fail(place, f"got {show(value)}, wanted a list of schedules")
        found = []
        for i, entry in enumerate(value):
            at = (*place, str(i))
            if not isinstance(entry, dict) or not isinstance(entry.get("factors"), list):
                raise self.fail(at, "wanted a mapping with factors")
            for key in entry:
                if key not in ("factors", "error", "settings"):
                    raise self.fail((*at, key), "is unknown; wanted factors, error or settings")
            factors = tuple(self.number(item, (*at, "factors")) for item in entry["factors"])
            if len(factors) < 2 or min(factors) < 0 or max(factors) > 1:
                raise self.fail((*at, "factors"), "wanted two or more numbers from 0 to 1")
            error, settings = entry.get("error"), entry.get("settings", 0)
            if error is not None and self.number(error, (*at, "error")) < 0:
                raise self.fail((*at, "error"), f"got {show(error)}, wanted 0 or more")
            number = self.number(settings, (*at, "settings"))
            if number < 0 or number % 1 or (number > 0) != (error is not None):
                raise self.fail(
                    (*at, "settings"), f"got {show(settings)}, wanted how many the error is of"
                )
            found.append(
                FittedSchedule(factors, None if error is None else float(error), int(number))
            )
        return tuple(found)
