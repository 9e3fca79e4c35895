"""Laws of the loss under any learning-rate schedule: the Multi-Power Law (arXiv 2503.12811)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.errors import LawError
from planner.kernel import Ragged
from planner.kernel.multi_power_law import MultiPowerLaw

if TYPE_CHECKING:
    from planner.laws.law import Law

Float64 = NDArray[np.float64]


def multi_power_law(law: Law) -> MultiPowerLaw:
    """Return the kernel's law for one that a laws file holds.

    Raises:
        LawError: If the law is of another form.
    """
    if law.form != "multi-power":
        raise LawError(f"law {law.name!r} is of form {law.form}, wanted multi-power")
    c = law.constants
    names = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
    return MultiPowerLaw(*(c[name] for name in names))


def schedule_loss(law: Law, lr: ArrayLike, steps: ArrayLike | None = None) -> Float64:
    """Return the loss in nats a token at steps of one run.

    Args:
        law: A law of form ``multi-power``.
        lr: Learning rate of every step, step 0 first, warm-up included.
        steps: Whole numbers within ``lr``; every step by default. The law has no finite loss
            before the first step of positive learning rate.

    Raises:
        LawError: If the law is of another form, or a step or a rate is out of range.
    """
    rates = Ragged.from_list([lr])
    wanted = None if steps is None else Ragged.from_list([steps])
    try:
        return multi_power_law(law).predict(rates, wanted).values
    except ValueError as error:
        raise LawError(f"law {law.name!r}: {error}") from None
