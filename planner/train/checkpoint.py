"""Checkpoints: whole tensors in one file, written beside and moved, so that none is ever half.

A checkpoint does not depend on how many processes wrote it; another number may go on from it.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from planner.errors import OutputError
from planner.train.errors import CheckpointError
from planner.train.parallel import barrier, fill, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from planner.train.parallel import Workers

    Tensors = Sequence[tuple[str, str, nn.Parameter]]

FOLDER = "checkpoints"
SCHEMA = "planner.checkpoint/1"
_NAME = re.compile(r"step-(\d{8,})\.pt\Z")


def checkpoint_name(step: int) -> str:
    """Return the file name of a step's checkpoint."""
    return f"step-{step:08d}.pt"


def latest(out: Path) -> Path | None:
    """Return the newest checkpoint of a run's folder, or None."""
    found = _all(out)
    return found[-1][1] if found else None


def save(
    out: Path,
    step: int,
    tensors: Tensors,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    who: Workers,
    keep: int,
) -> None:
    """Write the state after ``step`` updates and remove all but the newest ``keep`` checkpoints.

    Args:
        out: The run's folder.
        step: Updates done; it is also the position in the data.
        tensors: (name, tensor class, parameter) of all parameters, perhaps sharded.
        optimizer: Its AdamW.
        identity: What a run that goes on from here must agree with.
        who: This process; all of them must call.
        keep: How many checkpoints stay.

    Raises:
        OutputError: If it cannot be written.
    """
    state: dict[str, Any] = {"model": {}, "optimizer": {}}
    for name, _, parameter in tensors:
        moments = optimizer.state.get(parameter, {})
        kept = {key: whole(value).cpu() for key, value in moments.items()}
        weight = whole(parameter.detach()).cpu()
        if who.first:
            state["model"][name] = weight
            state["optimizer"][name] = kept
    if who.first:
        state |= {
            "schema": SCHEMA,
            "step": step,
            "identity": dict(identity),
            "rng": torch.get_rng_state(),
        }
        folder = out / FOLDER
        try:
            _write(state, folder / checkpoint_name(step))
            for _, path in _all(out)[:-keep]:
                path.unlink()
            for path in folder.glob("step-*.new"):
                path.unlink()  # of a start that was killed while it wrote
        except OSError as error:
            raise OutputError(
                f"cannot write the checkpoint: {error.strerror or error}", file=str(folder)
            ) from None
    barrier(who)


def restore(
    path: Path,
    tensors: Tensors,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
) -> int:
    """Put a checkpoint's state into parameters and optimizer; return how many updates it has seen.

    Raises:
        CheckpointError: If it cannot be read, or is of another run.
    """
    state = _read(path)
    found = state["identity"]
    for key, value in identity.items():
        if found.get(key) != value:
            raise CheckpointError(
                f"is of another run: its {key} is {found.get(key)!r}, not {value!r}; "
                "choose another output folder",
                file=str(path),
            )
    with torch.no_grad():
        for name, _, parameter in tensors:
            weight, kept = state["model"].get(name), state["optimizer"].get(name)
            wanted = [weight, *(value for value in (kept or {}).values() if value.dim())]
            if kept is None or any(x is None or x.shape != parameter.shape for x in wanted):
                raise CheckpointError(
                    f"has no whole {name} of shape {tuple(parameter.shape)}; move it away",
                    file=str(path),
                )
            fill(parameter, weight)
            moments: dict[str, torch.Tensor] = {}
            for key, value in kept.items():
                if value.dim() == 0:
                    # the step count: fused AdamW reads it where the parameter is
                    moments[key] = value.to(parameter.device)
                else:
                    moments[key] = torch.zeros_like(parameter)
                    fill(moments[key], value)
            if moments:
                optimizer.state[parameter] = moments
    torch.set_rng_state(state["rng"])
    return int(state["step"])


def _read(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Raises:
        CheckpointError: If it cannot be read, was damaged, or is none of ours.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # PyTorch does not look at its checksums
        state = {} if damaged else dict(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise CheckpointError(
            f"cannot be read: {error.strerror or error}", file=str(path)
        ) from None
    except Exception:  # whatever the reader makes of a file that is none of ours
        state = {}
    parts = {"model", "optimizer", "identity", "rng", "step"}
    if state.get("schema") != SCHEMA or not parts <= state.keys():
        raise CheckpointError(
            "is not a whole checkpoint of this trainer; move it away, and the run goes on from "
            "the one before",
            file=str(path),
        )
    return state


def _write(state: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    try:
        with open(beside, "wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        # PyTorch's writer says what it makes of a full disk in words of its own
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _all(out: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of all checkpoints, oldest first."""
    folder = out / FOLDER
    try:
        paths = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", file=str(folder)) from None
    matches = ((_NAME.match(path.name), path) for path in paths)
    return sorted((int(match[1]), path) for match, path in matches if match)
