"""References as files: ``planner.reference/1``, strict on the way in."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from planner.curves.errors import CurveError
from planner.curves.member import GRID, Member
from planner.curves.reference import Reference
from planner.curves.schedule import Schedule
from planner.documents import read_bytes, read_stdin
from planner.errors import PlannerError
from planner.plan.store import write_text

SCHEMA = "planner.reference/1"
_MAX_BYTES = 64 << 20
_DIGITS = 9  # significant ones of a stored number
_NOISE_DIGITS = 5  # of one point's noise

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(allow_inf_nan=False, gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Schedule(_Strict):
    fractions: list[Finite] = Field(min_length=1)
    factors: list[Finite] = Field(min_length=1)
    source: str

    @model_validator(mode="after")
    def _rises(self) -> _Schedule:
        if len(self.fractions) != len(self.factors):
            raise ValueError("fractions and factors differ in number")
        if any(b < a for a, b in zip(self.fractions, self.fractions[1:], strict=False)):
            raise ValueError("fractions fall")
        return self


class _Member(_Strict):
    run: str
    name: str
    params: Annotated[int, Field(gt=0)] | None
    final: Positive
    final_error: Annotated[float, Field(allow_inf_nan=False, ge=0)]
    tpp: Positive | None
    tau: Positive | None
    shape: list[Finite | None]
    error: list[Finite | None]
    steps: list[Annotated[int, Field(ge=0, lt=2**62)]] | None = None
    noise: list[Finite] | None = None

    @model_validator(mode="after")
    def _points(self) -> _Member:
        steps, noise = self.steps, self.noise
        if (steps is None) != (noise is None):
            raise ValueError(f"{self.name}: steps and noise belong together")
        if steps is not None and noise is not None:
            if not steps or len(steps) != len(noise):
                raise ValueError(f"{self.name}: steps and noise differ in number")
            if any(b <= a for a, b in pairwise(steps)):
                raise ValueError(f"{self.name}: steps do not rise")
        return self


class _File(_Strict):
    schema_: Literal["planner.reference/1"] = Field(alias="schema")
    metric: str
    source: str
    tpp: Positive | None
    tau: Positive | None
    offset: Finite
    schedule: _Schedule | None
    fractions: list[Finite] = Field(min_length=2)
    members: list[_Member] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> _File:
        grid = np.asarray(self.fractions)
        if not (np.all(np.diff(grid) > 0) and grid[0] > 0 and abs(grid[-1] - 1.0) < 1e-9):
            raise ValueError("fractions must rise from above 0 to 1")
        for member in self.members:
            for name in ("shape", "error"):
                row = getattr(member, name)
                if len(row) != grid.size:
                    raise ValueError(f"{member.name}: {name} has not as many numbers as fractions")
                if row[-1] is None:
                    raise ValueError(f"{member.name}: {name} is not known at the end")
        return self


def save_reference(reference: Reference, path: str | os.PathLike[str]) -> None:
    """Write a reference, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_text(path, dump_reference(reference))


def dump_reference(reference: Reference) -> str:
    """Return a reference as JSON, one member a line."""
    schedule = reference.schedule
    document = {
        "schema": SCHEMA,
        "metric": reference.metric,
        "source": reference.source,
        "tpp": reference.tpp,
        "tau": reference.tau,
        "offset": reference.offset,
        "schedule": None
        if schedule is None
        else {
            "fractions": _numbers(schedule.fractions),
            "factors": _numbers(schedule.factors),
            "source": schedule.source,
        },
        "fractions": _numbers(GRID),
    }
    members = [
        {
            "run": m.run,
            "name": m.name,
            "params": m.params,
            "final": m.final,
            "final_error": m.final_error,
            "tpp": m.tpp,
            "tau": m.tau,
            "shape": _numbers(m.shape),
            "error": _numbers(m.error),
            **_points(m),
        }
        for m in reference.members
    ]
    head = ",\n".join(f' "{key}": {json.dumps(value)}' for key, value in document.items())
    rows = ",\n".join("  " + json.dumps(member, ensure_ascii=False) for member in members)
    return f'{{\n{head},\n "members": [\n{rows}\n ]\n}}\n'


def load_reference(path: str | os.PathLike[str]) -> Reference:
    """Read a reference; ``-`` is standard input.

    Raises:
        CurveError: It cannot be read, is no reference, or holds what no reference holds.
    """
    name = os.fspath(path)
    shown = "<stdin>" if name == "-" else name
    try:
        data = read_stdin(_MAX_BYTES) if name == "-" else read_bytes(name, _MAX_BYTES)
    except PlannerError as error:
        raise CurveError(error.message, file=shown) from None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise CurveError("is no JSON document, wanted a reference", file=shown) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        got = document.get("schema") if isinstance(document, dict) else None
        raise CurveError(f"is no reference: got the schema {got!r}, wanted {SCHEMA!r}", file=shown)
    try:
        read = _File.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        message = first["msg"].removeprefix("Value error, ")
        raise CurveError(message[:1].lower() + message[1:], file=shown, field=field) from None
    # fractions as this version writes them: rows are taken as they are
    grid = None if read.fractions == _numbers(GRID) else np.log(np.asarray(read.fractions))
    schedule = None
    if read.schedule is not None:
        knots = np.asarray(read.schedule.fractions), np.asarray(read.schedule.factors)
        schedule = Schedule(*knots, read.schedule.source)
    members = tuple(
        Member(
            m.run,
            m.name,
            m.params,
            m.final,
            _row(m.shape, grid),
            _row(m.error, grid),
            m.final_error,
            m.tpp,
            m.tau,
            None if m.steps is None else np.asarray(m.steps, np.int64),
            None if m.noise is None else np.asarray(m.noise, np.float64),
        )
        for m in read.members
    )
    return Reference(
        read.metric,
        members,
        read.source,
        schedule,
        read.tau,
        read.tpp,
        read.offset,
    )


def _points(member: Member) -> dict[str, object]:
    if member.steps is None or member.noise is None:
        return {}
    noise = [float(f"{v:.{_NOISE_DIGITS}g}") for v in member.noise.tolist()]
    return {"steps": member.steps.tolist(), "noise": noise}


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{v:.{_DIGITS}g}") if np.isfinite(v) else None for v in values.tolist()]


def _row(values: list[float | None], grid: NDArray[np.float64] | None) -> NDArray[np.float64]:
    row = np.array([np.nan if v is None else v for v in values])
    if grid is None:
        return row
    known = np.isfinite(row)
    read = np.interp(np.log(GRID), grid[known], row[known])
    read[np.log(GRID) < grid[known][0] - 1e-7] = np.nan
    return np.asarray(read)
