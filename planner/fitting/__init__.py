"""Laws fitted to one's own runs: an archive in, laws that plans use out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.fitting.errors import FitError as FitError
    from planner.fitting.kinds import fit_law as fit_law
    from planner.fitting.loss import fit_loss as fit_loss
    from planner.fitting.result import Fit as Fit
    from planner.fitting.result import LeftOut as LeftOut
    from planner.fitting.result import Residual as Residual

_EXPORTS = {
    "Fit": "result",
    "FitError": "errors",
    "LeftOut": "result",
    "Residual": "result",
    "fit_law": "kinds",
    "fit_loss": "loss",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> object:
    """Load a public name from its module on first use."""
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
