"""Laws fitted to one's own runs: an archive in, laws that plans use out.

Which fit: `fit_loss` from final losses of several sizes and budgets; `fit_tau` and `fit_batch` from
sweeps; `fit_surrogate` for normalized curves as functions of schedule, tau and TPP; `fit_schedule`
for the loss under any learning-rate schedule. Each returns a `Fit`; `write_laws` puts laws into the
file that a spec names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.fitting.errors import FitError as FitError
    from planner.fitting.kinds import fit_law as fit_law
    from planner.fitting.laws_file import laws_text as laws_text
    from planner.fitting.laws_file import write_laws as write_laws
    from planner.fitting.loss import fit_loss as fit_loss
    from planner.fitting.result import Fit as Fit
    from planner.fitting.result import LeftOut as LeftOut
    from planner.fitting.result import Residual as Residual
    from planner.fitting.schedule import fit_schedule as fit_schedule
    from planner.fitting.surrogate import fit_surrogate as fit_surrogate
    from planner.fitting.sweeps import fit_batch as fit_batch
    from planner.fitting.sweeps import fit_tau as fit_tau

_EXPORTS = {
    "Fit": "result",
    "FitError": "errors",
    "LeftOut": "result",
    "Residual": "result",
    "fit_batch": "sweeps",
    "fit_law": "kinds",
    "fit_loss": "loss",
    "fit_schedule": "schedule",
    "fit_surrogate": "surrogate",
    "fit_tau": "sweeps",
    "laws_text": "laws_file",
    "write_laws": "laws_file",
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
