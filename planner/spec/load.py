"""From a YAML file to a spec: presets merged in, errors with file, line and field."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from planner.documents import Document, Place, parse_document, read_document
from planner.errors import PlannerError, SpecError, SpecErrors, did_you_mean, nearest
from planner.spec import model
from planner.spec.model import Spec
from planner.units import show

_PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a declared value stands."""

    file: str
    line: int | None
    preset: str | None

    def __str__(self) -> str:
        """Return ``spec line 12`` or ``preset celerity``: the same wherever the files lie."""
        return f"preset {self.preset}" if self.preset else f"spec line {self.line}"


@dataclass(slots=True)
class Declared:
    """A spec, and where each of its values came from.

    Attributes:
        spec: The validated spec.
        document: The user's own file.
        preset: The preset's file, if one is used.
        assumed: Dotted field of the preset to the reason it is assumed; overridden ones left out.
        warnings: What else a reader should know of how spec and preset went together.
    """

    spec: Spec
    document: Document
    preset: Document | None = None
    assumed: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def origin(self, dotted: str) -> Origin | None:
        """Return where a field was declared, or None if it was left to a default.

        Args:
            dotted: The field, such as ``parametrization.base_lr``; ``sizes.0.d_model`` for lists.
        """
        place = tuple(dotted.split("."))
        for document, preset in ((self.document, None), (self.preset, self.spec.preset)):
            if document is None:
                continue
            for end in range(len(place), 0, -1):
                if place[:end] in document.lines:
                    # a short spelling declares all of its section; a mapping only what it names
                    if end < len(place) and isinstance(_get(document.value, place[:end]), dict):
                        break
                    return Origin(document.name, document.lines[place[:end]], preset)
        return None

    def error(self, dotted: str, message: str) -> SpecError:
        """Return an error about a field, with the place of its declaration."""
        origin = self.origin(dotted)
        if origin is not None and origin.preset is None:
            return SpecError(message, file=origin.file, line=origin.line, field=dotted)
        if origin is not None:
            message += f" (declared by the preset {origin.preset})"
        line = self.document.line(tuple(dotted.split(".")))
        return SpecError(message, file=self.document.name, line=line, field=dotted)

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the spec start from."""
        return Path(self.document.name).parent


def load_spec(path: str | os.PathLike[str]) -> Declared:
    """Read a spec file; ``-`` is standard input.

    Raises:
        SpecError: If it cannot be read, parsed or validated, naming file, line and field.
    """
    return declare(read_document(path))


def parse_spec(text: str, name: str = "<spec>") -> Declared:
    """Read a spec from text.

    Raises:
        SpecError: As `load_spec`.
    """
    return declare(parse_document(text, name))


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


def load_preset(name: object) -> Document:
    """Read a preset.

    Raises:
        SpecError: If there is none of that name.
    """
    if name not in preset_names():
        hint = did_you_mean(str(name), preset_names())
        raise SpecError(f"got {show(name)}; {hint}", field="preset")
    return read_document(_PRESETS / f"{name}.yaml")


def declare(document: Document) -> Declared:
    """Read a spec from a document that was parsed already.

    Raises:
        SpecError: As `load_spec`.
    """
    if not isinstance(document.value, dict):
        raise SpecError(
            f"got {show(document.value)}, wanted a mapping with 'family', 'tpp' and 'sizes'",
            file=document.name,
            line=document.line(()),
        )
    document = _kinds_written_out(_without_empty(document))
    value = document.value
    preset, assumed, warnings = None, {}, []
    if "preset" in value:
        try:
            preset = load_preset(value["preset"])
        except SpecError as error:
            raise SpecError(
                error.message,
                file=document.name,
                line=document.line(("preset",)),
                field="preset",
            ) from None
        base = dict(preset.value)
        assumed = {str(key): str(reason) for key, reason in base.pop("assumed", {}).items()}
        base.pop("about", None)
        assumed = {key: why for key, why in assumed.items() if not _declared(document, key)}
        kind = _get(value, ("parametrization", "kind"))
        tuned_for = _get(base, ("parametrization", "kind"))
        if kind is not None and kind != tuned_for:
            warnings.append(
                f"parametrization: the preset's base values are for {tuned_for}, not for {kind}"
            )
        value = _merged(base, value)
    value = _with_preset_shapes(value, preset, document)
    try:
        spec = Spec.model_validate(value)
    except ValidationError as error:
        raise _spec_error(error, document, value) from None
    return Declared(spec, document, preset, assumed, tuple(warnings))


def _without_empty(document: Document) -> Document:
    """Return a document without the optional sections that are left empty (``cluster:``).

    A section that must be declared stays: left empty it is more likely forgotten than meant.
    """
    known = {info.alias or name for name, info in Spec.model_fields.items()}
    optional = known.difference(model.REQUIRED)
    kept = {k: item for k, item in document.value.items() if item is not None or k not in optional}
    lines = {place: n for place, n in document.lines.items() if not place or place[0] in kept}
    return Document(document.name, kept, lines)


def _declared(document: Document, dotted: str) -> bool:
    """Return whether the user's own file declares a field or, in short, its section."""
    place = tuple(dotted.split("."))
    for end in range(len(place), 0, -1):
        if place[:end] in document.lines:
            return end == len(place) or not isinstance(_get(document.value, place[:end]), dict)
    return False


