"""ModelZoo's settings against the plan's rows and against the published recipe."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.model import Experts, Run
from planner.render import render_files
from planner.render.errors import CannotExpressError
from planner.render.modelzoo.check import _parse
from planner.render.modelzoo.lower import lower
from planner.render.modelzoo.readback import compare, names_of, read_back

from .plans import make_plan, make_run, parametrization

RULES = [
    ("standard", "coupled"),
    ("mup", "coupled"),
    ("mup", "independent"),
    ("completep", "coupled"),
    ("completep", "independent"),
]


def params_of(run: Run, rule: Any) -> dict[str, Any]:
    files = render_files(make_plan(run, rule=rule), "modelzoo")
    return _parse(files[f"{run.name}/params-seed0.yaml"])


@pytest.mark.parametrize(("kind", "decay"), RULES)
@pytest.mark.parametrize(("tied", "biases", "gated", "gqa"), list(product([False, True], repeat=4)))
def test_the_file_says_what_the_plan_says(
    kind: str, decay: str, tied: bool, biases: bool, gated: bool, gqa: bool
) -> None:
    """Rendered, parsed, and read back by ModelZoo's own rules, every value is the plan's."""
    rule = parametrization(kind, decay)
    run = make_run(
        rule,
        d_model=192,
        n_layers=6,
        n_kv_heads=2 if gqa else None,
        d_ffn=640,
        gated=gated,
        activation="silu" if gated else "relu2",
        tied=tied,
        biases=biases,
    )
    params = params_of(run, rule)
    names = names_of(run)
    assert any("bias" in name and "norm" not in name for name in names) is biases
    assert compare(run, read_back(params, names), rel_tol=1e-13) == []


@given(
    width=st.integers(1, 40),
    depth=st.integers(1, 100),
    exponent=st.floats(0.5, 1.0),
    lr=st.floats(1e-5, 1.0),
    std=st.floats(1e-4, 1.0),
    wd=st.one_of(st.just(0.0), st.floats(1e-6, 1.0)),
    rule=st.sampled_from(RULES),
)
def test_any_shape_and_value(
    width: int, depth: int, exponent: float, lr: float, std: float, wd: float, rule: tuple[str, str]
) -> None:
    p = parametrization(*rule, depth_exponent=exponent, base_lr=lr, init_std=std)
    run = make_run(
        p, d_model=32 * width, n_layers=depth, d_ffn=96 * width, biases=True, weight_decay=wd
    )
    params = params_of(run, p)
    assert compare(run, read_back(params, names_of(run)), rel_tol=1e-13) == []


def test_the_comparison_sees_a_wrong_value() -> None:
    rule = parametrization()
    run = make_run(rule, biases=True)
    for path, factor in [
        (("model", "output_layer_initializer", "std"), 2.0),
        (("model", "initializer_range"), 1.01),
        (("model", "output_logits_alpha"), 0.5),
        (("model", "embeddings_scale"), 1.1),
        (("model", "attention_logits_alpha"), 2.0),
        (("model", "mup_base_hidden_size"), 2.0),
        (("optimizer", "AdamW", "weight_decay"), 1.5),
        (("optimizer", "AdamW", "adjust_learning_rate", "decoder_output_ffn"), 2.0),
        (("optimizer", "AdamW", "adjust_learning_rate", "decoder_output_ffn_bias"), 2.0),
    ]:
        params = params_of(run, rule)
        place = params["trainer"]["init"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] *= factor
        assert compare(run, read_back(params, names_of(run))), path


def test_the_recipe_for_completep() -> None:
    """The values of the recipe that was proved by training (design notes, LAUNCH 1.5)."""
    rule = parametrization("completep", "independent")
    run = make_run(rule, d_model=192, n_layers=6, d_ffn=1024, biases=True, weight_decay=0.1)
    sigma, m_n, m_f, m_l = 0.0867, 3.0, 4.0, 3.0
    params = params_of(run, rule)["trainer"]["init"]
    model, adam = params["model"], params["optimizer"]["AdamW"]
    close = pytest.approx
    for key in ("initializer", "ffn_initializer", "embedding_initializer"):
        assert model[key] == {"name": "normal", "mean": 0.0, "std": sigma}
    for key in ("output_layer_initializer", "ffn_output_layer_initializer"):
        assert model[key]["std"] == close(sigma * math.sqrt(12) / m_l)
    assert model["initializer_range"] == sigma
    assert (model["mup_base_hidden_size"], model["mup_base_filter_size"]) == (64.0, 256.0)
    assert (model["embeddings_scale"], model["output_logits_alpha"]) == (9.17, 1.095)
    assert model["scale_qk_dot_by_d"] is True
    assert adam["adjust_learning_rate"] == {
        "decoder_attention": close(1 / m_n),
        "decoder_output_attention": close(1 / (m_n * m_l)),
        "decoder_input_ffn": close(1 / m_n),
        "decoder_output_ffn": close(1 / (m_f * m_l)),
        "decoder_output_attention_bias": close(1 / m_l),
        "decoder_output_ffn_bias": close(1 / m_l),
    }
    decays = {
        item["ConstantWD"]["param_group_tags"]: item["ConstantWD"]["val"]
        for item in params["schedulers"]
        if "ConstantWD" in item
    }
    assert decays == {
        "decoder_attention": close(0.1 * m_n),
        "decoder_output_attention": close(0.1 * m_n * m_l),
        "decoder_input_ffn": close(0.1 * m_n),
        "decoder_output_ffn": close(0.1 * m_f * m_l),
    }
    assert adam["eps"] == 1e-16


def test_cerebras_gpt_shapes_are_plain_mup() -> None:
    """FACTS A10b: 256M, base 256, coupled decay: no decay tags, ratios 256/1088 and 1024/4352."""
    rule = parametrization(
        "mup",
        base_width=256,
        base_ffn_width=1024.0,
        base_lr=0.006,
        init_std=0.08,
        input_multiplier=10.0,
        output_multiplier=1.0,
    )
    run = make_run(
        rule,
        d_model=1088,
        n_layers=14,
        head_dim=64,
        d_ffn=4352,
        activation="gelu",
        position="learned",
        biases=True,
        tied=True,
        vocab=50257,
    )
    params = params_of(run, rule)["trainer"]["init"]
    model, adam = params["model"], params["optimizer"]["AdamW"]
    assert model["embeddings_scale"] == 10.0
    assert model["output_logits_alpha"] == 1.0
    assert adam["eps"] == 1e-16
    assert "params" not in adam
    assert set(adam["adjust_learning_rate"]) == {
        "decoder_attention",
        "decoder_output_attention",
        "decoder_input_ffn",
        "decoder_output_ffn",
    }
    for scale in adam["adjust_learning_rate"].values():
        assert scale == pytest.approx(256 / 1088)


def test_standard_has_no_mup_keys() -> None:
    rule = parametrization("standard")
    params = params_of(make_run(rule, eps=1e-8, eps_mode="exact"), rule)["trainer"]["init"]
    assert not [key for key in params["model"] if key.startswith("mup")]
    assert params["model"]["scale_qk_dot_by_d"] is False
    assert "adjust_learning_rate" not in params["optimizer"]["AdamW"]


@pytest.mark.parametrize(
    ("gated", "activation", "wanted"),
    [
        (False, "relu2", "squared_relu"),
        (False, "gelu", "gelu"),
        (False, "relu", "relu"),
        (False, "silu", "silu"),
        (True, "silu", "swiglu"),
        (True, "gelu", "geglu"),
        (True, "relu", "reglu"),
    ],
)
def test_activations(gated: bool, activation: str, wanted: str) -> None:
    rule = parametrization()
    model = params_of(make_run(rule, gated=gated, activation=activation), rule)["trainer"]["init"][
        "model"
    ]
    assert model["nonlinearity"] == wanted


def test_rotary_dimension_is_always_given() -> None:
    """ModelZoo's default turns only a quarter of each head."""
    rule = parametrization()
    model = params_of(make_run(rule, position="rope"), rule)["trainer"]["init"]["model"]
    assert (model["position_embedding_type"], model["rotary_dim"]) == ("rotary", 32)


