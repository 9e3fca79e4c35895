"""What became of each curve of a batch."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Status of one curve, start or replicate. The numbers are stable: they are stored in files."""

    OK = 0
    """Done; for a fit: converged inside its bounds, with a covariance."""
    EMPTY = 1
    """The curve has no points at all."""
    NON_FINITE = 2
    """No point is usable (NaN, infinite, or of magnitude 1e300 and above), or the result is not
    finite."""
    TOO_FEW_POINTS = 3
    """Fewer usable points than the task needs."""
    MAX_ITERATIONS = 4
    """The fit stopped at its iteration limit."""
    STALLED = 5
    """No step lowers the objective any more, yet the fit did not converge."""
    BOUND_ACTIVE = 6
    """Converged with a parameter at its bound."""
    SINGULAR_COVARIANCE = 7
    """Converged, but the curve does not determine all parameters: no covariance."""
    SCREENED_OUT = 8
    """A start that screening dropped before it was run to the end."""

    CONVERGED = 0
    """The name of OK where a fit is meant."""
