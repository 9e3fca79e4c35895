"""What a user declares: the spec of a family, as pydantic models.

Every section has short spellings (``tpp: 20``, ``compute: 1e22``); each model's `expand` turns them
into the full one. What is left out is either optional or filled from the published proxy of
arXiv 2509.25087 Table 5 and then reported as assumed.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from planner.errors import UnitError, did_you_mean
from planner.models.accelerators import accelerators
from planner.spec.quantities import (
    LARGEST_BATCH,
    Batch,
    Count,
    Days,
    Flops,
    Positive,
    PositiveShare,
    Ratio,
    Share,
    Tokens,
    TppValue,
)
from planner.units import parse_count, parse_positive, show

SCHEMA = "planner.spec/1"
MAX_SIZES = 1000
MAX_AUTOMATIC = 100
MAX_BANDS = 50
MAX_SEEDS = 1000
MAX_RUNS = 1000

# What a spec must declare, itself or by its preset.
REQUIRED = ("family", "tpp", "sizes", "architecture")

# Far beyond any model: a number above these is a slip, and cannot be planned in sensible time.
MAX_WIDTH = 1_000_000
MAX_DEPTH = 100_000
MAX_FFN_WIDTH = 1_000_000_000
MAX_PARAMS = 10**15
MAX_DEVICES = 10_000_000


def _default(value: Any) -> Any:
    """Return a default that is validated like input, so that no model is built at import."""
    return Field(default=value, validate_default=True)


class Section(BaseModel):
    """Base of the spec's sections: frozen, strict about names, with short spellings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True
    )

    shorthand: ClassVar[tuple[dict[str, Any], ...]] = ()
    wanted: ClassVar[str | None] = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """Turn a short spelling into a mapping; return anything else as it is."""
        return value

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        value = cls.expand(value)
        if not isinstance(value, dict):
            wanted = cls.wanted or f"a mapping of {', '.join(cls.model_fields)}"
            raise UnitError(f"got {show(value)}, wanted {wanted}")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """Describe the short spellings beside the full one."""
        full = handler(core_schema)
        return {"anyOf": [full, *cls.shorthand]} if cls.shorthand else full


def _given(section: Section, *names: str, without: bool = True) -> str:
    """Return which of some fields that go together are there, and which are not."""
    there = [name for name in names if getattr(section, name) is not None]
    others = [name for name in names if name not in there]
    tail = f" without {', '.join(others)}" if without and there else ""
    return f"got {', '.join(there) or 'nothing'}{tail}"


def _check_accelerator(name: str | None) -> str | None:
    if name is not None and name not in accelerators():
        raise UnitError(f"got {show(name)}; {did_you_mean(name, accelerators())}")
    return name


HARDWARE = ("accelerator", "count", "days", "mfu")


