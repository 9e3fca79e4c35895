"""Families for the tests: specs as text, and a strategy of random valid ones."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from planner.compile import compile_plan
from planner.plan import Plan
from planner.spec import load_spec, parse_spec

ROOT = Path(__file__).resolve().parents[2]


def planned(text: str) -> Plan:
    """Compile a spec's text."""
    return compile_plan(parse_spec(text))


def plan_of(**spec: Any) -> Plan:
    """Compile a spec given as values."""
    return planned(json.dumps({"family": "test", **spec}))


@cache
def celerity() -> Plan:
    """The published family, compiled from the example."""
    return compile_plan(load_spec(ROOT / "examples" / "celerity.yaml"))


def _optional(
    draw: st.DrawFn, section: dict[str, Any], key: str, values: st.SearchStrategy
) -> None:
    value = draw(st.none() | values)
    if value is not None:
        section[key] = value


def _architecture(draw: st.DrawFn) -> dict[str, Any]:
    section: dict[str, Any] = {
        "vocab_size": draw(st.integers(100, 60_000)),
        "context": draw(st.sampled_from([16, 128, 500, 2048, 8192])),
        "tied_embeddings": draw(st.booleans()),
        "gated": draw(st.booleans()),
        "biases": draw(st.booleans()),
        "norm": draw(st.sampled_from(["layernorm", "rmsnorm"])),
        "activation": draw(st.sampled_from(["relu2", "relu", "gelu", "silu"])),
        "position": draw(st.sampled_from(["alibi", "rope", "learned", "none"])),
        "ffn_multiplier": draw(st.sampled_from([4, 8, "8/3", 2.6875, "7/2"])),
    }
    _optional(draw, section, "vocab_multiple", st.sampled_from([64, 128]))
    _optional(draw, section, "ffn_multiple", st.sampled_from([32, 128]))
    _optional(draw, section, "kv_groups", st.sampled_from([2, 3, 4]))
    count = draw(st.none() | st.integers(2, 16))
    if count is not None:
        section["experts"] = {"count": count, "top_k": draw(st.integers(1, min(4, count)))}
    return section


def _sizes(draw: st.DrawFn, groups: int) -> list[Any]:
    sizes: list[Any] = []
    for position in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            million = draw(st.integers(40, 5000))
            sizes.append({"name": f"label-{position}", "params": f"{million}M"})
            continue
        head_dim = draw(st.sampled_from([16, 64, 80, 128]))
        heads = groups * draw(st.integers(1, 8))
        size = {
            "name": f"shape-{position}",
            "d_model": head_dim * heads,
            "n_layers": draw(st.integers(1, 40)),
            "n_heads": heads,
        }
        if groups > 1 and draw(st.booleans()):
            size["n_kv_heads"] = heads // groups
        _optional(draw, size, "d_ffn", st.integers(1, 9000))
        sizes.append(size)
    return sizes


def _parametrization(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["standard", "mup", "completep"]))
    rates = st.floats(1e-5, 1.0)
    section: dict[str, Any] = {"kind": kind, "base_lr": draw(rates)}
    _optional(draw, section, "decay", st.sampled_from(["coupled", "independent"]))
    _optional(draw, section, "base_width", st.integers(1, 3000))
    _optional(draw, section, "base_depth", st.integers(1, 64))
    _optional(draw, section, "base_ffn_width", st.floats(1.0, 9000.0))
    _optional(draw, section, "init_std", st.floats(1e-3, 1.0))
    _optional(draw, section, "input_multiplier", st.floats(0.1, 20.0))
    _optional(draw, section, "output_multiplier", st.floats(0.1, 20.0))
    if kind == "completep":
        _optional(draw, section, "depth_exponent", st.sampled_from([0.5, 0.75, 1.0]))
    return section


def _timescale(draw: st.DrawFn, tpp: list[float]) -> dict[str, Any]:
    tau = st.floats(1e-3, 5.0)
    return draw(
        st.one_of(
            st.builds(lambda value: {"value": value}, tau),
            st.sampled_from([{"law": "power-lines"}, {"law": "celerity"}]),
            st.builds(lambda value: {"law": "celerity", "values": {repr(tpp[0]): value}}, tau),
            st.builds(
                lambda value: {"law": "square-root", "anchor": {"tpp": 20, "value": value}}, tau
            ),
            st.builds(lambda value: {"weight_decay": value}, st.floats(1e-6, 1.0)),
        )
    )


