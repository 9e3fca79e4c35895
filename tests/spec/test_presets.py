"""Presets under a spec: what is declared replaces, what is left empty is not declared."""

from __future__ import annotations

import pytest

from planner.compile import compile_plan
from planner.errors import SpecError
from planner.spec import Declared, parse_spec, preset_names

PRESET = "family: f\npreset: celerity\n"
FULL = "family: f\ntpp: 20\nsizes: [300M]\narchitecture: {vocab_size: 32000, context: 2048}\n"


def plain(declared: Declared) -> dict[str, object]:
    return declared.spec.model_dump(exclude={"preset"})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_compiles_and_says_what_it_assumes(name: str) -> None:
    declared = parse_spec(f"family: f\npreset: {name}\n")
    plan = compile_plan(declared)
    assert plan.ok
    assert declared.assumed
    for field, reason in declared.assumed.items():
        assert f"{field} is assumed: {reason}" in plan.warnings


@pytest.mark.parametrize(
    "section",
    [
        *("schema", "preset", "compute", "data", "cluster", "parametrization", "timescale"),
        *("batch", "schedule", "optimizer", "conventions", "loss_law", "laws", "seeds"),
        "precision",
    ],
)
@pytest.mark.parametrize("empty", ["", "null", "~"])
def test_optional_section_left_empty_is_not_declared(section: str, empty: str) -> None:
    assert plain(parse_spec(f"{FULL}{section}: {empty}\n")) == plain(parse_spec(FULL))
    if section != "preset":
        over = parse_spec(f"{PRESET}{section}: {empty}\n")
        assert plain(over) == plain(parse_spec(PRESET))
        assert over.assumed == parse_spec(PRESET).assumed
        assert over.origin(section) == parse_spec(PRESET).origin(section)


@pytest.mark.parametrize("section", ["family", "tpp", "sizes", "architecture"])
def test_section_that_must_be_declared_is_not_left_empty(section: str) -> None:
    others = [line for line in FULL.splitlines() if not line.startswith(section)]
    text = "\n".join([*others, f"{section}:"])
    with pytest.raises(SpecError, match=rf"^<spec>:4: {section}: got nothing, wanted "):
        parse_spec(text)


def test_null_inside_a_section_undoes_the_preset() -> None:
    spec = parse_spec(PRESET + "optimizer: {grad_clip: null}\n").spec
    assert spec.optimizer.grad_clip is None
    assert spec.optimizer.eps == 1e-16


def test_section_is_merged_by_key() -> None:
    spec = parse_spec(PRESET + "architecture: {context: 4096}\n").spec
    assert (spec.architecture.context, spec.architecture.vocab_size) == (4096, 128256)


def test_choice_is_replaced_whole() -> None:
    spec = parse_spec(PRESET + "timescale: {value: 0.1}\n").spec
    assert (spec.timescale.law, spec.timescale.values) == (None, None)


def test_another_kind_leaves_what_belongs_to_the_preset_s_kind() -> None:
    base = "family: f\npreset: cerebras-gpt\n"
    assert parse_spec(base).spec.schedule.final_lr_fraction == 0.1
    assert parse_spec(base + "schedule: linear-to-zero\n").spec.schedule.final_lr_fraction is None
    assert parse_spec(base + "parametrization: completep\n").spec.parametrization.decay is None


def test_unknown_kind_key_is_an_error_as_any_other() -> None:
    with pytest.raises(SpecError, match=r"^<spec>:3: architecture\.kind: is unknown"):
        parse_spec(PRESET + "architecture: {kind: llama}\n")


def test_listed_names_take_the_preset_s_shapes() -> None:
    sizes = parse_spec(PRESET + "sizes: [300M, 700M]\n").spec.sizes.listed
    assert sizes is not None
    assert [size.d_model for size in sizes] == [640, None]


def test_the_user_s_batch_replaces_the_preset_s_row() -> None:
    sizes = parse_spec(PRESET + "batch: 100 sequences\n").spec.sizes.listed
    assert sizes is not None
    assert {size.batch for size in sizes} == {None}


def test_origins_tell_spec_from_preset() -> None:
    declared = parse_spec(PRESET + "optimizer:\n  eps: 1e-12\n")
    assert str(declared.origin("optimizer.eps")) == "spec line 4"
    assert str(declared.origin("optimizer.betas")) == "preset celerity"
    assert str(declared.origin("tpp")) == "preset celerity"
    assert declared.origin("cluster") is None
    assert "optimizer.eps" not in declared.assumed


def test_errors_tell_what_the_preset_declares() -> None:
    declared = parse_spec(PRESET + "seeds: [1]\n")
    assert str(declared.error("seeds", "is odd")) == "<spec>:3: seeds: is odd"
    assert str(declared.error("tpp", "is odd")) == (
        "<spec>:1: tpp: is odd (declared by the preset celerity)"
    )
    assert str(declared.error("cluster", "is odd")) == "<spec>:1: cluster: is odd"


def test_too_many_runs() -> None:
    sizes = ", ".join(f"{300 + i}M" for i in range(50))
    bands = ", ".join(str(20 + i) for i in range(21))
    with pytest.raises(SpecError) as error:
        parse_spec(f"{PRESET}tpp: [{bands}]\nsizes: [{sizes}]\n")
    assert str(error.value) == (
        "<spec>:4: sizes: got 50 sizes at 21 TPP, which are 1,050 runs; wanted at most 1,000"
    )


@pytest.mark.parametrize("spelling", ["mup", "{kind: mup}"])
def test_short_spelling_of_a_kind_declares_the_kind_only(spelling: str) -> None:
    declared = parse_spec(f"family: x\npreset: celerity\nparametrization: {spelling}\n")
    assert str(declared.origin("parametrization.base_lr")) == "preset celerity"
    assert str(declared.origin("parametrization.kind")) == "spec line 3"
    assert "parametrization.init_std" in declared.assumed
    # decay is of the kind: the preset's is not taken over
    assert declared.spec.parametrization.decay is None
    assert declared.warnings == (
        "parametrization: the preset's base values are for completep, not for mup",
    )


def test_short_spelling_of_a_schedule_keeps_the_warmup() -> None:
    declared = parse_spec("family: x\npreset: cerebras-gpt\nschedule: cosine\n")
    assert declared.spec.schedule.warmup.tokens == 375_000_000
    assert str(declared.origin("schedule.warmup")) == "preset cerebras-gpt"
    assert "schedule.warmup" in declared.assumed
    assert "schedule.kind" not in declared.assumed