class Compute(Section):
    """The budget: operations, or accelerator x count x days x MFU."""

    shorthand = ({"type": "number"}, {"type": "string"})
    wanted = "operations such as 1e22, or {accelerator, count, days, mfu}"

    flops: Flops | None = None
    accelerator: str | None = None
    count: Count | None = Field(default=None, le=MAX_DEVICES)
    days: Days | None = None
    mfu: PositiveShare | None = None
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
            raise UnitError(
                f"{_given(self, *HARDWARE)}; wanted flops, or all of {', '.join(HARDWARE)}"
            )
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

    max_extra_compute: Positive | None = Field(default=None, le=1e6)
    compute_optimal: bool = False
    value: TppValue | None = None

    shorthand = (
        {"const": "compute-optimal"},
        {"type": "number"},
        {"type": "string", "pattern": "[0-9]"},
    )
    wanted = "'compute-optimal', {max_extra_compute: 0.67} or a TPP"

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``compute-optimal`` or a bare TPP."""
        if value == "compute-optimal":
            return {"compute_optimal": True}
        if isinstance(value, str) and not any(character.isdigit() for character in value):
            raise UnitError(f"got {show(value)}, wanted {cls.wanted}")
        return {"value": value} if isinstance(value, (int, float, str)) else value

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.max_extra_compute is not None, self.compute_optimal, self.value is not None]
        if sum(given) != 1:
            raise UnitError(f"got {sum(given)} rules, wanted one: {type(self).wanted}")
        return self


class Tpp(Section):
    """Tokens per parameter: bands, or one picked from [low, high] by a rule."""

    shorthand = (
        {"type": "number"},
        {"type": "string"},
        {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
    )

    wanted = "tokens per parameter such as 20, a list such as [20, 80], or {low, high, rule}"

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
            raise UnitError(f"{_given(self, 'low', 'high', 'rule')}; wanted {type(self).wanted}")
        elif self.low > self.high:
            raise UnitError(f"got low {self.low:g} above high {self.high:g}")
        return self


class Size(Section):
    """One size: a parameter count for the shape rule, or an explicit shape."""

    shorthand = ({"type": "string"}, {"type": "number"})
    wanted = "a parameter count such as '300M', or a shape {name, d_model, n_layers}"

    name: str = Field(min_length=1, max_length=64)
    params: Count | None = Field(default=None, le=MAX_PARAMS)
    d_model: Count | None = Field(default=None, le=MAX_WIDTH)
    n_layers: Count | None = Field(default=None, le=MAX_DEPTH)
    n_heads: Count | None = None
    n_kv_heads: Count | None = None
    head_dim: Count | None = None
    d_ffn: Count | None = Field(default=None, le=MAX_FFN_WIDTH)
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
            raise UnitError(f"{_given(self, 'd_model', 'n_layers')}; wanted both")
        if None in shape and self.params is None:
            raise UnitError("got a name alone, wanted params, or d_model and n_layers")
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

    wanted = "a list such as [300M, 1B], {preset: NAME}, or {count: 5} for automatic sizes"

    listed: tuple[Size, ...] | None = Field(default=None, min_length=1, max_length=MAX_SIZES)
    count: Count | None = Field(default=None, le=MAX_AUTOMATIC)
    smallest: Count | None = Field(default=None, le=MAX_PARAMS)
    spacing: Positive | None = None
    depth_slack: Share = Field(default=0.25, le=0.5)

    @classmethod
    def expand(cls, value: Any) -> Any:
        """A list of sizes."""
        return {"listed": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.listed is not None:
            if self.count or self.smallest or self.spacing:
                raise UnitError("got a list of sizes and automatic sizes, wanted one")
            seen = set()
            for size in self.listed:
                if size.name in seen:
                    raise UnitError(f"got the size {size.name!r} twice")
                seen.add(size.name)
        elif self.count is None:
            raise UnitError("wanted a list of sizes, or a count of automatic ones")
        elif self.spacing is not None and self.spacing <= 1:
            raise UnitError(f"got a spacing of {self.spacing:g}, wanted more than 1")
        return self


class ExpertsSpec(Section):
    """A mixture of experts in every feed-forward block."""

    count: Count = Field(ge=2, le=1_000_000)
    top_k: Count = 1

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.top_k > self.count:
            raise UnitError(f"got top_k {self.top_k} of {self.count} experts")
        return self


class ArchitectureSpec(Section):
    """What all sizes share."""

    vocab_size: Count = Field(le=10_000_000)
    vocab_multiple: Count = Field(default=1, le=10_000_000)
    context: Count = Field(le=100_000_000)
    tied_embeddings: bool = False
    ffn_multiplier: Ratio = _default("4")
    ffn_multiple: Count = Field(default=1, le=MAX_WIDTH)
    gated: bool = False
    activation: Literal["relu2", "relu", "gelu", "silu"] = "gelu"
    position: Literal["alibi", "rope", "learned", "none"] = "rope"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    biases: bool = False
    head_dim: Count | None = Field(default=None, le=MAX_WIDTH)
    kv_groups: Count | None = Field(default=None, le=MAX_WIDTH)
    experts: ExpertsSpec | None = None


class Data(Section):
    """The training data."""

    unique_tokens: Tokens | None = None
    tokenizer: str | None = Field(default=None, min_length=1, max_length=256)

    @field_validator("tokenizer")
    @classmethod
    def _one_line(cls, tokenizer: str | None) -> str | None:
        if tokenizer is not None and not (
            tokenizer.isprintable() and tokenizer == tokenizer.strip()
        ):
            raise UnitError(
                f"got {show(tokenizer)}, wanted a name without control characters or outer spaces"
            )
        return tokenizer


class Cluster(Section):
    """The machine that runs it: batch = micro_batch x data parallel x accumulation, exactly."""

    devices: Count = Field(le=MAX_DEVICES)
    accelerator: str | None = None
    tensor: Count = Field(default=1, le=MAX_DEVICES)
    pipeline: Count = Field(default=1, le=MAX_DEVICES)
    micro_batch: Count | Literal["auto"] = "auto"
    mfu: PositiveShare | None = None
    sharding: Literal["none", "optimizer", "full"] = "optimizer"
    checkpointing: bool = False
    batch_fit: Literal["nearest", "exact"] = "nearest"

    _accelerator = field_validator("accelerator")(_check_accelerator)

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _micro(cls, value: Any) -> Any:
        if value == "auto":
            return value
        try:
            return parse_count(value, "sequence")
        except UnitError:
            wanted = "'auto' or a positive number of sequences"
            raise UnitError(f"got {show(value)}, wanted {wanted}") from None

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
    base_width: Count | None = Field(default=None, le=MAX_WIDTH)
    base_depth: Count | None = Field(default=None, le=MAX_DEPTH)
    base_ffn_width: Positive | None = None
    base_lr: Positive | None = None
    init_std: Positive | None = None
    input_multiplier: Positive | None = None
    output_multiplier: Positive | None = None
    depth_exponent: Positive = Field(default=1.0, le=2)

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
            given = _given(self, "law", "values", "value", "weight_decay", without=False)
            raise UnitError(f"{given}; wanted one of law (with values), value and weight_decay")
        if (self.law == "square-root") != (self.anchor is not None):
            raise UnitError("wanted 'law: square-root' and an anchor {tpp, value} together")
        seen = set()
        for key in self.values or {}:
            try:
                tpp = parse_positive(key)
            except UnitError:
                raise UnitError(
                    f"got the TPP {show(key)}, wanted a number", field="values"
                ) from None
            if tpp in seen:
                raise UnitError(f"got {tpp:g} TPP twice", field="values")
            seen.add(tpp)
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
    multiple_of: Count = Field(default=1, le=LARGEST_BATCH)
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

    wanted = "a fraction such as 0.1, tokens such as '375M tokens', or {fraction, tokens}"

    fraction: Share | None = None
    tokens: Tokens | None = None

    @classmethod
    def expand(cls, value: Any) -> Any:
        """``0.1`` and ``10%`` are fractions, ``375M tokens`` is tokens."""
        if isinstance(value, float) or value == 0 or (isinstance(value, str) and "%" in value):
            return {"fraction": value}
        if isinstance(value, str):
            try:
                return {"fraction": float(value)} if float(value) < 1 else {"tokens": value}
            except ValueError:
                return {"tokens": value}
        if isinstance(value, int) and value == 1:
            raise UnitError(f"got 1, which may be all steps or one token; wanted {cls.wanted}")
        return {"tokens": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.fraction is None and self.tokens is None:
            raise UnitError("got nothing, wanted fraction, tokens, or both (the smaller counts)")
        return self


class ScheduleSpec(Section):
    """Learning-rate schedule."""

    shorthand = ({"enum": ["linear-to-zero", "linear", "cosine", "wsd", "constant"]},)

    kind: Literal["linear-to-zero", "linear", "cosine", "wsd", "constant"] = "linear-to-zero"
    warmup: Warmup = _default({"fraction": 0.1})
    final_lr_fraction: Share | None = None
    decay_fraction: PositiveShare | None = None

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
        return self


class OptimizerSpec(Section):
    """AdamW."""

    betas: tuple[Share, Share] | None = None
    eps: Positive | None = None
    eps_mode: Literal["exact", "negligible"] = "exact"
    grad_clip: Positive | None = None

    @field_validator("betas", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, (list, tuple)) and len(value) == 2):
            raise UnitError(f"got {show(value)}, wanted two numbers such as [0.9, 0.95]")
        return value

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float] | None) -> tuple[float, float] | None:
        if betas is not None and max(betas) >= 1:
            raise UnitError(f"got {list(betas)}, wanted both below 1")
        return betas

    @model_validator(mode="after")
    def _negligible(self) -> Self:
        if self.eps_mode == "negligible" and self.eps is not None and self.eps > 1e-12:
            raise UnitError(f"got eps {self.eps:g}, wanted at most 1e-12 for eps_mode negligible")
        return self


class ConventionsSpec(Section):
    """Which parameters N counts, and how FLOPs are counted."""

    params: Literal["total", "non_embedding", "active", "matrices"] | None = None
    flops: Literal["exact", "paper", "six_nd"] = "exact"
    attention: Literal["causal", "full"] = "causal"


def _seed(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UnitError(f"got {show(value)}, wanted a whole number of zero or more")
    return value


Seed = Annotated[int, BeforeValidator(_seed), WithJsonSchema({"type": "integer", "minimum": 0})]


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
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, max_length=MAX_SEEDS)
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"

    @field_validator("family")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        return plain_name(name)

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        sizes = len(self.sizes.listed or ()) or self.sizes.count or 1
        bands = len(self.tpp.bands or (1,))
        if sizes * bands > MAX_RUNS:
            raise UnitError(
                f"got {sizes} sizes at {bands} TPP, which are {sizes * bands:,} runs; "
                f"wanted at most {MAX_RUNS:,}",
                field="sizes",
            )
        return self

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise UnitError("got the same seed twice")
        return seeds


def plain_name(name: str) -> str:
    """Return a name that can also be a folder's.

    Raises:
        UnitError: If it is blank, has a slash or a control character, or starts with a dot.
    """
    plain = name.isprintable() and name.strip() == name and not name.startswith(".")
    if not plain or "/" in name or "\\" in name:
        raise UnitError(
            f"got {show(name)}, wanted a name without slashes, control characters or outer "
            "spaces, and not starting with a dot"
        )
    return name


def spec_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec file, short spellings included.

    A preset may stand in for any section or part of one, so only the family's name is required
    beside it.
    """
    schema = _standard(Spec.model_json_schema(by_alias=True))
    for name, section in schema["properties"].items():
        if name not in REQUIRED:
            # left empty is not declared
            schema["properties"][name] = {"anyOf": [section, {"type": "null"}]}
    architecture = schema["$defs"]["ArchitectureSpec"].pop("required")
    schema["required"] = ["family"]
    schema["anyOf"] = [
        {"required": ["preset"]},
        {
            "required": list(REQUIRED),
            "properties": {"architecture": {"required": architecture}},
        },
    ]
    size = schema["$defs"]["Size"]["anyOf"][0]
    del size["required"]  # a size is named by its parameters where it has no name
    size["anyOf"] = [{"required": ["name"]}, {"required": ["params"]}]
    sizes = schema["$defs"]["Sizes"]
    schema["$defs"]["Sizes"] = {
        "anyOf": [
            sizes,
            {"type": "array", "items": {"$ref": "#/$defs/Size"}, "minItems": 1},
            {
                "type": "object",
                "properties": {"preset": {"type": "string"}},
                "required": ["preset"],
                "additionalProperties": False,
            },
        ]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _standard(schema: Any) -> Any:
    """Return a schema with pydantic's own bounds under their standard names."""
    if isinstance(schema, list):
        return [_standard(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    names = {"le": "maximum", "ge": "minimum"}
    return {names.get(key, key): _standard(item) for key, item in schema.items()}
