"""Run Cerebras' own classes over parameter files; a script that stands alone.

``probe.py wheel`` builds optimizer, schedulers and cluster configuration with cerebras_pytorch;
``probe.py modelzoo SRC`` runs ModelZoo's validator from its source folder. Both read a JSON object
of parsed files by name on standard input and print, as the last line, a JSON list of problems.

Cerebras' modules are imported by name, because tools that look at this package do not have them.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def build(params: Mapping[str, Any]) -> tuple[Any, list[Any], Any]:
    """Return (optimizer, schedulers, cluster configuration) of a file, built by cerebras_pytorch.

    A backend must be active. The optimizer gets one small tensor without a tag and one for each
    tag; groups of learning rates need a model and are ModelZoo's.

    Raises:
        Exception: Whatever the classes raise.
    """
    torch: Any = import_module("torch")
    optim: Any = import_module("cerebras.pytorch.optim")
    cluster: Any = import_module("cerebras.appliance.cluster_config")
    modules = [
        import_module(f"cerebras.pytorch.optim.{name}")
        for name in ("lr_scheduler", "weight_decay_scheduler")
    ]
    init = params["trainer"]["init"]
    ((kind, given),) = init["optimizer"].items()
    given = {key: value for key, value in given.items() if key != "adjust_learning_rate"}
    tags = [{"tags": {item["tag"]}} for item in given.pop("params", [])]
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], **tag} for tag in [{}, *tags]]
    optimizer = getattr(optim, kind)(groups, **given)

    def scheduler(item: Mapping[str, Any]) -> Any:
        ((name, values),) = item.items()
        values = dict(values)
        if name == "SequentialLR":
            parts = values["schedulers"]
            lengths = [next(iter(part.values()))["total_iters"] for part in parts[:-1]]
            values["milestones"] = [sum(lengths[: i + 1]) for i in range(len(lengths))]
            values["schedulers"] = [scheduler(part) for part in parts]
        owner = next(module for module in modules if hasattr(module, name))
        return getattr(owner, name)(optimizer, **values)

    schedulers = [scheduler(item) for item in init["schedulers"]]
    return optimizer, schedulers, cluster.ClusterConfig(**init["backend"]["cluster_config"])


def stub_bigcode() -> None:
    """Stand in for bigcode_eval, which ModelZoo imports and no registry has; nothing calls it."""
    try:
        import_module("bigcode_eval")
    except ModuleNotFoundError:
        members = {"": (), ".tasks": (), ".base": ("Task",), ".evaluator": ("Evaluator",)}
        members[".utils"] = ("update_code_gens",)
        made = {}
        for name, inside in members.items():
            module = types.ModuleType("bigcode_eval" + name)
            module.__path__ = []
            for member in inside:
                setattr(module, member, type(member, (), {}))
            made[name] = sys.modules["bigcode_eval" + name] = module
        made[""].__dict__["tasks"] = made[".tasks"]
        made[".tasks"].__dict__.update(TASK_REGISTRY={}, ALL_TASKS=[])


def _with_modelzoo(source: str) -> Callable[[dict[str, Any]], object]:
    sys.path.append(source)
    stub_bigcode()
    validate: Any = import_module("cerebras.modelzoo.trainer.validate")

    def run(params: dict[str, Any]) -> object:
        # The validator wants the data folders to exist; here any folder stands in.
        for loader in params["trainer"].get("fit", {}).values():
            loader["data_dir"] = tempfile.gettempdir()
        return validate.validate_trainer_params(params)

    return run


def _with_wheel() -> Callable[[dict[str, Any]], object]:
    cstorch: Any = import_module("cerebras.pytorch")
    cstorch.backend("CPU")
    return build


def main(arguments: list[str]) -> int:
    """Probe the files on standard input; return the exit status."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    probe = _with_modelzoo(arguments[1]) if arguments[0] == "modelzoo" else _with_wheel()
    problems = []
    for path, params in json.load(sys.stdin).items():
        try:
            probe(params)
        except Exception as error:
            # Whatever it raises is what a run would stop with.
            said = " ".join(str(error).split())
            problems.append(f"{path}: {type(error).__name__}: {said[:300]}")
    print(json.dumps(problems))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
