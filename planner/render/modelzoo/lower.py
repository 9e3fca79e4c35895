"""From a run of a plan to ModelZoo's settings: pure, exact, and explicit about every tensor class.

ModelZoo has no multiplier on residual branches, so theirs is folded into the branch's last weights
and biases (`planner.render.symmetry`). With ``mup_base_*`` set, ModelZoo scales initializers and
learning rates by itself; the initializers given here are divided by what it will multiply them by,
and every learning-rate ratio is given explicitly, which replaces its own. So each rule acts once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.render.errors import CannotExpressError
from planner.render.groups import check_tied
from planner.render.settings import refusal
from planner.render.symmetry import Values, fold, values_of

if TYPE_CHECKING:
    from planner.plan.model import Parametrization, Run, Tensor

NEGLIGIBLE_EPS = 1e-12
MAX_VOCABULARY = 512_000
MAX_STEPS = 2**31 - 1

_ACTIVATIONS = {"relu2": "squared_relu", "relu": "relu", "gelu": "gelu", "silu": "silu"}
_GATED_ACTIVATIONS = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu"}
_POSITIONS = {"alibi": "alibi", "rope": "rotary", "learned": "learned", "none": None}
# By norm and whether the model has biases: a layer norm then has none either.
_NORMS = {
    ("layernorm", True): "layernorm",
    ("layernorm", False): "biasless-layernorm",
    ("rmsnorm", True): "rmsnorm",
    ("rmsnorm", False): "rmsnorm",
}
_HALF_TYPES = {"bf16": "bfloat16", "fp16": "float16"}

# Classes whose forward multiplier ModelZoo applies itself.
_NATIVE_MULTIPLIER = ("embedding", "unembedding")


@dataclass(frozen=True, slots=True)
class Part:
    """The parameters of one learning-rate group.

    Attributes:
        name: The group's name, also its tag for weight decay.
        tensor_class: The plan's row that it follows.
        patterns: Globs on parameter names that select it.
        values: What the weights that ModelZoo holds start with and are trained by.
        lr_scale: `values.lr` over the base learning rate of the schedule.
        decays: What ModelZoo would do unasked: decay these (True) or not (False).
    """

    name: str
    tensor_class: str
    patterns: tuple[str, ...]
    values: Values
    lr_scale: float
    decays: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that ModelZoo's file says about the model and the optimizer."""

    attention_alpha: float
    scale_qk_dot_by_d: bool
    activation: str
    position: str | None
    norm: str
    inner_dim: int | None
    kv_groups: int | None
    mup: bool
    mup_base_hidden_size: float
    mup_base_filter_size: float
    embeddings_scale: float
    output_logits_alpha: float
    initializer_std: float
    ffn_initializer_std: float
    embedding_initializer_std: float
    output_layer_initializer_std: float
    ffn_output_layer_initializer_std: float
    initializer_range: float
    parts: tuple[Part, ...]
    lr_groups: tuple[Part, ...]
    weight_decay: float
    decay_groups: tuple[Part, ...]
    eps: float
    half_type: str
    folded: tuple[Part, ...]
    warnings: tuple[str, ...]


