"""Many curves of different lengths as one value array and one offset array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pyarrow

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Ragged:
    """Curves of different lengths; curve ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    The arrays are used as they are when they are contiguous float64 and int64, and converted once
    when they are not. Missing points are NaN.

    Args:
        values: Shape ``(points,)``, any units.
        offsets: Shape ``(curves + 1,)``, not decreasing, from 0 or more to at most ``points``.

    Raises:
        ValueError: an array is not one-dimensional, or the offsets are out of order or range.
        TypeError: the values are not real numbers, or the offsets not integers.
    """

    values: Float64
    offsets: Int64

    def __post_init__(self) -> None:
        values = _as_float64(self.values, "values")
        offsets = np.asarray(self.offsets)
        if offsets.ndim != 1 or offsets.size == 0:
            raise ValueError(
                "offsets must be one-dimensional and hold at least one number, "
                f"got shape {offsets.shape}."
            )
        if offsets.dtype.kind not in "iu":
            raise TypeError(f"offsets must be integers, got {offsets.dtype}.")
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        if offsets[0] < 0 or offsets[-1] > values.size:
            raise ValueError(
                f"offsets must lie within the {values.size} values, "
                f"got {offsets[0]} to {offsets[-1]}."
            )
        wrong = np.flatnonzero(offsets[1:] < offsets[:-1])
        if wrong.size:
            at = int(wrong[0])
            raise ValueError(
                f"offsets must not decrease, got {offsets[at]} then {offsets[at + 1]} "
                f"at index {at + 1}."
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def from_list(cls, curves: Sequence[ArrayLike]) -> Ragged:
        """Join curves given one by one; this copies them.

        Raises:
            ValueError: a curve is not one-dimensional.
            TypeError: a curve does not hold real numbers.
        """
        arrays = [_as_float64(curve, f"curve {i}") for i, curve in enumerate(curves)]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([array.size for array in arrays], out=offsets[1:])
        return cls(np.concatenate(arrays) if arrays else np.empty(0), offsets)

    @classmethod
    def from_matrix(cls, rows: ArrayLike) -> Ragged:
        """Take the rows of a matrix, shape ``(curves, points)``; no copy if it is C-contiguous.

        Raises:
            ValueError: it is not two-dimensional.
        """
        matrix = np.ascontiguousarray(rows, dtype=np.float64)
        if matrix.ndim != 2:
            raise ValueError(f"a matrix has two dimensions, got shape {matrix.shape}.")
        curves, points = matrix.shape
        return cls(matrix.reshape(-1), np.arange(curves + 1, dtype=np.int64) * points)

    @classmethod
    def from_arrow(cls, lists: pyarrow.Array | pyarrow.ChunkedArray) -> Ragged:
        """Read an Arrow list array. A null point is NaN and a null list is empty.

        A ``large_list<double>`` without nulls is not copied; ``list<double>`` has its offsets
        widened to 64 bits. Several chunks are joined, which copies.

        Raises:
            TypeError: it is not a list array of numbers.
        """
        import pyarrow as pa

        if isinstance(lists, pa.ChunkedArray):
            if lists.num_chunks != 1:
                lists = (
                    pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
                )
            else:
                lists = lists.chunk(0)
        if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
            raise TypeError(f"an Arrow list array is needed, got {lists.type}.")
        if lists.null_count:  # what lies under a null list is undefined
            lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            points = lists.flatten()
        else:
            offsets = lists.offsets.to_numpy()
            points = lists.values
        if not (pa.types.is_floating(points.type) or pa.types.is_integer(points.type)):
            raise TypeError(f"an Arrow list array of numbers is needed, got {lists.type}.")
        if points.type != pa.float64():
            points = points.cast(pa.float64())
        return cls(points.to_numpy(zero_copy_only=False), offsets)

    def __len__(self) -> int:
        """Return the number of curves."""
        return self.offsets.size - 1

    def __getitem__(self, curve: int) -> Float64:
        """Return one curve, a view."""
        n = len(self)
        if not -n <= curve < n:
            raise IndexError(f"curve {curve} of {n}")
        curve %= n
        return self.values[self.offsets[curve] : self.offsets[curve + 1]]

    def __iter__(self) -> Iterator[Float64]:
        """Yield the curves, as views."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Ragged({len(self)} curves, {int(self.offsets[-1] - self.offsets[0])} points)"

    @property
    def lengths(self) -> Int64:
        """Points of each curve, shape ``(curves,)``."""
        return np.diff(self.offsets)

    def with_values(self, values: ArrayLike) -> Ragged:
        """Other values on the same curves.

        Raises:
            ValueError: the number of values differs.
        """
        other = _as_float64(values, "values")
        if other.size != self.values.size:
            raise ValueError(f"{self.values.size} values are needed, got {other.size}.")
        return Ragged(other, self.offsets)


def _as_float64(values: ArrayLike, name: str) -> Float64:
    """Make a contiguous one-dimensional float64 array; no copy if it is one."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}.")
    if array.dtype.kind not in "fiub" and array.size:
        raise TypeError(f"{name} must be real numbers, got {array.dtype}.")
    return np.require(array, dtype=np.float64, requirements=["C", "A"])
