"""What a user declares: the spec of a family, as pydantic models.

Every section has short spellings (``tpp: 20``, ``compute: 1e22``); each model's `expand` turns them
into the full one. What is left out is either optional or filled from the published proxy of
arXiv 2509.25087 Table 5 and then reported as assumed.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from planner.errors import UnitError, did_you_mean
from planner.models.accelerators import accelerators
from planner.spec.quantities import (
    Batch,
    Count,
    Days,
    Flops,
    Positive,
    PositiveFraction,
    Ratio,
    Tokens,
    TppValue,
)
from planner.units import show

SCHEMA = "planner.spec/1"
MAX_SIZES = 1000
MAX_BANDS = 100


def _default(value: Any) -> Any:
    """Return a default that is validated like input, so that no model is built at import."""
    return Field(default=value, validate_default=True)


class Section(BaseModel):
    """Base of the spec's sections: frozen, strict about names, with short spellings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True
    )

    shorthand: ClassVar[tuple[dict[str, Any], ...]] = ()

    @classmethod
    def expand(cls, value: Any) -> Any:
        """Turn a short spelling into a mapping; return anything else as it is."""
        return value

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        value = cls.expand(value)
        if not isinstance(value, dict):
            raise UnitError(f"got {show(value)}, wanted a mapping of {', '.join(cls.model_fields)}")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """Describe the short spellings beside the full one."""
        full = handler(core_schema)
        return {"anyOf": [full, *cls.shorthand]} if cls.shorthand else full


def _check_accelerator(name: str | None) -> str | None:
    if name is not None and name not in accelerators():
        raise UnitError(f"got {show(name)}; {did_you_mean(name, accelerators())}")
    return name


class Compute(Section):
    """The budget: operations, or accelerator x count x days x MFU."""

    shorthand = ({"type": "number"}, {"type": "string"})

    flops: Flops | None = None
    accelerator: str | None = None
    count: Count | None = None
    days: Days | None = None
    mfu: PositiveFraction | None = None
    covers: Literal["family", "largest"] = "family"

    _accelerator = field_validator("accelerator")(_check_accelerator)

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``compute: 1e22`` is ``compute: {flops: 1e22}``."""
        return {"flops": value} if isinstance(value, (int, float, str)) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        hardware = (self.accelerator, self.count, self.days, self.mfu)
        if self.flops is not None and (self.count is not None or self.days is not None):
            raise UnitError(
                "got flops and hardware, wanted one: flops, or accelerator, count, days and mfu"
            )
        if self.flops is None and None in hardware:
            raise UnitError("wanted flops, or all of accelerator, count, days and mfu")
        if self.mfu == 0:
            raise UnitError("got an mfu of 0, wanted more")
        return self

    @property
    def total_flops(self) -> float:
        """The budget in operations."""
        if self.flops is not None:
            return self.flops
        assert self.accelerator and self.count and self.days and self.mfu
        peak = accelerators()[self.accelerator].peak_flops
        return peak * self.count * self.days * 86400 * self.mfu


class TppRule(Section):
    """How a band [low, high] picks its TPP."""

    max_extra_compute: Positive | None = None
    compute_optimal: bool = False
    value: TppValue | None = None

    shorthand = ({"const": "compute-optimal"}, {"type": "number"})

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``compute-optimal`` or a bare TPP."""
        if value == "compute-optimal":
            return {"compute_optimal": True}
        if isinstance(value, str) and not any(character.isdigit() for character in value):
            raise UnitError(
                f"got {show(value)}, wanted 'compute-optimal', {{max_extra_compute: 0.67}} or a TPP"
            )
        return {"value": value} if isinstance(value, (int, float, str)) else value

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.max_extra_compute is not None, self.compute_optimal, self.value is not None]
        if sum(given) != 1:
            raise UnitError("wanted one of max_extra_compute, compute-optimal or a value")
        return self


