"""Plans to and from JSON, their digests, and canonical JSON.

Two digests are kept. A run's digest covers what will be trained: its JSON without audit,
prediction and digest. It is what a log is matched by. The plan's digest covers the whole file, so
that an edit shows.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from planner.errors import PlanFileError
from planner.plan.model import SCHEMA, Plan, Run
from planner.units import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Python names that JSON spells otherwise.
_JSON_NAMES = {"tensor_class": "class"}
_PYTHON_NAMES = {json_name: name for name, json_name in _JSON_NAMES.items()}
_NOT_IN_RUN_DIGEST = ("digest", "audit", "predicted")
_PLAIN = frozenset((str, int, float, bool, type(None)))
MAX_BYTES = 64 * 1024 * 1024
"""Of a plan file: several times what the largest spec compiles to."""


@functools.cache
def _field_names(kind: Any) -> tuple[tuple[str, str], ...] | None:
    """Return a dataclass's field names in Python and in JSON; None for any other type."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(
        (item.name, _JSON_NAMES.get(item.name, item.name)) for item in dataclasses.fields(kind)
    )


def to_json(value: Any) -> Any:
    """Return plan objects as plain JSON values (dicts, lists, numbers, text)."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    names = _field_names(kind)
    if names is not None:
        return {in_json: to_json(getattr(value, name)) for name, in_json in names}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def shallow(value: Any) -> dict[str, Any]:
    """Return a plan object's fields by their names in JSON, themselves as they are."""
    kind: Any = type(value)
    return {in_json: getattr(value, name) for name, in_json in _field_names(kind) or ()}


def indented(value: Any) -> str:
    """Return a value as JSON on many lines: what ``json.dumps(to_json(value), indent=1)`` gives.

    That encoder is pure Python where it indents; this one takes a third of its time, which counts
    for plans of a thousand runs.

    Raises:
        ValueError: If a number is not finite.
    """
    parts: list[str] = []
    _indent(value, "\n", parts.append)
    return "".join(parts)


def _indent(value: Any, newline: str, add: Callable[[str], None]) -> None:
    """Add the parts of a value's JSON; ``newline`` is a line feed and the indentation so far."""
    kind: Any = type(value)
    if kind is str:
        add(encode_basestring(value))
    elif kind is float:
        if value - value != 0.0:
            raise ValueError(f"the number {value} has no JSON form")
        add(repr(value))
    elif kind is int:
        add(repr(value))
    elif value is None or kind is bool:
        add("null" if value is None else "true" if value else "false")
    else:
        names = _field_names(kind)
        inner = newline + " "
        if names is not None:
            mark = "{"
            for name, in_json in names:
                add(f'{mark}{inner}"{in_json}": ')
                _indent(getattr(value, name), inner, add)
                mark = ","
            add(f"{newline}}}" if names else "{}")
        elif isinstance(value, dict):
            mark = "{"
            for key, item in value.items():
                add(f"{mark}{inner}{encode_basestring(key)}: ")
                _indent(item, inner, add)
                mark = ","
            add(f"{newline}}}" if value else "{}")
        elif isinstance(value, (list, tuple)):
            mark = "["
            for item in value:
                add(f"{mark}{inner}")
                _indent(item, inner, add)
                mark = ","
            add(f"{newline}]" if value else "[]")
        else:
            raise TypeError(f"a {kind.__name__} has no JSON form")


def canonical(value: Any) -> bytes:
    """Return the one JSON spelling of a value that digests are taken of."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: Any) -> str:
    """Return ``sha256:`` and the hash of the canonical JSON of ``value``."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def run_digest(run: Run | Mapping[str, Any]) -> str:
    """Return the digest of what a run trains: its JSON less digest, audit and prediction."""
    document = to_json(run)
    return digest({k: v for k, v in document.items() if k not in _NOT_IN_RUN_DIGEST})


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return the plan as the JSON document of the contract, its schema first."""
    return {"schema": SCHEMA, **to_json(plan)}


def plan_digest(document: Mapping[str, Any]) -> str:
    """Return the digest of a whole plan document, leaving out its ``digest`` field."""
    return digest({key: value for key, value in document.items() if key != "digest"})


def sealed(plan: Plan) -> Plan:
    """Return the plan with its runs' digests and its own filled in."""
    runs = tuple(dataclasses.replace(run, digest=run_digest(run)) for run in plan.runs)
    plan = dataclasses.replace(plan, runs=runs)
    return dataclasses.replace(plan, digest=plan_digest(plan_document(plan)))


def dump_plan(plan: Plan) -> str:
    """Return the plan file's text: indented JSON, the same bytes for the same plan."""
    return indented({"schema": SCHEMA, **shallow(plan)}) + "\n"


def load_plan(text: str | bytes, name: str = "<plan>") -> Plan:
    """Read a plan file's text and check its schema, fields and digests.

    Args:
        text: The JSON text.
        name: What to call the file in errors.

    Raises:
        PlanFileError: If it is not JSON, not a plan, of another version, or was edited.
    """
    if len(text) > MAX_BYTES:
        raise PlanFileError(
            f"has {len(text):,} bytes, wanted at most {MAX_BYTES:,}: is this the right file?",
            file=name,
        )
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_without_repeats)
    except PlanFileError as error:
        raise PlanFileError(error.message, file=name) from None
    except UnicodeDecodeError:
        raise PlanFileError("is not a plan: it is not UTF-8 text", file=name) from None
    except json.JSONDecodeError as error:
        raise PlanFileError(
            f"is not a plan: {_json_problem(error)}", file=name, line=error.lineno
        ) from None
    except (RecursionError, ValueError):
        raise PlanFileError("is not a plan: its JSON cannot be read", file=name) from None
    return plan_from_document(document, name)


