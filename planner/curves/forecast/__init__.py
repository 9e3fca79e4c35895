"""Forecasts of a run's final loss from any part of it.

`forecast_archive` forecasts the runs of an archive, `forecast_run` one curve from a `Pool` of
finished ones. Which of `METHODS`:

- ``combined``: the band has finished smaller sizes (same tokens per parameter, schedule, tau);
  ``collapse`` and ``size-law`` together.
- ``schedule-law``: runs differ in schedule, length or learning rate.
- ``surrogate``, ``multi-power-law``: a fitted law is there, `law_methods`.
- ``mean``, ``power-law``, ``current``: what those are compared with.
- ``auto``: what did best in back-tests on finished runs.
"""

from __future__ import annotations

from planner.curves.forecast.choose import BackTest, Choice, back_tests, choose
from planner.curves.forecast.healthy import LeftOut, without_sick
from planner.curves.forecast.law_shape import LawShape, law_methods
from planner.curves.forecast.method import Estimate, Method, Pool
from planner.curves.forecast.prefix import UndecidableError
from planner.curves.forecast.runs import (
    AUTO,
    LEAST_FRACTION,
    METHODS,
    Forecast,
    Forecasts,
    forecast_archive,
    forecast_run,
)

__all__ = [
    "AUTO",
    "LEAST_FRACTION",
    "METHODS",
    "BackTest",
    "Choice",
    "Estimate",
    "Forecast",
    "Forecasts",
    "LawShape",
    "LeftOut",
    "Method",
    "Pool",
    "UndecidableError",
    "back_tests",
    "choose",
    "forecast_archive",
    "forecast_run",
    "law_methods",
    "without_sick",
]