def _get(value: Any, place: Place) -> Any:
    for part in place:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


# Sections that say how one quantity is chosen: declaring one replaces the preset's whole choice.
_WHOLE = ("tpp", "sizes", "compute", "timescale", "batch", "cluster", "seeds")
# What a preset says for one kind only, and another kind does not take over.
_OF_KIND = {"schedule": ("final_lr_fraction", "decay_fraction"), "parametrization": ("decay",)}


def _kinds_written_out(document: Document) -> Document:
    """Return the document with ``schedule: cosine`` as ``schedule: {kind: cosine}``.

    So that it declares the kind and nothing else: the rest may still come from a preset.
    """
    short = [key for key in _OF_KIND if isinstance(document.value.get(key), str)]
    value = {**document.value, **{key: {"kind": document.value[key]} for key in short}}
    lines = document.lines | {(key, "kind"): document.lines[key,] for key in short}
    return Document(document.name, value, lines)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return a preset with the user's values over it, section by section."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if key in _WHOLE or not isinstance(value, dict) or not isinstance(below, dict):
            result[key] = value
            continue
        if "kind" in value and value["kind"] != below.get("kind"):
            kept = _OF_KIND.get(key, ())
            below = {name: item for name, item in below.items() if name not in kept}
        result[key] = {**below, **value}
    return result


def _with_preset_shapes(
    value: dict[str, Any], preset: Document | None, document: Document
) -> dict[str, Any]:
    """Replace size names by the shapes that a preset gives them.

    ``sizes: {preset: NAME}`` takes all shapes of a preset; with a preset in use, a listed name that
    it knows means its shape.
    """
    sizes = value.get("sizes")
    if isinstance(sizes, dict) and "preset" in sizes:
        if len(sizes) > 1:
            raise SpecError(
                "got a preset and other keys, wanted the preset alone",
                file=document.name,
                line=document.line(("sizes",)),
                field="sizes",
            )
        try:
            shapes = load_preset(sizes["preset"]).value["sizes"]
        except SpecError as error:
            raise SpecError(
                error.message,
                file=document.name,
                line=document.line(("sizes", "preset")),
                field="sizes.preset",
            ) from None
        return {**value, "sizes": shapes}
    if preset is not None and isinstance(sizes, list):
        known = {
            size["name"]: size for size in preset.value.get("sizes", []) if isinstance(size, dict)
        }
        sizes = [known.get(item, item) if isinstance(item, str) else item for item in sizes]
        if "batch" in document.value:
            # the user's own choice of batch replaces the preset's row
            rows = list(known.values())
            sizes = [
                {key: item for key, item in size.items() if key != "batch"}
                if size in rows
                else size
                for size in sizes
            ]
        return {**value, "sizes": sizes}
    return value


