"""From a spec to a family's context: laws chosen, base values settled, assumptions listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.compile.draft import Context, LawBook
from planner.errors import LawError, PlannerError, did_you_mean
from planner.laws.catalog import load_laws, published
from planner.laws.law import Law
from planner.models.accelerators import accelerators
from planner.models.architecture import Architecture
from planner.models.parametrization import BaseValues

if TYPE_CHECKING:
    from planner.spec.load import Declared

# arXiv 2509.25087 Table 5 and its 39M proxy (width 256, 24 layers)
_PROXY = {
    "base_width": 256,
    "base_depth": 24,
    "base_lr": 1.62e-2,
    "init_std": 8.67e-2,
    "input_multiplier": 9.17,
    "output_multiplier": 1.095,
}
_PROXY_SOURCE = "the proxy of arXiv 2509.25087 Table 5"
# radford2019 GPT-2's initializer range; the standard parametrization has no base shape
_STANDARD = {"init_std": 0.02, "input_multiplier": 1.0, "output_multiplier": 1.0}
_BETAS, _EPS = (0.9, 0.95), 1e-8  # arXiv 2509.25087 B.1


def build_context(declared: Declared) -> Context:
    """Settle everything that the runs of a family share.

    Raises:
        SpecError: If a law is unknown or of the wrong kind, or a base value is missing.
    """
    spec = declared.spec
    warnings = [f"{field} is assumed: {reason}" for field, reason in declared.assumed.items()]
    warnings += declared.warnings
    architecture = _architecture(declared)
    base = _base_values(declared, architecture, warnings)
    if spec.optimizer.betas is None:
        warnings.append(f"optimizer.betas {list(_BETAS)} is assumed: arXiv 2509.25087 B.1")
    if spec.optimizer.eps is None:
        warnings.append(f"optimizer.eps {_EPS:g} is assumed: arXiv 2509.25087 B.1")
    if architecture.experts and spec.parametrization.kind != "standard":
        warnings.append(
            "the scaling of experts and router is assumed: experts as dense matrices, the router "
            "as an output layer; no source is known"
        )
    if architecture.experts:
        warnings.append("the laws for tau and batch were fitted on dense models, not on experts")
    cluster, compute = spec.cluster, spec.compute
    name = (cluster and cluster.accelerator) or (compute and compute.accelerator) or None
    accelerator = accelerators()[name] if name else None
    if accelerator is not None and accelerator.confidence != "verified":
        warnings.append(
            f"the peak of {accelerator.name}, {accelerator.peak_flops:.4g} FLOP/s, is an estimate"
        )
    decay = spec.parametrization.decay
    if decay is None:
        decay = "independent" if spec.parametrization.kind == "completep" else "coupled"
    laws = _law_book(declared)
    for law in (laws.tau, laws.batch, laws.batch_critical, laws.loss):
        if law is not None and law.confidence == "recalled":
            warnings.append(f"law {law.name!r} is recalled, not checked against its source")
        if law is not None and law.unidentified:
            open_ = ", ".join(_open_constant(law, key) for key in law.unidentified)
            warnings.append(f"law {law.name!r}: its runs do not determine {open_}")
    convention = spec.conventions.params or ("active" if architecture.experts else "total")
    return Context(
        declared=declared,
        architecture=architecture,
        base=base,
        decay=decay,
        params_convention=convention,
        laws=laws,
        accelerator=accelerator,
        mfu=(cluster and cluster.mfu) or (compute and compute.mfu) or None,
        devices=(cluster.devices if cluster else None) or (compute.count if compute else None),
        warnings=tuple(warnings),
    )


def _open_constant(law: Law, name: str) -> str:
    if name not in law.intervals:
        return name
    low, high = law.intervals[name]
    return f"{name} ({low:.3g} to {high:.3g})"


def betas_and_eps(declared: Declared) -> tuple[tuple[float, float], float]:
    """Return AdamW's betas and epsilon, declared or assumed."""
    optimizer = declared.spec.optimizer
    return optimizer.betas or _BETAS, optimizer.eps if optimizer.eps is not None else _EPS


