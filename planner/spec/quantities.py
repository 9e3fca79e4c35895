"""Field types of the spec: numbers with units, read generously, described in the JSON Schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from planner.errors import UnitError
from planner.units import (
    parse_count,
    parse_days,
    parse_flops,
    parse_fraction,
    parse_positive,
    show,
)


def _number_or_text(description: str, *examples: Any) -> dict[str, Any]:
    return {
        "anyOf": [{"type": "number"}, {"type": "string"}],
        "description": description,
        "examples": list(examples),
    }


def _tokens(value: object) -> int:
    return parse_count(value, "token")


def _fraction_of(value: object) -> Fraction:
    """Read a multiplier such as 4, 2.6875 or "8/3", exactly."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,6}\s*/\s*\d{1,6}\s*", value):
        top, bottom = (int(part) for part in value.split("/"))
        if top > 0 and bottom > 0:
            return Fraction(top, bottom)
    try:
        number = parse_positive(value)
    except UnitError:
        raise UnitError(
            f"got {show(value)}, wanted a positive number or ratio, such as '8/3'"
        ) from None
    return Fraction(repr(number))


def _positive_int(value: object) -> int:
    return parse_count(value)


def _tpp(value: object) -> float:
    text = value
    if isinstance(value, str):
        text = re.sub(r"\s*(tpp|tokens per parameter)\s*$", "", value, flags=re.IGNORECASE)
    try:
        return parse_positive(text)
    except UnitError:
        raise UnitError(
            f"got {show(value)}, wanted positive tokens per parameter, such as 20"
        ) from None


Flops = Annotated[
    float,
    BeforeValidator(parse_flops),
    WithJsonSchema(_number_or_text("Floating-point operations.", 1e22, "2 PFLOP/s-days")),
]
Days = Annotated[
    float,
    BeforeValidator(parse_days),
    WithJsonSchema(_number_or_text("A duration; a bare number is days.", 14, "36 h")),
]
PositiveFraction = Annotated[
    float,
    BeforeValidator(parse_fraction),
    WithJsonSchema(_number_or_text("A fraction between 0 and 1.", 0.1, "10%")),
]
Tokens = Annotated[
    int,
    BeforeValidator(_tokens),
    WithJsonSchema(_number_or_text("Tokens.", "375M", "434B tokens")),
]
Count = Annotated[
    int,
    BeforeValidator(_positive_int),
    WithJsonSchema(_number_or_text("A positive whole number.", 8, "128K")),
]
Positive = Annotated[
    float,
    BeforeValidator(parse_positive),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
TppValue = Annotated[
    float,
    BeforeValidator(_tpp),
    WithJsonSchema(_number_or_text("Tokens per parameter.", 20, "20 TPP")),
]
Ratio = Annotated[
    Fraction,
    BeforeValidator(_fraction_of),
    PlainSerializer(str),
    WithJsonSchema(_number_or_text("A positive number or ratio.", 4, "8/3")),
]


@dataclass(frozen=True, slots=True)
class BatchSize:
    """A batch with its unit, as declared; bare numbers are refused, since units get mixed up."""

    amount: int
    unit: Literal["sequences", "tokens"]

    def sequences(self, seq_len: int) -> float:
        """Return the batch in sequences of ``seq_len`` tokens, not rounded."""
        return float(self.amount) if self.unit == "sequences" else self.amount / seq_len


def parse_batch(value: object) -> BatchSize:
    """Read a batch such as ``"176 sequences"`` or ``"0.5M tokens"``.

    Raises:
        UnitError: If it has no unit, or another one.
    """
    if isinstance(value, BatchSize):
        return value
    wanted = "a batch with its unit, such as '176 sequences' or '0.5M tokens'"
    if isinstance(value, str):
        text = value.strip().lower()
        for unit in ("sequence", "token"):
            if re.search(rf"(?<![a-z]){unit}s?$", text) or re.search(rf"[kmbgt ]{unit}s?$", text):
                return BatchSize(
                    parse_count(value, unit), "sequences" if unit == "sequence" else "tokens"
                )
    raise UnitError(f"got {show(value)}, wanted {wanted}")


Batch = Annotated[
    BatchSize,
    BeforeValidator(parse_batch),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A batch with its unit.",
            "examples": ["176 sequences", "0.5M tokens"],
        }
    ),
]
