"""Batch size: declared or from a law, the nearest one the cluster can make, and how it does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.compile.draft import Draft, Note, law_note
from planner.models.memory import DeviceMemory, device_memory
from planner.plan.model import Provenance

if TYPE_CHECKING:
    from planner.compile.draft import Context
    from planner.models.architecture import Shape
    from planner.spec.model import Cluster

MAX_CHANGE = 1.5
"""A cluster may move the batch by this factor; beyond it the plan is refused."""


def choose_batch(context: Context, draft: Draft) -> Draft:
    """Set the batch in whole sequences.

    The order matters: the batch is settled here, before steps and weight decay are solved, so
    that the timescale holds for the batch that runs.

    Raises:
        SpecError: If no batch that the cluster can make lies near the one asked for.
    """
    seq_len = context.architecture.seq_len
    wanted, origin, notes = _asked(context, draft)
    sequences, asked, rounding = _feasible(context, draft, wanted)
    cluster = context.spec.cluster
    if asked < wanted:
        text = f"batch of {wanted:.4g} sequences capped at {asked:.4g} by batch.max"
        notes = (*notes, Note("batch:max", text))
    if cluster is not None and abs(sequences / asked - 1) > 0.01 and round(asked) != sequences:
        notes = (
            *notes,
            Note(
                "batch:cluster",
                f"batch of {asked:.4g} sequences moved to {sequences} to fit "
                f"{cluster.data_parallel} replicas",
            ),
        )
    trail = {
        "batch.sequences": Provenance(
            formula=origin.formula,
            inputs=origin.inputs,
            law=origin.law,
            declared=origin.declared,
            exact=wanted,
            rounding=rounding,
        ),
        "batch.tokens": Provenance(
            formula="batch.sequences * model.seq_len",
            inputs={"batch.sequences": sequences, "model.seq_len": seq_len},
        ),
    }
    return draft.filled(trail, notes, batch_asked=asked, batch_sequences=sequences)


def split_batch(context: Context, draft: Draft) -> Draft:
    """Set how the cluster makes the batch up: micro batch x replicas x accumulation, exactly."""
    cluster = context.spec.cluster
    if cluster is None:
        return draft
    _check_split(context, cluster, draft)
    replicas = cluster.data_parallel
    micro = _micro_batch(context, draft.size.shape, draft.batch_sequences)
    accumulation = draft.batch_sequences // (micro * replicas) if micro else None
    trail = {
        "batch.data_parallel": Provenance(
            formula="devices / (tensor * pipeline)",
            inputs={
                "devices": cluster.devices,
                "tensor": cluster.tensor,
                "pipeline": cluster.pipeline,
            },
        ),
        "batch.accumulation": Provenance(
            formula="batch.sequences / (batch.micro * batch.data_parallel)",
            inputs={
                "batch.sequences": draft.batch_sequences,
                "batch.micro": micro,
                "batch.data_parallel": replicas,
            },
        ),
    }
    if cluster.micro_batch == "auto" and micro is not None:
        trail["batch.micro"] = Provenance(
            formula="the largest divisor of a replica's share that fits the device's memory",
            inputs={"share": draft.batch_sequences // replicas},
        )
    return draft.filled(trail, data_parallel=replicas, micro=micro, accumulation=accumulation)


def _check_split(context: Context, cluster: Cluster, draft: Draft) -> None:
    """Refuse a model that the cluster's tensor and pipeline devices cannot share."""
    shape = draft.size.shape
    if cluster.pipeline > shape.n_layers:
        raise context.declared.error(
            "cluster.pipeline",
            f"{cluster.pipeline} stages cannot share the {shape.n_layers} layers of size "
            f"{draft.size.name}",
        )
    for what, number in (("heads", shape.n_heads), ("d_ffn", shape.d_ffn)):
        if number % cluster.tensor:
            raise context.declared.error(
                "cluster.tensor",
                f"{cluster.tensor} devices cannot share {what} {number} of size {draft.size.name}",
            )


