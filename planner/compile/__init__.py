"""The compiler: passes from a spec to a plan."""

from planner.compile.pipeline import compile_plan

__all__ = ["compile_plan"]
