"""Automatic sizes: the budget is never exceeded, and nearly spent."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import SpecError
from planner.models.accelerators import accelerators
from planner.plan import Plan

from .families import plan_of

BUDGETS = tuple(10 ** (19 + k / 8) for k in range(41))
CASES = [
    ("celerity", 1, 20),
    ("celerity", 1, 80),
    ("celerity", 5, 20),
    ("llama-like", 1, 20),
    ("llama-like", 5, 20),
]
DEPTH_SLACK = 0.25
ASPECT = 50


@cache
def ladder(preset: str, count: int, tpp: int, flops: float) -> Plan:
    return plan_of(preset=preset, tpp=tpp, compute=flops, sizes={"count": count})


def spent(plan: Plan) -> float:
    """Add the runs' FLOPs up, without the plan's own sum."""
    return math.fsum(run.flops.total * len(run.seeds) for run in plan.runs)


def quantile(values: list[float], part: float) -> float:
    """Return the value below which at least this part lies."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


@pytest.mark.parametrize(("preset", "count", "tpp"), CASES)
class TestLogSpacedBudgets:
    def test_never_exceeded_and_nearly_spent(self, preset: str, count: int, tpp: int) -> None:
        """41 budgets from 1e19 to 1e24: median shortfall at most 1 %, 90th percentile 4 %."""
        assert BUDGETS[0] == 1e19
        assert BUDGETS[-1] == pytest.approx(1e24)
        shortfalls = []
        for flops in BUDGETS:
            plan = ladder(preset, count, tpp, flops)
            assert plan.budget is not None
            assert plan.budget.flops == flops
            assert plan.budget.spent == pytest.approx(spent(plan), rel=1e-12)
            assert max(spent(plan), plan.budget.spent) <= flops
            shortfalls.append(1 - spent(plan) / flops)
        assert quantile(shortfalls, 0.5) <= 0.01
        assert quantile(shortfalls, 0.9) <= 0.04

    def test_the_audit_states_it(self, preset: str, count: int, tpp: int) -> None:
        for flops in BUDGETS:
            plan = ladder(preset, count, tpp, flops)
            (line,) = plan.audit
            assert plan.budget is not None
            assert (line.field, line.asked) == ("budget.flops", flops)
            assert line.achieved == plan.budget.spent
            assert line.relative == pytest.approx(-plan.budget.shortfall, abs=1e-12)
            assert line.ok == (plan.budget.shortfall <= 0.04)

    def test_depth_stays_near_the_rule(self, preset: str, count: int, tpp: int) -> None:
        """Within 25 % of width / 50, or the one depth that rounds it up where none lies within."""
        for flops in BUDGETS:
            for run in ladder(preset, count, tpp, flops).runs:
                rule = run.model.d_model / ASPECT
                low, high = rule * (1 - DEPTH_SLACK), rule * (1 + DEPTH_SLACK)
                near = low <= run.model.n_layers <= high
                assert near or run.model.n_layers == max(1, math.ceil(low)) > high

    def test_sizes_ascend(self, preset: str, count: int, tpp: int) -> None:
        for flops in BUDGETS:
            sizes = [run.params.total for run in ladder(preset, count, tpp, flops).runs]
            assert len(sizes) == count
            assert sizes == sorted(set(sizes))

    def test_more_budget_makes_a_larger_model(self, preset: str, count: int, tpp: int) -> None:
        """Always over a factor of 1.8; the trend is the compute-optimal square root."""
        largest = [ladder(preset, count, tpp, flops).runs[-1].params.total for flops in BUDGETS]
        assert all(a < b for a, b in zip(largest, largest[2:], strict=False))
        slope = math.log(largest[-1] / largest[0]) / math.log(BUDGETS[-1] / BUDGETS[0])
        assert 0.45 < slope < 0.6


@settings(max_examples=25, deadline=None)
@given(
    exponent=st.floats(19.5, 23),
    count=st.integers(1, 6),
    tpp=st.lists(st.sampled_from([10, 20, 80, 234]), min_size=1, max_size=3, unique=True),
    seeds=st.sampled_from([[0], [1, 2]]),
    covers=st.sampled_from(["family", "largest"]),
    slack=st.sampled_from([0.0, 0.1, 0.25]),
    multiple=st.sampled_from([1, 8]),
)
def test_never_exceeded(
    exponent: float,
    count: int,
    tpp: list[int],
    seeds: list[int],
    covers: str,
    slack: float,
    multiple: int,
) -> None:
    flops = 10**exponent
    spec: dict[str, Any] = {
        "preset": "gpt2-collapse",
        "tpp": tpp,
        "compute": {"flops": flops, "covers": covers},
        "sizes": {"count": count, "depth_slack": slack},
        "seeds": seeds,
        "batch": {"law": "power-lines-batch", "multiple_of": multiple},
    }
    try:
        plan = plan_of(**spec)
    except SpecError as error:
        # a coarse ladder of small sizes may not exist; it is refused, not overspent
        if error.field not in ("compute", "sizes", "batch"):
            raise
        return
    largest = plan.runs[count - 1].size
    runs = [run for run in plan.runs if covers == "family" or run.size == largest]
    assert math.fsum(run.flops.total for run in runs) * len(seeds) <= flops
    assert len(plan.runs) == count * len(tpp)


