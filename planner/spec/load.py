"""From a YAML file to a spec: presets merged in, errors with file, line and field."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from planner.documents import Document, Place, parse_document, read_document
from planner.errors import PlannerError, SpecError, SpecErrors, did_you_mean
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
    """

    spec: Spec
    document: Document
    preset: Document | None = None
    assumed: dict[str, str] = field(default_factory=dict)

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
    return _declare(read_document(path))


def parse_spec(text: str, name: str = "<spec>") -> Declared:
    """Read a spec from text.

    Raises:
        SpecError: As `load_spec`.
    """
    return _declare(parse_document(text, name))


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


def load_preset(name: str) -> Document:
    """Read a preset.

    Raises:
        SpecError: If there is none of that name.
    """
    if name not in preset_names():
        raise SpecError(f"got {show(name)}; {did_you_mean(name, preset_names())}", field="preset")
    return read_document(_PRESETS / f"{name}.yaml")


def _declare(document: Document) -> Declared:
    value = document.value
    if not isinstance(value, dict):
        raise SpecError(
            f"got {show(value)}, wanted a mapping with 'family' and 'tpp'",
            file=document.name,
            line=document.line(()),
        )
    preset, assumed = None, {}
    if value.get("preset") is not None:
        try:
            preset = load_preset(str(value["preset"]))
        except SpecError as error:
            raise SpecError(
                error.message,
                file=document.name,
                line=document.line(("preset",)),
                field="preset",
            ) from None
        base = dict(preset.value)
        assumed = {str(key): str(reason) for key, reason in base.pop("assumed", {}).items()}
        for key in ("about",):
            base.pop(key, None)
        assumed = {key: why for key, why in assumed.items() if not _declared(document, key)}
        value = _merged(base, value)
    value = _with_preset_shapes(value, preset, document)
    try:
        spec = Spec.model_validate(value)
    except ValidationError as error:
        raise _spec_error(error, document, value) from None
    return Declared(spec, document, preset, assumed)


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


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return a preset with the user's values over it, section by section."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if key in _OF_KIND and isinstance(value, str):
            value = {"kind": value}
        if key in _WHOLE or not isinstance(value, dict) or not isinstance(below, dict):
            result[key] = value
            continue
        if "kind" in value and value["kind"] != below.get("kind"):
            below = {name: item for name, item in below.items() if name not in _OF_KIND[key]}
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
                "got a preset and other keys, wanted one",
                file=document.name,
                line=document.line(("sizes",)),
                field="sizes",
            )
        try:
            shapes = load_preset(str(sizes["preset"])).value["sizes"]
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


def _spec_error(error: ValidationError, document: Document, value: dict[str, Any]) -> SpecError:
    found: list[SpecError] = []
    details = error.errors()
    for item in details:
        if item["type"] == "too_short" and len(details) > 1:
            continue  # a list that is short only because its items are wrong
        place = _written(item["loc"], value, keep_last=item["type"] == "missing")
        found.append(
            SpecError(
                _sentence(item),
                file=document.name,
                line=document.line(place[:-1] if item["type"] == "missing" else place),
                field=".".join(place) or None,
            )
        )
    unique = {str(item): item for item in found}
    ordered = sorted(unique.values(), key=lambda item: (item.line or 0, item.field or ""))
    return ordered[0] if len(ordered) == 1 else SpecErrors(ordered)


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
            known = _section_fields(item["loc"][:-1])
            return f"is unknown; {did_you_mean(name, known)}"
        case "literal_error":
            expected = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return f"got {show(got)}; {did_you_mean(str(got), expected)}"
        case "bool_parsing" | "bool_type":
            return f"got {show(got)}, wanted true or false"
        case "tuple_type":
            return f"got {show(got)}, wanted a list"
        case "string_type":
            return f"got {show(got)}, wanted text"
        case _:
            message = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            return f"got {show(got)}, wanted {message[0].lower()}{message[1:]}"


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
