"""A cooldown that the configuration declares."""

from __future__ import annotations

from typing import Any

import pytest

from planner.curves.cooldown import Cooldown, declared_cooldown
from planner.curves.curve import RunFacts
from planner.curves.run_facts import run_schedule
from tests.curves.made import curve


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"wsd_fract_decay": 0.2, "decay_type": "linear", "wsd_final_lr_scale": 0}, (0.2, 0.0)),
        ({"optim.cooldown_frac": 0.4, "optim.final_lr_frac": 0.1}, (0.4, 0.1)),
        ({"warmdown_iters": 250}, (0.25, 0.0)),
        (
            {"lr_wsd_decay_iters": 100, "lr_wsd_decay_style": "linear", "min_lr_ratio": 0.1},
            (0.1, 0.1),
        ),
        ({"wsd_fract_decay": 0.0, "decay_type": "linear"}, (0.0, 0.0)),
        # what is left open is not guessed
        ({"wsd_fract_decay": 0.2, "wsd_final_lr_scale": 0}, None),
        ({"wsd_fract_decay": 0.2, "decay_type": "sqrt", "wsd_final_lr_scale": 0}, None),
        ({"wsd_fract_decay": 0.2, "decay_type": "linear"}, None),
        ({"warmdown_iters": 2500}, None),
        ({"decay_fraction": True, "decay_type": "linear"}, None),
        ({"decay_fraction": float("nan"), "decay_type": "linear"}, None),
        ({}, None),
    ],
)
def test_what_trainers_call_it(config: dict[str, Any], wanted: tuple[float, float] | None) -> None:
    assert declared_cooldown(config, 1000) == (None if wanted is None else Cooldown(*wanted))


def test_the_last_rate_may_be_absolute() -> None:
    config = {"decay_fraction": 0.1, "decay_type": "linear"}
    assert declared_cooldown(config, None, peak=0.01, floor=0.001) == Cooldown(
        0.1, pytest.approx(0.1)
    )


def test_the_schedule_of_an_unfinished_run_is_known_to_its_end() -> None:
    facts: RunFacts = curve().facts
    known = {name: getattr(facts, name) for name in facts.__dataclass_fields__}
    facts = RunFacts(**{**known, "schedule": "wsd", "warmup_steps": 100})
    nothing = (curve().steps[:0], curve().values[:0])
    assert run_schedule(None, facts, None, 1000, nothing) is None
    made = run_schedule(None, facts, None, 1000, nothing, Cooldown(0.2, 0.1))
    assert made is not None
    assert made.source == "declared"
    assert made.covers(1.0)
    assert made.at([0.05, 0.1, 0.8, 0.9, 1.0]) == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1])
    held = run_schedule(None, facts, None, 1000, nothing, Cooldown(0.0, 0.0))
    assert held is not None
    assert held.at([0.5, 1.0]) == pytest.approx([1.0, 1.0])
