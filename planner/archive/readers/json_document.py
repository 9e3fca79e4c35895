"""Whole JSON documents: told apart by their outer keys, and bounded in what they hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from planner.archive.errors import LogError
from planner.archive.readers.jsonl import parse_json
from planner.archive.source import MAX_DOCUMENT_BYTES, decode

if TYPE_CHECKING:
    from planner.archive.readers.protocol import Log

MAX_VALUES = 8_000_000  # each takes up to 64 bytes once it is parsed
_MARK = re.compile(r'[{}\[\]"]')
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*+"', re.DOTALL)
_AFTER_KEY = re.compile(r"\s*+:\s*+(.)", re.DOTALL)


def outer_keys(log: Log) -> dict[str, str]:
    """Return the keys of the outermost object that stand in the head of a document.

    In a list of objects these are the keys of all that the head shows. The head of a long document
    is cut, so it cannot be parsed.

    Returns:
        Key to the first character of its value, such as ``{`` or ``[``.
    """
    keys: dict[str, str] = {}
    if not log.is_json:
        return keys
    text = decode(log.head).lstrip("\ufeff \t\r\n")
    level = {"{": 1, "[": 2}.get(text[:1])
    if level is None:
        return keys
    depth = 0
    at = 0
    while mark := _MARK.search(text, at):
        at = mark.end()
        if mark[0] in "{[":
            depth += 1
        elif mark[0] in "}]":
            depth -= 1
            if depth <= 0:
                break
        else:
            end = _STRING_END.match(text, at)
            if end is None:
                break
            if depth == level:
                after = _AFTER_KEY.match(text, end.end())
                if after:
                    keys.setdefault(text[at : end.end() - 1], after[1])
            at = end.end()
    return keys


def read_json_document(log: Log) -> Any:
    """Return a whole JSON document.

    Raises:
        LogError: If it is too long, holds too many values, or is not JSON.
    """
    text = log.source.text(MAX_DOCUMENT_BYTES).lstrip("\ufeff")
    # each value but the first comes after one of these
    if text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        raise LogError(f"holds more than {MAX_VALUES:,} values, which is the bound")
    try:
        return parse_json(text)
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise LogError(f"is not JSON: {reason}") from None