def lower(run: Run, parametrization: Parametrization) -> Settings:
    """Return ModelZoo's settings for a run.

    Raises:
        CannotExpressError: If ModelZoo cannot run exactly what the plan says, with the reason.
    """
    model = run.model
    _check_shape(run)
    activations = _GATED_ACTIVATIONS if model.gated else _ACTIVATIONS
    parts = _parts(run)
    by_name = {part.name: part for part in parts}

    logits = _row(run, "unembedding").forward_multiplier
    mup = parametrization.kind != "standard" or logits != 1.0
    scaled = parametrization.kind != "standard"
    base_width = float(parametrization.base_width) if scaled else float(model.d_model)
    base_ffn = float(parametrization.base_ffn_width) if scaled else float(model.d_ffn)
    # ModelZoo's own factors, which act only when the muP keys are present.
    width = model.d_model / base_width if mup else 1.0
    ffn = model.d_ffn / base_ffn if mup else 1.0
    depth = 2.0 * model.n_layers if mup else 1.0

    by_d, alpha = _attention(run)
    base_decay = by_name["embedding"].values.weight_decay
    folded = tuple(part for part in parts if part.values.folded != 1.0)
    embedding_std = _std(by_name["embedding"])

    def given(name: str, factor: float) -> float:
        """Return the std to ask for, so that ModelZoo's own division by ``factor`` gives ours."""
        return _tidy(_std(by_name[name]) * math.sqrt(factor), parametrization.init_std)

    return Settings(
        attention_alpha=alpha,
        scale_qk_dot_by_d=by_d,
        activation=activations[model.activation],
        position=_POSITIONS[model.position],
        norm=_NORMS[model.norm, model.biases],
        inner_dim=_unless(model.n_heads * model.head_dim, model.d_model),
        kv_groups=_unless(model.n_kv_heads, model.n_heads),
        mup=mup,
        mup_base_hidden_size=base_width,
        mup_base_filter_size=base_ffn,
        embeddings_scale=_row(run, "embedding").forward_multiplier,
        output_logits_alpha=_tidy(logits * width, parametrization.output_multiplier),
        initializer_std=given("decoder_attention", width),
        ffn_initializer_std=given("decoder_input_ffn", width),
        embedding_initializer_std=embedding_std,
        output_layer_initializer_std=given("decoder_output_attention", width * depth),
        ffn_output_layer_initializer_std=given("decoder_output_ffn", ffn * depth),
        initializer_range=_std(by_name["unembedding"])
        if "unembedding" in by_name
        else embedding_std,
        parts=parts,
        lr_groups=tuple(
            # ModelZoo sets the scale of its own three groups, so these must exist under muP.
            part
            for part in parts
            if not _same(part.lr_scale, 1.0)
            or (
                mup
                and part.name in ("decoder_attention", "decoder_input_ffn", "decoder_output_ffn")
            )
        ),
        weight_decay=base_decay,
        decay_groups=tuple(
            part
            for part in parts
            if not _same(part.values.weight_decay, base_decay if part.decays else 0.0)
        ),
        eps=_epsilon(run, parts),
        half_type=_HALF_TYPES[run.precision],
        folded=folded,
        warnings=_warnings(run, folded),
    )


def _check_shape(run: Run) -> None:
    """Refuse what no setting of ModelZoo's GPT models stands for."""
    model = run.model

    refuse = refusal("modelzoo", run)

    if model.experts is not None:
        refuse(
            "model.experts",
            "its router starts from the attention's unscaled initializer and cannot have its own, "
            "and the plan does not state how to route and balance, so the run would not be the "
            "plan's",
        )
    if run.precision not in _HALF_TYPES:
        refuse("precision", f"CSX has no {run.precision} training; it always mixes in a half type")
    if model.activation not in (_GATED_ACTIVATIONS if model.gated else _ACTIVATIONS):
        gated = "gated " if model.gated else ""
        refuse("model.activation", f"it has no {gated}activation {model.activation!r}")
    if model.position not in _POSITIONS:
        refuse("model.position", f"it has no position embedding {model.position!r}")
    if (model.norm, model.biases) not in _NORMS:
        refuse("model.norm", f"it has no norm {model.norm!r}")
    if model.d_model % model.n_heads:
        refuse("model.n_heads", "it wants heads that divide d_model")
    if model.n_heads % model.n_kv_heads:
        refuse("model.n_kv_heads", "it wants key-value heads that divide the heads")
    if model.position == "rope" and model.head_dim % 2:
        refuse("model.head_dim", "rotary position embedding wants an even head_dim")
    if model.padded_vocab_size > MAX_VOCABULARY:
        refuse("model.padded_vocab_size", f"its vocabulary ends at {MAX_VOCABULARY}")
    if run.steps > MAX_STEPS:
        refuse("steps", f"its step counter ends at {MAX_STEPS}")