_TOLD = 10  # errors of one spec that are told; the others are counted


def _spec_error(error: ValidationError, document: Document, value: dict[str, Any]) -> SpecError:
    details = error.errors(include_url=False)
    found: dict[Place, tuple[int, Any]] = {}
    for item in details:
        if item["type"] == "too_short" and len(details) > 1:
            continue  # a list that is short only because its items are wrong
        missing = item["type"] == "missing"
        place = _written(item["loc"], value, keep_last=missing)
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, PlannerError) and cause.field:
            place = (*place, *cause.field.split("."))
        line = document.line(place[:-1] if missing else place) or 0
        found.setdefault(place, (line, item))  # of a union's alternatives the first
    for place in _misspelled(found):
        found.pop(place, None)
    ordered = sorted(found.items(), key=lambda pair: (pair[1][0], pair[0]))
    errors = [
        SpecError(
            _sentence(item),
            file=document.name,
            line=line or None,
            field=".".join(part or "''" for part in place) or None,
        )
        for place, (line, item) in ordered[:_TOLD]
    ]
    return errors[0] if len(ordered) == 1 else SpecErrors(errors, len(ordered) - len(errors))


def _misspelled(found: dict[Place, tuple[int, Any]]) -> list[Place]:
    """Return the missing fields that an unknown key beside them was meant to be."""
    meant = []
    for place, (_, item) in list(found.items())[:_TOLD]:
        if item["type"] == "extra_forbidden":
            near = nearest(place[-1], _section_fields(item["loc"][:-1]))
            if near is not None:
                meant.append((*place[:-1], near))
    return [place for place in meant if place in found and found[place][1]["type"] == "missing"]


def _written(loc: tuple[int | str, ...], value: Any, *, keep_last: bool) -> Place:
    """Return a location in the user's own words: parts that a short spelling leaves out skipped."""
    place: list[str] = []
    for position, part in enumerate(map(str, loc)):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif not (keep_last and position == len(loc) - 1):
            continue
        place.append(part)
    return tuple(place)


def _sentence(item: Any) -> str:
    """Return one sentence: what was got, what was wanted."""
    kind, got = item["type"], item["input"]
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, PlannerError):
        return cause.message
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            name = str(item["loc"][-1])
            return f"is unknown; {did_you_mean(name, _section_fields(item['loc'][:-1]))}"
        case "literal_error":
            expected = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return f"got {show(got)}; {did_you_mean(str(got), expected)}"
        case "bool_parsing" | "bool_type":
            wanted = "true or false"
        case "tuple_type":
            wanted = "a list"
        case "dict_type":
            wanted = "a mapping"
        case "string_type":
            wanted = "text"
        case "less_than_equal":
            return f"got {show(got)}, wanted at most {item['ctx']['le']:,}"
        case "greater_than_equal":
            return f"got {show(got)}, wanted at least {item['ctx']['ge']:,}"
        case "too_short" | "string_too_short":
            return "is empty"
        case "too_long":
            limit, actual = item["ctx"]["max_length"], item["ctx"]["actual_length"]
            return f"got {actual or len(got):,} items, wanted at most {limit:,}"
        case "string_too_long":
            return f"got {len(got):,} characters, wanted at most {item['ctx']['max_length']}"
        case _:
            message = item["msg"].removeprefix("Input should be ")
            wanted = f"{message[0].lower()}{message[1:]}"
    return f"got {show(got)}, wanted {wanted}"


def _section_fields(loc: tuple[Any, ...]) -> list[str]:
    """Return the names that a section knows, following the spec's models along a location."""
    section: type[BaseModel] = Spec
    for part in loc:
        if not isinstance(part, str) or part not in section.model_fields:
            continue
        found = _model_in(section.model_fields[part].annotation)
        section = found or section
    return [info.alias or name for name, info in section.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, model.Section):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found is not None:
            return found
    return None
