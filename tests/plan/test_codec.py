"""Plan files as a contract: their fields, schema and digests, and exact round trips.

Damaged files are in test_plan_files.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.compile import compile_plan
from planner.errors import PlanFileError
from planner.plan import (
    Plan,
    dump_plan,
    load_plan,
    plan_document,
    plan_json_schema,
    run_digest,
    sealed,
)
from planner.plan.codec import indented, plan_digest
from planner.spec import load_spec, parse_spec


@cache
def plan() -> Plan:
    return compile_plan(parse_spec("family: x\npreset: celerity\ntpp: 20\nsizes: [300M, 500M]\n"))


def document() -> Any:
    return json.loads(dump_plan(plan()))


def resealed(changed: Any) -> str:
    """Return an edited document with digests that match it again."""
    for run in changed["runs"]:
        run["digest"] = run_digest(run)
    changed["digest"] = plan_digest(changed)
    return json.dumps(changed)


class TestContract:
    def test_the_documents_fields(self) -> None:
        """DESIGN section 6; fields may be added, none renamed or removed."""
        made = document()
        assert made["schema"] == "planner.plan/1"
        assert {"family", "digest", "parametrization", "laws", "warnings", "runs"} <= set(made)
        run = made["runs"][0]
        wanted = {
            "": "name size tpp digest tokens steps warmup_steps seeds precision tensors audit",
            "model": "d_model n_layers n_heads n_kv_heads head_dim d_ffn gated vocab_size "
            "padded_vocab_size seq_len activation position norm biases tied_embeddings experts",
            "params": "total non_embedding active",
            "batch": "sequences tokens optimal_tokens critical_tokens micro data_parallel "
            "accumulation",
            "optimizer": "base_peak_lr base_weight_decay betas eps grad_clip tau tau_optimal",
            "schedule": "kind warmup_fraction final_lr_fraction decay_fraction",
            "flops": "total six_nd",
            "predicted": "loss low high",
        }
        for section, names in wanted.items():
            assert set(names.split()) <= set(run[section] if section else run), section
        row = "class init_std lr weight_decay eps forward_multiplier tau"
        assert set(run["tensors"][0]) == set(row.split())
        assert set(run["audit"][0]) >= {"field", "asked", "achieved", "relative"}

    def test_the_schema_describes_it(self) -> None:
        schema = plan_json_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(document(), schema)
        wrong = document()
        wrong["runs"][0]["steps"] = "many"
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


class TestDigests:
    def test_a_run_does_not_hear_of_audit_and_prediction(self) -> None:
        run = plan().runs[0]
        other = replace(run, audit=(), predicted=replace(run.predicted, loss=9.0), digest="")
        assert run_digest(other) == run.digest == run_digest(run)
        assert run_digest(replace(run, steps=run.steps + 1)) != run.digest

    def test_budget_and_warnings_are_not_part_of_a_run(self) -> None:
        other = replace(plan(), warnings=("look",), family="y")
        assert [run.digest for run in sealed(other).runs] == [run.digest for run in plan().runs]
        assert sealed(other).digest != plan().digest

    def test_the_spelling_of_the_file_does_not_matter(self) -> None:
        shuffled = json.dumps(document(), sort_keys=True, indent=3)
        assert load_plan(shuffled) == plan()
        assert load_plan(shuffled.encode()) == plan()


def test_a_run_that_does_not_match_its_digest() -> None:
    changed = document()
    changed["runs"][1]["steps"] += 1
    changed["digest"] = plan_digest(changed)
    with pytest.raises(PlanFileError, match="run '500M-20tpp' does not match its digest"):
        load_plan(json.dumps(changed))


def test_text_that_is_no_unicode() -> None:
    with pytest.raises(PlanFileError, match="is not a plan"):
        load_plan(dump_plan(plan()).replace('"family": "x"', r'"family": "\ud800"'))


def test_a_law_may_be_called_class(tmp_path: Path) -> None:
    """Only the tensor rows' own "class" is respelled when a plan is read."""
    (tmp_path / "laws.yaml").write_text(
        "schema: planner.laws/1\nlaws:\n  class:\n    quantity: tau\n    form: power\n"
        "    input: tpp\n    constants: {coefficient: 1, exponent: -0.5}\n"
        "    source: ours\n    confidence: fitted\n"
    )
    path = tmp_path / "spec.yaml"
    path.write_text("family: x\npreset: celerity\nlaws: laws.yaml\ntimescale: class\n")
    made = compile_plan(load_spec(path))
    assert load_plan(dump_plan(made)) == made


def test_numbers_keep_all_their_digits() -> None:
    """Every float survives: 17 digits, subnormals, whole floats, large counts."""
    run = plan().runs[0]
    odd = replace(
        run,
        tpp=0.1 + 0.2,
        tokens=2**62 + 1,
        flops=replace(run.flops, total=1e22, exact=5e-324, six_nd=3.0),
    )
    made = sealed(replace(plan(), runs=(odd,)))
    again = load_plan(dump_plan(made))
    assert again == made
    assert again.runs[0].tokens == 2**62 + 1
    assert plan_document(again) == plan_document(made)


def test_edits_that_match_their_digests_are_read() -> None:
    """A digest protects from mistakes, not from intent."""
    changed = document()
    changed["runs"][0]["seeds"] = [7]
    assert load_plan(resealed(changed)).runs[0].seeds == (7,)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    leaves.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=trees)
def test_indented_json_is_that_of_the_standard_library(value: Any) -> None:
    assert indented(value) == json.dumps(value, indent=1, ensure_ascii=False)


def test_indented_json_of_a_plan() -> None:
    wanted = json.dumps(plan_document(plan()), indent=1, ensure_ascii=False) + "\n"
    assert dump_plan(plan()) == wanted


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_indented_json_has_no_constants(number: float) -> None:
    with pytest.raises(ValueError, match="has no JSON form"):
        indented([number])
    with pytest.raises(TypeError, match="a set has no JSON form"):
        indented({"a": {1}})
