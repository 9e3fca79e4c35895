"""Forecasts by collapse: the run's last stretch is laid on the band's normalized curve.

``log L(T) = mean over the last fifth of what is logged of (log L(t) - log shape(t))``: early-align
of Scaling with Collapse (arXiv 2509.25087, section 4) with the mean of logarithms as its objective,
and the shape extrapolated in log N.

The error has four parts, added in squares, none of them scaled:

- noise of the stretch's points and of the final losses;
- wander: how far two sizes' curves stray from their smooth difference over stretches like this one,
  at half to twice this fraction of training;
- what the extrapolation in size adds to the shape: half the curvature, or the whole change from the
  largest size where two sizes cannot tell the curvature, or the usual change with size
  (`planner.curves.reference.SIZE_DRIFT`) where one size cannot tell any;
- how far the forecast moved since 60 % of what is logged.

Where the shape is a law's, its stated error comes to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from planner.curves.curve import Curve
from planner.curves.forecast.method import Estimate, Pool, band, fits_reference
from planner.curves.forecast.prefix import WINDOW, UndecidableError, last_fifth, local_noise, usable
from planner.curves.member import GRID, Member
from planner.curves.reference import SIZE_DRIFT, Reference
from planner.curves.shape import CURVATURE, size_weights
from planner.units import count_of

Float64 = NDArray[np.float64]


_EARLIER = 0.6
_LEAST_POINTS = 3
_LOG_GRID = np.log(GRID)
# even in log t, from where the warm-up is over as a rule
_EVEN = np.arange(np.log(0.07), 0.0, 0.02)
_TREND_TERMS = 4


@dataclass(frozen=True, slots=True)
class Collapse:
    """Alignment with the band's shape at this size.

    Attributes:
        name: Of the method.
        extrapolate: Whether the shape goes on with size; False takes the mean of the sizes.
        reference: A reference that takes the place of the band's finished runs.
        trusted: Somebody says that the run should follow it: what is not known of either counts as
            equal.
    """

    name: str = "collapse"
    extrapolate: bool = True
    reference: Reference | None = None
    trusted: bool = False

    def estimate(self, prefix: Curve, pool: Pool) -> Estimate:
        """See `planner.curves.forecast.method.Method`."""
        window, logs = last_fifth(prefix, least=_LEAST_POINTS)
        if self.reference is None:
            basis = _of_band(band(prefix, pool), window)
        else:
            basis = _of_reference(self.reference, prefix, self.trusted, window)
        size = float(prefix.facts.params or 0)
        weights = basis.weights(size) if self.extrapolate else basis.mean
        shapes = _shapes(basis.members, window)
        log_final = float(np.mean(logs - weights @ shapes))
        count = len(basis.sizes)
        which = count_of(count, "size") if count else "the reference"
        how = ", extrapolated in log N" if self.extrapolate and count > 1 else ""
        return Estimate(
            log_final,
            _error(prefix, basis, shapes.mean(axis=1), log_final) if self.extrapolate else None,
            tuple(member.name for member in basis.members),
            f"aligned over {window[0]:.1%} to {window[-1]:.1%} of training with the normalized "
            f"curve of {which}{how}",
        )


@dataclass(frozen=True, slots=True)
class _Basis:
    """What is aligned with.

    Attributes:
        members: Normalized curves, at least one.
        precision: How much each one's points tell of the stretch, shape ``(members,)``.
        final_variance: Of the log final losses, the mean.
        sizes: The different parameter counts; none where a member's is not known.
        stray: Error of a shape that is a law's, relative.
    """

    members: list[Member]
    precision: Float64
    final_variance: float
    sizes: tuple[int, ...]
    stray: float = 0.0

    @property
    def mean(self) -> Float64:
        """Equal weights of the sizes: a size that was repeated often counts no more."""
        if not self.sizes:
            return np.full(len(self.members), 1.0 / len(self.members))
        sizes = np.array([member.params for member in self.members])
        repeats = (sizes[:, None] == sizes).sum(axis=1)
        return np.asarray(1.0 / (repeats * len(self.sizes)))

    def weights(self, size: float, curvature: float = CURVATURE) -> Float64:
        """Weights of the members in the shape of a size."""
        if not self.sizes:
            return self.mean
        sizes = [float(m.params or 0) for m in self.members]
        return size_weights(sizes, size, curvature=curvature, precision=self.precision)


def _of_band(found: Pool, window: Float64) -> _Basis:
    # the more points a run logged of the stretch, the more is known of it there
    middle, half = window.mean(), np.ptp(window) / 2 + 1e-12
    points = [np.count_nonzero(abs(c.fraction - middle) <= half) for c in found.curves]
    final = [local_noise(*usable(curve), 0.85, 1.0) ** 2 for curve in found.curves]
    return _Basis(
        [found.member(curve) for curve in found.curves],
        np.maximum(points, 1).astype(np.float64),
        float(np.mean(final)),
        found.sizes,
    )


def _of_reference(reference: Reference, prefix: Curve, trusted: bool, window: Float64) -> _Basis:
    """Return what a reference holds.

    Raises:
        UndecidableError: It is of another metric or schedule, or has an offset.
    """
    if reference.metric != prefix.metric:
        raise UndecidableError(f"the reference is of {reference.metric}, not {prefix.metric}")
    if reference.offset:
        raise UndecidableError("the reference has an offset, which forecasts do without")
    if not fits_reference(prefix, reference, trusted=trusted):
        raise UndecidableError(
            "the reference is of another schedule, tokens per parameter or timescale"
        )
    members = list(reference.members)
    known = all(m.params is not None for m in members) and prefix.facts.params is not None
    return _Basis(
        members,
        np.ones(len(members)),
        float(np.mean([m.final_error**2 for m in members])),
        reference.sizes if known else (),
        # of a law: its errors here and at the end, which differ in sign at worst
        float(np.hypot(np.nanmean(reference.stray(window)), reference.stray(1.0))),
    )


def _error(prefix: Curve, basis: _Basis, shape: Float64, log_final: float) -> float | None:
    """Return the standard error of an aligned forecast; see this module.

    Args:
        prefix: The run.
        basis: What it was aligned with.
        shape: Mean log shape of each member over the stretch, shape ``(members,)``.
        log_final: The forecast.
    """
    at = prefix.at or 0.0
    size = float(prefix.facts.params or 0)
    weights = basis.weights(size)
    points = last_fifth(prefix, least=_LEAST_POINTS)[0].size
    white = local_noise(*usable(prefix), 0.5 * at, at) ** 2 / points
    wander = _wander(basis.members, at) if len(basis.sizes) > 1 else 0.0
    variance = (1.0 + float(weights @ weights)) * (white + basis.final_variance + wander**2)
    variance += basis.stray**2
    if len(basis.sizes) > 2:
        curved = float((basis.weights(size, 1.0) - basis.weights(size, 0.0)) @ shape)
        variance += (max(CURVATURE, 1.0 - CURVATURE) * curved) ** 2
    elif len(basis.sizes) == 2:
        largest = [m.params == basis.sizes[-1] for m in basis.members]
        variance += float(weights @ shape - shape[largest].mean()) ** 2
    else:
        folds = float(np.log(size / basis.sizes[0])) if basis.sizes else 1.0
        variance += (SIZE_DRIFT * folds * float(shape.mean())) ** 2
    try:
        early, logs = last_fifth(prefix.until(_EARLIER * at), least=1)
        variance += (
            float(np.mean(logs - weights @ _shapes(basis.members, early))) - log_final
        ) ** 2
    except UndecidableError:
        pass  # too short to have moved
    return float(np.sqrt(variance)) if np.isfinite(variance) else None


def _shapes(members: list[Member], fractions: Float64) -> Float64:
    """Return log normalized curves at fractions of training, shape (members, fractions).

    Raises:
        UndecidableError: If a member is not known there.
    """
    found = np.array([np.interp(np.log(fractions), _LOG_GRID, m.shape) for m in members])
    if not np.isfinite(found).all():
        raise UndecidableError(f"a reference is not known at {fractions[0]:.1%} of training")
    return found


def _wander(members: list[Member], at: float) -> float:
    """Return how far one curve strays from the smooth course of a stretch like the last fifth."""
    by_size: dict[int, list[Float64]] = {}
    for member in members:
        row = np.interp(_EVEN, _LOG_GRID, np.where(np.isfinite(member.shape), member.shape, 0.0))
        by_size.setdefault(member.params or 0, []).append(row)
    curves = [np.mean(by_size[size], axis=0) for size in sorted(by_size)]
    design = np.vander(_EVEN, _TREND_TERMS)
    width = round(-np.log(WINDOW) / 0.02)
    ends = np.exp(_EVEN[width - 1 :])
    near = (ends >= 0.5 * at) & (ends <= min(1.0, 2.0 * at))
    found = []
    for smaller, larger in pairwise(curves):
        difference = larger - smaller
        rest = difference - design @ np.linalg.lstsq(design, difference, rcond=None)[0]
        means = np.convolve(rest, np.full(width, 1.0 / width), "valid")
        found.append(float(np.mean(means[near] ** 2)) / 2.0)
    return float(np.sqrt(np.mean(found)))
