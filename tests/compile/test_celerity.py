"""The published Celerity family from its spec (arXiv 2509.25087), held to the paper's tables.

`golden/celerity.txt` is the whole family as a table and `golden/celerity.json` every number of its
runs to 12 digits. After a change that is meant, write them anew:

    UPDATE_GOLDEN=1 pytest tests/compile/test_celerity.py
"""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from planner.models.architecture import Architecture
from planner.models.shapes import shape_for
from planner.plan import Plan, Run, plan_document

from .families import celerity, plan_of

GOLDEN = Path(__file__).with_name("golden")

SIZES = ("300M", "500M", "900M", "1.8B", "3.9B")
BANDS = (20, 80, 234)
# Table 2
WIDTH = dict(zip(SIZES, (640, 896, 1152, 1536, 2048), strict=True))
DEPTH = dict(zip(SIZES, (13, 17, 23, 30, 40), strict=True))
HEADS = dict(zip(SIZES, ((10, 64), (14, 64), (9, 128), (12, 128), (16, 128)), strict=True))
BATCH = dict(zip(SIZES, (176, 240, 336, 464, 672), strict=True))
# Table 10
PARAMS = dict(zip(SIZES, (2.71e8, 5.03e8, 9.06e8, 1.81e9, 3.88e9), strict=True))
FLOPS_234 = dict(zip(SIZES, (1.47e20, 5.15e20, 1.68e21, 6.54e21, 2.89e22), strict=True))
# Table 8, in 1e9 tokens
TOKENS = {
    20: dict(zip(SIZES, (5.4, 10.1, 18.1, 36.2, 77.6), strict=True)),
    80: dict(zip(SIZES, (21.7, 40.2, 72.5, 144.8, 310.4), strict=True)),
    234: dict(zip(SIZES, (63.4, 117.8, 212.3, 424.0, 909.2), strict=True)),
}
TAU = {20: 0.175, 80: 0.087, 234: 0.051}  # Fig. 1 and 6
WARMUP_TOKENS = 375_000_000
# N as computed, over the batch (DESIGN section 8)
STEPS_20 = dict(zip(SIZES, (3755, 5115, 6583, 9521, 14099), strict=True))
BASE_WIDTH = 256  # assumed: Table 5's proxy

RUNS = [(size, band) for band in BANDS for size in SIZES]


def run_of(size: str, band: int) -> Run:
    return celerity().run(f"{size}-{band}tpp")


def counted(size: str) -> int:
    """N as the paper counts it (FACTS A9): 2 V d + L (4 d^2 + 16 d^2)."""
    d = WIDTH[size]
    return 2 * 128256 * d + DEPTH[size] * 20 * d * d


def test_all_runs_are_there() -> None:
    assert [run.name for run in celerity().runs] == [f"{size}-{band}tpp" for size, band in RUNS]
    assert celerity().ok


@pytest.mark.parametrize("size", SIZES)
class TestSizes:
    def test_shape(self, size: str) -> None:
        model = run_of(size, 20).model
        assert (model.d_model, model.n_layers) == (WIDTH[size], DEPTH[size])
        assert (model.n_heads, model.head_dim) == HEADS[size]
        assert (model.n_kv_heads, model.d_ffn) == (model.n_heads, 8 * model.d_model)

    def test_parameters_are_table_10s(self, size: str) -> None:
        params = run_of(size, 20).params
        assert params.total == pytest.approx(PARAMS[size], rel=0.005)
        assert counted(size) == pytest.approx(PARAMS[size], rel=0.005)
        # the norms, which the paper leaves out
        assert params.total - counted(size) == (2 * DEPTH[size] + 1) * WIDTH[size]

    def test_batch_is_table_2s(self, size: str) -> None:
        for band in BANDS:
            batch = run_of(size, band).batch
            assert (batch.sequences, batch.tokens) == (BATCH[size], BATCH[size] * 8192)

    def test_steps_at_20(self, size: str) -> None:
        assert run_of(size, 20).steps == STEPS_20[size]

    def test_flops_at_234_are_table_10s(self, size: str) -> None:
        flops = run_of(size, 234).flops
        assert flops.total == flops.paper
        assert flops.total == pytest.approx(FLOPS_234[size], rel=0.01)

    def test_the_rule_finds_the_shape(self, size: str) -> None:
        """Given only Table 10's N and the architecture: the published width, depth and heads."""
        plan = plan_of(preset="celerity", tpp=20, sizes=[{"name": "x", "params": PARAMS[size]}])
        model = plan.runs[0].model
        assert (model.d_model, model.n_layers) == (WIDTH[size], DEPTH[size])
        assert (model.n_heads, model.head_dim) == HEADS[size]
        family = Architecture(128256, 8192, ffn_multiplier=Fraction(8))
        shape = shape_for(family, PARAMS[size])
        assert (shape.d_model, shape.n_layers, shape.d_ffn) == (
            WIDTH[size],
            DEPTH[size],
            8 * WIDTH[size],
        )


