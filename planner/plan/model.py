"""The plan: what every run of a family will be, frozen, versioned and hashed.

The JSON form of these models is a contract (``planner.plan/1``): fields may be added, none may be
renamed or removed. Units: tokens, sequences, steps, FLOPs (operations, not a rate), bytes, hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SCHEMA = "planner.plan/1"

TensorClass = Literal[
    "embedding",
    "attn_qkv",
    "attn_out",
    "router",
    "ffn_in",
    "ffn_out",
    "bias",
    "norm",
    "final_norm",
    "unembedding",
]


@dataclass(frozen=True, slots=True)
class Experts:
    """Mixture of experts in every feed-forward block: ``count`` experts, ``top_k`` per token."""

    count: int
    top_k: int
    tokens_per_expert: float
    tpp_per_expert: float


@dataclass(frozen=True, slots=True)
class Model:
    """Shape of one size.

    `attention_multiplier` is what q.k is multiplied by before the softmax: 1/head_dim under muP
    and CompleteP, 1/sqrt(head_dim) under the standard parametrization.
    """

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ffn: int
    gated: bool
    vocab_size: int
    padded_vocab_size: int
    seq_len: int
    activation: str
    position: str
    norm: str
    biases: bool
    tied_embeddings: bool
    experts: Experts | None
    attention_multiplier: float


@dataclass(frozen=True, slots=True)
class Params:
    """Parameter counts: all, without embeddings, and those that one token passes through."""

    total: int
    non_embedding: int
    active: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences and tokens a step, and how the cluster makes them up.

    ``sequences = micro * data_parallel * accumulation`` wherever these are not null.
    """

    sequences: int
    tokens: int
    optimal_tokens: float | None
    critical_tokens: float | None
    micro: int | None
    data_parallel: int | None
    accumulation: int | None


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW. `base_peak_lr` and `base_weight_decay` are the base-width values that users set."""

    base_peak_lr: float
    base_weight_decay: float
    betas: tuple[float, float]
    eps: float
    eps_mode: Literal["exact", "negligible"]
    grad_clip: float | None
    tau: float | None
    tau_optimal: float | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning-rate schedule; fractions of all steps, and of the peak."""

    kind: Literal["linear-to-zero", "linear", "cosine", "wsd", "constant"]
    warmup_fraction: float
    final_lr_fraction: float
    decay_fraction: float


@dataclass(frozen=True, slots=True)
class Tensor:
    """Effective values of one tensor class; ``tau`` is null where nothing decays."""

    tensor_class: TensorClass
    init_std: float | None
    lr: float
    weight_decay: float
    eps: float
    forward_multiplier: float
    tau: float | None


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Ratios to the base shape: width m_N, feed-forward width m_F and depth m_L."""

    width: float
    ffn: float
    depth: float


@dataclass(frozen=True, slots=True)
class Flops:
    """Training operations of the whole run: by the plan's convention, and by each rule."""

    total: float
    six_nd: float
    exact: float
    paper: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one device needs at the planned micro batch."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    total: int
    device: int | None


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the laws and the cluster say to expect; not part of what the run *is*."""

    loss: float | None
    low: float | None
    high: float | None
    level: float
    minimum_tokens: float | None
    minimum_steps: float | None
    device_hours: float | None
    wall_hours: float | None
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What was asked, what rounding left, their relative difference, and whether that is fine."""

    field: str
    asked: float
    achieved: float
    relative: float
    tolerance: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One training job."""

    name: str
    size: str
    tpp: float
    digest: str
    model: Model
    params: Params
    multipliers: Multipliers
    tokens: int
    steps: int
    warmup_steps: int
    batch: Batch
    optimizer: Optimizer
    schedule: Schedule
    seeds: tuple[int, ...]
    precision: Literal["bf16", "fp16", "fp32"]
    tensors: tuple[Tensor, ...]
    flops: Flops
    predicted: Predicted
    audit: tuple[AuditEntry, ...]

    def tensor(self, tensor_class: str) -> Tensor:
        """Return the row of one tensor class.

        Raises:
            KeyError: If this model has no such tensors.
        """
        for row in self.tensors:
            if row.tensor_class == tensor_class:
                return row
        raise KeyError(tensor_class)


@dataclass(frozen=True, slots=True)
class Parametrization:
    """The rule that scales hyperparameters with width and depth, and its base values."""

    kind: Literal["standard", "mup", "completep"]
    decay: Literal["coupled", "independent"]
    base_width: int
    base_ffn_width: float
    base_depth: int
    depth_exponent: float
    base_lr: float
    init_std: float
    input_multiplier: float
    output_multiplier: float


@dataclass(frozen=True, slots=True)
class Conventions:
    """Which parameters N counts and which rule counts FLOPs, here stated rather than implied."""

    params: Literal["total", "non_embedding", "active", "matrices"]
    flops: Literal["exact", "paper", "six_nd"]
    attention: Literal["causal", "full"]


@dataclass(frozen=True, slots=True)
class Data:
    """The training data: how many different tokens there are, and what made them."""

    unique_tokens: int | None
    tokenizer: str | None


@dataclass(frozen=True, slots=True)
class LawUse:
    """A law that the plan used: constants, where they come from, and how sure they are."""

    name: str
    formula: str
    constants: dict[str, float]
    source: str
    confidence: str
    fitted_range: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Budget:
    """Compute that was given, and what the plan leaves of it."""

    flops: float
    covers: Literal["family", "largest"]
    spent: float
    shortfall: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where one number came from.

    Either a formula with its inputs, or the line of a spec or preset; then what rounding did.
    """

    formula: str | None = None
    inputs: dict[str, float | int | str | None] = field(default_factory=dict)
    law: str | None = None
    declared: str | None = None
    exact: float | None = None
    rounding: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled family."""

    family: str
    digest: str
    parametrization: Parametrization
    conventions: Conventions
    data: Data
    laws: dict[str, LawUse]
    budget: Budget | None
    audit: tuple[AuditEntry, ...]
    warnings: tuple[str, ...]
    runs: tuple[Run, ...]
    provenance: dict[str, dict[str, Provenance]]

    def run(self, name: str) -> Run:
        """Return one run by name.

        Raises:
            KeyError: If the plan has no such run.
        """
        for run in self.runs:
            if run.name == name:
                return run
        raise KeyError(name)

    @property
    def ok(self) -> bool:
        """Whether every line of every audit is within its tolerance."""
        lines = [*self.audit, *(line for run in self.runs for line in run.audit)]
        return all(line.ok for line in lines)
