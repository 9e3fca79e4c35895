"""Automatic sizes: a ladder whose largest size is what the budget leaves.

The ladder is set so that its runs together come near the budget; then the depth of the largest
size, and of the two below it, moves within the allowed slack around the default rule until the
rest is small. The budget is an upper bound at every step.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from planner.compile.batch import choose_batch
from planner.compile.cost import count_flops
from planner.compile.draft import Context, Draft, SizePlan
from planner.compile.sizes import size_plan
from planner.compile.tokens import ask_tokens, round_steps
from planner.errors import PlannerError
from planner.models.architecture import Shape, head_dim_for
from planner.models.shapes import counted, depths_near_rule, rule_depth, shape_for, widths
from planner.plan.model import Provenance
from planner.units import format_count, format_flops

if TYPE_CHECKING:
    from collections.abc import Iterator

ENOUGH = 0.005
"""A shortfall that needs no more filling: among such shapes the one nearest to the rule wins."""

NARROW_HEADS = 0.1
"""How much worse than the usual heads narrower ones are: as much as a depth 10 % off the rule."""

TOLERABLE = 0.01
"""A shortfall above which heads of 32 are tried, where the spec leaves the head width free."""

NEAR = 2.0
"""The largest size is looked for among shapes of up to this factor more or fewer parameters."""

_SMALLEST = 1e5
_LARGEST = 1e14
# below the budget by more than the rounding of sums, so that no order of adding exceeds it
_SUM_SLACK = 1 - 1e-12


@dataclass(frozen=True, slots=True)
class _Candidate:
    cost: float
    penalty: float
    shape: Shape


class _Ladder:
    """Costs of shapes and ladders under one budget."""

    def __init__(self, context: Context, bands: list[float], flops: float, covers: str) -> None:
        self.context = context
        self.bands = bands
        self.flops = flops * _SUM_SLACK
        self.covers = covers
        self.costs: dict[Shape, float] = {}

    def cost(self, shape: Shape) -> float:
        """Return the FLOPs of all runs of one size: every band and seed."""
        if shape not in self.costs:
            context = self.context
            name = f"{shape.d_model}x{shape.n_layers}"
            size = size_plan(context.architecture, context.params_convention, name, shape, {})
            total = 0.0
            for tpp in self.bands:
                draft = ask_tokens(context, Draft(size, tpp))
                draft = count_flops(context, round_steps(context, choose_batch(context, draft)))
                assert draft.flops is not None
                total += draft.flops.total
            self.costs[shape] = total * len(context.spec.seeds)
        return self.costs[shape]

    def shape(self, params: float) -> Shape:
        context = self.context
        slack = context.spec.sizes.depth_slack
        return shape_for(context.architecture, params, context.params_convention, slack)

    def targets(self, largest: float) -> list[float]:
        """Return the parameter counts below the largest one, ascending.

        Raises:
            SpecError: If the smallest size declared is not below the largest.
        """
        sizes = self.context.spec.sizes
        count = sizes.count
        assert count is not None
        if count == 1:
            return []
        if sizes.smallest is None:
            spacing = sizes.spacing or 2.0
            return [largest / spacing**k for k in range(count - 1, 0, -1)]
        if sizes.spacing is not None:
            return [sizes.smallest * sizes.spacing**k for k in range(count - 1)]
        ratio = (largest / sizes.smallest) ** (1 / (count - 1))
        return [sizes.smallest * ratio**k for k in range(count - 1)]

    def below(self, largest: float) -> list[Shape]:
        return [self.shape(target) for target in self.targets(largest)]

    def total(self, largest: float) -> float:
        """Return what counts against the budget for a ladder up to ``largest`` parameters."""
        cost = self.cost(self.shape(largest))
        if self.covers == "family":
            cost += sum(self.cost(shape) for shape in self.below(largest))
        return cost

    def too_small(self, why: str) -> PlannerError:
        return self.context.declared.error(
            "compute",
            f"the budget of {format_flops(self.flops)} FLOPs {why}; raise it, lower tpp or count, "
            "or make the smallest size smaller",
        )

    def rough(self) -> float:
        """Return the largest size's parameters at which the ladder about meets the budget.

        Raises:
            SpecError: If no ladder at all can be batched.
        """
        low = max(_SMALLEST, float(self.context.spec.sizes.smallest or 0))
        high = _LARGEST
        refused: PlannerError | None = None
        for _ in range(50):
            if high / low < 1.002:
                break
            middle = math.sqrt(low * high)
            try:
                over = self.total(middle) > self.flops
            except ValueError:
                over = False  # smaller than any shape
            except PlannerError as error:
                over, refused = False, refused or error  # too small for the batch or the cluster
            if over:
                high = middle
            else:
                low = middle
        if refused is not None and high == _LARGEST:
            raise refused
        return low

    def candidates(self, around: float, narrowest: int) -> list[_Candidate]:
        """Return shapes near a parameter count, by cost; depth within the slack of the rule.

        Raises:
            SpecError: If none of them can be batched.
        """
        slack = self.context.spec.sizes.depth_slack
        found = []
        refused: PlannerError | None = None
        nominal_width = self.shape(around).d_model
        for width, depth in self.near(around, slack, narrowest):
            shape = self.context.architecture.shape(width, depth)
            penalty = abs(math.log(depth / rule_depth(width)))
            if shape.head_dim < head_dim_for(nominal_width):
                penalty += NARROW_HEADS
            try:
                found.append(_Candidate(self.cost(shape), penalty, shape))
            except PlannerError as error:
                refused = refused or error
        if refused is not None and not found:
            raise refused
        return sorted(found, key=lambda item: (item.cost, item.penalty, item.shape.d_model))

    def near(self, around: float, slack: float, narrowest: int) -> Iterator[tuple[int, int]]:
        architecture, convention = self.context.architecture, self.context.params_convention
        nominal = self.shape(around)
        n = counted(architecture, nominal, convention)
        for width in widths(self.context.architecture, narrowest=narrowest):
            if width > nominal.d_model * 1.3 + 256:
                return
            if width >= nominal.d_model * 0.75:
                for depth in depths_near_rule(width, slack):
                    count = counted(architecture, architecture.shape(width, depth), convention)
                    if n / NEAR <= count <= n * NEAR:
                        yield width, depth

    def fill(self) -> list[Shape]:
        """Return the ladder's shapes, ascending."""
        largest = self.rough()
        try:
            below = self.below(largest)
        except ValueError:
            raise self.context.declared.error(
                "sizes",
                f"within the budget of {format_flops(self.flops)} FLOPs the smallest of "
                f"{self.context.spec.sizes.count} sizes would be smaller than any shape; lower "
                "count or spacing, or raise compute",
            ) from None
        if not self.ascending(below):
            if self.context.spec.sizes.spacing is None:
                raise self.too_small("leaves for the largest size too little above the smallest")
            raise self.context.declared.error(
                "sizes", "two sizes would have the same shape; wanted more spacing or fewer sizes"
            )
        best = self.best(largest, below, 64)
        if (best is None or best[0][0] > TOLERABLE) and self.context.architecture.head_dim is None:
            narrower = self.best(largest, below, 32)
            if best is None or (narrower is not None and narrower[0] < best[0]):
                best = narrower
        if best is None:
            raise self.too_small(
                "leaves for the largest size less than the size below it"
                if below
                else "is too small for any shape"
            )
        return best[1]

    def best(
        self, largest: float, below: list[Shape], narrowest: int
    ) -> tuple[tuple[float, float], list[Shape]] | None:
        """Return the best ladder with heads down to ``narrowest``: its rank, lower is better.

        The rank is the shortfall, as far as it matters, and then how far shapes leave the rule.
        """
        try:
            candidates = self.candidates(largest, narrowest)
        except ValueError:
            raise self.too_small("is too small for any shape") from None
        spent = sum(self.cost(shape) for shape in below) if self.covers == "family" else 0.0
        costs = [item.cost for item in candidates]
        best: tuple[tuple[float, float], list[Shape]] | None = None
        for variant, penalty, change in self.variants(below):
            if not self.ascending(variant):
                continue
            left = self.flops - (spent + change if self.covers == "family" else 0.0)
            end = bisect_right(costs, left)
            for item in candidates[max(0, end - 12) : end]:
                if variant and item.cost <= self.cost(variant[-1]):
                    continue
                shortfall = (left - item.cost) / self.flops
                key = (max(shortfall, ENOUGH), penalty + item.penalty)
                if best is None or key < best[0]:
                    best = (key, [*variant, item.shape])
            if self.covers == "largest":
                break
        return best

    def ascending(self, shapes: list[Shape]) -> bool:
        """Return whether each shape costs more than the one before it."""
        costs = [self.cost(shape) for shape in shapes]
        return all(one < other for one, other in pairwise(costs))

    def variants(self, below: list[Shape]) -> Iterator[tuple[list[Shape], float, float]]:
        """Yield the sizes below the largest with the depth of the top two of them moved.

        Yields:
            The shapes, how far they left their nominal depth, and the change in cost.
        """
        slack = self.context.spec.sizes.depth_slack
        yield below, 0.0, 0.0
        choices = [
            [
                (depth, abs(math.log(depth / shape.n_layers)))
                for depth in depths_near_rule(shape.d_model, slack)
            ]
            for shape in below[-2:]
        ]
        if not choices:
            return
        fixed = below[: -len(choices)]
        for moved in _product(choices):
            shapes = [
                self.context.architecture.shape(shape.d_model, depth)
                for shape, (depth, _) in zip(below[-len(choices) :], moved, strict=True)
            ]
            try:
                change = sum(
                    self.cost(new) - self.cost(old)
                    for new, old in zip(shapes, below[-len(choices) :], strict=True)
                )
            except PlannerError:
                continue  # this depth cannot be batched
            yield [*fixed, *shapes], sum(penalty for _, penalty in moved), change


