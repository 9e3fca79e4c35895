"""What a run was: N, D, B and the rest, from whatever the log and its neighbours call them.

Every fact keeps where it came from. What nobody says stays None; nothing is guessed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner.units import LARGEST_COUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

# Fact: the names that configurations give it, the first found wins. Compared in lower case, with
# dashes as underscores, both whole and without a leading section ("optim/lr" is "lr").
_COUNTS: dict[str, tuple[str, ...]] = {
    "params": (
        "params",
        "n_params",
        "num_params",
        "num_parameters",
        "total_params",
        "parameters",
        "model_params",
        "optimized_parameters",
    ),
    "tokens": ("train_tokens", "total_train_tokens", "max_tokens", "tokens_total", "tokens"),
    "batch_tokens": (
        "batch_tokens",
        "tokens_per_step",
        "batch_size_in_tokens",
        "batch_size_tokens",
        "global_batch_tokens",
        "total_batch_size",
    ),
    "seq_len": (
        "seq_len",
        "seq_length",
        "sequence_length",
        "max_seq_len",
        "max_sequence_length",
        "block_size",
        "context_length",
        "encoder_seq_length",
        "max_length",
    ),
    "total_steps": (
        "total_steps",
        "max_steps",
        "max_iters",
        "train_iters",
        "num_iterations",
        "num_steps",
        "iterations",
        "n_steps",
        "train_steps",
        "num_training_steps",
    ),
    "warmup_steps": (
        "warmup_steps",
        "warmup_iters",
        "lr_warmup_iters",
        "num_warmup_steps",
        "lr_warmup_steps",
    ),
    "seed": ("seed", "random_seed", "train_seed", "model_seed"),
}
_REALS: dict[str, tuple[str, ...]] = {
    "lr": (
        "peak_lr",
        "lr",
        "learning_rate",
        "max_lr",
        "learning_rate_peak",
        "base_lr",
    ),
    "min_lr": ("min_lr", "lr_min", "final_lr", "end_learning_rate"),
    "weight_decay": ("weight_decay", "wd"),
    "beta1": ("beta1", "adam_beta1", "adam_b1"),
    "beta2": ("beta2", "adam_beta2", "adam_b2"),
    "eps": ("eps", "epsilon", "adam_eps", "adam_epsilon"),
    "tpp": ("tpp", "tokens_per_param", "tokens_per_parameter"),
}
_TEXTS: dict[str, tuple[str, ...]] = {
    "schedule": (
        "schedule",
        "scheduler",
        "lr_scheduler_type",
        "lr_scheduler",
        "lr_schedule",
        "lr_decay_style",
    ),
    "optimizer": ("optimizer", "opt", "optim", "optimizer_type"),
    "tokenizer": ("tokenizer", "tokenizer_name", "tokenizer_type", "tokenizer_name_or_path"),
    "run_digest": ("run_digest", "planner_run_digest"),
}
FACTS = (*_COUNTS, *_REALS, *_TEXTS, "tau")
COUNT_FACTS = frozenset(_COUNTS)
REAL_FACTS = frozenset({*_REALS, "tau"})
TEXT_FACTS = frozenset(_TEXTS)
_MAX_TEXT = 300
_OWN_LOG = "planner.log/"
_MAX_CONFIG = 64 * 1024


@dataclass(slots=True)
class Metadata:
    """The facts of a run.

    Attributes:
        facts: Fact to value; what is not known is absent.
        origins: Fact to where it came from.
        config: All that the log and its neighbours said, by their own names.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def learn(self, said: Mapping[str, Any], origin: str) -> None:
        """Take over what a configuration says; what is known already stays.

        Args:
            said: Flat configuration by its own names.
            origin: Where it stands, such as ``log`` or a file's name.
        """
        if not said:
            return
        by_name: dict[str, tuple[str, Any]] = {}
        for key, value in said.items():
            self.config.setdefault(key, value)
            plain = key.lower().replace("-", "_").replace(" ", "_")
            by_name.setdefault(plain, (key, value))
            by_name.setdefault(plain.rpartition("/")[2], (key, value))
        for kinds, read in ((_COUNTS, _count), (_REALS, _real), (_TEXTS, _text)):
            for fact, names in kinds.items():
                for name in names:
                    if fact in self.facts or name not in by_name:
                        continue
                    key, value = by_name[name]
                    found = read(value)
                    if found is not None:
                        self.state(fact, found, f"{origin}: {key}")
        if str(said.get("schema", "")).startswith(_OWN_LOG):
            # elsewhere "tau" may mean anything; the rate and decay it also states are base values
            tau = _real(said.get("tau"))
            if tau is not None:
                self.state("tau", tau, f"{origin}: tau")
        self._betas(by_name, origin)
        self._batch(by_name, origin)

    def state(self, fact: str, value: Any, origin: str) -> None:
        """Set a fact unless it is known."""
        if fact not in self.facts:
            self.facts[fact] = value
            self.origins[fact] = origin

    def override(self, facts: Mapping[str, Any], origin: str) -> None:
        """Set facts whatever is known already: a person declared them."""
        for fact, value in facts.items():
            self.facts[fact] = value
            self.origins[fact] = origin

    def derive(self) -> None:
        """Fill in what follows from what is known: B, D, T, TPP and the AdamW timescale.

        T = D/B, TPP = D/N, tau = 1/(lr * weight_decay * T).
        """
        known = self.facts
        n, d, b, t = (known.get(f) for f in ("params", "tokens", "batch_tokens", "total_steps"))
        tpp = known.get("tpp")
        if d is None and tpp and n:
            d = round(tpp * n)
            self.state("tokens", d, "derived: tpp * params")
        if d is None and b and t:
            d = b * t
            if d <= LARGEST_COUNT:
                self.state("tokens", d, "derived: batch_tokens * total_steps")
        if b is None and d and t:
            b = round(d / t)
            self.state("batch_tokens", b, "derived: tokens / total_steps")
        if t is None and d and b:
            t = round(d / b)
            self.state("total_steps", t, "derived: tokens / batch_tokens")
        if d and n:
            self.state("tpp", d / n, "derived: tokens / params")
        decay = known.get("lr", 0.0) * known.get("weight_decay", 0.0) * (t or 0)
        if decay > 0:
            self.state("tau", 1 / decay, "derived: 1 / (lr * weight_decay * total_steps)")

    def unknown(self) -> list[str]:
        """Return the facts that nobody stated."""
        return [fact for fact in FACTS if fact not in self.facts]

    def config_json(self) -> str:
        """Return the whole configuration as canonical JSON, cut to what fits a table."""
        config = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in self.config.items()
        }
        text = json.dumps(config, sort_keys=True, default=str)
        if len(text) <= _MAX_CONFIG:
            return text
        room = _MAX_CONFIG
        short: dict[str, Any] = {"...": "cut: the configuration is too long"}
        for key in sorted(config):
            room -= len(json.dumps({key: config[key]}, default=str))
            if room < 0:
                break
            short[key] = config[key]
        return json.dumps(short, sort_keys=True, default=str)

    def _betas(self, by_name: Mapping[str, tuple[str, Any]], origin: str) -> None:
        for name in ("betas", "adam_betas"):
            key, value = by_name.get(name, ("", None))
            if isinstance(value, (list, tuple)) and len(value) == 2:
                for fact, item in zip(("beta1", "beta2"), value, strict=True):
                    beta = _real(item)
                    if beta is not None:
                        self.state(fact, beta, f"{origin}: {key}")
        key, value = by_name.get("one_minus_beta1", ("", None))
        rest = _real(value)
        if rest is not None:
            self.state("beta1", 1 - rest, f"{origin}: 1 - {key}")

    def _batch(self, by_name: Mapping[str, tuple[str, Any]], origin: str) -> None:
        """Work out B from sequences, where the names leave one reading."""
        length = self.facts.get("seq_len")

        def get(*names: str) -> int | None:
            return next((c for n in names if (c := _count(by_name.get(n, ("", None))[1]))), None)

        if "batch_tokens" in self.facts or not length:
            return
        whole = get("global_batch_size", "train_batch_size")
        if whole:
            product, how = whole * length, "global batch size * seq_len"
        else:
            micro = get("batch_size", "micro_batch_size", "per_device_train_batch_size")
            accumulate = get("acc_steps", "gradient_accumulation_steps", "grad_accum_steps")
            world = get("world_size", "num_gpus", "n_gpus")
            if not (micro and accumulate and world):
                return
            product = micro * accumulate * world * length
            how = "batch size * accumulation * world size * seq_len"
        if 0 < product <= LARGEST_COUNT:
            self.state("batch_tokens", product, f"{origin}: {how}")


def _real(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: Any) -> int | None:
    number = _real(value)
    if number is None or number < 0 or number > LARGEST_COUNT or number != int(number):
        return None
    return int(number)


def _text(value: Any) -> str | None:
    if isinstance(value, str) and value.strip() and value.lower() not in ("none", "null"):
        text = "".join(c if c.isprintable() else " " for c in value.strip())
        return text[:_MAX_TEXT].encode("utf-8", "replace").decode()
    return None
