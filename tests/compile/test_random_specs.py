"""What holds for every valid spec: tau exact, batches whole, counts and tables as the oracle's."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings

from planner.errors import PlannerError
from planner.plan import Plan, Run, dump_plan, explain, load_plan, plan_document, run_digest
from planner.plan.codec import plan_digest
from planner.plan.explain import run_fields

from . import oracle
from .families import celerity, plan_of, planned, specs

TAU = 1e-12


def random_specs(examples: int) -> Callable[[Any], Any]:
    """Run a test on this many random specs."""

    def decorate(test: Any) -> Any:
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        return settings(max_examples=examples, deadline=None, suppress_health_check=checks)(
            given(spec=specs())(test)
        )

    return decorate


def compiled(spec: dict[str, Any]) -> Plan:
    """Compile a random spec; those whose cluster cannot make batch or model are left out."""
    try:
        return plan_of(**spec)
    except PlannerError as error:
        refused = ("cannot make a batch near", "allows no batch", "cannot share")
        if not any(reason in str(error) for reason in refused):
            raise
        reject()


def asked_tau(spec: dict[str, Any], tpp: float) -> float | None:
    """Return the tau that a random spec asks for, by the published formulas."""
    wanted = spec["timescale"]
    if "weight_decay" in wanted:
        return None
    if "value" in wanted:
        return float(wanted["value"])
    by_band = {float(key): value for key, value in wanted.get("values", {}).items()}
    if tpp in by_band:
        return float(by_band[tpp])
    if wanted["law"] == "square-root":
        anchor = wanted["anchor"]
        return float(anchor["value"] * math.sqrt(anchor["tpp"] / tpp))
    # arXiv 2505.13738; the square-root law through Celerity's three bands (FACTS A9)
    coefficient, exponent = {"power-lines": (1.084, -0.527), "celerity": (0.7826, -0.5)}[
        wanted["law"]
    ]
    return float(coefficient * tpp**exponent)


def exact_tau(run: Run, lr: float, weight_decay: float) -> Fraction:
    """Return B / (eta lambda D) of the numbers in the plan, without any rounding."""
    return Fraction(run.batch.tokens) / (Fraction(lr) * Fraction(weight_decay) * run.tokens)


def near(got: float | Fraction, wanted: float | Fraction, tolerance: float = TAU) -> bool:
    return abs(Fraction(got) / Fraction(wanted) - 1) <= tolerance


def product_ratio(plan: Plan, run: Run, name: str) -> float:
    """Return a class's nominal eta lambda over the base product, by FACTS section 4's table."""
    row = oracle.rows(plan, run)[name]
    base = plan.parametrization.base_lr * run.optimizer.base_weight_decay
    return row.lr * row.weight_decay / base


def check_tau(plan: Plan, run: Run, asked: float | None) -> int:
    """Assert the timescales of one run; return how many classes share the hidden matrices'."""
    hidden = product_ratio(plan, run, "attn_qkv")
    sharing = 0
    for row in run.tensors:
        if row.weight_decay == 0:
            assert row.tau is None
            continue
        tau = exact_tau(run, row.lr, row.weight_decay)
        assert row.tau is not None
        assert near(row.tau, tau)
        if abs(product_ratio(plan, run, row.tensor_class) / hidden - 1) < 1e-13:
            sharing += 1
            assert run.optimizer.tau is not None
            assert near(tau, run.optimizer.tau)
            if asked is not None:
                assert near(tau, asked), row.tensor_class
    return sharing


def check_weight_decay(plan: Plan, run: Run, asked: float | None) -> None:
    """Assert DESIGN section 7's lambda, in exact arithmetic up to the one power of m_L."""
    p = plan.parametrization
    m = Fraction(1) if p.kind == "standard" else Fraction(run.model.d_model, p.base_width)
    lam = Fraction(run.batch.tokens) / (
        Fraction(p.base_lr) * Fraction(asked or run.optimizer.tau or 0) * run.tokens
    )
    if p.decay == "coupled":
        lam *= m
    if p.kind == "completep":
        lam *= Fraction((run.model.n_layers / p.base_depth) ** (1 - p.depth_exponent))
    assert near(run.optimizer.base_weight_decay, lam)