def _architecture(declared: Declared) -> Architecture:
    a = declared.spec.architecture
    if a.head_dim is not None and a.position == "rope" and a.head_dim % 2:
        raise declared.error(
            "architecture.head_dim", f"got {a.head_dim}, wanted an even number for rope"
        )
    return Architecture(
        vocab_size=a.vocab_size,
        seq_len=a.context,
        vocab_multiple=a.vocab_multiple,
        tied_embeddings=a.tied_embeddings,
        ffn_multiplier=a.ffn_multiplier,
        ffn_multiple=a.ffn_multiple,
        gated=a.gated,
        activation=a.activation,
        position=a.position,
        norm=a.norm,
        biases=a.biases,
        head_dim=a.head_dim,
        kv_groups=a.kv_groups,
        experts=a.experts.count if a.experts else None,
        top_k=a.experts.top_k if a.experts else 1,
    )


def _base_values(declared: Declared, architecture: Architecture, warnings: list[str]) -> BaseValues:
    p = declared.spec.parametrization
    values: dict[str, float] = {}
    standard = p.kind == "standard"
    for name, proxy in _PROXY.items():
        given = getattr(p, name)
        if given is not None:
            values[name] = given
        elif not standard:
            values[name] = proxy
            if name == "base_depth" and p.kind == "mup":
                continue  # muP does not scale with depth
            warnings.append(f"parametrization.{name} {proxy:g} is assumed: {_PROXY_SOURCE}")
        elif name == "base_lr":
            raise declared.error(
                "parametrization.base_lr",
                "is missing: no learning rate holds for all sizes under the standard "
                "parametrization, so it has to be declared",
            )
        else:
            # without scaling the base shape has no effect
            values[name] = _STANDARD.get(name, proxy)
            if name == "init_std":
                warnings.append("parametrization.init_std 0.02 is assumed: GPT-2's")
    width = int(values["base_width"])
    ffn = p.base_ffn_width or float(architecture.ffn_multiplier * width)
    return BaseValues(
        width=width,
        ffn_width=ffn,
        depth=int(values["base_depth"]),
        depth_exponent=p.depth_exponent,
        lr=values["base_lr"],
        init_std=values["init_std"],
        input_multiplier=values["input_multiplier"],
        output_multiplier=values["output_multiplier"],
    )


def _law_book(declared: Declared) -> LawBook:
    spec = declared.spec
    catalog = dict(published())
    if spec.laws is not None:
        try:
            catalog |= load_laws(declared.folder / spec.laws)
        except PlannerError as error:
            if isinstance(error, LawError) or error.line is not None:
                raise
            raise declared.error("laws", str(error)) from None

    def law(field: str, name: str, quantity: str) -> Law:
        fitting = [key for key, item in catalog.items() if item.quantity == quantity]
        if name not in fitting:
            other = f"is a law for {catalog[name].quantity}" if name in catalog else "is unknown"
            raise declared.error(
                field, f"law {name!r} {other}; {did_you_mean(name, [*fitting, 'square-root'])}"
            )
        return catalog[name]

    timescale, batch = spec.timescale, spec.batch
    tau_law = batch_law = None
    if timescale.law == "square-root" and timescale.anchor is not None:
        anchor = timescale.anchor
        tau_law = Law(
            name="square-root",
            quantity="tau",
            form="power",
            input="tpp",
            constants={"coefficient": anchor.value * anchor.tpp**0.5, "exponent": -0.5},
            source=f"declared: tau {anchor.value:g} at {anchor.tpp:g} TPP, falling with its root",
            confidence="declared",
        )
    elif timescale.law is not None:
        tau_law = law("timescale.law", timescale.law, "tau")
    elif timescale.values is not None:
        tau_law = law("timescale", "power-lines", "tau")
    if batch.law == "square-root" and batch.anchor is not None:
        tokens = batch.anchor.value.sequences(spec.architecture.context) * spec.architecture.context
        batch_law = Law(
            name="square-root-batch",
            quantity="batch",
            form="power",
            input="tokens",
            constants={"coefficient": tokens / batch.anchor.tokens**0.5, "exponent": 0.5},
            source=f"declared: {tokens:g} tokens a step at {batch.anchor.tokens:,} tokens",
            confidence="declared",
        )
    elif batch.law is not None:
        batch_law = law("batch.law", batch.law, "batch")
    elif batch.value is None:
        batch_law = law("batch", "power-lines-batch", "batch")
    return LawBook(
        tau=tau_law,
        batch=batch_law,
        tau_optimal=law("laws", "power-lines", "tau"),
        batch_optimal=law("laws", "power-lines-batch", "batch"),
        batch_critical=law("laws", "power-lines-critical-batch", "critical_batch"),
        loss=law("loss_law", spec.loss_law, "loss"),
        compression=law("laws", "iso-loss", "compression"),
    )
