"""Training curves: normalized, compared with a reference, watched, forecast.

- :class:`Curve`, :class:`RunFacts`: one metric of one run, and what is known of the run.
- :func:`load_curves`: curves out of an archive, a batch of runs at a time.
- :class:`Schedule`: the shape of a learning-rate schedule over the fraction of training.
"""

from __future__ import annotations

from planner.curves.curve import Curve, RunFacts
from planner.curves.errors import CurveError
from planner.curves.load import TRAIN_LOSS, choose_metric, load_curves
from planner.curves.schedule import Schedule, declared_schedule, logged_schedule

__all__ = [
    "TRAIN_LOSS",
    "Curve",
    "CurveError",
    "RunFacts",
    "Schedule",
    "choose_metric",
    "declared_schedule",
    "load_curves",
    "logged_schedule",
]
