"""Every shell script of every target is what bash and shellcheck take without a word."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from planner.plan import Plan
from planner.render import render, target_names
from planner.render.check import check_scripts
from planner.render.errors import CannotExpressError

from .plans import make_plan, make_run, parametrization

NASTY = 'it\'s $(here) "there" `id`; # \\ \n é'
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cs3": [{}, {"data_dir": "/data"}],
    "local": [{}, {"processes": 2, "data_dir": "/data"}],
    "slurm": [
        {},
        {"requeue": False, "chain": "none", "activate": NASTY, "data_dir": NASTY},
        {"gpus": 2, "nodes": 2, "chain": "jobs", "array_limit": 1, "runs_dir": NASTY},
    ],
    "kubernetes": [{"image": NASTY, "env": "TRAIN_DATA_DIR=/data"}],
    "skypilot": [
        {"env": "TRAIN_DATA_DIR=/data"},
        {"env": "TRAIN_DATA_DIR=/data", "secrets": "A B", "managed": False},
    ],
}


def plans() -> list[Plan]:
    rule = parametrization("mup")
    runs = [
        make_run(rule, name="small 1", seeds=(0, 1)),
        make_run(rule, name="small 2", weight_decay=0.2),
        make_run(rule, name=NASTY, d_model=256),
    ]
    return [make_plan(*runs[:1], rule=rule), make_plan(*runs, rule=rule, family=NASTY)]


@pytest.mark.launchers
@pytest.mark.parametrize("target", target_names())
def test_no_script_has_a_fault(target: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.fail("shellcheck is not on the path")
    for plan in plans():
        for options in OPTIONS[target.partition("+")[2]]:
            try:
                files = render(plan, target, options).files
            except CannotExpressError as error:
                pytest.skip(f"{target} cannot run this family: {error}")
            assert any(path.endswith(".sh") for path in files)
            for check in check_scripts(files):
                assert (check.name, check.skipped, check.problems) == (check.name, None, ())


@pytest.mark.launchers
def test_shellcheck_sees_a_fault() -> None:
    _, shellcheck = check_scripts({"a.sh": "#!/bin/bash\necho $1\n"})
    assert "SC2086" in shellcheck.problems[0]