def _asked(context: Context, draft: Draft) -> tuple[float, Provenance, tuple[Note | None, ...]]:
    """Return the batch asked for, in sequences and not rounded, before the cluster is looked at."""
    spec, seq_len = context.spec.batch, context.architecture.seq_len
    declared = draft.size.batch or spec.value
    if declared is not None:
        place = "sizes" if draft.size.batch else "batch"
        origin = Provenance(declared=str(context.declared.origin(place)))
        return declared.sequences(seq_len), origin, ()
    law = context.laws.batch
    assert law is not None
    asked = law.at(draft.tokens_asked) / seq_len
    inputs: dict[str, float | int | str | None] = {
        "tokens": draft.tokens_asked,
        "model.seq_len": seq_len,
        **law.constants,
    }
    origin = Provenance(formula=f"({law.formula}) / model.seq_len", inputs=inputs, law=law.name)
    return asked, origin, (law_note(law, tokens=draft.tokens_asked),)


def _feasible(context: Context, draft: Draft, asked: float) -> tuple[int, float, str | None]:
    """Return the nearest batch, in ratio, that all constraints allow, and what moved it.

    Between the two: what is asked for after the cap.
    """
    spec, cluster = context.spec.batch, context.spec.cluster
    unit = spec.multiple_of
    reasons = [f"multiples of {unit}"] if unit > 1 else []
    if cluster is not None:
        quantum = cluster.data_parallel
        text = f"{cluster.data_parallel} replicas"
        if cluster.micro_batch != "auto":
            quantum *= cluster.micro_batch
            text += f" x micro batch {cluster.micro_batch}"
        unit = math.lcm(unit, quantum)
        reasons.append(text)
    below = max(1, math.floor(asked / unit)) * unit
    above = below + unit
    # the ratio, because what a batch costs depends on its ratio to the critical one
    sequences = below if asked / below <= above / asked or asked <= below else above
    allowed = asked
    if spec.max is not None:
        limit = math.floor(spec.max.sequences(context.architecture.seq_len))
        cap = limit // unit * unit
        if cap < 1:
            raise context.declared.error(
                "batch.max", f"allows no batch in multiples of {unit} sequences"
            )
        allowed = min(asked, float(limit))
        if sequences > cap:
            sequences = cap
            reasons.append("batch.max")
    exact = float(sequences) == asked
    change = max(sequences / allowed, allowed / sequences)
    if cluster is not None and not exact:
        whole = max(1, round(allowed))
        if cluster.batch_fit == "exact" and sequences != whole:
            raise context.declared.error(
                "cluster",
                f"size {draft.size.name}: {' and '.join(reasons)} cannot make a batch of "
                f"{whole} sequences; the nearest is {sequences}",
            )
        if change > MAX_CHANGE:
            raise context.declared.error(
                "cluster",
                f"size {draft.size.name}: {' and '.join(reasons)} cannot make a batch near "
                f"{asked:.4g} sequences; the nearest is {sequences}, use fewer devices for it",
            )
    if exact:
        return sequences, allowed, None
    moved = "to the nearest " + (f"for {' and '.join(reasons)}" if reasons else "whole")
    return sequences, allowed, moved


def _micro_batch(context: Context, shape: Shape, sequences: int) -> int | None:
    """Return the sequences that pass through a device at once.

    ``auto`` is the largest divisor of a replica's share that fits the device's memory; None where
    the memory is not known, or the device keeps weights outside (the trainer decides there).
    """
    cluster = context.spec.cluster
    assert cluster is not None
    if cluster.micro_batch != "auto":
        return cluster.micro_batch
    accelerator = context.accelerator
    if accelerator is None or accelerator.weights_external:
        return None
    share = sequences // cluster.data_parallel
    # memory grows with the micro batch, so the largest divisor that fits can be searched downwards
    fitting = (
        micro
        for micro in sorted(_divisors(share), reverse=True)
        if cluster_memory(context, cluster, shape, micro).total <= accelerator.memory_bytes
    )
    return next(fitting, 1)


def _divisors(number: int) -> set[int]:
    small = [part for part in range(1, math.isqrt(number) + 1) if number % part == 0]
    return {*small, *(number // part for part in small)}


def cluster_memory(context: Context, cluster: Cluster, shape: Shape, micro: int) -> DeviceMemory:
    """Return what one device of the cluster holds at a micro batch."""
    return device_memory(
        context.architecture,
        shape,
        micro_batch=micro,
        precision=context.spec.precision,
        checkpointing=cluster.checkpointing,
        sharding=cluster.sharding,
        data_parallel=cluster.data_parallel,
        tensor_parallel=cluster.tensor,
        pipeline_parallel=cluster.pipeline,
    )
