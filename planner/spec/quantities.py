"""Field types of the spec: numbers with units, read generously, described in the JSON Schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

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

if TYPE_CHECKING:
    from collections.abc import Callable

# Beyond these a number is a slip, and arithmetic with it would leave what a float holds.
LARGEST_REAL = 1e30
LARGEST_TPP = 1e9
LARGEST_FLOPS = 1e40
LARGEST_DAYS = 1e6
LARGEST_BATCH = 10**12


def _number_or_text(description: str, *examples: Any) -> dict[str, Any]:
    return {
        "anyOf": [{"type": "number"}, {"type": "string"}],
        "description": description,
        "examples": list(examples),
    }


def _tokens(value: object) -> int:
    return parse_count(value, "token")


def _count(value: object) -> int:
    return parse_count(value)


def _within(parse: Callable[[object], float], low: float, high: float, value: object, /) -> float:
    """Read a number and hold it to what can be meant.

    Raises:
        UnitError: As ``parse``, or if it lies outside [low, high].
    """
    number = parse(value)
    if not low <= number <= high:
        raise UnitError(f"got {show(value)}, wanted a number from {low:g} to {high:g}")
    return number


def _above_zero(value: object) -> float:
    number = parse_fraction(value)
    if number == 0:
        raise UnitError(f"got {show(value)}, wanted a fraction above 0 and at most 1")
    return number


def _fraction_of(value: object) -> Fraction:
    """Read a multiplier such as 4, 2.6875 or "8/3", exactly."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,6}\s*/\s*[0-9]{1,6}\s*", value):
        top, bottom = (int(part) for part in value.split("/"))
        ratio = Fraction(top, bottom) if bottom else Fraction(0)
    else:
        wanted = "a positive number or ratio such as 4 or '8/3'"
        ratio = Fraction(repr(parse_positive(value, wanted)))
    if not Fraction(1, 1000) <= ratio <= 1000:
        raise UnitError(f"got {show(value)}, wanted a number or ratio from 0.001 to 1000")
    return ratio


def _tpp(value: object) -> float:
    text = value
    if isinstance(value, str):
        text = re.sub(r"\s*(tpp|tokens per parameter)\s*$", "", value, flags=re.IGNORECASE)
    wanted = "positive tokens per parameter such as 20"
    try:
        number = parse_positive(text, wanted)
    except UnitError:
        raise UnitError(f"got {show(value)}, wanted {wanted}") from None
    if not 1 / LARGEST_TPP <= number <= LARGEST_TPP:
        raise UnitError(f"got {show(value)}, wanted tokens per parameter up to 1e9")
    return number


Flops = Annotated[
    float,
    BeforeValidator(partial(_within, parse_flops, 1.0, LARGEST_FLOPS)),
    WithJsonSchema(_number_or_text("Floating-point operations.", 1e22, "2 PFLOP/s-days")),
]
Days = Annotated[
    float,
    BeforeValidator(partial(_within, parse_days, 1 / LARGEST_DAYS, LARGEST_DAYS)),
    WithJsonSchema(_number_or_text("A duration; a bare number is days.", 14, "36 h")),
]
Share = Annotated[
    float,
    BeforeValidator(parse_fraction),
    WithJsonSchema(_number_or_text("A fraction between 0 and 1.", 0.1, "10%")),
]
PositiveShare = Annotated[
    float,
    BeforeValidator(_above_zero),
    WithJsonSchema(_number_or_text("A fraction above 0 and at most 1.", 0.4, "40%")),
]
Tokens = Annotated[
    int,
    BeforeValidator(_tokens),
    WithJsonSchema(_number_or_text("Tokens.", "375M", "434B tokens")),
]
Count = Annotated[
    int,
    BeforeValidator(_count),
    WithJsonSchema(_number_or_text("A positive whole number.", 8, "128K")),
]
Positive = Annotated[
    float,
    BeforeValidator(partial(_within, parse_positive, 1 / LARGEST_REAL, LARGEST_REAL)),
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
    wanted = "a batch with its unit such as '176 sequences' or '0.5M tokens'"
    units: tuple[Literal["sequences", "tokens"], ...] = ("sequences", "tokens")
    for unit in units:
        if isinstance(value, str) and re.search(rf"{unit[:-1]}s?\s*$", value, re.IGNORECASE):
            try:
                amount = parse_count(value, unit[:-1])
            except UnitError:
                break
            if amount > LARGEST_BATCH:
                raise UnitError(f"got {show(value)}, wanted at most {LARGEST_BATCH:g} {unit}")
            return BatchSize(amount, unit)
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