def _batch(draw: st.DrawFn) -> dict[str, Any]:
    section: dict[str, Any] = draw(
        st.one_of(
            st.sampled_from([{"law": "power-lines-batch"}, {"law": "celerity-batch"}]),
            st.builds(lambda n: {"value": f"{n} sequences"}, st.integers(1, 700)),
            st.builds(lambda n: {"value": f"{n} tokens"}, st.integers(10_000, 3_000_000)),
            st.builds(
                lambda n: {
                    "law": "square-root",
                    "anchor": {"tokens": "10B", "value": f"{n} tokens"},
                },
                st.integers(100_000, 1_000_000),
            ),
        )
    )
    _optional(draw, section, "multiple_of", st.sampled_from([1, 2, 5, 8]))
    _optional(draw, section, "max", st.sampled_from(["64 sequences", "1M tokens"]))
    return section


def _cluster(draw: st.DrawFn) -> dict[str, Any]:
    tensor, pipeline = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 3]))
    section: dict[str, Any] = {
        "devices": tensor * pipeline * draw(st.sampled_from([1, 2, 3, 7, 8, 12, 64, 96])),
        "tensor": tensor,
        "pipeline": pipeline,
        "sharding": draw(st.sampled_from(["none", "optimizer", "full"])),
        "checkpointing": draw(st.booleans()),
    }
    _optional(draw, section, "micro_batch", st.sampled_from(["auto", 1, 2, 3]))
    _optional(draw, section, "accelerator", st.sampled_from(["H100", "A100", "CS-3"]))
    _optional(draw, section, "mfu", st.floats(0.05, 0.9))
    return section


def _schedule(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["linear-to-zero", "linear", "cosine", "wsd", "constant"]))
    warmup = draw(
        st.one_of(
            st.builds(lambda part: {"fraction": part}, st.floats(0.0, 0.5)),
            st.just({"tokens": "375M"}),
            st.just({"fraction": "10%", "tokens": "375M"}),
        )
    )
    section: dict[str, Any] = {"kind": kind, "warmup": warmup}
    if kind in ("linear", "cosine", "wsd"):
        _optional(draw, section, "final_lr_fraction", st.floats(0.0, 0.9))
    if kind == "wsd":
        section["warmup"] = {"fraction": draw(st.floats(0.0, 0.3))}
        _optional(draw, section, "decay_fraction", st.floats(0.05, 0.5))
    return section


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Random specs; all are well-formed, a few ask for a batch that their cluster cannot make."""
    tpp = draw(st.lists(st.floats(5.0, 500.0), min_size=1, max_size=2, unique=True))
    architecture = _architecture(draw)
    spec: dict[str, Any] = {
        "family": "random",
        "tpp": tpp,
        "architecture": architecture,
        "sizes": _sizes(draw, architecture.get("kv_groups", 1)),
        "parametrization": _parametrization(draw),
        "timescale": _timescale(draw, tpp),
        "batch": _batch(draw),
        "schedule": _schedule(draw),
        "seeds": draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)),
        "precision": draw(st.sampled_from(["bf16", "fp16", "fp32"])),
        "conventions": {
            "attention": draw(st.sampled_from(["causal", "full"])),
            "flops": draw(st.sampled_from(["exact", "six_nd"])),
        },
    }
    _optional(
        draw,
        spec["conventions"],
        "params",
        st.sampled_from(["total", "non_embedding", "active", "matrices"]),
    )
    if draw(st.booleans()):
        spec["cluster"] = _cluster(draw)
    if draw(st.booleans()):
        spec["optimizer"] = {
            "betas": draw(st.sampled_from([[0.9, 0.95], [0.0, 0.999]])),
            "eps": draw(st.sampled_from([1e-8, 1e-16])),
            "grad_clip": draw(st.sampled_from([0.3, 1.0])),
        }
    if draw(st.booleans()):
        spec["compute"] = {"flops": 1e30, "covers": draw(st.sampled_from(["family", "largest"]))}
    if draw(st.booleans()):
        spec["data"] = {"unique_tokens": "10B"}
    return spec
