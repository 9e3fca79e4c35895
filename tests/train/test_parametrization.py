"""What the trainer really does equals the plan's table; multipliers can be folded; scales stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.models.parametrization import Kind
from planner.plan import Plan, Run
from planner.render.schedule import learning_rate
from planner.render.symmetry import Values, fold, values_of
from planner.train.data import Order, open_data
from planner.train.errors import TrainError

from .families import COMPLETEP, family, only

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.usefixtures("one_thread")

from planner.train.coordinates import coordinate_check, rescaled  # noqa: E402
from planner.train.model import Transformer  # noqa: E402
from planner.train.optimizer import make_optimizer, set_rate, table_values  # noqa: E402
from planner.train.schedule import rate_factor  # noqa: E402
from planner.train.transfer import transfer_check  # noqa: E402

SIZES = [
    {"name": f"{width}x{depth}", "d_model": width, "n_layers": depth, "head_dim": 16}
    for width in (64, 192)
    for depth in (2, 6)
]
# The proxy of arXiv 2509.25087 Table 5, at a base shape that a CPU trains in no time.
PROXY = {
    "base_width": 32,
    "base_depth": 2,
    "base_lr": 0.0162,
    "init_std": 0.0867,
    "input_multiplier": 9.17,
    "output_multiplier": 1.095,
}


@pytest.mark.parametrize("kind", ["standard", "mup", "completep"])
def test_read_back_is_the_plans_table(kind: Kind) -> None:
    parametrization: dict[str, Any] = {"kind": kind}
    if kind == "standard":
        parametrization |= {"input_multiplier": 1.0, "output_multiplier": 1.0}
    plan = family(
        *SIZES,
        architecture={"biases": True, "experts": {"count": 2, "top_k": 1}},
        parametrization=parametrization,
    )
    assert len(plan.runs) == 4
    for run in plan.runs:
        _check_read_back(run)


def _check_read_back(run: Run) -> None:
    model = Transformer(run, seed=0)
    optimizer = make_optimizer(model.tensors(), table_values(model, run), run.optimizer.betas)
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[parameter] = group
    drawn: dict[str, list[torch.Tensor]] = {}
    for _, tensor_class, parameter in model.tensors():
        row, group = run.tensor(tensor_class), seen.pop(parameter)
        assert group["betas"] == run.optimizer.betas
        # Exact: these are the plan's own numbers.
        assert (group["lr"], group["weight_decay"], group["eps"]) == (
            row.lr,
            row.weight_decay,
            row.eps,
        )
        drawn.setdefault(tensor_class, []).append(parameter.detach().flatten())
    assert not seen
    assert drawn.keys() == {row.tensor_class for row in run.tensors}
    for tensor_class, parts in drawn.items():
        std = run.tensor(tensor_class).init_std
        values = torch.cat(parts)
        if std is None:
            assert values.unique().tolist() in ([0.0], [1.0], [0.0, 1.0])
        else:
            # A small router has too few weights for its sample to be within 3 %.
            close = max(0.03, 3 / (2 * len(values)) ** 0.5)
            assert float(values.std()) == pytest.approx(std, rel=close), tensor_class
            assert abs(float(values.mean())) < 5 * std / len(values) ** 0.5
    for update in range(0, run.steps, max(1, run.steps // 7)):
        set_rate(optimizer, rate_factor(run, update))
        share = learning_rate(run, update) / run.optimizer.base_peak_lr
        for group in optimizer.param_groups:
            row = run.tensor(group["tensor_class"])
            assert group["lr"] == pytest.approx(row.lr * share, rel=1e-14)


# --- folding -----------------------------------------------------------------------------------


def _folded(run: Run, model: Transformer) -> tuple[Run, dict[str, Values]]:
    """Return a run whose multipliers are all 1, and what each parameter then needs."""
    f = {row.tensor_class: row.forward_multiplier for row in run.tensors}
    # A bias inside a branch is scaled with it, so it takes on the branch's factor.
    inside = {"attention.out.bias": "attn_out", "ffn.out.bias": "ffn_out"}
    values = {}
    for name, tensor_class, _ in model.tensors():
        holder = next((c for end, c in inside.items() if name.endswith(end)), tensor_class)
        values[name] = fold(values_of(run.tensor(tensor_class)), f[holder])
    rows = tuple(replace(row, forward_multiplier=1.0) for row in run.tensors)
    return replace(run, tensors=rows), values


def _train(
    run: Run, start: Transformer, values: dict[str, Values], data: Any, clip: float | None
) -> list[float]:
    """Return the losses of 30 float64 updates from ``start``'s weights times their factors."""
    model = Transformer(run, 0).double()
    with torch.no_grad():
        for (name, _, parameter), (_, _, source) in zip(
            model.tensors(), start.tensors(), strict=True
        ):
            parameter.copy_(source.double() * values[name].folded)
    optimizer = make_optimizer(model.tensors(), values, run.optimizer.betas)
    order, losses = Order(data.windows(run.model.seq_len), 0), []
    for step in range(30):
        set_rate(optimizer, rate_factor(run, min(step + 1, run.steps - 1)))
        rows = torch.from_numpy(data.sequences(order.numbers(8 * step, 8), run.model.seq_len))
        loss, _ = model(rows[:, :-1], rows[:, 1:])
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _compared(data: Any, *, biases: bool, clip: float | None = None, wrong: float = 1.0) -> float:
    """Return the largest relative difference of losses, explicit against folded multipliers."""
    # A large epsilon, so that folding has to get it right too.
    plan: Plan = family(architecture={"biases": biases}, optimizer={"eps": 1e-3})
    run = only(plan)
    start = Transformer(run, 0)
    explicit = _train(run, start, table_values(start, run), data, clip)
    assert explicit[-1] < explicit[0] - 0.3
    plain, values = _folded(run, start)
    values = {
        name: replace(v, folded=v.folded * (wrong if "out" in name else 1.0))
        for name, v in values.items()
    }
    folded = _train(plain, start, values, data, clip)
    return max(abs(b / a - 1) for a, b in zip(explicit, folded, strict=True))


