"""The spec: what a user declares, with errors that name the file, line and field."""

from planner.spec.load import Declared, load_preset, load_spec, parse_spec, preset_names
from planner.spec.model import Spec, spec_json_schema

__all__ = [
    "Declared",
    "Spec",
    "load_preset",
    "load_spec",
    "parse_spec",
    "preset_names",
    "spec_json_schema",
]
