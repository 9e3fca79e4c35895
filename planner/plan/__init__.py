"""The plan: frozen, versioned, hashed, explainable, diffable."""

from planner.plan.codec import (
    dump_plan,
    load_plan,
    plan_document,
    plan_from_document,
    plan_json_schema,
    run_digest,
    sealed,
)
from planner.plan.diff import Change, diff_plans
from planner.plan.explain import Explanation, explain
from planner.plan.model import Plan, Run
from planner.plan.runfile import RunFile, dump_run_file, load_run_file
from planner.plan.store import read_plan, write_plan

__all__ = [
    "Change",
    "Explanation",
    "Plan",
    "Run",
    "RunFile",
    "diff_plans",
    "dump_plan",
    "dump_run_file",
    "explain",
    "load_plan",
    "load_run_file",
    "plan_document",
    "plan_from_document",
    "plan_json_schema",
    "read_plan",
    "run_digest",
    "sealed",
    "write_plan",
]