@settings(max_examples=15, deadline=None)
@given(exponent=st.floats(19.5, 23))
def test_a_budget_that_is_just_what_a_ladder_needs(exponent: float) -> None:
    """No order of adding up may then exceed it by a rounding."""
    first = plan_of(preset="celerity", tpp=[20, 80], compute=10**exponent, sizes={"count": 3})
    assert first.budget is not None
    again = plan_of(preset="celerity", tpp=[20, 80], compute=first.budget.spent, sizes={"count": 3})
    assert again.budget is not None
    assert again.budget.spent <= first.budget.spent


class TestWhatTheBudgetCovers:
    def test_the_largest_alone(self) -> None:
        spec = {"preset": "celerity", "tpp": 20, "sizes": {"count": 4}}
        whole = plan_of(**spec, compute={"flops": 1e22})
        alone = plan_of(**spec, compute={"flops": 1e22, "covers": "largest"})
        assert alone.budget is not None
        assert alone.budget.spent == alone.runs[-1].flops.total
        assert 0.96e22 <= alone.runs[-1].flops.total <= 1e22
        assert spent(alone) > 1e22
        assert alone.runs[-1].params.total > whole.runs[-1].params.total

    def test_all_seeds(self) -> None:
        spec = {"preset": "celerity", "tpp": 20, "sizes": {"count": 2}, "compute": 1e22}
        one, three = plan_of(**spec), plan_of(**spec, seeds=[0, 1, 2])
        assert three.runs[-1].params.total < one.runs[-1].params.total
        assert 0.96e22 <= spent(three) <= 1e22

    def test_all_bands(self) -> None:
        plan = plan_of(preset="celerity", tpp=[20, 80], sizes={"count": 2}, compute=1e22)
        assert len(plan.runs) == 4
        assert 0.96e22 <= spent(plan) <= 1e22

    def test_listed_sizes_that_cost_more_are_refused(self) -> None:
        with pytest.raises(SpecError, match=r"the family needs .* the budget is 1.00e20") as caught:
            plan_of(preset="celerity", tpp=234, compute=1e20)
        assert caught.value.field == "compute"
        with pytest.raises(SpecError, match=r"size 3\.9B needs"):
            plan_of(preset="celerity", tpp=234, compute={"flops": 1e22, "covers": "largest"})

    def test_listed_sizes_may_leave_some(self) -> None:
        plan = plan_of(preset="celerity", tpp=20, compute=1e24)
        assert plan.budget is not None
        assert plan.budget.shortfall == pytest.approx(1 - spent(plan) / 1e24, rel=1e-12)
        assert plan.audit[0].ok

    def test_listed_sizes_may_need_just_the_budget(self) -> None:
        cost = plan_of(preset="celerity", tpp=[20, 80], compute=1e24).budget
        assert cost is not None
        again = plan_of(preset="celerity", tpp=[20, 80], compute=cost.spent)
        assert again.budget is not None
        assert again.budget.shortfall == 0


class TestSpacing:
    def ratios(self, **sizes: Any) -> list[float]:
        plan = plan_of(preset="llama-like", tpp=20, compute=1e23, sizes=sizes)
        n = [run.params.total for run in plan.runs]
        assert plan.budget is not None
        assert plan.budget.shortfall <= 0.04
        return [b / a for a, b in pairwise(n)]

    def test_default_doubles(self) -> None:
        assert self.ratios(count=4) == pytest.approx([2, 2, 2], rel=0.2)

    def test_spacing(self) -> None:
        assert self.ratios(count=4, spacing=3) == pytest.approx([3, 3, 3], rel=0.2)

    def test_smallest_spreads_evenly(self) -> None:
        plan = plan_of(
            preset="llama-like", tpp=20, compute=1e23, sizes={"count": 5, "smallest": "200M"}
        )
        n = [run.params.total for run in plan.runs]
        assert n[0] == pytest.approx(2e8, rel=0.1)
        even = (n[-1] / n[0]) ** 0.25
        assert [b / a for a, b in pairwise(n)] == pytest.approx([even] * 4, rel=0.2)

    def test_smallest_and_spacing_leave_the_rest_to_the_largest(self) -> None:
        plan = plan_of(
            preset="llama-like",
            tpp=20,
            compute=1e23,
            sizes={"count": 4, "smallest": "200M", "spacing": 1.5},
        )
        n = [run.params.total for run in plan.runs]
        assert n[:3] == pytest.approx([2e8, 3e8, 4.5e8], rel=0.1)
        assert n[3] > 5e9

    def test_depth_slack_of_zero_keeps_the_rule(self) -> None:
        plan = plan_of(
            preset="llama-like", tpp=20, compute=1e23, sizes={"count": 3, "depth_slack": 0}
        )
        for run in plan.runs:
            assert run.model.n_layers == math.ceil(run.model.d_model / ASPECT)

    @pytest.mark.parametrize(
        ("sizes", "flops", "field", "message"),
        [
            ({"count": 5, "smallest": "10B"}, 1e20, "compute", "too little above the smallest"),
            ({"count": 3, "smallest": "1B", "spacing": 4}, 1e21, "compute", "less than the size"),
            ({"count": 5, "spacing": 1.001}, 1e21, "sizes", "the same shape"),
            ({"count": 1}, 1e10, "compute", "less than one batch|too small for any shape"),
            ({"count": 3}, None, "sizes", "automatic sizes need a budget"),
        ],
    )
    def test_contradictions(
        self, sizes: dict[str, Any], flops: float | None, field: str, message: str
    ) -> None:
        spec: dict[str, Any] = {"preset": "llama-like", "tpp": 20, "sizes": sizes}
        if flops is not None:
            spec["compute"] = flops
        with pytest.raises(SpecError, match=message) as caught:
            plan_of(**spec)
        assert caught.value.field == field
        assert caught.value.line == 1