def test_no_position_embedding_and_rmsnorm() -> None:
    rule = parametrization()
    model = params_of(make_run(rule, position="none", norm="rmsnorm"), rule)["trainer"]["init"][
        "model"
    ]
    assert model["position_embedding_type"] is None
    assert model["norm_type"] == "rmsnorm"


def test_any_attention_multiplier() -> None:
    rule = parametrization()
    run = make_run(rule)
    run = replace(run, model=replace(run.model, attention_multiplier=0.2))
    settings = lower(run, rule)
    assert settings.scale_qk_dot_by_d
    assert settings.attention_alpha / run.model.head_dim == pytest.approx(0.2, rel=1e-15)


def test_heads_that_do_not_fill_the_width() -> None:
    rule = parametrization()
    run = make_run(rule)
    run = replace(run, model=replace(run.model, head_dim=48))
    assert lower(run, rule).inner_dim == 4 * 48


# --- what cannot be expressed -------------------------------------------------------------------


def refused(run: Run, rule: Any, **changes: Any) -> str:
    if changes:
        run = replace(run, model=replace(run.model, **changes))
    with pytest.raises(CannotExpressError) as caught:
        lower(run, rule)
    assert caught.value.exit_code == 2
    assert caught.value.field is not None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusals_name_field_and_reason() -> None:
    rule = parametrization()
    run = make_run(rule)
    experts = Experts(count=8, top_k=2, tokens_per_expert=1.0, tpp_per_expert=1.0)
    assert "router" in refused(run, rule, experts=experts)
    assert "'relu2'" in refused(run, rule, gated=True)
    assert "mixes in a half type" in refused(replace(run, precision="fp32"), rule)
    assert "divide d_model" in refused(run, rule, n_heads=3)
    assert "512000" in refused(run, rule, padded_vocab_size=512_001)
    assert "position" in refused(run, rule, position="sinusoidal")
    assert "norm" in refused(run, rule, norm="scalenorm")
    assert "even head_dim" in refused(run, rule, position="rope", head_dim=33)
    assert "step counter" in refused(replace(run, steps=2**31), rule)


