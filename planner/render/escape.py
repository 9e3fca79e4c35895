"""Values into YAML, bash, comments and Markdown so that they come back as exactly what they were.

Templates may only print what went through one of these functions: each returns `Quoted`, and the
engine refuses to print a plain string or float (`planner.render.engine`). So a family called
``$(reboot)`` or ``a: b`` is a name in every file and nothing else.
"""

from __future__ import annotations

import math
import re
import shlex

from planner.render.errors import CannotExpressError


class Quoted(str):
    """Text that is already in the syntax of the file that it goes into."""

    __slots__ = ()


# Printable ASCII without the quote and the backslash: the usual case, and the fast one.
_PLAIN = re.compile(r"[ !#-\[\]-~]*").fullmatch

# YAML's own short escapes, where they differ from \xNN.
_YAML_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _yaml_char(char: str) -> str:
    code = ord(char)
    if char in _YAML_ESCAPES:
        return _YAML_ESCAPES[char]
    if 0x20 <= code < 0x7F:
        return char
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        # A lone surrogate has no UTF-8 form, and YAML readers disagree on it.
        if 0xD800 <= code <= 0xDFFF:
            raise CannotExpressError(f"text {char!r} is not valid Unicode and cannot be written")
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"


def yaml_float(value: float) -> str:
    """Return a float that YAML 1.1 and 1.2 both read back as the same float64.

    ``repr`` alone will not do: YAML 1.1, which ModelZoo's reader follows, takes ``1e-05`` for a
    string, because its floats need a point.
    """
    if not math.isfinite(value):
        raise CannotExpressError(f"got the number {value}, wanted a finite one")
    text = repr(float(value))
    mantissa, exponent, power = text.partition("e")
    if exponent and "." not in mantissa:
        mantissa += ".0"
    return mantissa + exponent + power


def to_yaml(value: object) -> Quoted:
    """Return a YAML flow scalar or flow list: null, boolean, integer, float, quoted text.

    Raises:
        CannotExpressError: If a number is not finite, text is not Unicode, or the type is other.
    """
    if value is None:
        return Quoted("null")
    if isinstance(value, bool):
        return Quoted("true" if value else "false")
    if isinstance(value, int):
        return Quoted(int(value))
    if isinstance(value, float):
        return Quoted(yaml_float(value))
    if isinstance(value, str):
        return Quoted('"' + (value if _PLAIN(value) else "".join(map(_yaml_char, value))) + '"')
    if isinstance(value, (list, tuple)):
        return Quoted("[" + ", ".join(map(to_yaml, value)) + "]")
    raise CannotExpressError(f"cannot write a {type(value).__name__} into YAML")


# What a literal block may hold: YAML's printable characters without those that end a line by
# themselves or that editors turn into such.
_BLOCK = re.compile(r"[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]*")


def to_yaml_block(value: object, indent: int) -> Quoted:
    """Return text as a YAML literal block with ``indent`` blanks before each line, where it can be.

    Text with characters that no block may hold, or that starts with a blank, is quoted instead.

    Raises:
        CannotExpressError: If the text is not Unicode.
    """
    text = str(value)
    body = text.rstrip("\n")
    if not body or not _BLOCK.fullmatch(text) or text[0] in " \t\n":
        return to_yaml(text)
    ends = len(text) - len(body)
    keep = {0: "-", 1: ""}.get(ends, "+")
    margin = " " * indent
    lines = [margin + line if line else "" for line in body.split("\n")]
    return Quoted(f"|{keep}\n" + "\n".join(lines) + "\n" * max(0, ends - 1))


def to_kubernetes(value: object) -> str:
    """Return text for a container's command, argument or variable, where ``$(NAME)`` is expanded.

    The result still has to be quoted as YAML.
    """
    return str(value).replace("$(", "$$(")


def to_shell(value: object) -> Quoted:
    """Return one word of bash that stands for exactly ``str(value)``; lists become several words.

    Raises:
        CannotExpressError: If the text holds a NUL, which no shell word can.
    """
    if isinstance(value, (list, tuple)):
        return Quoted(" ".join(map(to_shell, value)))
    text = str(value)
    if "\0" in text:
        raise CannotExpressError(f"text {text!r} holds a NUL character and cannot be a shell word")
    return Quoted(shlex.quote(text))


def to_comment(value: object) -> Quoted:
    """Return text for a comment: one line, printable ASCII, and short numbers."""
    if isinstance(value, float):
        return Quoted(f"{value:.6g}")
    return Quoted(_visible(str(value)))


def _visible(text: str) -> str:
    """Return ``text`` with the characters that could end a line or hide escaped."""
    if _PLAIN(text):
        return text
    return "".join(
        char if 0x20 <= ord(char) < 0x7F else char.encode("unicode_escape").decode()
        for char in text
    )


def to_markdown(value: object) -> Quoted:
    """Return a Markdown code span on one line."""
    text = _visible(f"{value:.6g}" if isinstance(value, float) else str(value))
    longest = run = 0
    for char in text:
        run = run + 1 if char == "`" else 0
        longest = max(longest, run)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    # A pipe would end a table cell even inside a code span.
    return Quoted(f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|"))


def raw(value: object) -> Quoted:
    """Return text as it is: for text that a template itself made, never for names from a plan."""
    return Quoted(value)