class TestOddFamilies:
    @pytest.mark.parametrize("groups", [2, 3, 4, 5, 6, 7, 8])
    def test_any_groups_of_heads_divide(self, groups: int) -> None:
        """Where the head width is free, widths whose heads make no whole groups are not tried."""
        plan = plan_of(
            preset="celerity",
            tpp=20,
            compute=1e22,
            sizes={"count": 1},
            architecture={"kv_groups": groups},
            conventions={"flops": "exact"},
        )
        for run in plan.runs:
            assert run.model.n_heads == groups * run.model.n_kv_heads
            assert run.model.n_heads * run.model.head_dim == run.model.d_model
        assert plan.budget is not None
        assert plan.budget.shortfall <= 0.04

    def test_a_cluster_too_large_for_tiny_sizes_does_not_stop_larger_ones(self) -> None:
        """The search looks at sizes whose batch 96 replicas cannot make; the answer needs none."""
        plan = plan_of(
            preset="celerity",
            tpp=20,
            compute=2e20,
            sizes={"count": 1},
            cluster={"devices": 96},
        )
        (run,) = plan.runs
        assert run.batch.sequences % 96 == 0
        assert plan.budget is not None
        assert 0 <= plan.budget.shortfall <= 0.04

    def test_a_cluster_that_no_size_can_use(self) -> None:
        with pytest.raises(SpecError, match="replicas cannot make a batch") as caught:
            plan_of(
                preset="celerity",
                tpp=20,
                compute=1e19,
                sizes={"count": 3},
                cluster={"devices": 4096},
            )
        assert caught.value.field == "cluster"

    def test_experts(self) -> None:
        plan = plan_of(
            preset="llama-like",
            tpp=20,
            compute=1e22,
            sizes={"count": 3},
            architecture={"experts": {"count": 8, "top_k": 2}},
        )
        assert 0.96e22 <= spent(plan) <= 1e22


class TestHardware:
    @pytest.mark.parametrize("name", ["CS-3", "A100", "H100", "H200", "B200", "MI300X"])
    def test_is_the_same_as_flops(self, name: str) -> None:
        """Accelerator x count x days x MFU."""
        peak = accelerators()[name].peak_flops
        flops = peak * 64 * 7 * 86400 * 0.4
        spec = {"preset": "celerity", "tpp": 20, "sizes": {"count": 3}}
        hardware = {"accelerator": name, "count": 64, "days": "1 week", "mfu": "40%"}
        plan, same = plan_of(**spec, compute=hardware), plan_of(**spec, compute=flops)
        assert plan.budget is not None
        assert plan.budget == same.budget
        assert plan.budget.flops == pytest.approx(flops, rel=1e-12)
        assert [run.model for run in plan.runs] == [run.model for run in same.runs]

    def test_hours(self) -> None:
        """A week of the budget at its own MFU is at most a week of wall time."""
        hardware = {"accelerator": "H100", "count": 64, "days": 7, "mfu": 0.4}
        plan = plan_of(preset="celerity", tpp=20, sizes={"count": 3}, compute=hardware)
        device = [run.predicted.device_hours or 0 for run in plan.runs]
        wall = [run.predicted.wall_hours or 0 for run in plan.runs]
        assert plan.budget is not None
        assert sum(wall) == pytest.approx(7 * 24 * (1 - plan.budget.shortfall), rel=1e-9)
        assert [64 * hours for hours in wall] == pytest.approx(device, rel=1e-12)
        for run, hours in zip(plan.runs, device, strict=True):
            assert hours * 3600 * 9.894e14 * 0.4 == pytest.approx(run.flops.total, rel=1e-9)
