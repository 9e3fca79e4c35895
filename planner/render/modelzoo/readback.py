"""From ModelZoo's settings back to a plan's rows: what a parameter file really makes it train.

This is `lower` the other way round, written from ModelZoo's rules and not from `lower`'s formulas,
so that the two check each other, and an edited file can be compared with its plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from planner.render.errors import CannotExpressError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.plan.model import Run

_LAYER = "model.transformer_decoder.layers.0"
# A tensor of each class, by the name that ModelZoo gives it.
NAMES = {
    "embedding": ("model.embedding_layer.word_embeddings.weight",),
    "attn_qkv": tuple(f"{_LAYER}.self_attn.proj_{x}_dense_layer.weight" for x in "qkv"),
    "attn_out": (f"{_LAYER}.self_attn.proj_output_dense_layer.weight",),
    "ffn_in": (f"{_LAYER}.ffn.ffn.0.linear_layer.weight",),
    "ffn_out": (f"{_LAYER}.ffn.ffn.1.linear_layer.weight",),
    "norm": (f"{_LAYER}.norm1.weight", f"{_LAYER}.norm3.weight"),
    "final_norm": ("model.ln_f.weight",),
    "unembedding": ("model.lm_head.weight",),
}
GLU = (f"{_LAYER}.ffn.ffn.0.linear_layer_for_glu.weight",)
BIASES = {
    f"{_LAYER}.self_attn.proj_q_dense_layer.bias": "attn_qkv",
    f"{_LAYER}.self_attn.proj_output_dense_layer.bias": "attn_out",
    f"{_LAYER}.ffn.ffn.0.linear_layer.bias": "ffn_in",
    f"{_LAYER}.ffn.ffn.1.linear_layer.bias": "ffn_out",
}
# ModelZoo's learning-rate groups where the file gives none.
_DEFAULT_GROUPS = {
    "embedding": ["*embedding*weight"],
    "decoder_kernel": ["*decoder*dense*weight", "*decoder*linear*weight"],
    "decoder_attention": ["*decoder*attn*dense*weight"],
    "decoder_input_ffn": ["*decoder*ffn.ffn.[!1]*weight"],
    "decoder_output_ffn": ["*decoder*ffn.ffn.[1]*weight"],
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What ModelZoo does to one tensor: std, peak learning rate and decay as it holds it."""

    init_std: float | None
    lr: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class Readback:
    """What a parameter file makes ModelZoo train.

    Attributes:
        tensors: By parameter name.
        embedding_multiplier: What embeddings are multiplied by.
        logits_multiplier: What logits are multiplied by.
        attention_multiplier: What q.k is multiplied by.
        eps: The one epsilon.
    """

    tensors: dict[str, Seen]
    embedding_multiplier: float
    logits_multiplier: float
    attention_multiplier: float
    eps: float


def read_back(params: Mapping[str, Any], names: tuple[str, ...]) -> Readback:
    """Return what ModelZoo 2.10 does with these parameters, by its own rules.

    Args:
        params: The parsed parameter file.
        names: Parameter names to look at.

    Raises:
        CannotExpressError: If the file lacks something or is not of this form.
    """
    try:
        init = params["trainer"]["init"]
        return _read_back(init, init["model"], init["optimizer"]["AdamW"], names)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise CannotExpressError(f"not a parameter file of this form: {error!r}") from None