def _json_problem(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "it is empty"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
        return "its JSON is cut short"
    return f"it is not JSON ({error.msg[0].lower()}{error.msg[1:]})"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise PlanFileError(f"is not a plan: the key {show(key)} is there twice")
        result[key] = value
    return result


def plan_from_document(document: Any, name: str = "<plan>") -> Plan:
    """Build a plan from its JSON document, checking schema, fields and digests.

    Raises:
        PlanFileError: As `load_plan`.
    """
    if not isinstance(document, dict) or "schema" not in document:
        raise PlanFileError(f'is not a plan: it has no "schema": "{SCHEMA}"', file=name)
    if document["schema"] != SCHEMA:
        raise PlanFileError(
            f"got {show(document['schema'])}, wanted {SCHEMA!r}", file=name, field="schema"
        )
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    body = _renamed({key: value for key, value in document.items() if key != "schema"})
    try:
        _forbid_extra(Plan, ConfigDict(extra="forbid"))
        plan: Plan = TypeAdapter(Plan).validate_python(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(_JSON_NAMES.get(str(part), part)) for part in first["loc"])
        raise PlanFileError(_sentence(first), file=name, field=field) from None
    try:
        # of what was written and of what was understood: they differ where a number is text
        digests = {plan_digest(document), plan_digest(plan_document(plan))}
    except ValueError:  # a number beyond floats, or text that is no Unicode
        raise PlanFileError("is not a plan: its JSON cannot be read", file=name) from None
    if digests != {plan.digest}:
        raise PlanFileError(
            "was changed after it was planned: its digest does not match; plan again from the spec",
            file=name,
            field="digest",
        )
    names = set()
    for position, run in enumerate(plan.runs):
        if run.name in names:
            raise PlanFileError(
                f"got the run {show(run.name)} twice", file=name, field=f"runs.{position}.name"
            )
        names.add(run.name)
        if run_digest(run) != run.digest:
            raise PlanFileError(
                f"run {show(run.name)} does not match its digest; plan again from the spec",
                file=name,
                field=f"runs.{position}.digest",
            )
    return plan


def run_from_document(document: Any, name: str = "<run>") -> Run:
    """Build one run from its JSON document, checking its fields and its digest.

    Raises:
        PlanFileError: If it is none, or was edited.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        _forbid_extra(Run, ConfigDict(extra="forbid"))
        run: Run = TypeAdapter(Run).validate_python(_renamed_run(document))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(_JSON_NAMES.get(str(part), part)) for part in ("run", *first["loc"]))
        raise PlanFileError(_sentence(first), file=name, field=field) from None
    try:
        digests = {run_digest(document), run_digest(run)}
    except ValueError:
        raise PlanFileError("its numbers cannot be read", file=name, field="run") from None
    if digests != {run.digest}:
        raise PlanFileError(
            "was changed after it was planned: its digest does not match; render it again",
            file=name,
            field="run.digest",
        )
    return run


def _sentence(item: Any) -> str:
    """Return what pydantic found in words: what was got, what was wanted."""
    match item["type"]:
        case "missing":
            return "is missing"
        case "unexpected_keyword_argument":
            return "is unknown: was it written by another version?"
        case "int_from_float":
            wanted = "a whole number"
        case "tuple_type":
            wanted = "a list"
        case "dataclass_type" | "dict_type":
            wanted = "a mapping"
        case _:
            wanted = item["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"got {show(item['input'])}, wanted {wanted}"


def plan_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a plan file."""
    from pydantic import ConfigDict, TypeAdapter

    _forbid_extra(Plan, ConfigDict(extra="forbid"))
    schema: dict[str, Any] = TypeAdapter(Plan).json_schema()
    tensor = schema["$defs"]["Tensor"]
    for name, json_name in _JSON_NAMES.items():
        tensor["properties"] = {
            json_name if key == name else key: item for key, item in tensor["properties"].items()
        }
        tensor["required"] = [json_name if key == name else key for key in tensor["required"]]
    schema["properties"] = {"schema": {"const": SCHEMA}, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's JSON with the JSON-only names of its tensor rows turned into Python's."""
    runs = document.get("runs")
    if not isinstance(runs, list):
        return document
    return {**document, "runs": [_renamed_run(run) for run in runs]}


def _renamed_run(run: Any) -> Any:
    if not isinstance(run, dict) or not isinstance(run.get("tensors"), list):
        return run
    rows = [
        {_PYTHON_NAMES.get(key, key): item for key, item in row.items()}
        if isinstance(row, dict)
        else row
        for row in run["tensors"]
    ]
    return {**run, "tensors": rows}


def _no_constant(name: str) -> None:
    raise PlanFileError(f"is not a plan: it holds {name}, which is no JSON number")


def _forbid_extra(root: type, config: Any) -> None:
    """Make pydantic refuse unknown fields in every dataclass of the plan."""
    from planner.plan import model

    for item in vars(model).values():
        if dataclasses.is_dataclass(item) and isinstance(item, type):
            item.__pydantic_config__ = config  # type: ignore[attr-defined]