class TestTau:
    """B / (eta lambda D) of what will run equals the asked tau in every class that shares it."""

    @random_specs(100)
    def test_of_random_specs(self, spec: dict[str, Any]) -> None:
        plan = compiled(spec)
        bands = [tpp for tpp in spec["tpp"] for _ in spec["sizes"]]
        for tpp, run in zip(bands, plan.runs, strict=True):
            asked = asked_tau(spec, tpp)
            assert check_tau(plan, run, asked) >= 3
            check_weight_decay(plan, run, asked)
            if asked is None:
                assert run.optimizer.base_weight_decay == spec["timescale"]["weight_decay"]

    @pytest.mark.parametrize("kind", ["standard", "mup", "completep"])
    @pytest.mark.parametrize("decay", ["coupled", "independent"])
    def test_which_classes_share_it(self, kind: str, decay: str) -> None:
        """Independent: all that decay. Coupled: those that have the hidden matrices' multiplier."""
        plan = plan_of(
            preset="celerity",
            sizes=["300M"],
            tpp=20,
            timescale=0.2,
            parametrization={"kind": kind, "decay": decay, "base_ffn_width": 1000},
        )
        (run,) = plan.runs
        shared = {row.tensor_class for row in run.tensors if row.tau and near(row.tau, 0.2)}
        hidden = {"attn_qkv", "attn_out", "ffn_in"}
        every = hidden | {"embedding", "ffn_out", "unembedding"}
        assert shared == (hidden if kind != "standard" and decay == "coupled" else every)

    def test_of_an_exponent_other_than_one(self) -> None:
        """Outside the blocks the rate does not fall with depth, so tau differs there."""
        plan = plan_of(
            preset="celerity",
            sizes=["3.9B"],
            tpp=20,
            timescale=0.2,
            parametrization={"depth_exponent": 0.5},
        )
        (run,) = plan.runs
        tau = {row.tensor_class: row.tau for row in run.tensors}
        depth = run.model.n_layers / plan.parametrization.base_depth
        for name in ("attn_qkv", "attn_out", "ffn_in", "ffn_out"):
            assert near(tau[name] or 0, 0.2)
        assert near(tau["embedding"] or 0, 0.2 * depth**-0.5)


class TestWholeNumbers:
    @random_specs(80)
    def test_batch_steps_and_tokens(self, spec: dict[str, Any]) -> None:
        plan = compiled(spec)
        cluster, batch = spec.get("cluster"), spec["batch"]
        bands = [tpp for tpp in spec["tpp"] for _ in spec["sizes"]]
        for tpp, run in zip(bands, plan.runs, strict=True):
            made = run.batch
            assert made.tokens == made.sequences * run.model.seq_len
            assert run.tokens == run.steps * made.tokens
            assert 0 <= run.warmup_steps < run.steps or run.steps == 1
            assert made.sequences % batch.get("multiple_of", 1) == 0
            limits = {"64 sequences": 64, "1M tokens": 1_000_000 / run.model.seq_len}
            assert made.sequences <= limits.get(batch.get("max"), math.inf)
            n = oracle.counts(run.model)[plan.conventions.params]
            # the nearest whole step, so at most half a batch of tokens away
            assert abs(run.tokens - tpp * n) <= made.tokens / 2 * (1 + 1e-9)
            assert near(run.tpp, Fraction(run.tokens, n))
            if cluster is None:
                assert (made.micro, made.data_parallel, made.accumulation) == (None, None, None)
                continue
            replicas = cluster["devices"] // (cluster["tensor"] * cluster["pipeline"])
            assert made.data_parallel == replicas
            assert made.sequences % replicas == 0
            if made.micro is None:
                assert made.accumulation is None
            else:
                assert made.accumulation is not None
                assert made.sequences == made.micro * replicas * made.accumulation
            if isinstance(cluster.get("micro_batch"), int):
                assert made.micro == cluster["micro_batch"]


