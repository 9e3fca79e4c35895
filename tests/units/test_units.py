"""Quantities in and out: generous about spelling, strict about units, exact, never a surprise."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UnitError
from planner.units import (
    LARGEST_COUNT,
    count_of,
    format_bytes,
    format_count,
    format_flops,
    format_plain,
    parse_count,
    parse_days,
    parse_flops,
    parse_fraction,
    parse_positive,
    show,
)

PARSERS = [parse_count, parse_flops, parse_days, parse_fraction, parse_positive]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("300M", 300_000_000),
        ("1.8B", 1_800_000_000),
        ("2.3b", 2_300_000_000),
        ("0.111B", 111_000_000),
        ("1G", 10**9),
        ("434B tokens", 434 * 10**9),
        ("434 B tokens", 434 * 10**9),
        ("5 tokens", 5),
        ("1 token", 1),
        ("5t", 5 * 10**12),
        ("128K", 128_000),
        ("1_000_000", 1_000_000),
        ("1,000,000", 1_000_000),
        ("1e9", 10**9),
        ("1.5e3", 1500),
        (" 8 ", 8),
        (8, 8),
        (8.0, 8),
        (LARGEST_COUNT, LARGEST_COUNT),
    ],
)
def test_counts(text: object, count: int) -> None:
    assert parse_count(text, "token") == count


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-1", "1.5", "1.5000001M", "", "M", "x", "5 sequences", "5 tokenss", "300Mx"),
        *("1,5", "1,00", "1,0000", ",5", "1e", "1e+", "--1", "0x10", "1 2", "٣", "½", "1e400"),
        *(None, True, False, [], {}, b"1", 1j, math.nan, math.inf, -math.inf, 1.5, 0, -3),
        *(LARGEST_COUNT + 1, 10**400, 10**5000, "1e19", "9" * 100),
    ],
    ids=show,
)
def test_no_counts(text: object) -> None:
    with pytest.raises(UnitError, match=r"^got .*, w(anted|hich) "):
        parse_count(text, "token")


@pytest.mark.parametrize(
    ("text", "flops"),
    [
        ("1e22", 1e22),
        (1e22, 1e22),
        ("10 ZFLOP", 1e22),
        ("10 zflops", 1e22),
        ("3.2e21 FLOPs", 3.2e21),
        ("1 PFLOP/s-day", 8.64e19),
        ("2 PFLOP/s-days", 1.728e20),
        ("2 PFLOPS-days", 1.728e20),
        ("2 petaFLOP/s days", 1.728e20),
        ("1 EFLOP/s-hour", 3.6e21),
        ("1 PFLOP/s-s", 1e15),
    ],
)
def test_flops(text: object, flops: float) -> None:
    assert parse_flops(text) == flops


@pytest.mark.parametrize(
    "text",
    # a rate without a time, a time without a rate, another unit, nothing at all
    ["1 PFLOP/s", "1 PFLOP-day", "1e22 tokens", "1 PB", "days", "1 PFLOP/s-GB", "0", "-1e22", ""],
)
def test_no_flops(text: str) -> None:
    with pytest.raises(UnitError):
        parse_flops(text)


@pytest.mark.parametrize(
    ("text", "days"),
    [(14, 14), ("14", 14), ("14 days", 14), ("36 h", 1.5), ("2 weeks", 14), ("90 min", 0.0625)],
)
def test_days(text: object, days: float) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("10%", 0.1), ("10 %", 0.1), (0.1, 0.1), (0, 0), (1, 1), ("100%", 1), ("-0", 0)],
)
def test_fractions(text: object, fraction: float) -> None:
    assert parse_fraction(text) == fraction
    assert math.copysign(1, parse_fraction(text)) == 1


@pytest.mark.parametrize("text", [40, "101%", -0.1, "10 percent", 1.0000001, "1e-1%x"])
def test_no_fractions(text: object) -> None:
    with pytest.raises(UnitError):
        parse_fraction(text)


@pytest.mark.parametrize("text", ["1e-400", "1e400", "0", -1, math.nan])
def test_positive_is_what_a_float_holds(text: object) -> None:
    with pytest.raises(UnitError):
        parse_positive(text)


@given(st.integers(1, LARGEST_COUNT))
def test_counts_are_exact(count: int) -> None:
    assert parse_count(count) == parse_count(str(count)) == parse_count(f"{count:_}") == count
    assert parse_count(f"{count:,} tokens", "token") == count
    assert parse_count(f"{Decimal(count) / 1000}K") == count


@given(st.integers(1, LARGEST_COUNT))
def test_formatted_counts_read_back_to_three_digits(count: int) -> None:
    assert parse_count(format_count(count)) == pytest.approx(count, rel=0.00501)
    assert parse_count(format_count(count, 9)) == pytest.approx(count, rel=0.00000000501)


@given(st.floats(1, 1e40))
def test_formatted_flops_read_back_to_three_digits(flops: float) -> None:
    assert parse_flops(repr(flops)) == parse_flops(flops) == flops
    assert parse_flops(format_flops(flops)) == pytest.approx(flops, rel=0.00501)


@given(st.floats(1e-6, 1e6))
def test_days_are_a_day_s_hours(days: float) -> None:
    assert parse_days(days) == days
    assert parse_days(f"{days!r} days") == days
    assert parse_days(f"{days!r} h") * 24 == pytest.approx(days)


@given(st.floats(0, 1))
def test_fractions_are_percent(fraction: float) -> None:
    assert parse_fraction(f"{Decimal(repr(fraction)) * 100}%") == fraction


numbers = st.sampled_from(["1", "-1", "0", "1e9", "1e999999999", "1e-999999999", ".", "1_", "1,"])
words = st.sampled_from(
    ["", "M", "tokens", "%", "PFLOP/s-days", "days", "tpp", "\0", "İ", "\ud800"]
)
anything = st.one_of(
    st.text(),
    st.builds("{}{}{}".format, numbers, st.sampled_from(["", " ", "\n"]), words),
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(),
    st.lists(st.integers()),
    st.integers().map(lambda n: 10 ** min(abs(n), 6000)),
)


@pytest.mark.parametrize("parse", PARSERS)
@given(value=anything)
def test_anything_is_read_or_refused(parse: Callable[[object], Any], value: object) -> None:
    result, message = 0, "got it"
    try:
        result = parse(value)
    except UnitError as error:
        message = str(error)
    assert math.isfinite(result)
    assert result >= 0
    assert message.startswith("got ")
    assert message.isprintable()
    assert len(message) < 300


@given(anything)
def test_shown_values_are_one_short_line(value: object) -> None:
    assert len(show(value)) <= 64
    assert show(value).isprintable()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing"),
        (True, "true"),
        ("a\nb", r"'a\nb'"),
        ([1], "[1]"),
        (10**5000, "an integer of 16610 bits"),
    ],
    ids=show,
)
def test_show(value: object, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(
    ("formatted", "text"),
    [
        (format_count(270_700_000), "271M"),
        (format_count(999_700_000), "1.00B"),
        (format_count(0), "0"),
        (format_count(12), "12.0"),
        (format_flops(1.473e20), "1.47e20"),
        (format_bytes(80e9), "80.0 GB"),
        (format_bytes(12), "12 B"),
    ],
)
def test_formats(formatted: str, text: str) -> None:
    assert formatted == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (168.3, 2, "170"),
        (0.3771, 2, "0.38"),
        (2, 3, "2"),
        (12345.0, 3, "12,300"),
        (1e-5, 2, "0.00001"),
    ],
)
def test_plain_numbers_have_no_exponent(value: float, digits: int, text: str) -> None:
    assert format_plain(value, digits) == text


def test_counts_of_things() -> None:
    assert count_of(1, "run") == "1 run"
    assert count_of(0, "run") == "0 runs"
    assert count_of(3417, "setting") == "3,417 settings"
    assert count_of(2, "entry", "entries") == "2 entries"
