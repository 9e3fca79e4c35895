"""The compiled kernel: arrays in, arrays and status codes out. Source in ``csrc/``."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

STATUS_OK: Final[int]
"""The curve was reduced."""
STATUS_EMPTY: Final[int]
"""The curve has no points at all; its result is NaN."""
STATUS_NO_FINITE: Final[int]
"""The curve has points but none of them is finite; its result is NaN."""

def compiler() -> str:
    """Compiler the extension was built with, for example ``"gcc 12.2.0"``."""

def simd_level() -> str:
    """SIMD level in use: ``"avx512"``, ``"avx2"``, ``"baseline"``, or ``"scalar"`` off x86-64.

    Chosen once, at first use: the best of :func:`simd_levels`, unless the environment variable
    ``PLANNER_SIMD`` names a lower one. Every level returns the same bits.

    Raises:
        ValueError: ``PLANNER_SIMD`` names a level that is unknown, or that this build or this
            CPU does not offer. The message is one sentence; importing never raises it.
    """

def simd_levels() -> list[str]:
    """Levels this build offers and this CPU runs, best first."""

def ragged_mean(
    values: NDArray[np.float64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int32]]:
    """Mean over the finite points of each curve, summed with compensation.

    Curve ``i`` is ``values[offsets[i]:offsets[i + 1]]``. Points that are NaN, infinite or of
    magnitude 1e300 and above count as missing. The sum runs over eight virtual lanes, each
    compensated (TwoSum; Ogita, Rump, Oishi 2005), joined by a fixed tree: the result has the
    same bits on every CPU and is within an ulp or two of the exact mean. Arrays are read in
    place, without the GIL.

    Args:
        values: C-contiguous float64, shape ``(points,)``.
        offsets: C-contiguous int64, shape ``(curves + 1,)``, not decreasing, from 0 or more up
            to at most ``points``.

    Returns:
        ``(mean, n_finite, status)``, each of shape ``(curves,)``. A curve that cannot be reduced
        has a NaN mean and a status other than ``STATUS_OK``; it never raises.

    Raises:
        TypeError: an argument is not an array of that type.
        ValueError: an array has the wrong shape or layout, the offsets are out of order or out
            of range, or ``PLANNER_SIMD`` names a level that is not offered.
    """
