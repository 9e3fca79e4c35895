"""Memory by counting tensors, against a list written out by hand."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from planner.models.accelerators import accelerators
from planner.models.architecture import Architecture, Shape, count_params
from planner.models.memory import device_memory

S, B = 2048, 3
PLAIN = Architecture(vocab_size=50257, seq_len=S)
SHAPE = Shape(d_model=1024, n_layers=24, n_heads=8, n_kv_heads=8, head_dim=128, d_ffn=4096)


def activations(architecture: Architecture = PLAIN, shape: Shape = SHAPE, **options: Any) -> int:
    return device_memory(architecture, shape, micro_batch=B, **options).activations


def head(shape: Shape = SHAPE, width: int = 2) -> int:
    """Inputs of the final norm and of the unembedding, and float32 logits."""
    return S * B * (width * 2 * shape.d_model + 4 * PLAIN.padded_vocab_size)


class TestActivations:
    def test_a_plain_layer_is_34_sbh_less_two_masks(self) -> None:
        """arXiv 2205.05198 section 4: 34 sbh a layer, of which two dropout masks are 1 sbh each.

        Its 5 a s^2 b of scores are recomputed.
        """
        layer = (34 - 2) * S * B * SHAPE.d_model
        assert activations() == SHAPE.n_layers * layer + head()

    def test_written_out(self) -> None:
        """Grouped keys, gated feed-forward: every kept tensor by its width."""
        shape = Shape(1024, 24, 8, 2, 128, 2816)
        gated = Architecture(vocab_size=50257, seq_len=S, gated=True)
        kept = {
            "input of the first norm": 1024,
            "input of q, k and v": 1024,
            "queries": 8 * 128,
            "keys": 2 * 128,
            "values": 2 * 128,
            "input of the output matrix": 8 * 128,
            "input of the second norm": 1024,
            "input of up and gate": 1024,
            "up": 2816,
            "gate": 2816,
            "input of down": 2816,
        }
        assert activations(gated, shape) == 24 * 2 * S * B * sum(kept.values()) + head(shape)

    def test_checkpointing_keeps_one_input_a_layer_and_one_layer(self) -> None:
        layer = 32 * S * B * SHAPE.d_model
        assert activations(checkpointing=True) == 24 * 2 * S * B * 1024 + layer + head()

    def test_float32_is_twice(self) -> None:
        layers = 24 * 32 * S * B * 1024
        assert activations(precision="fp32") == 2 * layers + head(width=4)

    def test_tensor_parallel_splits_and_pipeline_does_not(self) -> None:
        """A stage of p has 1/p of the layers and p micro batches in flight."""
        assert activations(tensor_parallel=4) == pytest.approx(activations() / 4, abs=1)
        assert activations(pipeline_parallel=4) == activations()

    def test_experts_keep_what_they_use(self) -> None:
        sparse = Architecture(vocab_size=50257, seq_len=S, experts=8, top_k=2)
        extra = 24 * 2 * S * B * 2 * 4096
        assert activations(sparse) == activations() + extra


class TestStates:
    N = count_params(PLAIN, SHAPE).total

    @pytest.mark.parametrize(
        ("precision", "weights", "gradients", "optimizer"),
        [("bf16", 2, 2, 12), ("fp16", 2, 2, 12), ("fp32", 4, 4, 8)],
    )
    def test_bytes_a_parameter(
        self, precision: str, weights: int, gradients: int, optimizer: int
    ) -> None:
        """16 in all: two moments of 4, and a float32 master copy where weights are not."""
        memory = device_memory(PLAIN, SHAPE, micro_batch=1, precision=precision)
        n = self.N
        assert memory.weights == weights * n
        assert memory.gradients == gradients * n
        assert memory.optimizer == optimizer * n
        assert memory.total == 16 * n + memory.activations

    @pytest.mark.parametrize(
        ("sharding", "weights", "optimizer"),
        [("none", 1, 1), ("optimizer", 1, 8), ("full", 8, 8)],
    )
    def test_sharding(self, sharding: Any, weights: int, optimizer: int) -> None:
        memory = device_memory(PLAIN, SHAPE, micro_batch=1, sharding=sharding, data_parallel=8)
        assert memory.weights == round(2 * self.N / weights)
        assert memory.gradients == round(2 * self.N / weights)
        assert memory.optimizer == round(12 * self.N / optimizer)

    def test_model_parallel_splits_states(self) -> None:
        memory = device_memory(
            PLAIN, SHAPE, micro_batch=1, tensor_parallel=2, pipeline_parallel=3, data_parallel=8
        )
        assert memory.weights == pytest.approx(2 * self.N / 6, abs=1)
        assert memory.optimizer == pytest.approx(12 * self.N / 6, abs=1)


class TestAccelerators:
    def test_the_table(self) -> None:
        assert set(accelerators()) == {"CS-3", "A100", "H100", "H200", "B200", "MI300X"}
        for device in accelerators().values():
            assert 1e14 < device.peak_flops < 2e16
            assert device.source

    @pytest.mark.parametrize(
        ("name", "units", "flops", "clock"),
        [
            ("A100", 108, 2048, 1.410e9),
            ("H100", 132, 4096, 1.830e9),
            ("MI300X", 304, 2048, 2.100e9),
        ],
    )
    def test_peak_is_units_times_rate_times_clock(
        self, name: str, units: int, flops: int, clock: float
    ) -> None:
        """Dense, not the sparse figure that data sheets print."""
        assert accelerators()[name].peak_flops == pytest.approx(units * flops * clock, rel=0.001)

    def test_what_is_no_datasheet_figure_says_so(self) -> None:
        doubtful = {
            device.name for device in accelerators().values() if device.confidence != "verified"
        }
        assert doubtful == {"CS-3"}
        assert accelerators()["CS-3"].weights_external


def test_padding() -> None:
    padded = Architecture(vocab_size=50257, seq_len=S, vocab_multiple=128)
    assert padded.padded_vocab_size == 50304
    assert Architecture(vocab_size=50304, seq_len=S, vocab_multiple=128).padded_vocab_size == 50304


@pytest.mark.parametrize(
    ("multiplier", "multiple", "width", "wanted"),
    [
        (Fraction(8, 3), 1, 2048, 5461),  # down, as arXiv 2509.25087 Table 3
        (Fraction(8, 3), 1, 768, 2048),
        (Fraction(8, 3), 128, 2048, 5504),
        (Fraction(8, 3), 256, 4096, 11008),  # Llama's
        (Fraction(4), 1, 1088, 4352),
        (Fraction(1, 1000), 1, 64, 1),
    ],
)
def test_feed_forward_width(multiplier: Fraction, multiple: int, width: int, wanted: int) -> None:
    family = Architecture(100, 16, ffn_multiplier=multiplier, ffn_multiple=multiple)
    assert family.d_ffn(width) == wanted
