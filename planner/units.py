"""Quantities in and out: "300M", "434B tokens", "1e22", "2 PFLOP/s-days", "10%", "2 weeks".

Reading is generous about spelling and strict about units: a number without a unit is taken in the
field's own unit, a unit of another kind is an error. Counts are computed in decimal, so that
"2.3B" is exactly 2_300_000_000.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

from planner.errors import UnitError

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
_NUMBER = re.compile(r"\s*([-+]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$", re.DOTALL)
_MAX_LENGTH = 64


def _split(value: object, wanted: str) -> tuple[Decimal, str]:
    """Split a value into its number and the rest of the text.

    Raises:
        UnitError: If there is no finite number at the front.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    if not isinstance(value, str):
        if not math.isfinite(value):
            raise UnitError(f"got {show(value)}, wanted {wanted}")
        return Decimal(repr(value) if isinstance(value, float) else value), ""
    match = _NUMBER.match(value) if len(value) <= _MAX_LENGTH else None
    if match is None:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    try:
        number = Decimal(match[1].replace("_", "").replace(",", ""))
    except InvalidOperation:
        raise UnitError(f"got {show(value)}, wanted {wanted}") from None
    if not math.isfinite(float(number)):
        raise UnitError(f"got {show(value)}, which is too large; wanted {wanted}")
    return number, match[2]


def show(value: object) -> str:
    """Return a short, one-line form of a value for an error message."""
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."


def _whole(number: Decimal, value: object, wanted: str) -> int:
    if number != number.to_integral_value():
        raise UnitError(f"got {show(value)}, which is not a whole number; wanted {wanted}")
    return int(number)


def parse_count(value: object, unit: str = "") -> int:
    """Read a whole count such as ``"300M"``, ``"434B tokens"`` or ``1_000_000``.

    Args:
        value: Number or text. Suffixes K, M, B (or G) and T are powers of a thousand.
        unit: The unit the field is in, singular (``"token"``); the text may repeat it.

    Returns:
        The count, exactly.

    Raises:
        UnitError: If it is not a whole number, not positive, or in another unit.
    """
    named = f"{unit}s" if unit else "a number"
    wanted = f"a positive count of {named}" if unit else "a positive count"
    number, rest = _split(value, f"{wanted} such as 375000000 or '375M'")
    match = re.fullmatch(r"([kmbgt]?)\s*([a-z]*)", rest.lower())
    words = {"", unit, f"{unit}s"} if unit else {"", "param", "params", "parameters"}
    if match is None or (match[2] not in words):
        # "5 tokens": the t of the unit is not a prefix
        if rest.lower() in words:
            match = re.fullmatch(r"()(.*)", rest.lower())
        else:
            raise UnitError(f"got {show(value)}, wanted {wanted}")
    assert match is not None
    number *= _PREFIX[match[1]]
    if number <= 0:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return _whole(number, value, wanted)


def parse_flops(value: object) -> float:
    """Read a number of floating-point operations.

    Accepts ``1e22``, ``"10 ZFLOP"``, ``"3.2e21 FLOPs"`` and ``"2 PFLOP/s-days"`` (a rate times a
    time: 1 PFLOP/s-day is 8.64e19 operations).

    Raises:
        UnitError: If it is not positive or in another unit.
    """
    wanted = "floating-point operations such as 1e22, '10 ZFLOP' or '2 PFLOP/s-days'"
    number, rest = _split(value, wanted)
    match = re.fullmatch(r"([kmgtpezy]?)flop(?:s)?(?:(?:/s|ps)?[- ]?([a-z]+))?", rest.lower())
    if rest == "":
        pass
    elif match is None or (match[2] is not None and match[2].rstrip("s") not in _SECONDS):
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    else:
        number *= _PREFIX[match[1]]
        if match[2] is not None:
            if "/s" not in rest.lower() and "ps" not in rest.lower():
                raise UnitError(f"got {show(value)}, wanted {wanted}")
            number *= _SECONDS[match[2].rstrip("s")]
    if number <= 0:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return float(number)


def parse_days(value: object) -> float:
    """Read a duration in days: ``14``, ``"14 days"``, ``"36 h"`` or ``"2 weeks"``.

    Raises:
        UnitError: If it is not positive or not a duration.
    """
    wanted = "a duration such as 14 (days), '36 h' or '2 weeks'"
    number, rest = _split(value, wanted)
    name = rest.lower()
    name = name if name in _SECONDS else name.rstrip("s")
    if name not in _SECONDS and rest != "":
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    if number <= 0:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return float(number * _SECONDS[name] / 86400) if rest else float(number)


def parse_fraction(value: object) -> float:
    """Read a fraction between 0 and 1: ``0.1``, ``"10%"`` or ``"10 %"``.

    Raises:
        UnitError: If it lies outside [0, 1].
    """
    wanted = "a fraction between 0 and 1 such as 0.1 or '10%'"
    number, rest = _split(value, wanted)
    if rest == "%":
        number /= 100
    elif rest:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    if not 0 <= number <= 1:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return float(number)


def parse_positive(value: object) -> float:
    """Read a positive real number without a unit, such as ``1.62e-2``.

    Raises:
        UnitError: If it is not a positive number, or has a unit.
    """
    wanted = "a positive number"
    number, rest = _split(value, wanted)
    if rest or number <= 0:
        raise UnitError(f"got {show(value)}, wanted {wanted}")
    return float(number)


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