def _read_back(
    init: Mapping[str, Any],
    model: Mapping[str, Any],
    adam: Mapping[str, Any],
    names: tuple[str, ...],
) -> Readback:
    mup = "mup_base_hidden_size" in model
    width = model["hidden_size"] / model["mup_base_hidden_size"] if mup else 1.0
    ffn = model["filter_size"] / model["mup_base_filter_size"] if mup else 1.0
    both = math.sqrt(2 * model["num_hidden_layers"]) if mup else 1.0
    peak = max(_rates(init["schedulers"]))

    scales = {"decoder_attention": 1 / width, "decoder_input_ffn": 1 / width}
    scales = {**scales, "decoder_output_ffn": 1 / ffn} if mup else {}
    scales.update(adam.get("adjust_learning_rate", {}))
    groups = {
        name: group["param_filter_patterns"]
        for name, group in model.get("lr_adjustment_groups", {}).items()
    } or _DEFAULT_GROUPS
    tags = {item["tag"]: item["params"] for item in adam.get("params", [])}
    decays = {
        item["ConstantWD"]["param_group_tags"]: item["ConstantWD"]["val"]
        for item in init["schedulers"]
        if "ConstantWD" in item
    }

    def std(name: str) -> float | None:
        if ".norm" in name or ".ln_f" in name:
            return None
        if name.endswith("bias"):
            return 0.0
        if "embedding_layer" in name:
            return float(model["embedding_initializer"]["std"])
        if "lm_head" in name:
            return float(model["initializer_range"])
        if "proj_output" in name:
            return float(model["output_layer_initializer"]["std"]) / math.sqrt(width) / both
        if ".ffn.1." in name:
            return float(model["ffn_output_layer_initializer"]["std"]) / math.sqrt(ffn) / both
        key = "ffn_initializer" if ".ffn.0." in name else "initializer"
        return float(model[key]["std"]) / math.sqrt(width)

    def scale(name: str) -> float:
        found = [
            scales.get(group, 1.0)
            for group, patterns in groups.items()
            if any(fnmatchcase(name, pattern) for pattern in _list(patterns))
        ]
        found = [value for value in found if value != 1.0]
        if len(set(found)) > 1:
            raise ValueError(f"{name} is in several learning-rate groups")
        return float(found[0]) if found else 1.0

    def decay(name: str) -> float:
        tagged = [
            decays[tag]
            for tag, patterns in tags.items()
            if tag in decays and any(fnmatchcase(name, pattern) for pattern in _list(patterns))
        ]
        if tagged:
            return float(tagged[-1])
        plain = "bias" in name or ".norm" in name or ".ln_f" in name
        return 0.0 if plain else float(adam["weight_decay"])

    head_dim = (model.get("attention_inner_dim") or model["hidden_size"]) / model["num_heads"]
    return Readback(
        tensors={name: Seen(std(name), peak * scale(name), decay(name)) for name in names},
        embedding_multiplier=float(model["embeddings_scale"]),
        logits_multiplier=float(model.get("output_logits_alpha") or 1.0) / width if mup else 1.0,
        attention_multiplier=float(model["attention_logits_alpha"])
        / (head_dim if model["scale_qk_dot_by_d"] else math.sqrt(head_dim)),
        eps=float(adam["eps"]),
    )


def _rates(schedulers: Any) -> list[float]:
    """Return every learning rate that the schedules name."""
    found = []
    for item in schedulers:
        ((name, values),) = item.items()
        if name == "SequentialLR":
            found += _rates(values["schedulers"])
        elif name.endswith("LR"):
            found += [
                float(value) for key, value in values.items() if key.endswith("learning_rate")
            ]
    return found


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def compare(run: Run, seen: Readback, rel_tol: float = 1e-9) -> list[str]:
    """Return where a parameter file departs from its run, one sentence each.

    The residual multiplier, which ModelZoo does not have, is taken out of the weights again: a
    tensor held as W = c * W' has c times the std and learning rate and 1/c times the decay of W'.
    """
    problems = []

    def expect(what: str, got: float | None, wanted: float | None) -> None:
        if got is None or wanted is None:
            if got is not wanted:
                problems.append(f"{what} is {got}, the plan says {wanted}")
        elif not math.isclose(got, wanted, rel_tol=rel_tol, abs_tol=0.0):
            problems.append(f"{what} is {got:.6g}, the plan says {wanted:.6g}")

    for name, seen_tensor in seen.tensors.items():
        owner = BIASES.get(name)
        row = run.tensor(owner_class(name))
        folded = row.forward_multiplier if row.tensor_class in ("attn_out", "ffn_out") else 1.0
        if owner is not None:
            folded = run.tensor(owner).forward_multiplier
        std = None if seen_tensor.init_std is None else seen_tensor.init_std / folded
        if owner is None and row.tensor_class not in ("norm", "final_norm"):
            expect(f"init std of {name}", std, row.init_std)
        expect(f"learning rate of {name}", seen_tensor.lr / folded, row.lr)
        expect(f"weight decay of {name}", seen_tensor.weight_decay * folded, row.weight_decay)
    expect(
        "embedding multiplier",
        seen.embedding_multiplier,
        run.tensor("embedding").forward_multiplier,
    )
    expect(
        "logits multiplier", seen.logits_multiplier, run.tensor("unembedding").forward_multiplier
    )
    expect("attention multiplier", seen.attention_multiplier, run.model.attention_multiplier)
    return problems


def owner_class(name: str) -> str:
    """Return the tensor class of a parameter of ModelZoo's GPT models."""
    if ".norm" in name:
        return "norm"
    if ".ln_f" in name:
        return "final_norm"
    if name.endswith("bias"):
        return "bias"
    for part, tensor_class in (
        ("embedding_layer", "embedding"),
        ("lm_head", "unembedding"),
        ("proj_output", "attn_out"),
        ("self_attn.proj", "attn_qkv"),
        ("ffn.ffn.0.", "ffn_in"),
        ("ffn.ffn.1.", "ffn_out"),
    ):
        if part in name:
            return tensor_class
    raise CannotExpressError(f"no tensor class is known for parameter {name!r}")


def names_of(run: Run) -> tuple[str, ...]:
    """Return the names of one tensor of every kind that this run's model has."""
    names = [name for group in NAMES.values() for name in group]
    if run.model.gated:
        names += GLU
    if run.model.biases:
        names += BIASES
    if run.model.tied_embeddings:
        names.remove(NAMES["unembedding"][0])
    return tuple(names)