def _parts(run: Run) -> tuple[Part, ...]:
    """Return every group of parameters that the model has, with what it must be trained by."""
    model = run.model
    base_lr = run.optimizer.base_peak_lr

    def part(
        name: str, tensor_class: str, patterns: tuple[str, ...], *, bias_of: str | None = None
    ) -> Part:
        values = values_of(_row(run, tensor_class))
        if bias_of is not None:
            # A bias is multiplied together with the product that it is added to.
            values = fold(values, _row(run, bias_of).forward_multiplier)
        elif tensor_class not in _NATIVE_MULTIPLIER:
            values = fold(values, values.forward_multiplier)
        return Part(
            name=name,
            tensor_class=tensor_class,
            patterns=patterns,
            values=values,
            lr_scale=values.lr / base_lr,
            decays=tensor_class not in ("bias", "norm", "final_norm"),
        )

    parts = [
        part("embedding", "embedding", ("*embedding*weight",)),
        part("decoder_attention", "attn_qkv", ("*decoder*attn.proj_[qkv]_dense_layer.weight",)),
        part(
            "decoder_output_attention",
            "attn_out",
            ("*decoder*attn.proj_output_dense_layer.weight",),
        ),
        part("decoder_input_ffn", "ffn_in", ("*decoder*ffn.ffn.0.*weight",)),
        part("decoder_output_ffn", "ffn_out", ("*decoder*ffn.ffn.1.*weight",)),
        part("norm", "norm", ("*.norm[0-9].*",)),
        part("final_norm", "final_norm", ("*.ln_f.*",)),
    ]
    if model.biases:
        attention, dense = "*decoder*attn.", "*decoder*ffn.ffn."
        parts += [
            part(name, "bias", (pattern,), bias_of=owner)
            for name, pattern, owner in (
                ("decoder_attention_bias", attention + "proj_[qkv]_dense_layer.bias", "attn_qkv"),
                (
                    "decoder_output_attention_bias",
                    attention + "proj_output_dense_layer.bias",
                    "attn_out",
                ),
                ("decoder_input_ffn_bias", dense + "0.*bias", "ffn_in"),
                ("decoder_output_ffn_bias", dense + "1.*bias", "ffn_out"),
            )
        ]
    if model.tied_embeddings:
        check_tied(run)
    else:
        parts.append(part("unembedding", "unembedding", ("*lm_head.weight",)))
    return tuple(parts)


def _attention(run: Run) -> tuple[bool, float]:
    """Return whether q.k is divided by head_dim (else by its root), and the factor on top."""
    multiplier, head_dim = run.model.attention_multiplier, run.model.head_dim
    for by_d, own in ((True, 1.0 / head_dim), (False, 1.0 / math.sqrt(head_dim))):
        if _same(multiplier, own):
            return by_d, 1.0
    return True, multiplier * head_dim


def _epsilon(run: Run, parts: tuple[Part, ...]) -> float:
    """Return the one epsilon that ModelZoo takes for all tensors."""
    wanted = {part.values.eps for part in parts}
    if len(wanted) == 1:
        return wanted.pop()
    largest = max(*wanted, run.optimizer.eps)
    if run.optimizer.eps_mode == "negligible" and largest <= NEGLIGIBLE_EPS:
        return run.optimizer.eps
    smallest = min(wanted)
    raise CannotExpressError(
        f"modelzoo has one Adam epsilon for all tensors and this plan needs {smallest:.3g} to "
        f"{largest:.3g}; declare eps_mode: negligible with an eps so small that all are at most "
        f"{NEGLIGIBLE_EPS:.0e}",
        field=f"{run.name}.optimizer.eps",
    )


def _warnings(run: Run, folded: tuple[Part, ...]) -> tuple[str, ...]:
    clip = run.optimizer.grad_clip
    if clip is None or not folded:
        return ()
    return (
        f"gradients are clipped at global norm {clip:g}, and that norm sees the residual "
        f"multiplier folded into {', '.join(part.name for part in folded)}, whose gradients are "
        f"{1.0 / folded[0].values.folded:.4g} times as large as with a native multiplier",
    )


def _row(run: Run, tensor_class: str) -> Tensor:
    try:
        return run.tensor(tensor_class)
    except KeyError:
        raise CannotExpressError(
            f"the plan has no row for {tensor_class}", field=f"{run.name}.tensors"
        ) from None


def _std(part: Part) -> float:
    if part.values.init_std is None:
        raise CannotExpressError(
            f"the plan has no init_std for {part.tensor_class}, which starts at random",
            field="tensors",
        )
    return part.values.init_std


def _same(left: float, right: float) -> bool:
    """Whether two numbers are one, up to the rounding of a few multiplications."""
    return math.isclose(left, right, rel_tol=1e-15)


def _tidy(value: float, meant: float) -> float:
    """Return ``meant`` where ``value`` is that number but for rounding, for the reader's sake."""
    return meant if _same(value, meant) else value


def _unless(value: int, default: int) -> int | None:
    """Return the value, or None where it is what ModelZoo assumes anyway."""
    return None if value == default else value