class TestCounts:
    @random_specs(60)
    def test_parameters(self, spec: dict[str, Any]) -> None:
        """Parameters are the sum of the products of every tensor's dimensions."""
        for run in compiled(spec).runs:
            wanted = oracle.counts(run.model)
            assert run.params.total == wanted["total"]
            assert run.params.non_embedding == wanted["non_embedding"]
            assert run.params.active == wanted["active"]

    @random_specs(60)
    def test_flops(self, spec: dict[str, Any]) -> None:
        """Exact FLOPs are three forward passes of every matrix product."""
        plan = compiled(spec)
        causal = plan.conventions.attention == "causal"
        for run in plan.runs:
            forward = oracle.forward_flops(run.model, causal=causal)
            wanted = 3 * forward * run.steps * run.batch.sequences
            assert near(run.flops.exact, wanted)
            n = oracle.counts(run.model)
            convention = "active" if run.model.experts else plan.conventions.params
            assert near(run.flops.six_nd, 6 * n[convention] * run.tokens)
            assert run.flops.total == getattr(run.flops, plan.conventions.flops)
        if plan.budget is not None:
            largest = max(plan.runs, key=lambda run: oracle.counts(run.model)["total"])
            kept = [
                run
                for run in plan.runs
                if plan.budget.covers == "family" or run.size == largest.size
            ]
            if plan.conventions.params == "total":
                spent = sum(run.flops.total for run in kept) * len(spec["seeds"])
                assert near(plan.budget.spent, spent)


class TestParametrization:
    @random_specs(100)
    def test_every_row_is_the_tables(self, spec: dict[str, Any]) -> None:
        plan = compiled(spec)
        for run in plan.runs:
            wanted = oracle.rows(plan, run)
            assert {row.tensor_class for row in run.tensors} == set(wanted)
            for row in run.tensors:
                hand = wanted[row.tensor_class]
                got = (row.lr, row.weight_decay, row.eps, row.forward_multiplier)
                table = (hand.lr, hand.weight_decay, hand.eps, hand.forward)
                assert got == pytest.approx(table, rel=TAU, abs=0), row.tensor_class
                assert row.init_std == (hand.init_std and pytest.approx(hand.init_std, rel=TAU))
            head = run.model.head_dim
            wanted_scale = head**-0.5 if plan.parametrization.kind == "standard" else 1 / head
            assert run.model.attention_multiplier == pytest.approx(wanted_scale, rel=TAU)

    @random_specs(30)
    def test_what_a_spec_leaves_out(self, spec: dict[str, Any]) -> None:
        """DESIGN section 7's default decay; base values of arXiv 2509.25087 Table 5's proxy."""
        got, asked = compiled(spec).parametrization, spec["parametrization"]
        default = "independent" if asked["kind"] == "completep" else "coupled"
        assert got.decay == asked.get("decay", default)
        width = asked.get("base_width", 256)
        ratio = Fraction(str(spec["architecture"]["ffn_multiplier"]))
        assert got.base_width == width
        assert got.base_ffn_width == pytest.approx(asked.get("base_ffn_width", ratio * width))
        if asked["kind"] != "standard":
            assert got.base_depth == asked.get("base_depth", 24)
            assert got.init_std == asked.get("init_std", 0.0867)
            assert got.input_multiplier == asked.get("input_multiplier", 9.17)
            assert got.output_multiplier == asked.get("output_multiplier", 1.095)


class TestFile:
    @random_specs(60)
    def test_a_plan_survives_its_file(self, spec: dict[str, Any]) -> None:
        plan = compiled(spec)
        text = dump_plan(plan)
        again = load_plan(text)
        assert again == plan
        assert dump_plan(again) == text
        assert plan.digest == plan_digest(plan_document(plan))
        for run in plan.runs:
            assert run.digest == run_digest(run)

    @random_specs(40)
    def test_the_order_of_a_spec_does_not_matter(self, spec: dict[str, Any]) -> None:
        plan = compiled(spec)
        turned = dict(reversed(spec.items()))
        assert dump_plan(planned(json.dumps(turned))) == dump_plan(plan)


