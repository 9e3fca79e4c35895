"""Quantities in and out: "300M", "434B tokens", "1e22", "2 PFLOP/s-days", "10%", "2 weeks".

Reading is generous about spelling and strict about units: a number without a unit is taken in the
field's own unit, a unit of another kind is an error. Counts are computed in decimal, so that
"2.3B" is exactly 2_300_000_000.
"""

from __future__ import annotations

import math
import re
from decimal import Context, Decimal, InvalidOperation

from planner.errors import UnitError

# our own, so that the precision and rounding that a caller has set for decimals change nothing
_EXACT = Context(prec=100)
_PREFIX = {
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "m": Decimal(10) ** 6,
    "b": Decimal(10) ** 9,
    "g": Decimal(10) ** 9,
    "t": Decimal(10) ** 12,
    "p": Decimal(10) ** 15,
    "e": Decimal(10) ** 18,
    "z": Decimal(10) ** 21,
    "y": Decimal(10) ** 24,
}
_SECONDS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
    "w": 7 * 86400,
    "week": 7 * 86400,
}
_NAMES = {
    "kilo": "k",
    "mega": "m",
    "giga": "g",
    "tera": "t",
    "peta": "p",
    "exa": "e",
    "zetta": "z",
    "yotta": "y",
}
# a comma only where it groups thousands: "1,5" is one and a half to half the world
_DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)|\d[\d_]*"
_NUMBER = re.compile(
    rf"\s*([-+]?(?:(?:{_DIGITS})(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)(?![\d,])\s*(.*?)\s*",
    re.DOTALL | re.ASCII | re.IGNORECASE,
)
_FLOPS = re.compile(
    rf"({'|'.join(_NAMES)}|[kmgtpezy]?)flop(?:s?|(?:/s|ps|s)[- ]?({'|'.join(_SECONDS)})s?)"
)
_MAX_LENGTH = 64

LARGEST_COUNT = 10**18
"""Counts up to this fit into 64 bits wherever a plan is read."""