@pytest.mark.parametrize("biases", [False, True])
def test_folded_multipliers_train_alike(data: Any, biases: bool) -> None:
    assert _compared(open_data(data), biases=biases) < 1e-11


def test_a_wrong_depth_ratio_and_clipping_do_not_fold(data: Any) -> None:
    tokens = open_data(data)
    assert _compared(tokens, biases=False, wrong=2.0) > 1e-3
    assert _compared(tokens, biases=False, clip=0.1) > 1e-4


# --- the coordinate check ----------------------------------------------------------------------


def test_rescaled_table_is_the_compilers() -> None:
    plan = family(*SIZES, architecture={"biases": True}, timescale={"weight_decay": 0.1})
    for run in plan.runs:
        for other in plan.runs:
            got = rescaled(run, plan.parametrization, other.model.d_model, other.model.n_layers)
            assert got.model == other.model
            assert got.tensors == tuple(replace(row, tau=None) for row in other.tensors)


@pytest.mark.parametrize("name", ["init_std", "lr", "forward_multiplier"])
def test_a_run_with_other_values_than_its_parametrization_is_refused(name: str) -> None:
    plan = family(*SIZES)
    run = plan.runs[-1]
    rows = tuple(
        replace(row, **{name: 2 * getattr(row, name)}) if row.tensor_class == "ffn_out" else row
        for row in run.tensors
    )
    for check in (coordinate_check, transfer_check):
        with pytest.raises(TrainError, match=rf"192x6-1tpp: {name} of ffn_out is .* says"):
            check(replace(run, tensors=rows), plan.parametrization, width=32, depth=1)


def test_activations_keep_their_scale_under_completep() -> None:
    check = _checked("completep")
    assert check.spread["width"] <= 0.2
    assert check.spread["depth"] <= 0.2
    assert check.ok


def test_and_not_in_depth_under_mup_nor_at_all_under_the_standard_one() -> None:
    mup, standard = _checked("mup"), _checked("standard")
    assert mup.spread["width"] <= 0.2
    assert mup.spread["depth"] > 1.0
    assert standard.spread["width"] > 1.0
    assert standard.spread["depth"] > 1.0
    assert not mup.ok
    assert not standard.ok


def _checked(kind: Kind) -> Any:
    """8x width and 8x depth after ten updates; the ends, as the middle is the command's to show."""
    plan = family(
        architecture={"context": 32, "ffn_multiplier": 4}, parametrization={**COMPLETEP, **PROXY}
    )
    return coordinate_check(
        only(plan), plan.parametrization, width=32, depth=2, kind=kind, factors=(1, 8), seeds=(0, 1)
    )
