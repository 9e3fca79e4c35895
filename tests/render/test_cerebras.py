"""Rendered files in the hands of cerebras_pytorch's own classes (make test-cerebras)."""

from __future__ import annotations

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from planner.plan.model import Run, Schedule
from planner.render import check_bundle, render_files, render_plan
from planner.render.modelzoo.probe import build
from planner.render.schedule import learning_rate

from .backend import cpu_backend
from .plans import make_plan, make_run, parametrization, tiny_plan

pytestmark = [
    pytest.mark.cerebras,
    # The package warns on import and about its own schedulers.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module", autouse=True)
def backend(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The one backend of this process; it writes its logs where the process is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cerebras"))
        yield cpu_backend()


def params_of(run: Run, rule: Any, **options: Any) -> dict[str, Any]:
    """The file as ModelZoo's reader, PyYAML, has it."""
    yaml: Any = import_module("yaml")
    files = render_files(make_plan(run, rule=rule), "modelzoo", options)
    parsed: dict[str, Any] = yaml.safe_load(files[f"{run.name}/params-seed0.yaml"])
    return parsed


@pytest.mark.parametrize(
    ("kind", "floor", "decay", "warmup"),
    [
        ("linear-to-zero", 0.0, 1.0, 7),
        ("linear-to-zero", 0.0, 1.0, 0),
        ("linear", 0.1, 1.0, 7),
        ("cosine", 0.1, 1.0, 7),
        ("cosine", 0.0, 1.0, 0),
        ("wsd", 0.0, 0.2, 7),
        ("wsd", 0.05, 0.5, 1),
        ("constant", 1.0, 0.0, 7),
        ("constant", 1.0, 0.0, 0),
    ],
)
def test_every_step_has_the_learning_rate_of_the_plan(
    kind: Any, floor: float, decay: float, warmup: int
) -> None:
    rule = parametrization()
    schedule = Schedule(kind, warmup / 60, floor, decay)
    run = make_run(rule, steps=60, warmup=warmup, schedule=schedule)
    optimizer, schedulers, _ = build(params_of(run, rule))
    used = []
    for _ in range(run.steps):
        used.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    # The schedulers compute in float32.
    wanted = [learning_rate(run, step) for step in range(run.steps)]
    assert used == pytest.approx(wanted, rel=1e-5, abs=1e-7 * rule.base_lr)
    assert (used[0] == 0.0) is (warmup > 0)


def test_decay_reaches_the_tagged_groups_and_stays() -> None:
    rule = parametrization("completep", "independent")
    run = make_run(rule, d_model=192, n_layers=6, d_ffn=1024)
    optimizer, schedulers, _ = build(params_of(run, rule))
    wanted = {None: 0.1, "decoder_attention": 0.3, "decoder_output_attention": 0.9}
    wanted |= {"decoder_input_ffn": 0.3, "decoder_output_ffn": 1.2}
    for _ in range(3):
        found = {
            next(iter(group["tags"])) if group.get("tags") else None: float(group["weight_decay"])
            for group in optimizer.param_groups
        }
        assert found == pytest.approx(wanted, rel=1e-6)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_the_optimizer_has_the_plans_constants() -> None:
    rule = parametrization()
    optimizer, _, cluster = build(params_of(make_run(rule), rule, num_csx=2))
    for group in optimizer.param_groups:
        assert tuple(group["betas"]) == (0.9, 0.95)
        assert group["eps"] == 1e-16
        assert group["correct_bias"] is True
    assert type(optimizer).__name__ == "AdamW"
    assert cluster.num_csx == 2
    assert "run=tiny-20tpp" in cluster.job_labels


@pytest.mark.parametrize("name", ["$(reboot)", "a b\nc", "😀", "-" * 80, "a=b", "x" * 200])
def test_labels_are_accepted_whatever_the_names(name: str) -> None:
    yaml: Any = import_module("yaml")
    rule = parametrization()
    plan = make_plan(make_run(rule, name=name), rule=rule, family=name)
    files = render_files(plan, "modelzoo")
    (path,) = [path for path in files if path.endswith(".yaml")]
    _, _, cluster = build(yaml.safe_load(files[path]))
    assert len(cluster.job_labels) == 4


def test_the_classes_refuse_what_is_wrong() -> None:
    """The check is worth something: these are the holes that ModelZoo's own validator has."""
    rule = parametrization()
    good = params_of(make_run(rule), rule)
    build(copy.deepcopy(good))
    for place, key, value in [
        (("backend", "cluster_config"), "num_cs", 3),
        (("backend", "cluster_config"), "num_csx", -1),
        (("backend", "cluster_config"), "job_labels", ["no-equal-sign"]),
        (("backend", "cluster_config"), "job_priority", "p9"),
        (("optimizer", "AdamW"), "epsilon", 1e-8),
        (("optimizer", "AdamW"), "betas", [0.9, 1.0]),
    ]:
        bad = copy.deepcopy(good)
        where = bad["trainer"]["init"]
        for part in place:
            where = where[part]
        where[key] = value
        with pytest.raises((TypeError, ValueError)):
            build(bad)
    bad = copy.deepcopy(good)
    bad["trainer"]["init"]["schedulers"][1]["ConstantWD"]["param_group_tags"] = "no_such_tag"
    with pytest.raises(ValueError, match="no_such_tag"):
        build(bad)


def test_check_bundle_runs_the_classes(tmp_path: Path) -> None:
    render_plan(tiny_plan(), "modelzoo", tmp_path / "out")
    checks = {check.name: check for check in check_bundle(tmp_path / "out")}
    assert checks["cerebras_pytorch classes"].skipped is None
    assert checks["cerebras_pytorch classes"].problems == ()
    path = tmp_path / "out" / "tiny-20tpp" / "params-seed0.yaml"
    path.write_text(path.read_text().replace("num_csx: 1", "num_cs: 1"))
    checks = {check.name: check for check in check_bundle(tmp_path / "out")}
    assert "num_cs" in checks["cerebras_pytorch classes"].problems[0]
    assert "edited" in checks["manifest"].problems[0]