def show(value: object) -> str:
    """Return a short, one-line form of a value for an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > LARGEST_COUNT:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value[: _MAX_LENGTH + 1] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."


def _split(value: object, wanted: str) -> tuple[Decimal, str]:
    """Split a value into its number and the rest of the text, in lower case.

    Raises:
        UnitError: If there is no finite number at the front.
    """
    number, rest = None, ""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value) if len(value) <= _MAX_LENGTH else None
        if match is not None:
            number, rest = match[1].replace("_", "").replace(",", ""), match[2].lower()
    elif isinstance(value, float):
        number = repr(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        # more digits than Python converts are far above all that is accepted
        number = str(value) if abs(value) <= 10**400 else "1e400"
    try:
        exact = Decimal(number or "nan")
    except InvalidOperation:
        exact = Decimal("nan")
    if exact.is_nan():
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    if not math.isfinite(float(exact)):
        raise UnitError(f"got {show(value)}, which is too large; wanted {wanted}")
    return exact, rest


def _positive(number: Decimal, value: object, wanted: str) -> float:
    """Return a number as a float.

    Raises:
        UnitError: If it is not positive, or beyond what a float holds.
    """
    result = float(number)
    if not 0 < result < math.inf:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return result


def parse_count(value: object, unit: str = "") -> int:
    """Read a whole count such as ``"300M"``, ``"434B tokens"`` or ``1_000_000``.

    Args:
        value: Number or text. Suffixes K, M, B (or G) and T are powers of a thousand.
        unit: The unit the field is in, singular (``"token"``); the text may repeat it.

    Returns:
        The count, exactly.

    Raises:
        UnitError: If it is not a whole number, not positive, above 10^18, or in another unit.
    """
    of_units = f" of {unit}s" if unit else ""
    wanted = f"a positive whole number{of_units} such as 8 or '375M'"
    number, rest = _split(value, wanted)
    words = ("", unit, f"{unit}s") if unit else ("", "param", "params", "parameters")
    prefix = ""
    if rest not in words:  # "5 tokens": the t of the unit is not a prefix
        prefix, rest = rest[:1], rest[1:].lstrip()
    if rest not in words or prefix not in ("", "k", "m", "b", "g", "t"):
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    number = _EXACT.multiply(number, _PREFIX[prefix])
    if number > LARGEST_COUNT:
        raise UnitError(f"got {show(value)}, wanted at most 1e18")
    if number <= 0 or number != number.to_integral_value():
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return int(number)


def parse_flops(value: object) -> float:
    """Read a number of floating-point operations.

    Accepts ``1e22``, ``"10 ZFLOP"``, ``"3.2e21 FLOPs"`` and ``"2 PFLOP/s-days"`` (a rate times a
    time: 1 PFLOP/s-day is 8.64e19 operations).

    Raises:
        UnitError: If it is not positive or in another unit.
    """
    wanted = "floating-point operations such as 1e22, '10 ZFLOP' or '2 PFLOP/s-days'"
    number, rest = _split(value, wanted)
    if rest:
        match = _FLOPS.fullmatch(rest)
        if match is None:
            raise UnitError(f"got {show(value)}, wanted {wanted}")
        number = _EXACT.multiply(number, _PREFIX[_NAMES.get(match[1], match[1])])
        if match[2] is not None:
            number = _EXACT.multiply(number, _SECONDS[match[2]])
    return _positive(number, value, wanted)


def parse_days(value: object) -> float:
    """Read a duration in days: ``14``, ``"14 days"``, ``"36 h"`` or ``"2 weeks"``.

    Raises:
        UnitError: If it is not positive or not a duration.
    """
    wanted = "a duration such as 14 (days), '36 h' or '2 weeks'"
    number, rest = _split(value, wanted)
    name = rest if rest in _SECONDS else rest.removesuffix("s")
    if name not in _SECONDS and rest:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    if rest:
        number = _EXACT.divide(_EXACT.multiply(number, _SECONDS[name]), 86400)
    return _positive(number, value, wanted)


def parse_fraction(value: object) -> float:
    """Read a fraction between 0 and 1: ``0.1``, ``"10%"`` or ``"10 %"``.

    Raises:
        UnitError: If it lies outside [0, 1].
    """
    wanted = "a fraction between 0 and 1 such as 0.1 or '10%'"
    number, rest = _split(value, wanted)
    if rest == "%":
        number = _EXACT.divide(number, 100)
    if rest not in ("", "%") or not 0 <= number <= 1:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return abs(float(number))


def parse_positive(value: object, wanted: str = "a positive number") -> float:
    """Read a positive real number without a unit, such as ``1.62e-2``.

    Args:
        value: Number or text.
        wanted: What to call it in errors.

    Raises:
        UnitError: If it is not a positive number, or has a unit.
    """
    number, rest = _split(value, wanted)
    if rest:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return _positive(number, value, wanted)


def format_count(value: float, digits: int = 3) -> str:
    """Return a count to ``digits`` significant digits with a suffix: 270_700_000 -> "271M"."""
    if value == 0:
        return "0"
    for suffix, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        # 0.9995 so that 999_700_000 reads 1.00B rather than 1000M
        if abs(value) >= 0.9995 * scale:
            return f"{_digits(value / scale, digits)}{suffix}"
    return _digits(value, digits)


def _digits(value: float, digits: int) -> str:
    whole = len(str(int(abs(value) + 0.5)))
    return f"{value:.{max(0, digits - whole)}f}"


def format_plain(value: float, digits: int = 3) -> str:
    """Return a number to ``digits`` significant digits without an exponent: 168.3 -> "168"."""
    text = f"{value:.{digits}g}"
    return f"{Decimal(text):,f}" if "e" in text and 1e-6 < abs(value) < 1e15 else text


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: "1 run", "3,417 runs"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_flops(value: float) -> str:
    """Return operations to three digits in exponent form: "1.47e20"."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_bytes(value: float) -> str:
    """Return bytes with a decimal suffix: "80.0 GB"."""
    for suffix, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{_digits(value / scale, 3)} {suffix}"
    return f"{value:.0f} B"
