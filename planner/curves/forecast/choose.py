"""Which method to trust: back-tests on finished runs at the same fraction of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.curves.curve import Curve
from planner.curves.forecast.method import Method, Pool, band
from planner.curves.forecast.prefix import UndecidableError
from planner.units import count_of

# runs; the nearest sizes first
_MOST_TESTS = 12
# fewer back-tests than this do not tell one method from another: the default stays
_ENOUGH_TESTS = 5


@dataclass(frozen=True, slots=True)
class BackTest:
    """How a method did on finished runs.

    Attributes:
        errors: log(forecast / actual) of each run that it could forecast.
        runs: Their names.
    """

    errors: tuple[float, ...]
    runs: tuple[str, ...]

    @property
    def mean(self) -> float | None:
        """The mean absolute error, relative; None without a run."""
        return float(np.mean(np.abs(self.errors))) if self.errors else None

    @property
    def rms(self) -> float | None:
        """The root mean square error, relative; None without a run."""
        return float(np.sqrt(np.mean(np.square(self.errors)))) if self.errors else None


@dataclass(frozen=True, slots=True)
class Choice:
    """The method chosen, and why.

    Attributes:
        method: The first of ``order``.
        order: All that may be used, best first.
        why: The reason, as the end of a sentence.
        tests: Back-tests by method.
    """

    method: Method
    order: tuple[Method, ...]
    why: str
    tests: dict[str, BackTest]


def back_tests(prefix: Curve, pool: Pool, methods: Sequence[Method]) -> dict[str, BackTest]:
    """Forecast finished runs of a run's band as it is to be forecast.

    Each size is left out in turn and forecast from what is left: from the smaller ones only, if the
    run itself is larger than all of the band.

    Args:
        prefix: The run to be forecast, as far as it was logged.
        pool: Finished runs.
        methods: To be tested.

    Returns:
        By the name of the method; without a run where there is no band.
    """
    errors: dict[str, list[float]] = {method.name: [] for method in methods}
    tested: dict[str, list[str]] = {method.name: [] for method in methods}
    for curve, rest in _cases(prefix, pool):
        actual = float(np.log(pool.member(curve).final))
        early = curve.until(prefix.at or 0.0)
        for method in methods:
            try:
                error = method.estimate(early, rest).log_final - actual
            except UndecidableError:
                continue
            errors[method.name].append(error)
            tested[method.name].append(curve.facts.name)
    return {m: BackTest(tuple(errors[m]), tuple(tested[m])) for m in errors}


def _cases(prefix: Curve, pool: Pool) -> list[tuple[Curve, Pool]]:
    try:
        found = band(prefix, pool)
    except UndecidableError:
        return []
    size = prefix.facts.params or 0
    largest = size > found.sizes[-1]
    near = sorted(
        found.curves, key=lambda c: (abs(np.log((c.facts.params or 1) / size)), c.facts.name)
    )
    cases: list[tuple[Curve, Pool]] = []
    for curve in near:
        own = curve.facts.params or 0
        rest = pool.smaller_than(own) if largest else pool.without_size(own)
        if any(n in rest.sizes for n in found.sizes):
            cases.append((curve, rest))
    return cases[:_MOST_TESTS]


def choose(prefix: Curve, pool: Pool, methods: Sequence[Method]) -> Choice:
    """Choose a method for a run by back-tests; the first is the default.

    Args:
        prefix: The run, as far as it was logged.
        pool: Finished runs.
        methods: At least one, in the order of preference.
    """
    tests = back_tests(prefix, pool, methods)
    default = methods[0]
    # only what was tested on the same runs as the default can be compared with it
    base = tests[default.name]
    if not base.errors:
        return Choice(
            default, tuple(methods), "no finished run to back-test on: the default", tests
        )
    level = base.mean or 0.0
    best, reached = default, level
    for method in methods[1:]:
        test = tests[method.name]
        shared = [e for e, r in zip(test.errors, test.runs, strict=True) if r in base.runs]
        if _ENOUGH_TESTS <= len(base.errors) == len(shared):
            error = float(np.mean(np.abs(shared)))
            if error < reached:
                best, reached = method, error
    order = (best, *(m for m in methods if m is not best))
    count = len(base.errors)
    runs = count_of(count, "finished run")
    if best is default:
        why = f"mean error {level:.2%} in back-tests on {runs}"
        if count < _ENOUGH_TESTS:
            why += ", too few to choose another method"
    else:
        why = f"mean error {reached:.2%} in back-tests on {runs}, {default.name} {level:.2%}"
    return Choice(best, order, why, tests)