@pytest.mark.parametrize(("size", "band"), RUNS)
class TestRuns:
    def test_tokens_are_table_8s(self, size: str, band: int) -> None:
        assert run_of(size, band).tokens == pytest.approx(1e9 * TOKENS[band][size], rel=0.01)

    def test_tokens_per_parameter(self, size: str, band: int) -> None:
        run = run_of(size, band)
        assert run.tpp == pytest.approx(band, rel=0.005)
        assert run.tpp == pytest.approx(run.tokens / counted(size), rel=1e-12)
        assert run.tokens / run.params.total == pytest.approx(band, rel=0.005)

    def test_tau_of_what_will_run(self, size: str, band: int) -> None:
        """From whole steps, batch, and each class's own rate and decay, in exact arithmetic."""
        run = run_of(size, band)
        decaying = [row for row in run.tensors if row.weight_decay > 0]
        assert {row.tensor_class for row in decaying} == {
            "embedding",
            "attn_qkv",
            "attn_out",
            "ffn_in",
            "ffn_out",
            "unembedding",
        }
        for row in decaying:
            per_step = Fraction(row.lr) * Fraction(row.weight_decay)
            tau = 1 / (per_step * run.steps)
            assert round(float(tau), 3) == TAU[band]
            assert abs(tau / Fraction(str(TAU[band])) - 1) < Fraction(1, 10**12)

    def test_rate_and_decay(self, size: str, band: int) -> None:
        """Base rate 0.15 (A9), hidden rate over m_N; lambda = B / (eta tau D), times m_N inside."""
        run = run_of(size, band)
        m = WIDTH[size] / BASE_WIDTH
        lam = run.batch.tokens / (0.15 * TAU[band] * run.tokens)
        hidden, outside = run.tensor("attn_qkv"), run.tensor("embedding")
        assert (hidden.lr, outside.lr) == pytest.approx((0.15 / m, 0.15), rel=1e-12)
        assert (hidden.weight_decay, outside.weight_decay) == pytest.approx(
            (lam * m, lam), rel=1e-12
        )

    def test_warmup(self, size: str, band: int) -> None:
        """The smaller of a tenth and 375M tokens, in whole steps."""
        run = run_of(size, band)
        exact = min(run.tokens / 10, WARMUP_TOKENS) / run.batch.tokens
        assert abs(run.warmup_steps - exact) <= 0.5
        assert exact == WARMUP_TOKENS / run.batch.tokens
        assert run.schedule.kind == "linear-to-zero"
        assert run.schedule.final_lr_fraction == 0


def test_warmup_of_a_short_run_is_a_tenth() -> None:
    run = plan_of(preset="celerity", tpp=5, sizes=["300M"]).runs[0]
    assert run.tokens / 10 < WARMUP_TOKENS
    assert run.warmup_steps == round(run.steps / 10)


def test_implied_rate_times_decay() -> None:
    """FACTS A9's products at 20 TPP: 1.53e-3, 1.11e-3, 8.69e-4, 6.00e-4, 4.05e-4."""
    products = []
    for size in SIZES:
        row = run_of(size, 20).tensor("attn_qkv")
        products.append(row.lr * row.weight_decay)
    assert products == pytest.approx([1.53e-3, 1.11e-3, 8.69e-4, 6.00e-4, 4.05e-4], rel=0.01)


def test_what_is_unpublished_is_marked() -> None:
    """Base shape, init, multipliers, betas and epsilon are assumed, each with a warning."""
    for field in (
        "parametrization.base_width",
        "parametrization.base_depth",
        "parametrization.init_std",
        "parametrization.input_multiplier",
        "parametrization.output_multiplier",
        "optimizer.betas",
        "optimizer.eps",
    ):
        assert any(text.startswith(f"{field} is assumed: ") for text in celerity().warnings), field


def table(plan: Plan) -> str:
    """Return the family as a table that a person can check against the paper."""
    head = [
        "run",
        "d_model",
        "n_layers",
        "heads",
        "params",
        "tokens",
        "tpp",
        "steps",
        "warmup",
        "batch",
        "hidden_lr",
        "hidden_wd",
        "tau",
        "lambda",
        "flops",
        "six_nd",
        "loss",
    ]
    rows = [head]
    for run in plan.runs:
        hidden = run.tensor("attn_qkv")
        rows.append(
            [
                run.name,
                str(run.model.d_model),
                str(run.model.n_layers),
                f"{run.model.n_heads}x{run.model.head_dim}",
                str(run.params.total),
                str(run.tokens),
                f"{run.tpp:.4f}",
                str(run.steps),
                str(run.warmup_steps),
                str(run.batch.sequences),
                f"{hidden.lr:.6g}",
                f"{hidden.weight_decay:.6g}",
                f"{hidden.tau:.6g}",
                f"{run.optimizer.base_weight_decay:.6g}",
                f"{run.flops.total:.4e}",
                f"{run.flops.six_nd:.4e}",
                f"{run.predicted.loss:.4f}",
            ]
        )
    wide = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            item.ljust(size) if at == 0 else item.rjust(size)
            for at, (item, size) in enumerate(zip(row, wide, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, ""])


def numbers(plan: Plan) -> str:
    """Return every number of the runs, one run a line, to 12 digits: powers differ in the last."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.12g}")
        if isinstance(value, dict):
            return {key: short(item) for key, item in value.items() if key != "digest"}
        if isinstance(value, (list, tuple)):
            return [short(item) for item in value]
        return value

    runs = [json.dumps(short(run)) for run in plan_document(plan)["runs"]]
    return "[\n" + ",\n".join(runs) + "\n]\n"


@pytest.mark.parametrize(("name", "form"), [("celerity.txt", table), ("celerity.json", numbers)])
def test_golden(name: str, form: Any) -> None:
    path, text = GOLDEN / name, form(celerity())
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_bytes().decode() == text
