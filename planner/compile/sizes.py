"""Sizes: explicit shapes, and shapes by the default rule from a parameter count."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.compile.draft import Note, SizePlan
from planner.errors import UnitError
from planner.models.architecture import Shape, count_params
from planner.models.shapes import shape_for
from planner.plan.model import Provenance
from planner.units import format_count, parse_count

if TYPE_CHECKING:
    from planner.models.architecture import Architecture
    from planner.spec.load import Declared
    from planner.spec.model import Size

LABEL_TOLERANCE = 0.05
"""How far a shape may be from the count that its name states before that is told."""

RULE = "width with depth = width / 50 nearest to params, then the nearest depth"


def size_plan(
    architecture: Architecture,
    convention: str,
    name: str,
    shape: Shape,
    trail: dict[str, Provenance],
    asked_params: float | None = None,
) -> SizePlan:
    """Return a size with its parameters counted."""
    counts = count_params(architecture, shape)
    n = int(getattr(counts, convention))
    counting = Provenance(
        formula="counted tensor by tensor",
        inputs={
            "d_model": shape.d_model,
            "n_layers": shape.n_layers,
            "d_ffn": shape.d_ffn,
            "padded_vocab_size": architecture.padded_vocab_size,
        },
    )
    trail = {f"params.{key}": counting for key in ("total", "non_embedding", "active")} | trail
    return SizePlan(name, shape, counts, n, asked_params, None, trail)


def listed_sizes(declared: Declared, architecture: Architecture, convention: str) -> list[SizePlan]:
    """Return the sizes that the spec lists, in its order.

    Raises:
        SpecError: If heads do not divide a width, or no shape comes near a count.
    """
    sizes = declared.spec.sizes.listed
    assert sizes is not None
    result = []
    for position, size in enumerate(sizes):
        place = f"sizes.{position}"
        if size.d_model is None:
            plan = _by_rule(declared, architecture, convention, size, place)
        else:
            shape = _explicit(declared, architecture, size, place)
            trail = _declared_trail(declared, size, shape, place)
            plan = size_plan(architecture, convention, size.name, shape, trail)
            plan = replace(plan, notes=_label_notes(declared, plan, place))
        result.append(replace(plan, batch=size.batch))
    return result


def _declared_trail(
    declared: Declared, size: Size, shape: Shape, place: str
) -> dict[str, Provenance]:
    """Return the trail of what a size declares itself; the rest follows from the family's rules."""
    origin = Provenance(declared=str(declared.origin(place)))
    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ffn")
    trail = {f"model.{key}": origin for key in names if getattr(size, key) is not None}
    if size.n_heads is not None and size.head_dim is None:
        trail["model.head_dim"] = Provenance(
            formula="d_model / n_heads",
            inputs={"d_model": shape.d_model, "n_heads": shape.n_heads},
        )
    return trail


def _label_notes(declared: Declared, plan: SizePlan, place: str) -> tuple[Note, ...]:
    """Warn where a user's own shape has a count for a name and another count of parameters.

    A preset's sizes keep their published names: Celerity's 300M has 271M.
    """
    if (*place.split("."), "d_model") not in declared.document.lines:
        return ()
    try:
        label = parse_count(plan.name)
    except UnitError:
        return ()
    if abs(plan.n / label - 1) <= LABEL_TOLERANCE:
        return ()
    text = f"size {plan.name!r} has {format_count(plan.n)} parameters"
    return (Note(f"label:{plan.name}", text),)


def _by_rule(
    declared: Declared, architecture: Architecture, convention: str, size: Size, place: str
) -> SizePlan:
    assert size.params is not None
    try:
        shape = shape_for(architecture, size.params, convention)
    except ValueError as error:
        raise declared.error(place, str(error)) from None
    origin = Provenance(
        formula=RULE,
        inputs={"params": size.params},
        declared=str(declared.origin(place)),
        exact=float(size.params),
        rounding="to whole heads and layers",
    )
    trail = {"model.d_model": origin, "model.n_layers": origin}
    return size_plan(architecture, convention, size.name, shape, trail, float(size.params))


def _explicit(declared: Declared, architecture: Architecture, size: Size, place: str) -> Shape:
    assert size.d_model is not None and size.n_layers is not None
    head_dim = size.d_model // size.n_heads if size.n_heads else size.head_dim
    if (
        head_dim is None
        and architecture.head_dim is not None
        and size.d_model % architecture.head_dim
    ):
        raise declared.error(
            place,
            f"architecture.head_dim {architecture.head_dim} does not divide d_model {size.d_model}",
        )
    groups = architecture.kv_groups if size.n_kv_heads is None else None
    try:
        shape = replace(architecture, kv_groups=groups).shape(size.d_model, size.n_layers, head_dim)
    except ValueError as error:  # the head width was checked: it is the groups
        raise declared.error("architecture.kv_groups", f"size {size.name}: {error}") from None
    if size.n_kv_heads is not None:
        if shape.n_heads % size.n_kv_heads:
            raise declared.error(
                place, f"n_kv_heads {size.n_kv_heads} does not divide {shape.n_heads} heads"
            )
        shape = replace(shape, n_kv_heads=size.n_kv_heads)
    if size.d_ffn is not None:
        shape = replace(shape, d_ffn=size.d_ffn)
    if architecture.position == "rope" and shape.head_dim % 2:
        raise declared.error(
            place, f"heads of {shape.head_dim} are odd; rope wants an even head width"
        )
    return shape
