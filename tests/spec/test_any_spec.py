"""Whatever a spec declares, it becomes a plan or an error about it: no crash, no hang, no NaN."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.compile import compile_plan
from planner.documents import Document
from planner.errors import PlannerError
from planner.plan import dump_plan, load_plan
from planner.spec.load import declare

# Every field of a spec, at a value that goes with the others.
FULL: dict[str, Any] = {
    "schema": "planner.spec/1",
    "family": "f",
    "compute": {"flops": 1e23, "covers": "family"},
    "tpp": [20, 80],
    "sizes": ["300M", {"name": "b", "d_model": 1024, "n_layers": 20, "n_heads": 16}],
    "architecture": {
        "vocab_size": 32000,
        "vocab_multiple": 128,
        "context": 2048,
        "tied_embeddings": False,
        "ffn_multiplier": "8/3",
        "ffn_multiple": 64,
        "gated": True,
        "activation": "silu",
        "position": "rope",
        "norm": "rmsnorm",
        "biases": False,
        "head_dim": 64,
        "kv_groups": 1,
        "experts": {"count": 8, "top_k": 2},
    },
    "data": {"unique_tokens": "1T", "tokenizer": "x"},
    "cluster": {
        "devices": 64,
        "accelerator": "H100",
        "tensor": 1,
        "pipeline": 1,
        "micro_batch": "auto",
        "mfu": 0.4,
        "sharding": "full",
        "checkpointing": True,
        "batch_fit": "nearest",
    },
    "parametrization": {
        "kind": "completep",
        "decay": "independent",
        "base_width": 256,
        "base_depth": 24,
        "base_ffn_width": 683,
        "base_lr": 0.01,
        "init_std": 0.08,
        "input_multiplier": 9,
        "output_multiplier": 1,
        "depth_exponent": 1,
    },
    "timescale": {"law": "power-lines", "values": {"20": 0.2}},
    "batch": {"law": "power-lines-batch", "multiple_of": 1, "max": "100M tokens"},
    "schedule": {
        "kind": "wsd",
        "warmup": {"fraction": 0.1, "tokens": "375M"},
        "final_lr_fraction": 0,
        "decay_fraction": 0.2,
    },
    "optimizer": {"betas": [0.9, 0.95], "eps": 1e-8, "eps_mode": "exact", "grad_clip": 1},
    "conventions": {"params": "total", "flops": "exact", "attention": "causal"},
    "loss_law": "besiroglu",
    "seeds": [0, 1],
    "precision": "bf16",
}
SMALL = FULL | {"tpp": [20], "sizes": FULL["sizes"][1:]}
# Other ways to declare a section.
OTHERS: dict[str, list[Any]] = {
    "compute": [
        None,
        1e21,
        {"accelerator": "H100", "count": 64, "days": 3, "mfu": 0.4, "covers": "largest"},
        {"accelerator": "CS-3", "count": 1, "days": 30, "mfu": 0.4},
    ],
    "tpp": [20, {"low": 20, "high": 300, "rule": "compute-optimal"}],
    "sizes": [{"count": 2}, {"count": 3, "smallest": "50M", "spacing": 2}, {"preset": "celerity"}],
    "architecture": [{"vocab_size": 32000, "context": 2048}],
    "cluster": [None, {"devices": 8}],
    "timescale": [
        {"law": "square-root", "anchor": {"tpp": 20, "value": 0.1}},
        {"value": 0.1},
        {"weight_decay": 0.1},
    ],
    "batch": [
        {"law": "square-root", "anchor": {"tokens": "1B", "value": "0.5M tokens"}},
        "176 sequences",
        "0.5M tokens",
    ],
    "parametrization": ["mup", {"kind": "standard", "base_lr": 0.001}],
    "schedule": ["cosine", "constant"],
    "preset": ["celerity", "llama-like", "gpt2-collapse", "cerebras-gpt"],
}
NUMBERS = [
    *(0, 1, 2, 3, 7, 8, 64, 4096, 10**6, 10**7, 10**9, 10**12, 10**15, 10**18, 10**19, 10**40),
    *(-1, -(10**18), 0.0, 0.5, 1.5, 1.0000001, 1e-300, 1e-30, 1e-9, 1e9, 1e30, 1e40, 1e300),
    *(float("inf"), float("-inf"), float("nan")),
]
TEXTS = [
    *("", "x", "0", "1e300", "1e-300", "300M", "1T", "1e18", "1 sequences", "1e12 sequences"),
    *("1000003 sequences", "1e9 tokens", "1e12 tokens", "auto", "exact", "paper", "six_nd", "full"),
    *("active", "matrices", "non_embedding", "alibi", "learned", "square-root", "hoffmann"),
    *("celerity", "compute-optimal", "H100", "CS-3", "1/3", "999/1", "é\u202e", "\ud800", "10%"),
    *("a" * 10_000, "\0", "../x", "/dev/zero", "."),
]
LISTS: list[Any] = [
    *([], {}, [1], [[1]], [0, 0], {"a": 1}, ["300M"], ["1e15"], ["1e6"], ["1e12", "1e13"]),
    *({"count": 100}, {"low": 1, "high": 2, "rule": 1.5}, list(range(1, 51)), list(range(1001))),
    [f"{300 + i}M" for i in range(40)],
]
VALUES = [None, True, False, *NUMBERS, *TEXTS, *LISTS]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items) if isinstance(value, (dict, list)) else ():
        yield (*place, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*place, key))


def changed(spec: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(spec)
    parent = spec
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = copy.deepcopy(value)
    return spec


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec with sections left out or declared otherwise, and up to three values replaced."""
    spec = copy.deepcopy(FULL)
    for section, others in OTHERS.items():
        other = draw(st.sampled_from([FULL.get(section), *others]))
        spec[section] = copy.deepcopy(other)
    optional = sorted(set(spec) - {"family", "tpp", "sizes", "architecture"})
    for section in draw(st.lists(st.sampled_from(optional), unique=True)):
        del spec[section]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(list(places(spec))))
        spec = changed(spec, place, draw(st.sampled_from(VALUES)))
    return spec


def plan_or_error(spec: dict[str, Any], *, reread: bool = False) -> str:
    """Compile a spec; return the error's text, or nothing.

    A plan holds no NaN or infinity: its digest could not be taken.
    """
    lines = {(): 1} | {tuple(map(str, place)): 1 for place in places(spec)}
    started = time.process_time()
    try:
        plan = compile_plan(declare(Document("spec.yaml", spec, lines)))
    except PlannerError as error:
        message = str(error)
    else:
        message = ""
        assert not reread or load_plan(dump_plan(plan)) == plan
    assert time.process_time() - started < 20
    for line in message.splitlines():
        assert line.startswith(("spec.yaml:1: ", "... and "))
        assert line.isprintable()
        assert len(line) < 1500
    return message


def test_full_spec_is_valid() -> None:
    assert plan_or_error(FULL, reread=True) == ""


@pytest.mark.parametrize("place", list(places(SMALL)), ids=lambda place: ".".join(map(str, place)))
def test_every_field_at_every_value(place: tuple[Any, ...]) -> None:
    for value in VALUES:
        plan_or_error(changed(SMALL, place, value))


@given(specs())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_spec(spec: dict[str, Any]) -> None:
    plan_or_error(spec, reread=True)
