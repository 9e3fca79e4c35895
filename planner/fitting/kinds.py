"""One entry for all kinds of laws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.fitting.loss import fit_loss
from planner.fitting.schedule import fit_schedule
from planner.fitting.surrogate import fit_surrogate
from planner.fitting.sweeps import fit_batch, fit_tau

if TYPE_CHECKING:
    from collections.abc import Callable

    from planner.archive import Archive
    from planner.fitting.result import Fit

_FITS: dict[str, Callable[..., Any]] = {
    "loss": fit_loss,
    "tau": fit_tau,
    "batch": fit_batch,
    "surrogate": fit_surrogate,
    "schedule": fit_schedule,
}


def fit_law(kind: str, archive: Archive, **options: Any) -> list[Fit]:
    """Fit the laws of one kind; arguments and errors as the function of that kind.

    Args:
        kind: ``loss``, ``tau``, ``batch``, ``surrogate`` or ``schedule``.
        archive: The archive.
        options: As the kind's own function takes them.

    Returns:
        One fit, or several: ``batch`` may add a critical batch, ``schedule`` gives one law a size.
    """
    found = _FITS[kind](archive, **options)
    return list(found) if isinstance(found, list) else [found]
