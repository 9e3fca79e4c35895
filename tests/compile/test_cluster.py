"""Clusters: the global batch is made exactly, moved before weight decay is solved, or refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from planner.errors import PlannerError, SpecError
from planner.models.accelerators import accelerators
from planner.models.memory import device_memory
from planner.plan import Plan

from .families import celerity, plan_of

PUBLISHED = {"300M": 176, "500M": 240, "900M": 336, "1.8B": 464, "3.9B": 672}
TAU = {20: 0.175, 80: 0.087, 234: 0.051}


def on(devices: int, **cluster: Any) -> Plan:
    return plan_of(preset="celerity", tpp=[20, 80, 234], cluster={"devices": devices, **cluster})


class TestCelerity:
    """8 devices divide all five batches; 64 and 96 do not divide 176 and 464."""

    @pytest.mark.parametrize("devices", [8, 64, 96])
    @pytest.mark.parametrize("micro", ["auto", 1, 2])
    def test_batch_is_made_exactly(self, devices: int, micro: int | str) -> None:
        for run in on(devices, micro_batch=micro, accelerator="H100", sharding="full").runs:
            batch = run.batch
            assert batch.data_parallel == devices
            assert batch.micro is not None
            assert batch.accumulation is not None
            assert batch.micro * devices * batch.accumulation == batch.sequences
            assert batch.sequences * 8192 * run.steps == run.tokens
            if micro != "auto":
                assert batch.micro == micro

    @pytest.mark.parametrize("devices", [8, 64, 96])
    def test_tau_is_still_exact(self, devices: int) -> None:
        """Each class's own B / (eta lambda D), at the batch that runs."""
        plan = on(devices)
        for run in plan.runs:
            asked = TAU[round(run.tpp / 2) * 2]
            for row in run.tensors:
                if row.weight_decay:
                    tau = 1 / (Fraction(row.lr) * Fraction(row.weight_decay) * run.steps)
                    assert abs(tau / Fraction(asked) - 1) < Fraction(1, 10**12)

    @pytest.mark.parametrize("devices", [8, 64, 96])
    def test_the_nearest_batch_is_taken(self, devices: int) -> None:
        """Nearest in ratio: 176 becomes 192 on 64 and on 96; on 8 nothing moves."""
        for run in on(devices).runs:
            asked = PUBLISHED[run.size]
            below = asked // devices * devices
            wanted = below
            if below < asked:
                above = below + devices
                wanted = below if asked / below <= above / asked else above
            assert run.batch.sequences == wanted
            assert wanted % devices == 0
        if devices == 8:
            assert on(8, micro_batch=1).runs[0].batch.sequences == 176

    @pytest.mark.parametrize("devices", [64, 96])
    def test_the_audit_says_what_was_asked(self, devices: int) -> None:
        plan = on(devices)
        for run in plan.runs:
            line = next(line for line in run.audit if line.field == "batch.sequences")
            assert line.asked == PUBLISHED[run.size]
            assert line.achieved == run.batch.sequences
            assert line.relative == pytest.approx(run.batch.sequences / PUBLISHED[run.size] - 1)
            tau = next(line for line in run.audit if line.field == "optimizer.tau")
            assert tau.ok
            assert abs(tau.relative) < 1e-12
        assert any("moved to" in text and f"{devices} replicas" in text for text in plan.warnings)

    def test_the_same_batch_is_the_same_run(self) -> None:
        """8 replicas change how the batch is made, and nothing of what is trained."""
        for here, there in zip(on(8).runs, celerity().runs, strict=True):
            assert here.tensors == there.tensors
            assert (here.steps, here.tokens) == (there.steps, there.tokens)

    @pytest.mark.parametrize("devices", [64, 96])
    def test_exact_refuses(self, devices: int) -> None:
        with pytest.raises(SpecError, match=f"{devices} replicas cannot make a batch of 176") as at:
            on(devices, batch_fit="exact")
        assert at.value.field == "cluster"
        assert at.value.line == 1
        assert "size 300M" in str(at.value)

    def test_exact_accepts_what_divides(self) -> None:
        plan = on(8, batch_fit="exact")
        assert {run.size: run.batch.sequences for run in plan.runs} == PUBLISHED

    def test_too_many_devices_are_refused(self) -> None:
        with pytest.raises(SpecError, match="use fewer devices") as caught:
            on(512)
        assert caught.value.field == "cluster"


class TestModelParallel:
    def test_tensor_and_pipeline_leave_fewer_replicas(self) -> None:
        plan = on(48, tensor=1, pipeline=3, micro_batch=1)
        for run in plan.runs:
            assert run.batch.data_parallel == 16
            assert run.batch.sequences == PUBLISHED[run.size]
            assert run.batch.accumulation == run.batch.sequences // 16

    def test_they_have_to_divide_the_devices(self) -> None:
        with pytest.raises(PlannerError, match="tensor 5 x pipeline 1 does not divide 64 devices"):
            on(64, tensor=5)

    def test_micro_batch_counts(self) -> None:
        """96 replicas of 2 sequences make multiples of 192."""
        for run in on(96, micro_batch=2).runs:
            assert run.batch.sequences % 192 == 0


