"""ModelZoo's own model, optimizer and schedulers, built from a rendered file.

Needs PLANNER_MODELZOO_SRC, the ``src`` folder of a ModelZoo 2.10 checkout, and the packages that it
imports, in an environment with cerebras_pytorch.
"""

from __future__ import annotations

import copy
import os
import sys
from functools import cache
from importlib import import_module
from typing import Any

from planner.render.modelzoo.probe import stub_bigcode

from .backend import cpu_backend

SOURCE = os.environ.get("PLANNER_MODELZOO_SRC", "")


@cache
def zoo() -> Any:
    """Make ModelZoo importable; return the one backend of this process."""
    sys.path.append(SOURCE)
    stub_bigcode()
    return cpu_backend()


def build(params: dict[str, Any], vocabulary: int | None = None) -> tuple[Any, Any, list[Any]]:
    """Return (model, optimizer, schedulers) as ModelZoo's trainer makes them from a file."""
    cstorch: Any = import_module("cerebras.pytorch")
    validate: Any = import_module("cerebras.modelzoo.trainer.validate")
    groups: Any = import_module("cerebras.modelzoo.common.optim_utils")
    params = copy.deepcopy(params)
    params["trainer"]["fit"]["train_dataloader"]["data_dir"] = os.getcwd()
    if vocabulary is not None:
        params["trainer"]["init"]["model"]["vocab_size"] = vocabulary
    init = validate.validate_trainer_params(params)[0].init
    torch: Any = import_module("torch")
    torch.manual_seed(0)
    model = init.model()
    found = groups.configure_param_groups(model, init.optimizer.dict())
    optimizer = init.optimizer(params=found)
    schedulers = []
    for config in init.schedulers:
        scheduler = config(optimizer=optimizer)
        # As the trainer does (trainer/utils.py, _create_scheduler).
        if isinstance(scheduler, cstorch.optim.lr_scheduler.LRScheduler) and any(
            "adjust_learning_rate" in group for group in optimizer.param_groups
        ):
            scheduler = cstorch.optim.lr_scheduler.ScalePerParamLR(optimizer, scheduler)
        schedulers.append(scheduler)
    return model, optimizer, schedulers


def load(text: str) -> dict[str, Any]:
    yaml: Any = import_module("yaml")
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def build_zoo(text: str) -> tuple[Any, Any, list[Any]]:
    """Return (model, optimizer, schedulers) of a file's text."""
    zoo()
    return build(load(text))
