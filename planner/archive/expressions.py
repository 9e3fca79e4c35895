"""Arithmetic on columns, such as ``{Training FLOP} / (6 * {Model Size})``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from planner.archive.errors import LogError
from planner.archive.record import Values
from planner.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|\{(?P<braced>[^{}]*)\}"
    r"|(?P<name>[^\W\d]\w*)|(?P<sign>[-+*/()]))"
)
_LONGEST = 500
_DEEPEST = 20


def evaluate(
    text: str, names: Collection[str], column: Callable[[str], Values | float]
) -> Values | float:
    """Return the value of an expression of numbers, columns, ``+ - * / ( )``.

    A text that is a column's name is that column; within an expression a name that is no plain
    word stands in braces.

    Args:
        text: The expression.
        names: Names of the columns.
        column: Returns a column by its name.

    Raises:
        LogError: If it cannot be read, or names a column that there is not.
    """
    if text in names:
        return column(text)
    parser = _Parser(text, names, column)
    with np.errstate(all="ignore"):  # what is not finite is missing
        value = parser.sum()
    if parser.token is not None:
        raise parser.error(f"did not expect {parser.token[1]!r}")
    return value


class _Parser:
    """Reads an expression from left to right."""

    def __init__(
        self, text: str, names: Collection[str], column: Callable[[str], Values | float]
    ) -> None:
        self._text = text
        self._names = names
        self._column = column
        self._at = 0
        self._depth = 0
        if len(text) > _LONGEST:
            raise LogError(f"an expression is longer than {_LONGEST} characters")
        self._next()

    def error(self, what: str) -> LogError:
        """Return an error that quotes the expression."""
        return LogError(f"in the expression {self._text!r}: {what}")

    def _next(self) -> None:
        self.token: tuple[str, str] | None = None
        if not self._text[self._at :].strip():
            return
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise self.error(f"cannot read {self._text[self._at :].strip()[:20]!r}")
        self._at = found.end()
        kind = found.lastgroup or ""
        self.token = kind, found[kind]

    def _sign(self, signs: str) -> str | None:
        if self.token is None or self.token[0] != "sign" or self.token[1] not in signs:
            return None
        sign = self.token[1]
        self._next()
        return sign

    def sum(self) -> Values | float:
        """Return the value of what ends at a closing parenthesis or at the end."""
        value = self._product()
        while (sign := self._sign("+-")) is not None:
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> Values | float:
        value = self._factor()
        while (sign := self._sign("*/")) is not None:
            other = self._factor()
            value = value * other if sign == "*" else np.divide(value, other)
        return value

    def _factor(self) -> Values | float:
        negative = False
        while (sign := self._sign("+-")) is not None:
            negative ^= sign == "-"
        value = self._operand()
        return -value if negative else value

    def _operand(self) -> Values | float:
        if self._sign("(") is not None:
            self._depth += 1
            if self._depth > _DEEPEST:
                raise self.error(f"nests deeper than {_DEEPEST} parentheses")
            value = self.sum()
            if self._sign(")") is None:
                raise self.error("wanted a closing parenthesis")
            self._depth -= 1
            return value
        if self.token is None:
            raise self.error("wanted a number or a column at its end")
        kind, word = self.token
        if kind == "sign":
            raise self.error(f"wanted a number or a column, got {word!r}")
        self._next()
        if kind == "number":
            return float(word)
        word = word.strip()
        if word not in self._names:
            raise self.error(f"no column is called {word!r}; {did_you_mean(word, self._names)}")
        return self._column(word)