# Fields whose formula says in words what is counted or chosen, and is no arithmetic.
IN_WORDS = (
    "params.*",
    "model.d_model",
    "model.n_layers",
    "model.head_dim",
    "model.padded_vocab_size",
    "batch.critical_tokens",
    "batch.micro",
    "predicted.minimum_*",
    "predicted.low",
    "predicted.high",
    "predicted.memory*",
    "multipliers.*",
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*")
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "sqrt": math.sqrt}


def evaluate(formula: str, inputs: dict[str, Any]) -> float | None:
    """Evaluate a formula of + - * / ^ min sqrt over its inputs; None if it is not arithmetic."""
    values: list[float] = []

    def number(match: re.Match[str]) -> str:
        name = match[0]
        if name in _FUNCTIONS:
            return name
        values.append(float(Fraction(inputs[name])))
        return f"_{len(values) - 1}"

    try:
        tree = ast.parse(_NAME.sub(number, formula).replace("^", "**"), mode="eval")
    except (SyntaxError, KeyError):
        return None

    def walk(node: ast.AST) -> float:
        match node:
            case ast.Expression(body=body):
                return walk(body)
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.Name(id=name):
                return values[int(name[1:])]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -walk(operand)
            case ast.Call(func=ast.Name(id=name), args=args):
                return _FUNCTIONS[name](*map(walk, args))
            case ast.BinOp(left=left, op=op, right=right):
                a, b = walk(left), walk(right)
                match op:
                    case ast.Add():
                        return a + b
                    case ast.Sub():
                        return a - b
                    case ast.Mult():
                        return a * b
                    case ast.Div():
                        return a / b
                    case ast.Pow():
                        return float(a**b)
        raise AssertionError(ast.dump(node))

    return walk(tree)


def in_words(field: str) -> bool:
    return any(
        re.fullmatch(item.replace(".", r"\.").replace("*", ".*"), field) for item in IN_WORDS
    )


def check_explanations(plan: Plan) -> int:
    """Assert that every value is explained, and arithmetic gives it; return how often it did."""
    evaluated = 0
    for run in plan.runs:
        for field, value in run_fields(run):
            (told,) = explain(plan, f"{run.name}.{field}")
            why = told.provenance
            assert told.value == value
            assert why.formula or why.declared, field
            assert "not recorded" not in (why.declared or ""), field
            assert why.law is None or told.law is not None, field
            if why.formula is None or value is None or not isinstance(value, (int, float)):
                continue
            result = evaluate(why.formula, why.inputs)
            if result is None:
                assert in_words(field), f"{field}: {why.formula} of {sorted(why.inputs)}"
                continue
            evaluated += 1
            nearest = [value] if why.exact is None else [value, why.exact]
            assert any(result == pytest.approx(item, rel=TAU, abs=0) for item in nearest), field
            if why.exact is not None and why.exact != value:
                assert why.rounding, field
    return evaluated


class TestExplanations:
    @random_specs(20)
    def test_every_number_is_explained(self, spec: dict[str, Any]) -> None:
        plan = compiled(spec)
        assert check_explanations(plan) > 40 * len(plan.runs)

    def test_celeritys(self) -> None:
        plan = celerity()
        assert check_explanations(plan) > 40 * len(plan.runs)

    def test_the_evaluator_sees_a_wrong_formula(self) -> None:
        assert evaluate("2 * steps^2 - 1", {"steps": 3}) == 17
        assert evaluate("min(a.b * 2, 5)", {"a.b": "8/3"}) == 5
        assert evaluate("steps times two", {"steps": 3}) is None
        assert evaluate("steps * two", {"steps": 3}) is None
