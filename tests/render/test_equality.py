"""One plan, every trainer: what is built from rendered files is the plan's table (issue 7, 1)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from planner.plan.model import Parametrization
from planner.render.errors import CannotExpressError
from planner.render.schedule import learning_rate

from .built import BUILDERS, compare_with_table, counted_run, write
from .plans import parametrization

pytestmark = pytest.mark.filterwarnings("ignore")

RULES = [
    parametrization("standard"),
    parametrization("mup", "coupled"),
    parametrization("mup", "independent"),
    parametrization("completep", "coupled"),
    parametrization("completep", "independent"),
    parametrization("completep", "independent", depth_exponent=0.5),
]
LLAMA: dict[str, Any] = {
    "gated": True,
    "activation": "silu",
    "position": "rope",
    "norm": "rmsnorm",
    "d_ffn": 320,
}
GROUPED = {**LLAMA, "n_kv_heads": 2}
IN_PROPORTION = {"d_ffn": None}  # d_ffn / d_model is that of the base shape
# Target to what it can run: by name, the architecture; and whether it has one epsilon for all.
ARCHITECTURES: dict[str, dict[str, dict[str, Any]]] = {
    "torch": {"llama": LLAMA, "biased": {**GROUPED, "biases": True, "tied": True}},
    "hf-granite": {"llama": LLAMA, "biased": {**GROUPED, "biases": True, "tied": True}},
    "olmo-core": {
        "llama": LLAMA,
        "biased": {**GROUPED, "biases": True, "tied": True},
        "layernorm": {**LLAMA, "norm": "layernorm", "biases": True, "position": "none"},
    },
    # Tied heads need both multipliers native: they are refused but under `standard`, see below.
    "torchtitan": {"llama": LLAMA, "biased": {**GROUPED, "biases": True}},
    "megatron": {
        "llama": {**GROUPED, **IN_PROPORTION},
        "biased": {**GROUPED, **IN_PROPORTION, "biases": True, "tied": True},
        "relu2": {"position": "rope", "norm": "rmsnorm"},
        "gpt": {"position": "learned", "activation": "gelu", "biases": True},
    },
}
EPS = dict.fromkeys(ARCHITECTURES, (1e-8, "exact")) | {"megatron": (1e-16, "negligible")}
PACKAGES = {
    "torch": "torch",
    "hf-granite": "transformers",
    "olmo-core": "olmo_core",
    "torchtitan": "torchtitan",
    "megatron": "megatron",
}
MARKS = dict.fromkeys(("hf-granite", "olmo-core", "torchtitan"), pytest.mark.trainers)

# On Cerebras epsilon is added before bias correction, so it is compared where it is negligible.
GPT: dict[str, dict[str, Any]] = {"gpt": {}, "biased": {**GROUPED, "biases": True, "tied": True}}
ARCHITECTURES |= {
    "cstorch": {
        **GPT,
        "llama": LLAMA,
        "layernorm": {"activation": "gelu", "biases": True, "position": "learned"},
    },
    "modelzoo": GPT,
}
EPS |= dict.fromkeys(("cstorch", "modelzoo"), (1e-16, "negligible"))
PACKAGES |= dict.fromkeys(("cstorch", "modelzoo"), "cerebras.pytorch")
MARKS |= {
    "cstorch": pytest.mark.cerebras,
    "modelzoo": pytest.mark.modelzoo,
    "megatron": pytest.mark.megatron,
}
# What cannot run every rule, and which of them it runs; the others it has to refuse.
RUNS_ONLY = {"megatron": [("standard", "coupled"), ("mup", "coupled")]}


def cases() -> list[Any]:
    """Target and architecture, marked with what they need."""
    found = []
    for target, kinds in ARCHITECTURES.items():
        marks = [MARKS[target]] if target in MARKS else []
        found += [pytest.param(target, kind, marks=marks, id=f"{target}-{kind}") for kind in kinds]
    return found


@pytest.mark.parametrize(("width", "depth"), [(128, 5), (256, 3)])
@pytest.mark.parametrize("rule", RULES, ids=lambda p: f"{p.kind}-{p.decay}-{p.depth_exponent}")
@pytest.mark.parametrize(("target", "kind"), cases())
def test_what_is_built_is_the_plans_table(
    target: str, kind: str, rule: Parametrization, width: int, depth: int, tmp_path: Path
) -> None:
    if importlib.util.find_spec(PACKAGES[target]) is None:
        pytest.skip(f"{PACKAGES[target]} is not installed")
    eps, mode = EPS[target]
    shape = ARCHITECTURES[target][kind]
    run = counted_run(rule, d_model=width, n_layers=depth, eps=eps, eps_mode=mode, **shape)
    if (rule.kind, rule.decay) not in RUNS_ONLY.get(target, [(rule.kind, rule.decay)]):
        with pytest.raises(CannotExpressError, match=f"{target} cannot run this"):
            write(run, rule, target, tmp_path)
        return
    plan = write(run, rule, target, tmp_path)
    built = BUILDERS[target](plan.runs[0], tmp_path)
    ratios = compare_with_table(plan.runs[0], built)
    worst = max(ratios.values(), key=lambda ratio: abs(ratio - 1))
    print(f"\n{target} {kind} {rule.kind} {width}x{depth}: worst std {worst:.4f} of the plan's")
    base = rule.base_lr
    for update in (0, 1, 5, 10, 11, 50, 99):
        wanted = pytest.approx(learning_rate(run, update), rel=1e-12, abs=built.rounding * base)
        assert built.factor(update) * base == wanted
