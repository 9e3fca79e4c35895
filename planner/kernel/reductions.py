"""One number per curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner import _core
from planner.kernel.ragged import Ragged


@dataclass(frozen=True, slots=True)
class Means:
    """Means of a batch; every array has shape ``(curves,)``."""

    mean: NDArray[np.float64]
    """NaN where the status is not OK. Units of the values."""
    n_finite: NDArray[np.int64]
    """Usable points."""
    status: NDArray[np.int32]
    """:class:`planner.kernel.Status`: OK, EMPTY or NON_FINITE."""


def mean(curves: Ragged, *, threads: int | None = None) -> Means:
    """Mean over the usable points of each curve, summed with compensation.

    Points that are NaN, infinite or of magnitude 1e300 and above count as missing. Within an ulp
    or two of the exact mean; the same bits on every CPU.

    Args:
        curves: Any units.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: ``threads`` is below 1, or ``PLANNER_SIMD`` names a level that is not offered.
    """
    return Means(*_core.ragged_mean(curves.values, curves.offsets, threads=threads))
