"""Tables as JSON, built column by column: thousands of nested records take long one by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_BLOCK = 20_000  # rows: Arrow's text columns hold 2 GB at most
_SPECIAL = r'["\\\x00-\x1f]'


def json_lines(table: pa.Table, raw: Collection[str] = ()) -> Iterator[str]:
    """Yield each row of a table as a JSON object, without its braces.

    Whatever is not finite becomes null.

    Args:
        table: Columns of text, numbers, lists and structs.
        raw: Text columns that hold JSON already.
    """
    for start in range(0, table.num_rows, _BLOCK):
        block = table.slice(start, _BLOCK).combine_chunks()
        parts: list[Any] = []
        for name in block.column_names:
            column = block.column(name)
            array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
            text = array.fill_null("null") if name in raw else _json(array)
            parts += [f"{', ' if parts else ''}{json.dumps(name)}: ", text]
        yield from pc.binary_join_element_wise(*parts, "").to_pylist()


def _json(array: pa.Array) -> pa.Array:
    """Return each value as JSON text."""
    kind = array.type
    if pa.types.is_list(kind):
        text = _lists(array)
    elif pa.types.is_struct(kind):
        parts: list[Any] = []
        for number, field in enumerate(kind):
            parts += [f"{', ' if parts else ''}{json.dumps(field.name)}: "]
            parts += [_json(pc.struct_field(array, [number]))]
        text = pc.binary_join_element_wise("{", *parts, "}", "")
    elif pa.types.is_floating(kind):
        finite = pc.if_else(pc.is_finite(array), array, None)
        shown = pc.cast(finite, pa.string())
        # a whole number stays a real one
        text = pc.replace_substring_regex(shown, r"^(-?[0-9]+)$", r"\1.0")
    elif pa.types.is_integer(kind):
        text = pc.cast(array, pa.string())
    else:
        text = _quoted(array)
    return text.fill_null("null")


def _quoted(array: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(array, _SPECIAL)).as_py():
        values = [
            None if v is None else json.dumps(v, ensure_ascii=False) for v in array.to_pylist()
        ]
        return pa.array(values, pa.string())
    return pc.binary_join_element_wise('"', array, '"', "")


def _lists(array: pa.Array) -> pa.Array:
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    items = pa.ListArray.from_arrays(pa.array(offsets), _json(array.flatten()))
    joined = pc.binary_join_element_wise("[", pc.binary_join(items, ", "), "]", "")
    return pc.if_else(array.is_valid(), joined, None)