class TestMultiples:
    def plan(self, **batch: Any) -> Plan:
        return plan_of(preset="gpt2-collapse", tpp=20, batch=batch)

    def test_multiple_of(self) -> None:
        for run in self.plan(law="power-lines-batch", multiple_of=24).runs:
            assert run.batch.sequences % 24 == 0

    def test_multiple_of_and_replicas(self) -> None:
        plan = plan_of(
            preset="gpt2-collapse",
            tpp=20,
            sizes=["3.3B"],
            batch={"law": "power-lines-batch", "multiple_of": 12},
            cluster={"devices": 8},
        )
        assert plan.runs[0].batch.sequences % 24 == 0

    def test_max(self) -> None:
        plan = self.plan(law="power-lines-batch", max="200 sequences")
        assert max(run.batch.sequences for run in plan.runs) == 200
        for run in plan.runs:
            asked = next(line for line in run.audit if line.field == "batch.sequences").asked
            assert run.batch.sequences == min(round(asked or 0), 200)

    def test_max_is_no_misfit_of_the_cluster(self) -> None:
        """What batch.max takes away, an exact fit does not ask back."""
        spec = {"preset": "gpt2-collapse", "sizes": ["3.3B"], "tpp": 20}
        cluster = {"devices": 8, "batch_fit": "exact"}
        batch = {"law": "power-lines-batch", "max": "160 sequences"}
        (run,) = plan_of(**spec, batch=batch, cluster=cluster).runs
        assert run.batch.sequences == 160
        batch = {"law": "power-lines-batch", "max": "161 sequences"}
        with pytest.raises(SpecError, match="cannot make a batch of 161 sequences"):
            plan_of(**spec, batch=batch, cluster=cluster)

    def test_impossible_max(self) -> None:
        with pytest.raises(SpecError, match="allows no batch in multiples of 64") as caught:
            self.plan(law="power-lines-batch", multiple_of=64, max="63 sequences")
        assert caught.value.field == "batch.max"


class TestMemory:
    def plan(self, **cluster: Any) -> Plan:
        where = {"devices": 16, "accelerator": "H100", "mfu": 0.4, **cluster}
        return plan_of(preset="llama-like", tpp=20, cluster=where)

    @pytest.mark.parametrize("sharding", ["none", "optimizer", "full"])
    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_the_largest_micro_batch_that_fits(self, sharding: str, checkpointing: bool) -> None:
        limit = accelerators()["H100"].memory_bytes
        for run in self.plan(sharding=sharding, checkpointing=checkpointing).runs:
            memory, batch = run.predicted.memory, run.batch
            assert memory is not None
            assert batch.micro is not None
            parts = memory.weights + memory.gradients + memory.optimizer + memory.activations
            assert memory.total == parts <= limit == memory.device
            share = batch.sequences // 16
            larger = [part for part in range(batch.micro + 1, share + 1) if share % part == 0]
            if larger:
                # activations grow in proportion, the rest does not
                more = memory.total + memory.activations * (larger[0] / batch.micro - 1)
                assert more > limit

    def test_too_large_a_model_warns(self) -> None:
        plan = plan_of(
            preset="llama-like",
            tpp=20,
            sizes=["13B"],
            cluster={"devices": 16, "accelerator": "H100", "sharding": "none"},
        )
        assert plan.runs[0].batch.micro == 1
        assert any("H100 has 80.0 GB: shard, split or checkpoint" in w for w in plan.warnings)

    def test_weights_outside_the_device_are_not_counted(self) -> None:
        plan = self.plan(accelerator="CS-3")
        for run in plan.runs:
            assert run.predicted.memory is None
            assert run.batch.micro is None
            assert run.predicted.device_hours is not None
        assert any("is an estimate" in text for text in plan.warnings)


def test_the_cluster_and_the_memory_model_agree() -> None:
    """The plan's memory is that of `device_memory` at the plan's own split."""
    from planner.models.architecture import Architecture, Shape

    cluster = {"devices": 32, "tensor": 2, "pipeline": 2, "accelerator": "A100"}
    plan = plan_of(preset="celerity", tpp=20, sizes=["1.8B"], cluster=cluster)
    (run,) = plan.runs
    family = Architecture(128256, 8192, ffn_multiplier=Fraction(8), position="alibi")
    memory = device_memory(
        family,
        Shape(1536, 30, 12, 12, 128, 12288),
        micro_batch=run.batch.micro or 0,
        sharding="optimizer",
        data_parallel=8,
        tensor_parallel=2,
        pipeline_parallel=2,
    )
    assert run.predicted.memory is not None
    assert run.predicted.memory.total == memory.total
