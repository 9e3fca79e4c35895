"""Which planned run a logged run is: by digest, else by shape and budget."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from planner.plan import Plan, Run

_SHORT = 12  # digits of a digest that folders and labels of rendered jobs carry
_N_TOLERANCE = 0.01  # trainers count norms and biases, or do not
_D_TOLERANCE = 0.02
_LR_TOLERANCE = 0.001
_WIDTH = ("d_model", "hidden_size", "n_embd", "dim")
_DEPTH = ("n_layers", "num_layers", "n_layer", "num_hidden_layers")
_HEX = re.compile(rf"[0-9a-f]{{{_SHORT},64}}")


@dataclass(frozen=True, slots=True)
class Planned:
    """The planned run that a logged run is.

    Attributes:
        plan: Digest of the plan.
        family: The plan's family.
        run: Name of the planned run.
        digest: Its digest.
        by: ``digest``, ``folder`` (a folder above the log is named by the digest) or ``shape and
            budget``.
    """

    plan: str
    family: str
    run: str
    digest: str
    by: str


def match(record: dict[str, Any], plans: Sequence[Plan]) -> Planned | None:
    """Return the planned run of a logged run; None if none fits, or more than one does.

    Args:
        record: A run as `planner.archive.list_runs` returns it; used are ``run_digest``,
            ``sources``, ``params``, ``tokens``, ``batch_tokens``, ``total_steps``, ``seq_len``,
            ``lr`` and ``config``.
        plans: The plans.
    """
    said = _digits(record.get("run_digest") or "")
    if said:
        return _only(plans, lambda run: _digits(run.digest).startswith(said), "digest")
    folders = {
        part
        for name in record.get("sources") or ()
        for part in name.split("/")
        if _HEX.fullmatch(part)
    }
    if folders:
        found = _only(
            plans, lambda run: any(_digits(run.digest).startswith(f) for f in folders), "folder"
        )
        if found is not None:
            return found
    return _only(plans, lambda run: _fits(record, run), "shape and budget")


def _digits(digest: str) -> str:
    found = _HEX.fullmatch(digest.removeprefix("sha256:").lower())
    return found[0] if found else ""


def _only(plans: Iterable[Plan], fits: Any, by: str) -> Planned | None:
    found = {
        run.digest: Planned(plan.digest, plan.family, run.name, run.digest, by)
        for plan in plans
        for run in plan.runs
        if fits(run)
    }
    return next(iter(found.values())) if len(found) == 1 else None


def _fits(record: dict[str, Any], run: Run) -> bool:
    """Return whether nothing that is known speaks against a planned run, and enough is known."""
    config = record.get("config") or {}
    params = (run.params.total, run.params.non_embedding, run.params.active, run.tokens / run.tpp)
    n = record.get("params")
    width, depth = _first(config, _WIDTH), _first(config, _DEPTH)
    shape = [
        None if n is None else any(_near(n, p, _N_TOLERANCE) for p in params),
        None if width is None else width == run.model.d_model,
        None if depth is None else depth == run.model.n_layers,
    ]
    d, b, t = (record.get(name) for name in ("tokens", "batch_tokens", "total_steps"))
    budget = [
        None if d is None else _near(d, run.tokens, _D_TOLERANCE),
        None if t is None else _near(t, run.steps, _D_TOLERANCE),
        None if b is None else b == run.batch.tokens,
    ]
    s, lr = record.get("seq_len"), record.get("lr")
    others = [
        None if s is None else s == run.model.seq_len,
        None if lr is None else _near(lr, run.optimizer.base_peak_lr, _LR_TOLERANCE),
    ]
    enough = (n is not None or None not in shape[1:]) and (d is not None or None not in budget[1:])
    return enough and False not in (*shape, *budget, *others)


def _first(config: dict[str, Any], names: Sequence[str]) -> Any:
    plain = {
        key.rpartition("/")[2].lower().replace("-", "_"): value for key, value in config.items()
    }
    return next((plain[name] for name in names if name in plain), None)


def _near(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance * abs(b)