def test_epsilon_must_be_the_same_or_negligible() -> None:
    rule = parametrization()
    message = refused(make_run(rule, eps=1e-8, eps_mode="exact"), rule)
    assert "eps_mode: negligible" in message
    assert "eps_mode" in refused(make_run(rule, eps=1e-8, eps_mode="negligible"), rule)
    assert "eps_mode" in refused(make_run(rule, eps=1e-16, eps_mode="exact"), rule)
    assert lower(make_run(rule, eps=1e-16), rule).eps == 1e-16


def test_one_epsilon_for_all_needs_no_mode() -> None:
    rule = parametrization("standard")
    assert lower(make_run(rule, eps=1e-8, eps_mode="exact"), rule).eps == 1e-8
    at_base = parametrization("completep")
    run = make_run(at_base, d_model=64, n_layers=2, eps=1e-8, eps_mode="exact")
    assert lower(run, at_base).eps == 1e-8


def test_clipping_warns_only_where_something_is_folded() -> None:
    rule = parametrization()
    settings = lower(make_run(rule, clip=1.0), rule)
    assert len(settings.warnings) == 1
    assert "global norm 1" in settings.warnings[0]
    assert "2 times as large" in settings.warnings[0]
    assert lower(make_run(rule, clip=None), rule).warnings == ()
    at_base_depth = make_run(rule, n_layers=2, clip=1.0)
    assert lower(at_base_depth, rule).warnings == ()
    mup = parametrization("mup")
    assert lower(make_run(mup, clip=1.0), mup).warnings == ()


def test_tied_rows_must_agree() -> None:
    rule = parametrization()
    run = make_run(rule, tied=True)
    rows = tuple(
        replace(row, lr=row.lr * 2) if row.tensor_class == "unembedding" else row
        for row in run.tensors
    )
    assert "tied" in refused(replace(run, tensors=rows), rule)


def test_a_missing_row_is_named() -> None:
    rule = parametrization()
    run = make_run(rule)
    rows = tuple(row for row in run.tensors if row.tensor_class != "ffn_out")
    assert "ffn_out" in refused(replace(run, tensors=rows), rule)


def test_decayed_biases_and_norms_are_tagged() -> None:
    """Rows that decay what ModelZoo leaves alone are carried all the same."""
    rule = parametrization()
    run = make_run(rule, biases=True)
    rows = tuple(
        replace(row, weight_decay=0.3) if row.tensor_class in ("bias", "norm") else row
        for row in run.tensors
    )
    run = replace(run, tensors=rows)
    assert compare(run, read_back(params_of(run, rule), names_of(run)), rel_tol=1e-13) == []
