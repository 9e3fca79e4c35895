"""Smoothing, resampling to fractions of training, and normalizing.

Which smoother: :meth:`Smoother.by_steps` for plots (Scaling with Collapse uses 100 steps),
:meth:`Smoother.by_sequences` where curves of different batch sizes are compared (the same number of
training examples in each window), :meth:`Smoother.by_fraction` where lengths differ,
:meth:`Smoother.exponential` for watching a run.

Points that are NaN, infinite or of magnitude 1e300 and above count as missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner import _core
from planner.kernel.ragged import Float64, Ragged


class _Kind(IntEnum):
    CENTRED = 0
    TRAILING = 1
    EXPONENTIAL = 2


@dataclass(frozen=True, eq=False, slots=True)
class Smoother:
    """How curves are smoothed; made by one of the class methods.

    A moving average is the mean of the usable points of a window. Windows shrink at the ends of a
    curve: nothing is padded or dropped, and the last value of a centred average is the mean of the
    last half window. A window without a usable point gives NaN. A centred window of an even number
    of points has the extra one before. A window of one point is the curve itself.
    """

    kind: _Kind
    width: float | Float64
    """Points in a window, one number or one per curve; or the weight of a new point."""
    of_length: bool = False
    """The width is a fraction of the points of the curve, or of its total."""

    @classmethod
    def none(cls) -> Smoother:
        """The curve as it is, with missing points as NaN."""
        return cls(_Kind.TRAILING, 1.0)

    @classmethod
    def by_steps(
        cls, steps: ArrayLike, *, steps_per_point: ArrayLike = 1.0, centred: bool = False
    ) -> Smoother:
        """Moving average over so many optimizer steps.

        Args:
            steps: One number, or one per curve; at least one point is in the window.
            steps_per_point: Steps from one logged point to the next; one number or one per curve.
            centred: Around the point; else the point and those before it.

        Raises:
            ValueError: a number is not positive and finite.
        """
        points = np.round(_positive(steps, "steps") / _positive(steps_per_point, "steps_per_point"))
        return cls(_Kind.CENTRED if centred else _Kind.TRAILING, _width(np.maximum(points, 1.0)))

    @classmethod
    def by_sequences(
        cls,
        sequences: ArrayLike,
        batch: ArrayLike,
        *,
        steps_per_point: ArrayLike = 1.0,
        centred: bool = False,
    ) -> Smoother:
        """Moving average over so many training sequences: ``sequences / batch`` steps.

        Scaling with Collapse (appendix D.1) spans 12,288 sequences for its fits.

        Args:
            sequences: In a window; one number, or one per curve.
            batch: Sequences per optimizer step; one number, or one per curve.
            steps_per_point: As in :meth:`by_steps`.
            centred: As in :meth:`by_steps`.

        Raises:
            ValueError: a number is not positive and finite.
        """
        steps = _positive(sequences, "sequences") / _positive(batch, "batch")
        return cls.by_steps(steps, steps_per_point=steps_per_point, centred=centred)

    @classmethod
    def by_fraction(cls, fraction: ArrayLike, *, centred: bool = False) -> Smoother:
        """Moving average over a fraction of training: of the total where one is given.

        Args:
            fraction: Above 0, at most 1; one number, or one per curve.
            centred: As in :meth:`by_steps`.

        Raises:
            ValueError: a number is out of range.
        """
        width = _positive(fraction, "fraction")
        if np.any(width > 1.0):
            raise ValueError(f"fraction must be at most 1, got {width.max()}.")
        return cls(_Kind.CENTRED if centred else _Kind.TRAILING, _width(width), of_length=True)

    @classmethod
    def exponential(cls, weight: ArrayLike) -> Smoother:
        """Exponential average ``e += weight (x - e)``, from the first usable point on.

        It stays as it is over missing points, and is NaN before the first usable one. (pandas:
        ``ewm(alpha=weight, adjust=False, ignore_na=True)``.)

        Args:
            weight: Of a new point, above 0 and at most 1; one number, or one per curve.

        Raises:
            ValueError: a number is out of range.
        """
        width = _positive(weight, "weight")
        if np.any(width > 1.0):
            raise ValueError(f"weight must be at most 1, got {width.max()}.")
        return cls(_Kind.EXPONENTIAL, _width(width))

    def _widths(self, curves: Ragged, totals: Float64 | None) -> Float64:
        """One number per curve, as the kernel takes it."""
        width = _per_curve(self.width, len(curves), "the smoother's width")
        if self.of_length:
            length = curves.lengths if totals is None else totals
            width = np.maximum(np.round(width * length), 1.0)
        return width


@dataclass(frozen=True, slots=True)
class Smoothed:
    """Smoothed curves."""

    curves: Ragged
    """Same shape and units as the input; NaN where a window has no usable point."""
    n_finite: NDArray[np.int64]
    """Usable points, shape ``(curves,)``."""
    status: NDArray[np.int32]
    """:class:`planner.kernel.Status`: OK, EMPTY or NON_FINITE, shape ``(curves,)``."""


@dataclass(frozen=True, slots=True)
class Resampled:
    """Curves on a common grid of t/T."""

    values: Float64
    """Shape ``(curves, grid points)``: NaN past the end of a run in progress, where a window has no
    usable point, and everywhere in a curve whose status is not OK."""
    divisor: Float64
    """What each curve was normalized by (1 if not asked for), shape ``(curves,)``."""
    n_finite: NDArray[np.int64]
    """Usable points, shape ``(curves,)``."""
    status: NDArray[np.int32]
    """:class:`planner.kernel.Status`, shape ``(curves,)``: OK, EMPTY, or NON_FINITE (no usable
    point, or no divisor: the last window has no usable point, or divisor and offset are equal)."""


def smooth(curves: Ragged, smoother: Smoother, *, threads: int | None = None) -> Smoothed:
    """Smooth every point of every curve.

    Args:
        curves: Any units.
        smoother: One for all curves, or with one width per curve.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: the smoother is for another number of curves, or ``threads`` is below 1.
    """
    values, n_finite, status = _core.smooth(
        curves.values,
        curves.offsets,
        smoother._widths(curves, None),
        smoother.kind,
        threads=threads,
    )
    return Smoothed(curves.with_values(values), n_finite, status)


def resample(
    curves: Ragged,
    grid: ArrayLike,
    smoother: Smoother,
    *,
    positions: Ragged | None = None,
    totals: ArrayLike | None = None,
    normalize: bool = False,
    divisors: ArrayLike | None = None,
    offset: float = 0.0,
    threads: int | None = None,
) -> Resampled:
    """Smooth, read off at fractions of training, and normalize, in one pass over the points.

    Between two points the smoothed curve is linear. Before the first point it is held; past the
    last one it is NaN: nothing is extrapolated. Normalized curves are
    ``(s - offset) / (divisor - offset)`` (Qiu et al. 2025; offset 0 in Scaling with Collapse,
    section 2), with the last smoothed value as the divisor unless one is given.

    Args:
        curves: Any units.
        grid: Fractions t/T, not decreasing, shape ``(grid points,)``.
        smoother: One for all curves, or with one width per curve; its windows count points.
        positions: t/T of each point, increasing in each curve, with the curves' own offsets. None:
            point ``i`` of a run of ``total`` points lies at ``(i + 1) / total``.
        totals: Points in each whole run, shape ``(curves,)`` or one number; None: those there are.
            Not together with positions.
        normalize: Divide by the last smoothed value, or by ``divisors``.
        divisors: Units of the values, shape ``(curves,)`` or one number; implies ``normalize``.
        offset: Subtracted from values and divisor; units of the values.
        threads: At least 1; None: all CPUs.

    Raises:
        ValueError: a shape does not fit, grid or positions are out of order, a total is below the
            points of its curve, or ``threads`` is below 1.
    """
    points = np.ascontiguousarray(grid, dtype=np.float64)
    if points.ndim != 1 or not np.all(np.isfinite(points)) or np.any(np.diff(points) < 0):
        raise ValueError("grid must be one-dimensional, finite and not decreasing.")
    if not np.isfinite(offset):
        raise ValueError(f"offset must be finite, got {offset}.")
    total = None if totals is None else _per_curve(totals, len(curves), "totals")
    if total is not None:
        if positions is not None:
            raise ValueError("give positions or totals, not both.")
        if not np.all(total >= np.maximum(curves.lengths, 1)):
            raise ValueError("totals must be at least the points of each curve, and 1.")
    at = None
    if positions is not None:
        at = _checked_positions(positions, curves)
    divisor = None if divisors is None else _per_curve(divisors, len(curves), "divisors")
    return Resampled(
        *_core.resample(
            curves.values,
            curves.offsets,
            smoother._widths(curves, total),
            smoother.kind,
            points,
            positions=at,
            totals=total,
            divisors=divisor,
            normalize=normalize or divisor is not None,
            offset=float(offset),
            threads=threads,
        )
    )


def _checked_positions(positions: Ragged, curves: Ragged) -> Float64:
    if positions.values.size != curves.values.size or not np.array_equal(
        positions.offsets, curves.offsets
    ):
        raise ValueError("positions must have the offsets of the curves.")
    start, end = curves.offsets[0], curves.offsets[-1]
    rises = np.diff(positions.values[start:end]) > 0
    between = curves.offsets[1:-1] - start - 1  # from one curve to the next anything goes
    rises[between[(between >= 0) & (between < rises.size)]] = True
    if not np.all(rises) or not np.all(np.isfinite(positions.values[start:end])):
        raise ValueError("positions must be finite and increase in each curve.")
    return positions.values


def _positive(numbers: ArrayLike, name: str) -> Float64:
    array = np.asarray(numbers, dtype=np.float64)
    if array.ndim > 1 or not np.all((array > 0) & np.isfinite(array)):
        raise ValueError(f"{name} must be positive and finite, one number or one per curve.")
    return array


def _width(width: Float64) -> float | Float64:
    return width if width.ndim else float(width)


def _per_curve(numbers: ArrayLike, curves: int, name: str) -> Float64:
    array = np.asarray(numbers, dtype=np.float64)
    if array.ndim > 1 or (array.ndim == 1 and array.size != curves):
        raise ValueError(
            f"{name} must be one number or one per curve ({curves}), got shape {array.shape}."
        )
    return np.ascontiguousarray(np.broadcast_to(array, (curves,)))
