"""The cooldown that a warm-up, hold, decay schedule was configured with: known before it begins.

Only what the configuration says: a linear decay, its length, and where it ends. A decay of another
form is not declared here; once it is logged, the log tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# names that say which share of all steps the decay takes, and those that count its steps
_SHARES = (
    *("wsd_fract_decay", "fract_decay", "decay_fraction", "decay_frac", "cooldown_fraction"),
    *("cooldown_frac", "warmdown_ratio"),
)
_STEPS = (
    *("warmdown_iters", "warmdown_steps", "cooldown_iters", "cooldown_steps"),
    *("lr_wsd_decay_iters", "num_decay_steps", "decay_steps"),
)
_FORMS = ("decay_type", "lr_wsd_decay_style", "cooldown_type", "decay_style")
# the trainers that call it so decay linearly (llm.c, nanogpt and their speed runs)
_LINEAR = ("warmdown_iters", "warmdown_steps", "warmdown_ratio", "cooldown_frac")
_FINAL = ("wsd_final_lr_scale", "final_lr_fraction", "final_lr_frac", "min_lr_ratio")
_TO_ZERO = ("warmdown_iters", "warmdown_steps")  # and to zero, if nothing else is said


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A linear decay at the end of training.

    Attributes:
        share: Of all steps; 0 for a constant rate.
        final: What is left of the peak at the end.
    """

    share: float
    final: float


def declared_cooldown(
    config: Mapping[str, Any],
    total_steps: int | None,
    *,
    peak: float | None = None,
    floor: float | None = None,
) -> Cooldown | None:
    """Return the cooldown that a configuration declares; None if it leaves anything open.

    Args:
        config: Names and values; of a name such as ``optim.cooldown_frac`` the last part counts.
        total_steps: Of the whole run, if known.
        peak: The peak learning rate, if known.
        floor: The last learning rate, if known.
    """
    said = {str(name).rpartition(".")[2].lower(): value for name, value in config.items()}
    found = _first(said, _SHARES)
    if found is not None:
        name, share = found
    else:
        found = _first(said, _STEPS)
        if found is None or not total_steps:
            return None
        name, share = found[0], found[1] / total_steps
    if not 0.0 <= share <= 1.0:
        return None
    form = next((str(said[key]).lower() for key in _FORMS if said.get(key) is not None), None)
    if share > 0 and form != "linear" and (form is not None or name not in _LINEAR):
        return None
    left = _first(said, _FINAL)
    if left is not None:
        final = left[1]
    elif floor is not None and peak:
        final = floor / peak
    elif name in _TO_ZERO or share == 0:
        final = 0.0
    else:
        return None
    return Cooldown(share, final) if 0.0 <= final <= 1.0 else None


def _first(said: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, float] | None:
    """Return the first of some names that has a number, and the number."""
    for name in names:
        value = said.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return name, float(value)
    return None
