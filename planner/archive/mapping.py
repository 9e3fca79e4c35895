"""Files that a person writes: a mapping file, and sidecars beside logs."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from planner.archive.errors import MappingError
from planner.archive.metadata import FACTS
from planner.archive.rules import Mapping
from planner.documents import Document, read_document
from planner.errors import PlannerError, UnitError, did_you_mean
from planner.units import parse_count, show

if TYPE_CHECKING:
    import os

MAPPING_SCHEMA = "planner.mapping/1"
_MAX_PATTERN = 500

Model = TypeVar("Model", bound=BaseModel)


def _count(value: Any) -> Any:
    return parse_count(value) if isinstance(value, (str, int)) and value is not True else value


def _pattern(value: str) -> str:
    if len(value) > _MAX_PATTERN:
        raise ValueError(f"is longer than {_MAX_PATTERN} characters")
    try:
        found = re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if found.groups < 1:
        raise ValueError("wanted a regular expression with a group that is the run's name")
    return value


Count = Annotated[int, BeforeValidator(_count), Field(ge=0, le=10**18)]
Real = Annotated[float, Field(allow_inf_nan=False)]
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Constants(BaseModel):
    """Facts that a person declares; they come before what a log says."""

    model_config = _STRICT

    params: Count | None = None
    tokens: Count | None = None
    batch_tokens: Count | None = None
    seq_len: Count | None = None
    total_steps: Count | None = None
    warmup_steps: Count | None = None
    seed: Count | None = None
    lr: Real | None = None
    min_lr: Real | None = None
    weight_decay: Real | None = None
    beta1: Real | None = None
    beta2: Real | None = None
    eps: Real | None = None
    tpp: Real | None = None
    tau: Real | None = None
    optimizer: str | None = None
    schedule: str | None = None
    tokenizer: str | None = None
    run_digest: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return what is declared."""
        return self.model_dump(exclude_none=True)


class Repairs(BaseModel):
    """How repairs are made, where it is not by default."""

    model_config = _STRICT

    duplicates: Literal["last", "first"] | None = None
    restarts: Literal["stitch", "keep"] | None = None
    parts: Literal["sort", "as_logged"] | None = None
    nonfinite: Literal["missing", "drop"] | None = None
    tokens: Literal["keep", "missing"] | None = None


class Rule(BaseModel):
    """What holds for the files whose path or name matches a pattern."""

    model_config = _STRICT

    match: Annotated[str, Field(min_length=1, max_length=_MAX_PATTERN)]
    reader: str | None = None
    ignore: bool = False
    run: Annotated[str, BeforeValidator(lambda v: _pattern(v) if isinstance(v, str) else v)] = ""
    columns: dict[str, str] = {}
    constants: Constants = Constants()
    policy: Repairs = Repairs()

    def matches(self, source: str) -> bool:
        """Return whether the rule holds for a file, by its path or by its name."""
        name = source.rpartition("/")[2]
        return fnmatch.fnmatchcase(source, self.match) or fnmatch.fnmatchcase(name, self.match)


class MappingFile(BaseModel):
    """The whole file."""

    model_config = _STRICT

    schema_: Annotated[Literal["planner.mapping/1"], Field(alias="schema")]
    files: list[Rule]


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """Read a mapping file.

    Raises:
        MappingError: If it cannot be read or is not a mapping, naming file, line and field.
    """
    from planner.archive.readers import reader_named

    document = _document(path)
    found = _validated(document, MappingFile)
    for i, rule in enumerate(found.files):
        if rule.reader is not None:
            try:
                reader_named(rule.reader)
            except MappingError as error:
                raise _at(document, ("files", str(i), "reader"), error.message) from None
    return Mapping(found.files)


def read_constants(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the facts that a sidecar declares.

    Raises:
        MappingError: If it cannot be read or is no sidecar, naming file, line and field.
    """
    return _validated(_document(path), Constants).facts()


def _document(path: str | os.PathLike[str]) -> Document:
    try:
        return read_document(path)
    except PlannerError as error:
        raise MappingError(
            error.message, file=error.file, line=error.line, field=error.field
        ) from None


def _validated(document: Document, model: type[Model]) -> Model:
    if not isinstance(document.value, dict):
        raise MappingError("wanted a mapping of names to values", file=document.name, line=1)
    try:
        return model.model_validate(document.value)
    except UnitError as error:
        raise MappingError(error.message, file=document.name) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = list(FACTS) if "constants" in place or model is Constants else list(_KEYS)
            message = f"is no known key; {did_you_mean(place[-1], known)}"
        elif first["type"] == "missing":
            message = "is missing"
        elif not first["type"].startswith("value_error"):
            message = f"got {show(first['input'])}: {message[:1].lower()}{message[1:]}"
        raise _at(document, place, message) from None


_KEYS = ("schema", "files", *Rule.model_fields, *Repairs.model_fields)


def _at(document: Document, place: tuple[str, ...], message: str) -> MappingError:
    return MappingError(
        message,
        file=document.name,
        line=document.line(place),
        field=".".join(place) or None,
    )