def _product(
    choices: list[list[tuple[int, float]]],
) -> Iterator[tuple[tuple[int, float], ...]]:
    if not choices:
        yield ()
        return
    for first in choices[0]:
        for rest in _product(choices[1:]):
            yield (first, *rest)


def automatic_sizes(context: Context, bands: list[float]) -> list[SizePlan]:
    """Return the sizes that a budget affords, smallest first.

    Raises:
        SpecError: If there is no budget, or it does not reach the sizes asked for.
    """
    spec = context.spec
    if spec.compute is None:
        raise context.declared.error(
            "sizes", "automatic sizes need a budget: declare compute, or list the sizes"
        )
    flops = spec.compute.total_flops
    shapes = _Ladder(context, bands, flops, spec.compute.covers).fill()
    origin = Provenance(
        formula="the largest ladder whose runs together stay within the budget",
        inputs={"budget": flops, "count": len(shapes), "depth_slack": spec.sizes.depth_slack},
        declared=str(context.declared.origin("sizes")),
        rounding="depth moved within the slack of width / 50 to fill the budget",
    )
    trail = {"model.d_model": origin, "model.n_layers": origin}
    plans = [
        size_plan(context.architecture, context.params_convention, "", shape, trail)
        for shape in shapes
    ]
    return [
        SizePlan(name, plan.shape, plan.counts, plan.n, None, None, plan.trail)
        for name, plan in zip(_names(plans), plans, strict=True)
    ]


def _names(plans: list[SizePlan]) -> list[str]:
    """Return the sizes' parameter counts as names, with more digits where two agree."""
    for digits in range(3, 10):
        names = [format_count(plan.n, digits) for plan in plans]
        if len(set(names)) == len(names):
            return names
    return [f"{plan.shape.d_model}x{plan.shape.n_layers}" for plan in plans]
