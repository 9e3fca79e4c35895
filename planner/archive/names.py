"""One name for each quantity, whatever the log calls it; and a name for each run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STEP_NAMES = (
    "step",
    "_step",
    "global_step",
    "iteration",
    "iter",
    "iters",
    "train/global_step",
    "trainer/global_step",
    "train_step",
    "steps",
    "Step",
    "it",
)
TOKEN_NAMES = (
    "tokens",
    "total_tokens",
    "throughput/total_tokens",
    "consumed_tokens",
    "consumed tokens",
    "num_input_tokens_seen",
    "num_tokens",
    "tokens_seen",
    "train/tokens",
    "n_tokens",
)
# Clocks and counters of the logger itself: no quantity of the training.
LOGGER_NAMES = frozenset({"_runtime", "_timestamp", "_wandb", "timestamp", "wall_time", "time"})

_SPLITS = {
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "dev": "dev",
    "eval": "",
}
_QUANTITIES = {
    "loss": "loss",
    "trl": "loss",
    "lm loss": "loss",
    "lm loss value": "loss",
    "ce_loss": "loss",
    "crossentropyloss": "loss",
    "cross_entropy_loss": "loss",
    "cross_entropy": "loss",
    "nll": "loss",
    "ppl": "perplexity",
    "perplexity": "perplexity",
    "lm loss ppl": "perplexity",
    "acc": "accuracy",
    "accuracy": "accuracy",
}
_RATES = {"lr", "learning_rate", "learning rate", "train_lr", "train/lr", "train/learning_rate"}
_NORMS = {
    "grad_norm",
    "grad norm",
    "gradient_norm",
    "norm",
    "train/grad_norm",
    "optim/total_grad_norm",
    "train_grad_norm",
}
_EVAL = re.compile(
    r"(?:(?:eval|validation|val|valid)[/_](?P<set>[^/]+)/)"
    r"(?P<what>loss|ce_loss|crossentropyloss|cross_entropy_loss|cross_entropy|perplexity|ppl|accuracy|acc)",
    re.IGNORECASE,
)


def canonical(name: str) -> str:
    """Return the archive's name of a logged quantity, or its own name if it has none.

    Training loss is ``train/loss``; a loss on held-out data is ``eval/SET/loss``, or ``eval/loss``
    where the log names no set; ``lr``, ``grad_norm``.
    """
    low = name.strip().lower()
    if low in _RATES or low == "optim/learning_rate_group0":
        return "lr"
    if low in _NORMS:
        return "grad_norm"
    if low in _QUANTITIES:
        return "train/" + _QUANTITIES[low]
    match = _EVAL.fullmatch(low)
    if match:
        # the set's own spelling stays
        given = name.strip()[match.start("set") : match.end("set")]
        return f"eval/{given}/{_QUANTITIES.get(match['what'], match['what'])}"
    head, _, tail = low.replace("_", "/", 1).replace(" ", "/", 1).partition("/")
    if head == "train" and tail in _QUANTITIES:
        return "train/" + _QUANTITIES[tail]
    if head in _SPLITS and tail:
        split = _SPLITS[head]
        original = name.strip()[len(head) + 1 :]
        return "/".join(p for p in ("eval", split, _QUANTITIES.get(tail, original)) if p)
    return name.strip()


def canonical_names(names: Iterable[str], mapped: Mapping[str, str]) -> dict[str, str]:
    """Return the archive's name of every quantity of one run; no two get the same.

    Where a run logs ``loss`` at each step and ``train/loss`` at each evaluation, the second is an
    evaluation on training data: ``eval/train/loss``.

    Args:
        names: The log's own names.
        mapped: Canonical name to the log's own, from a mapping file; these come first.
    """
    own = {theirs: ours for ours, theirs in mapped.items()}
    names = sorted(set(names), key=lambda n: (n not in own, n.count("/"), len(n), n))
    result: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        wanted = own.get(name) or canonical(name)
        if wanted in taken and wanted.startswith("train/"):
            wanted = f"eval/{wanted}"
        if wanted in taken:
            wanted = name
        while wanted in taken:
            wanted += "'"
        taken.add(wanted)
        result[name] = wanted
    return result


# File names that say nothing about the run: the folder's name does.
_GENERIC = re.compile(
    r"(trainer_state|(eval_)?measurements|metrics?|log|logs|train(ing)?([-_]?logs?)?|history|"
    r"events\.out\.tfevents\..*|run|output|out|stdout|stderr|wandb[-_](export|history|summary).*|"
    r"progress|results?|data|main|scalars)",
    re.IGNORECASE,
)
_ENDINGS = re.compile(r"(\.(gz|zst|csv|tsv|jsonl?|ndjson|txt|log|out|err))+$", re.IGNORECASE)


# ModelZoo writes a folder in here each time a run is started.
_STARTS = "cerebras_logs"


def group_key(source: str) -> str:
    """Return what the files of one run have in common: the path without what says nothing.

    Args:
        source: Path of the file, starting with the name of the folder that was asked for.
    """
    parts = [part for part in source.split("/") if part]
    stem = _ENDINGS.sub("", parts[-1]) or parts[-1]
    folders = parts[:-1]
    if _STARTS in folders[1:]:
        folders = folders[: folders.index(_STARTS, 1)]
    return "/".join(folders if _GENERIC.fullmatch(stem) and folders else [*folders, stem])


def run_name(key: str) -> str:
    """Return the name of a run: its key without the first folder, which is the user's own."""
    return key.partition("/")[2] or key


def printable(name: str, limit: int = 300) -> str:
    """Return a name that is safe to print and to store: one line, no control characters."""
    if not name.isprintable():
        name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    name = name.encode("utf-8", "replace").decode()
    return name if len(name) <= limit else name[: limit - 3] + "..."


_UNITS = {
    "loss": "nats per token",
    "perplexity": "1",
    "accuracy": "fraction",
    "lr": "1",
    "grad_norm": "1",
}


def unit_of(series: str) -> str | None:
    """Return the unit of a series, None if it is not known.

    Losses are taken to be natural-log cross-entropies per token, which is what trainers log.
    """
    return _UNITS.get(series.rpartition("/")[2])


def default_metric(series: Iterable[str]) -> str | None:
    """Return a run's main curve: training loss, else its only evaluation loss, else None."""
    names = set(series)
    if "train/loss" in names:
        return "train/loss"
    losses = [name for name in names if name.startswith("eval/") and name.endswith("/loss")]
    return losses[0] if len(losses) == 1 else None
