"""Ragged input: what is taken as it is, what is converted, what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import _core
from planner.kernel import Ragged, Status
from planner.kernel.reductions import mean


def same_memory(a: object, b: object) -> bool:
    return np.shares_memory(np.asarray(a), np.asarray(b))


def test_zero_copy() -> None:
    values, offsets = np.arange(10.0), np.array([0, 4, 4, 10])
    curves = Ragged(values, offsets)
    assert same_memory(curves.values, values)
    assert same_memory(curves.offsets, offsets)
    assert [curve.tolist() for curve in curves] == [[0, 1, 2, 3], [], [4, 5, 6, 7, 8, 9]]
    assert same_memory(curves[-1], values)
    assert (len(curves), curves.lengths.tolist()) == (3, [4, 0, 6])
    assert repr(curves) == "Ragged(3 curves, 10 points)"
    with pytest.raises(IndexError, match="curve 3 of 3"):
        curves[3]
    matrix = np.arange(6.0).reshape(2, 3)
    assert same_memory(Ragged.from_matrix(matrix).values, matrix)
    assert same_memory(curves.with_values(values[::-1].copy()).offsets, offsets)


def test_what_is_converted() -> None:
    curves = Ragged(np.arange(10, dtype=np.float32)[::2], np.array([0, 5], dtype=np.int32))
    assert curves.values.dtype == np.float64
    assert curves.offsets.dtype == np.int64
    assert curves.values.tolist() == [0, 2, 4, 6, 8]
    assert Ragged([1, 2], [0, 2])[0].tolist() == [1.0, 2.0]  # type: ignore[arg-type]


@given(st.lists(st.lists(st.floats(width=64), max_size=5), max_size=6))
def test_from_list_round_trips(lists: list[list[float]]) -> None:
    curves = Ragged.from_list(lists)
    assert len(curves) == len(lists)
    for curve, expected in zip(curves, lists, strict=True):
        np.testing.assert_array_equal(curve, np.array(expected, dtype=np.float64))


def test_from_arrow() -> None:
    lists = [[1.0, 2.0], [], [3.0, None], None, [4.0]]
    for type_ in (pa.large_list(pa.float64()), pa.list_(pa.float64()), pa.list_(pa.float32())):
        curves = Ragged.from_arrow(pa.array(lists, type_))
        assert curves.lengths.tolist() == [2, 0, 2, 0, 1]
        assert np.isnan(curves[2][1])
        assert curves[4].tolist() == [4.0]
    whole = pa.array([[1.0, 2.0], [], [3.0, 5.0], [4.0]], pa.large_list(pa.float64()))
    curves = Ragged.from_arrow(whole)
    assert same_memory(curves.values, whole.values.to_numpy())
    part = Ragged.from_arrow(whole.slice(1, 3))
    assert [curve.tolist() for curve in part] == [[], [3.0, 5.0], [4.0]]
    chunks = pa.chunked_array([whole.slice(0, 1), whole.slice(2)])
    assert [c.tolist() for c in Ragged.from_arrow(chunks)] == [[1.0, 2.0], [3.0, 5.0], [4.0]]
    assert len(Ragged.from_arrow(pa.chunked_array([], pa.large_list(pa.float64())))) == 0
    for wrong in (pa.array([1.0]), pa.array([["a"]])):
        with pytest.raises(TypeError, match="an Arrow list array"):
            Ragged.from_arrow(wrong)


@pytest.mark.parametrize(
    ("values", "offsets", "error", "message"),
    [
        (np.zeros((2, 2)), [0, 4], ValueError, r"values must be one-dimensional.*\(2, 2\)"),
        (np.zeros(4), [[0, 4]], ValueError, "offsets must be one-dimensional"),
        (np.zeros(4), [], ValueError, "at least one number"),
        (np.zeros(4), [0.0, 4.0], TypeError, "offsets must be integers, got float64"),
        (np.zeros(4), [0, 5], ValueError, "within the 4 values, got 0 to 5"),
        (np.zeros(4), [-1, 4], ValueError, "within the 4 values, got -1 to 4"),
        (np.zeros(4), [0, 3, 1, 4], ValueError, "must not decrease, got 3 then 1 at index 2"),
        (np.array(["a"]), [0, 1], TypeError, "values must be real numbers, got <U1"),
        (np.zeros(4, dtype=complex), [0, 4], TypeError, "got complex128"),
    ],
)
def test_what_is_refused(values: object, offsets: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Ragged(values, offsets)  # type: ignore[arg-type]


def test_status_mirrors_the_kernel() -> None:
    compiled = {
        name.removeprefix("STATUS_"): getattr(_core, name)
        for name in dir(_core)
        if name.startswith("STATUS_")
    }
    assert compiled == {status.name: status.value for status in Status}
    assert Status.CONVERGED is Status.OK


def test_mean() -> None:
    curves = Ragged.from_list([[1.0, np.nan, 3.0], [], [np.inf]])
    result = mean(curves)
    assert result.mean[0] == 2.0
    assert result.n_finite.tolist() == [2, 0, 0]
    assert [Status(code) for code in result.status] == [
        Status.OK,
        Status.EMPTY,
        Status.NON_FINITE,
    ]
