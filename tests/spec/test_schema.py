"""`planner schema`: valid JSON Schema that takes what the program takes, and no typos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner.compile import compile_plan
from planner.documents import parse_document, read_document
from planner.errors import SpecError
from planner.plan import dump_plan, plan_json_schema
from planner.spec import load_preset, parse_spec, preset_names, spec_json_schema

Validator = jsonschema.Draft202012Validator
PRESET = "family: f\npreset: celerity\n"
FULL = "family: f\ntpp: 20\nsizes: [300M]\narchitecture: {vocab_size: 32000, context: 2048}\n"

# Spellings that a spec may use, over a preset.
SPELLINGS = [
    "",
    "schema: planner.spec/1",
    "tpp: 20",
    "tpp: 20 TPP",
    "tpp: [20, 80 TPP]",
    "tpp: {bands: [20]}",
    "tpp: {low: 20, high: 300, rule: compute-optimal}",
    "tpp: {low: 20, high: 300, rule: 30}",
    "tpp: {low: 20, high: 300, rule: 30 TPP}",
    "tpp: {low: 20, high: 300, rule: {max_extra_compute: 0.67}}",
    "compute: 1e24",
    "compute: 10 YFLOP",
    "compute: 200 EFLOP/s-days",
    "compute: {accelerator: H100, count: 1000, days: 2 weeks, mfu: 40%}",
    "compute: {flops: 1e24, covers: largest}",
    "compute:",
    "sizes: [300M, 1e9, 1.8B, {params: 2B}, {name: x, params: 900M}]",
    "sizes: {preset: gpt2-collapse}",
    "compute: 1e22\nsizes: {count: 3}",
    "compute: 1e22\nsizes: {count: 3, smallest: 50M, spacing: 2, depth_slack: 20%}",
    "sizes: [{name: a, d_model: 640, n_layers: 13, n_heads: 10, batch: 176 sequences}]",
    "architecture: {context: 4096}",
    "architecture: {vocab_size: 128K, head_dim: null}",
    "architecture: {ffn_multiplier: 8/3, vocab_multiple: 128}",
    "architecture: {experts: {count: 8, top_k: 2}}\nconventions: {flops: exact}",
    "data: {unique_tokens: 15T tokens, tokenizer: llama-3}",
    "cluster: {devices: 16}",
    "cluster: {devices: 16, accelerator: H100, micro_batch: auto}",
    "cluster: {devices: 16, micro_batch: 1, tensor: 2, mfu: 40%, sharding: full}",
    "cluster:",
    "parametrization: mup",
    "parametrization: {base_lr: 0.1}",
    "parametrization: {kind: standard, base_lr: 1e-3}",
    "timescale: 0.1",
    "timescale: power-lines",
    "timescale: {values: {20: 0.175, 80: 0.087}}",
    "timescale: {weight_decay: 0.1}",
    "timescale: {law: square-root, anchor: {tpp: 20, value: 0.175}}",
    "batch: 176 sequences",
    "batch: 1M tokens",
    "batch: power-lines-batch",
    "batch: {law: celerity-batch, multiple_of: 8, max: 4M tokens}",
    "batch: {law: square-root, anchor: {tokens: 5B, value: 1M tokens}}",
    "schedule: cosine",
    "schedule: {warmup: 10%}",
    "schedule: {warmup: 0.1}",
    "schedule: {warmup: 375M tokens}",
    "schedule: {kind: wsd, decay_fraction: 0.2, warmup: {fraction: 0.1, tokens: 375M}}",
    "optimizer: {betas: [0.9, 95%], eps: 1e-8, eps_mode: exact}",
    "optimizer: {grad_clip: null}",
    "optimizer:",
    "conventions: {params: total, flops: six_nd, attention: full}",
    "loss_law: hoffmann",
    "seeds: [0, 1]",
    "precision: fp32",
]
TYPOS = [
    "tppp: 20",
    "tpp:",
    "tpp: true",
    "tpp: [[20]]",
    "tpp: {lo: 20, high: 300, rule: 30}",
    "tpp: {low: 20, high: 300, rule: optimal}",
    "compute: {flop: 1e22}",
    "compute: []",
    "sizes:",
    "sizes: 300M",
    "sizes: []",
    "sizes: [true]",
    "sizes: [[300M]]",
    "sizes: [{nam: a, d_model: 640, n_layers: 13}]",
    "sizes: [{name: a, d_model: 640, n_layer: 13}]",
    "sizes: {preset: celerity, count: 3}",
    "sizes: {cuont: 3}",
    "architecture: {vocab: 32000}",
    "architecture: {activation: swish}",
    "architecture: {experts: {top_k: 2}}",
    "cluster: 8",
    "cluster: {}",
    "cluster: {devices: 8, sharding: zero}",
    "parametrization: mu-p",
    "parametrization: {base_lrr: 0.1}",
    "schedule: cosin",
    "schedule: {kind: cosine, warmup: {tokns: 375M}}",
    "batch: 176",
    "batch: {vaule: 176 sequences}",
    "optimizer: {betas: [0.9]}",
    "optimizer: {betas: 0.9}",
    "optimizer: 3",
    "seeds: 3",
    "seeds: [-1]",
    "seeds: [a]",
    "precision: fp8",
    "schema: planner.spec/2",
]


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = spec_json_schema()
    Validator.check_schema(schema)
    return Validator(schema)


def test_schemas_are_self_contained(validator: Any) -> None:
    Validator.check_schema(plan_json_schema())
    for schema in (validator.schema, plan_json_schema()):
        assert schema["$schema"] == Validator.META_SCHEMA["$id"]
        assert "le" not in str(schema).split("'")


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings(validator: Any, text: str) -> None:
    parse_spec(PRESET + text)
    validator.validate(parse_document(PRESET + text, "f").value)


@pytest.mark.parametrize("text", TYPOS)
def test_typos(validator: Any, text: str) -> None:
    assert not validator.is_valid(parse_document(PRESET + text, "f").value)
    with pytest.raises(SpecError):
        parse_spec(PRESET + text)


@pytest.mark.parametrize("section", ["family", "tpp", "sizes", "architecture"])
def test_what_must_be_declared(validator: Any, section: str) -> None:
    document = parse_document(FULL, "f").value
    validator.validate(document)
    del document[section]
    assert not validator.is_valid(document)


@pytest.mark.parametrize("key", ["vocab_size", "context"])
def test_what_an_architecture_must_declare(validator: Any, key: str) -> None:
    document = parse_document(FULL, "f").value
    del document["architecture"][key]
    assert not validator.is_valid(document)


def test_examples(validator: Any, project_root: Path) -> None:
    examples = sorted((project_root / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        validator.validate(read_document(example).value)


@pytest.mark.parametrize("name", preset_names())
def test_presets(validator: Any, name: str) -> None:
    preset = load_preset(name).value
    spec = {key: item for key, item in preset.items() if key not in ("about", "assumed")}
    validator.validate({"family": "f", **spec})


@pytest.mark.parametrize("name", preset_names())
def test_plans(name: str) -> None:
    extra = "cluster: {devices: 16, accelerator: H100, mfu: 0.4}\ncompute: 1e25\n"
    plan = compile_plan(parse_spec(f"family: f\npreset: {name}\n{extra}"))
    validator = Validator(plan_json_schema())
    document = json.loads(dump_plan(plan))
    validator.validate(document)
    for change in ({"schema": "planner.plan/2"}, {"extra": 1}, {"runs": [{}]}):
        assert not validator.is_valid({**document, **change})