class Tpp(Section):
    """Tokens per parameter: bands, or one picked from [low, high] by a rule."""

    shorthand = (
        {"type": "number"},
        {"type": "string"},
        {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
    )

    bands: tuple[TppValue, ...] | None = Field(default=None, min_length=1, max_length=MAX_BANDS)
    low: TppValue | None = None
    high: TppValue | None = None
    rule: TppRule | None = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``20`` or ``[20, 80, 234]``."""
        if isinstance(value, (int, float, str)):
            return {"bands": [value]}
        return {"bands": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.bands is not None:
            if self.low is not None or self.high is not None or self.rule is not None:
                raise UnitError("got bands and a band with a rule, wanted one")
            if len(set(self.bands)) != len(self.bands):
                raise UnitError("got the same TPP twice")
        elif self.low is None or self.high is None or self.rule is None:
            raise UnitError("wanted a TPP, a list of them, or low, high and rule")
        elif self.low > self.high:
            raise UnitError(f"got low {self.low:g} above high {self.high:g}")
        return self


class Size(Section):
    """One size: a parameter count for the shape rule, or an explicit shape."""

    shorthand = ({"type": "string"}, {"type": "number"})

    name: str = Field(min_length=1, max_length=64)
    params: Count | None = None
    d_model: Count | None = None
    n_layers: Count | None = None
    n_heads: Count | None = None
    n_kv_heads: Count | None = None
    head_dim: Count | None = None
    d_ffn: Count | None = None
    batch: Batch | None = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``300M`` is a size of that many parameters, with that name."""
        if isinstance(value, (int, float, str)):
            return {"name": str(value).strip(), "params": value}
        if isinstance(value, dict) and "name" not in value and "params" in value:
            return {"name": str(value["params"]).strip(), **value}
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        return plain_name(name)

    @model_validator(mode="after")
    def _shape_or_params(self) -> Self:
        shape = (self.d_model, self.n_layers)
        if (self.d_model is None) != (self.n_layers is None):
            raise UnitError("wanted d_model and n_layers together")
        if None in shape and self.params is None:
            raise UnitError("wanted params, or d_model and n_layers")
        if None in shape:
            for field in ("n_heads", "n_kv_heads", "d_ffn", "head_dim"):
                if getattr(self, field) is not None:
                    raise UnitError(f"got {field} without d_model and n_layers")
            return self
        assert self.d_model is not None
        for field in ("n_heads", "head_dim"):
            part = getattr(self, field)
            if part is not None and self.d_model % part:
                raise UnitError(f"{field} {part} does not divide d_model {self.d_model}")
        if self.n_heads and self.head_dim and self.n_heads * self.head_dim != self.d_model:
            raise UnitError(
                f"{self.n_heads} heads of {self.head_dim} make "
                f"{self.n_heads * self.head_dim}, not d_model {self.d_model}"
            )
        return self


class Sizes(Section):
    """The sizes: listed, those of a preset, or automatic."""

    shorthand = ({"type": "array"},)

    listed: tuple[Size, ...] | None = Field(default=None, min_length=1, max_length=MAX_SIZES)
    count: Count | None = Field(default=None, le=MAX_SIZES)
    smallest: Count | None = None
    spacing: Positive | None = None
    depth_slack: PositiveFraction = 0.25

    @classmethod
    def expand(cls, value: Any) -> Any:
        """A list of sizes."""
        return {"listed": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.listed is not None:
            if self.count or self.smallest or self.spacing:
                raise UnitError("got a list of sizes and automatic sizes, wanted one")
            names = [size.name for size in self.listed]
            for name in names:
                if names.count(name) > 1:
                    raise UnitError(f"got the size {name!r} twice")
        elif self.count is None:
            raise UnitError("wanted a list of sizes, or a count of automatic ones")
        elif self.spacing is not None and self.spacing <= 1:
            raise UnitError(f"got a spacing of {self.spacing:g}, wanted more than 1")
        return self


class ExpertsSpec(Section):
    """A mixture of experts in every feed-forward block."""

    count: Count = Field(ge=2)
    top_k: Count = 1

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.top_k > self.count:
            raise UnitError(f"got top_k {self.top_k} of {self.count} experts")
        return self


class ArchitectureSpec(Section):
    """What all sizes share."""

    vocab_size: Count = Field(le=10_000_000)
    vocab_multiple: Count = 1
    context: Count = Field(le=100_000_000)
    tied_embeddings: bool = False
    ffn_multiplier: Ratio = _default("4")
    ffn_multiple: Count = 1
    gated: bool = False
    activation: Literal["relu2", "relu", "gelu", "silu"] = "gelu"
    position: Literal["alibi", "rope", "learned", "none"] = "rope"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    biases: bool = False
    head_dim: Count | None = None
    kv_groups: Count | None = None
    experts: ExpertsSpec | None = None


class Data(Section):
    """The training data."""

    unique_tokens: Tokens | None = None
    tokenizer: str | None = None


class Cluster(Section):
    """The machine that runs it: batch = micro_batch x data parallel x accumulation, exactly."""

    devices: Count
    accelerator: str | None = None
    tensor: Count = 1
    pipeline: Count = 1
    micro_batch: Count | Literal["auto"] = "auto"
    mfu: PositiveFraction | None = None
    sharding: Literal["none", "optimizer", "full"] = "optimizer"
    checkpointing: bool = False
    batch_fit: Literal["nearest", "exact"] = "nearest"

    _accelerator = field_validator("accelerator")(_check_accelerator)

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _micro(cls, value: Any) -> Any:
        if isinstance(value, str) and not any(character.isdigit() for character in value):
            if value != "auto":
                raise UnitError(f"got {show(value)}, wanted 'auto' or a count of sequences")
        return value

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.devices % (self.tensor * self.pipeline):
            raise UnitError(
                f"tensor {self.tensor} x pipeline {self.pipeline} does not divide "
                f"{self.devices} devices"
            )
        return self

    @property
    def data_parallel(self) -> int:
        """Replicas: devices / (tensor x pipeline)."""
        return self.devices // (self.tensor * self.pipeline)


class ParametrizationSpec(Section):
    """How hyperparameters scale, and their values at the base shape.

    Values left out come from the proxy of arXiv 2509.25087 Table 5 and are reported as assumed.
    """

    shorthand = ({"enum": ["standard", "mup", "completep"]},)

    kind: Literal["standard", "mup", "completep"] = "completep"
    decay: Literal["coupled", "independent"] | None = None
    base_width: Count | None = None
    base_depth: Count | None = None
    base_ffn_width: Positive | None = None
    base_lr: Positive | None = None
    init_std: Positive | None = None
    input_multiplier: Positive | None = None
    output_multiplier: Positive | None = None
    depth_exponent: Positive = 1.0

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``completep`` is ``{kind: completep}``."""
        return {"kind": value} if isinstance(value, str) else value


class TauAnchor(Section):
    """A point that a square-root timescale law goes through."""

    tpp: TppValue
    value: Positive


class Timescale(Section):
    """The AdamW timescale asked for: a law, a value, values by band, or a fixed weight decay."""

    shorthand = ({"type": "number"}, {"type": "string"})

    law: str | None = None
    value: Positive | None = None
    values: dict[str, Positive] | None = None
    anchor: TauAnchor | None = None
    weight_decay: Positive | None = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """A bare number is tau itself, a name is a law."""
        if isinstance(value, (int, float)):
            return {"value": value}
        return {"law": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        alone = [self.value is not None, self.weight_decay is not None]
        if sum(alone) + (self.law is not None or self.values is not None) != 1:
            raise UnitError("wanted one of law (with values), value and weight_decay")
        if (self.law == "square-root") != (self.anchor is not None):
            raise UnitError("wanted 'law: square-root' and an anchor {tpp, value} together")
        for key in self.values or {}:
            try:
                float(key)
            except ValueError:
                raise UnitError(f"values: got the TPP {key!r}, wanted a number") from None
        return self


class BatchAnchor(Section):
    """A point that a square-root batch law goes through."""

    tokens: Tokens
    value: Batch


class BatchSpec(Section):
    """The batch asked for: a law or a value, rounded to a multiple and capped."""

    shorthand = ({"type": "string"},)

    law: str | None = None
    value: Batch | None = None
    anchor: BatchAnchor | None = None
    multiple_of: Count = 1
    max: Batch | None = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """A quantity with its unit is the batch, any other name a law."""
        if isinstance(value, str) and not value.strip()[:1].isdigit():
            return {"law": value}
        return {"value": value} if isinstance(value, (int, float, str)) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.law is not None and self.value is not None:
            raise UnitError("got a law and a value, wanted one")
        if (self.law == "square-root") != (self.anchor is not None):
            raise UnitError("wanted 'law: square-root' and an anchor {tokens, value} together")
        return self


class Warmup(Section):
    """Warmup as a fraction of the steps, as tokens, or the smaller of both."""

    shorthand = ({"type": "number"}, {"type": "string"})

    fraction: PositiveFraction | None = None
    tokens: Tokens | None = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``0.1`` and ``10%`` are fractions, ``375M tokens`` is tokens."""
        if isinstance(value, float) or value == 0 or (isinstance(value, str) and "%" in value):
            return {"fraction": value}
        if isinstance(value, str):
            try:
                return {"fraction": float(value)} if float(value) <= 1 else {"tokens": value}
            except ValueError:
                return {"tokens": value}
        return {"tokens": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.fraction is None and self.tokens is None:
            raise UnitError("wanted fraction, tokens, or both (the smaller counts)")
        return self


class ScheduleSpec(Section):
    """Learning-rate schedule."""

    shorthand = ({"enum": ["linear-to-zero", "linear", "cosine", "wsd", "constant"]},)

    kind: Literal["linear-to-zero", "linear", "cosine", "wsd", "constant"] = "linear-to-zero"
    warmup: Warmup = _default({"fraction": 0.1})
    final_lr_fraction: PositiveFraction | None = None
    decay_fraction: PositiveFraction | None = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``cosine`` is ``{kind: cosine}``."""
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.final_lr_fraction and self.kind in ("linear-to-zero", "constant"):
            raise UnitError(
                f"final_lr_fraction does not go with {self.kind}; wanted linear, cosine or wsd"
            )
        if self.decay_fraction is not None and self.kind != "wsd":
            raise UnitError(f"decay_fraction does not go with {self.kind}; wanted wsd")
        if self.decay_fraction == 0:
            raise UnitError("got a decay_fraction of 0, wanted more; or the schedule 'constant'")
        return self


class OptimizerSpec(Section):
    """AdamW."""

    betas: tuple[PositiveFraction, PositiveFraction] | None = None
    eps: Positive | None = None
    eps_mode: Literal["exact", "negligible"] = "exact"
    grad_clip: Positive | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.betas is not None and max(self.betas) >= 1:
            raise UnitError(f"got betas {list(self.betas)}, wanted both below 1")
        if self.eps_mode == "negligible" and self.eps is not None and self.eps > 1e-12:
            raise UnitError(f"got eps {self.eps:g}, wanted at most 1e-12 for eps_mode negligible")
        return self


class ConventionsSpec(Section):
    """Which parameters N counts, and how FLOPs are counted."""

    params: Literal["total", "non_embedding", "active", "matrices"] | None = None
    flops: Literal["exact", "paper", "six_nd"] = "exact"
    attention: Literal["causal", "full"] = "causal"


class Spec(Section):
    """A family, declared."""

    schema_: Literal["planner.spec/1"] | None = Field(default=None, alias="schema")
    family: str = Field(min_length=1, max_length=64)
    preset: str | None = None
    compute: Compute | None = None
    tpp: Tpp
    sizes: Sizes
    architecture: ArchitectureSpec
    data: Data = _default({})
    cluster: Cluster | None = None
    parametrization: ParametrizationSpec = _default({})
    timescale: Timescale = _default({"law": "power-lines"})
    batch: BatchSpec = _default({"law": "power-lines-batch"})
    schedule: ScheduleSpec = _default({})
    optimizer: OptimizerSpec = _default({})
    conventions: ConventionsSpec = _default({})
    loss_law: str = "besiroglu"
    laws: str | None = None
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, max_length=MAX_SIZES)
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"

    @field_validator("family")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        return plain_name(name)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0 or len(set(seeds)) != len(seeds):
            raise UnitError(
                f"got seeds {list(seeds)[:5]}, wanted different numbers of zero or more"
            )
        return seeds


def plain_name(name: str) -> str:
    """Return a name that can also be a folder's.

    Raises:
        UnitError: If it has a slash or a control character, or starts with a dot.
    """
    if "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
        raise UnitError(
            f"got {show(name)}, wanted a name without slashes or control characters and "
            "not starting with a dot"
        )
    return name


def spec_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec file, short spellings included.

    A preset may stand in for any section, so only the family's name is required.
    """
    schema = Spec.model_json_schema(by_alias=True)
    schema["required"] = ["family"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
