"""`explain`: the trail of a number, in the words of the user's own spec."""

from __future__ import annotations

import re
from functools import cache

import pytest

from planner.compile import compile_plan
from planner.plan import Plan, explain
from planner.plan.explain import ExplainError, run_fields
from planner.spec import parse_spec

SPEC = """\
family: explained
preset: celerity
tpp: [20, 80]
sizes:
  - {name: 300M, d_model: 640, n_layers: 13, head_dim: 64, batch: 170 sequences}
  - {name: 1.8B, d_model: 1536, n_layers: 30, n_heads: 12, d_ffn: 12288}
  - 900M
architecture:
  head_dim: 128
parametrization:
  base_lr: 0.2
schedule:
  warmup: 5%
cluster: {devices: 8, accelerator: H100, mfu: 0.4}
seeds: [3]
"""


@cache
def plan() -> Plan:
    return compile_plan(parse_spec(SPEC))


def why(target: str) -> dict[str, object]:
    (told,) = explain(plan(), target)
    p = told.provenance
    return {
        "value": told.value,
        "formula": p.formula,
        "inputs": p.inputs,
        "declared": p.declared,
        "exact": p.exact,
        "rounding": p.rounding,
        "law": told.law and told.law.name,
        "source": told.source,
    }


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("300M-20tpp.model.d_model", "d_model: 640"),
        ("300M-20tpp.model.n_layers", "n_layers: 13"),
        ("300M-20tpp.model.head_dim", "head_dim: 64"),
        ("1.8B-20tpp.model.n_heads", "n_heads: 12"),
        ("1.8B-20tpp.model.d_ffn", "d_ffn: 12288"),
        ("300M-20tpp.batch.sequences", "batch: 170 sequences"),
        ("900M-20tpp.model.d_model", "900M"),  # the preset's shape, by its name
        ("300M-20tpp.optimizer.base_peak_lr", "base_lr: 0.2"),
        ("300M-20tpp.warmup_steps", "warmup: 5%"),
        ("300M-20tpp.tpp", "tpp: [20, 80]"),
        ("300M-20tpp.seeds", "seeds: [3]"),
    ],
)
def test_a_declared_value_names_its_line(target: str, says: str) -> None:
    declared = str(why(target)["declared"])
    match = re.match(r"spec line (\d+)", declared)
    assert match is not None, declared
    section = SPEC.splitlines()[int(match[1]) - 1 :]
    assert says in "\n".join(section[:2])


@pytest.mark.parametrize(
    ("target", "formula"),
    [
        ("300M-20tpp.model.n_heads", "d_model / head_dim"),
        ("300M-20tpp.model.n_kv_heads", "n_heads / kv_groups"),
        ("300M-20tpp.model.d_ffn", "ffn_multiplier * d_model"),
        ("1.8B-20tpp.model.head_dim", "d_model / n_heads"),
    ],
)
def test_what_a_size_leaves_out_is_not_called_declared(target: str, formula: str) -> None:
    told = why(target)
    assert (told["formula"], told["declared"]) == (formula, None)


def test_a_preset_and_its_assumptions() -> None:
    assert why("300M-20tpp.model.vocab_size")["declared"] == "preset celerity"
    betas = str(why("300M-20tpp.optimizer.betas")["declared"])
    assert betas.startswith("preset celerity (assumed: unpublished for Celerity")


def test_rounding_shows_what_was_exact() -> None:
    told = why("300M-20tpp.batch.sequences")
    assert (told["value"], told["exact"]) == (168, 170)
    assert told["rounding"] == "to the nearest for 8 replicas"
    steps = why("300M-20tpp.steps")
    assert isinstance(steps["exact"], float)
    assert round(steps["exact"]) == steps["value"]
    assert steps["formula"] == "tpp * N_matrices / batch.tokens"


def test_a_law_comes_with_its_source() -> None:
    told = why("300M-20tpp.optimizer.tau_optimal")
    assert told["law"] == "power-lines"
    assert plan().laws["power-lines"].source.startswith("Power Lines, arXiv 2505.13738")
    assert told["formula"] == "coefficient * tpp^exponent"


def test_tensors_come_from_the_table() -> None:
    told = why("1.8B-20tpp.tensors.ffn_out.lr")
    assert told["formula"] == "base_lr * m_F^-1"
    assert told["inputs"] == {"base_lr": 0.2, "m_F": 6.0}
    assert told["source"] == "arXiv 2505.01618 Table 1 (standard, muP and CompleteP)"
    assert why("1.8B-20tpp.tensors.ffn_out.eps")["formula"] == "eps * m_N^-1 * m_L^-1"
    assert why("1.8B-20tpp.tensors.norm.init_std")["declared"] == (
        "norms start at one, biases at zero"
    )
    assert "nothing decays" in str(why("1.8B-20tpp.tensors.norm.tau")["formula"])


def test_weight_decay_is_told_as_solved_last() -> None:
    told = why("1.8B-20tpp.optimizer.base_weight_decay")
    assert told["formula"] == "batch.tokens / (base_peak_lr * tau * tokens)"
    assert "after all rounding" in str(told["rounding"])


def test_a_rule_that_picked_the_band() -> None:
    text = SPEC.replace(
        "tpp: [20, 80]", "tpp: {low: 20, high: 500, rule: {max_extra_compute: 0.5}}"
    )
    made = compile_plan(parse_spec(text))
    (told,) = explain(made, f"{made.runs[0].name}.tpp")
    assert told.law is not None
    assert told.law.name == "iso-loss"
    assert "max_extra_compute" in str(told.provenance.declared)


def test_a_field_of_fields_explains_each() -> None:
    told = explain(plan(), "300M-20tpp.batch")
    assert [item.field for item in told] == [
        name for name, _ in run_fields(plan().run("300M-20tpp")) if name.startswith("batch.")
    ]
    tensors = explain(plan(), "300M-20tpp.tensors.attn_qkv")
    assert len(tensors) == 6


def test_a_name_with_a_dot() -> None:
    assert why("1.8B-80tpp.steps")["value"] == plan().run("1.8B-80tpp").steps


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("300M-20tpp.stpes", "no such field; did you mean 'steps'"),
        ("300M-20tpp.tensors.router", "no such field"),
        ("300M-20tpp.step", "no such field; did you mean 'steps'"),
        ("300M-30tpp.steps", "no run '300M-30tpp'; did you mean '300M-"),
        ("300M-20tpp", "got only a run, wanted RUN.FIELD"),
        ("", "no run"),
        ("steps", "no run 'steps'"),
    ],
)
def test_unknown(target: str, message: str) -> None:
    with pytest.raises(ExplainError, match=re.escape(message)):
        explain(plan(), target)
