"""What the verbs print for people: tables that fit 80 columns, warnings on standard error."""

from __future__ import annotations

import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from planner.units import count_of, format_bytes, format_count, format_flops

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import JustifyMethod

    from planner.laws import Compression, Law
    from planner.plan import Plan, Run
    from planner.plan.diff import Change
    from planner.plan.explain import Explanation
    from planner.render import Bundle, Check

_PIPE_WIDTH = 1000
_ASSUMED = " is assumed: "


def console(*, err: bool = False) -> Console:
    """Return a console; in a pipe it prints plain text of any width, without escape codes."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=err, highlight=False, soft_wrap=False, width=width)


def print_plan(plan: Plan) -> None:
    """Print a plan, one table a band, then its audit; warnings go to standard error."""
    out = console()
    p = plan.parametrization
    out.print(Text(plan.family, style="bold"), Text(plan.digest[:19], style="dim"))
    out.print(
        f"{p.kind}, {p.decay} decay, base learning rate {p.base_lr:g} at width {p.base_width}"
        + (f" and depth {p.base_depth}" if p.kind == "completep" else "")
        + f"; N counts {plan.conventions.params}, FLOPs by the {plan.conventions.flops} rule"
        + (
            f" ({plan.conventions.attention} attention)"
            if plan.conventions.flops == "exact"
            else ""
        )
    )
    for runs in _by_band(plan.runs):
        out.print(_band_title(runs))
        out.print(_band_table(runs, out.width))
    _print_audit(plan, out)
    print_warnings(plan.warnings)


def _by_band(runs: Sequence[Run]) -> list[list[Run]]:
    bands: list[list[Run]] = []
    seen: set[str] = set()
    for run in runs:
        # a band ends where a size comes again
        if not bands or run.size in seen:
            bands.append([])
            seen = set()
        bands[-1].append(run)
        seen.add(run.size)
    return bands


def _band_title(runs: Sequence[Run]) -> Text:
    first = runs[0]
    asked = next((line.asked for line in first.audit if line.field == "tpp"), first.tpp)
    taus = {f"{run.optimizer.tau:.3g}" for run in runs if run.optimizer.tau is not None}
    tau = f"tau {taus.pop()}" if len(taus) == 1 else "tau differs by size"
    return Text(f"\n{asked:.4g} TPP, {tau}, {first.schedule.kind}", style="bold")


def _band_table(runs: Sequence[Run], room: int) -> Table:
    rows = [
        (
            run.size if all(line.ok for line in run.audit) else f"{run.size} !",
            format_count(run.params.total),
            f"{run.model.d_model}x{run.model.n_layers}",
            str(run.batch.sequences),
            str(run.steps),
            str(run.warmup_steps),
            format_count(run.tokens),
            f"{run.optimizer.base_weight_decay:.3g}",
            format_flops(run.flops.total),
            "" if run.predicted.loss is None else f"{run.predicted.loss:.3f}",
        )
        for run in runs
    ]
    names = ("size", "params", "shape", "batch", "steps", "warmup", "tokens", "lambda")
    header = (*names, "FLOPs", "loss")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    # where room is short the size's name gives way, never a number
    widths[0] = max(8, min(widths[0], room - sum(widths[1:]) - 2 * (len(widths) - 1)))
    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, width in zip(header, widths, strict=True):
        justify: JustifyMethod = "left" if name == header[0] else "right"
        table.add_column(name, justify=justify, no_wrap=True, width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print_audit(plan: Plan, out: Console) -> None:
    worst: dict[str, tuple[float, str]] = {}
    for run in plan.runs:
        for line in run.audit:
            if line.field not in worst or abs(line.relative) > abs(worst[line.field][0]):
                worst[line.field] = (line.relative, run.name)
    parts = [f"{field} {_percent(value)} ({name})" for field, (value, name) in worst.items()]
    out.print()
    out.print("largest difference from what was asked: " + ", ".join(parts))
    if plan.budget is not None:
        out.print(
            f"budget: {format_flops(plan.budget.spent)} of {format_flops(plan.budget.flops)} FLOPs "
            f"({'all runs' if plan.budget.covers == 'family' else 'the largest size alone'}), "
            f"{plan.budget.shortfall:.2%} left"
        )
    hours = [run.predicted.device_hours for run in plan.runs]
    known = [item for item in hours if item is not None]
    if known:
        seeds = [len(run.seeds) for run in plan.runs]
        total = sum(item * count for item, count in zip(known, seeds, strict=True))
        out.print(f"cost of all runs: {total:,.0f} device-hours")
    fullest = max(
        (run for run in plan.runs if run.predicted.memory is not None),
        key=lambda run: run.predicted.memory.total if run.predicted.memory else 0,
        default=None,
    )
    if fullest is not None and fullest.predicted.memory is not None:
        memory = fullest.predicted.memory
        limit = f" of {format_bytes(memory.device)}" if memory.device else ""
        out.print(f"memory: at most {format_bytes(memory.total)}{limit} a device ({fullest.name})")


def _percent(value: float) -> str:
    if abs(value) < 1e-12:
        return "exact"
    return "below 0.01%" if abs(value) < 5e-5 else f"{value:+.2%}"


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings to standard error; assumptions with one reason on one line."""
    err = console(err=True)
    assumed: dict[str, list[str]] = {}
    others = []
    for warning in warnings:
        field, found, reason = warning.partition(_ASSUMED)
        if found:
            assumed.setdefault(reason, []).append(field)
        else:
            others.append(warning)
    lines = [f"assumed: {', '.join(fields)}: {reason}" for reason, fields in assumed.items()]
    for line in [*lines, *others]:
        err.print(Text("warning: ", style="yellow") + Text(line), soft_wrap=True)


def print_explanation(explanation: Explanation) -> None:
    """Print one number's origin."""
    out = console()
    why, law = explanation.provenance, explanation.law
    out.print(
        Text(f"{explanation.run}.{explanation.field}", style="bold"), "=", _shown(explanation.value)
    )
    rows: list[tuple[str, str]] = []
    if why.formula:
        rows.append(("formula", why.formula))
    rows += [(f"  {name}", _shown(value)) for name, value in why.inputs.items()]
    if why.declared:
        rows.append(("declared", why.declared))
    if why.exact is not None:
        rows.append(("before rounding", _shown(why.exact)))
    if why.rounding:
        rows.append(("rounding", why.rounding))
    if law is not None:
        rows += [("law", law.name), ("source", f"{law.source} [{law.confidence}]")]
        rows += [
            ("fitted on", f"{name} {low:g} to {high:g}")
            for name, (low, high) in law.fitted_range.items()
        ]
    if explanation.source:
        rows.append(("source", explanation.source))
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(f"  {name}"), Text(value))
    out.print(grid)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.10g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def print_changes(changes: Sequence[Change]) -> None:
    """Print the differences of two plans."""
    out = console()
    if not changes:
        out.print("the plans are the same")
        return
    run: str | None = ""
    for change in changes:
        if change.run != run:
            run = change.run
            out.print(Text(run or "family", style="bold"))
        relative = "" if change.relative is None else f" ({change.relative:+.3%})"
        line = f"  {change.field}: {_shown(change.before)} -> {_shown(change.after)}{relative}"
        out.print(Text(line), soft_wrap=True)
    out.print(f"{len(changes)} differences")


def print_trade_off(law: Law, points: Sequence[Compression]) -> None:
    """Print the iso-loss curve."""
    out = console()
    table = Table(
        title="at equal loss, against compute-optimal", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in ("TPP", "parameters", "tokens", "compute"):
        table.add_column(name, justify="right")
    for point in points:
        table.add_row(
            f"{point.tpp:.4g}",
            f"{point.params_ratio:.1%}",
            f"{point.tokens_ratio:.3g}x",
            f"{point.compute_ratio:.3g}x",
        )
    out.print(table)
    out.print(f"source: {law.source}")


def print_bundle(bundle: Bundle, checks: Sequence[Check]) -> None:
    """Print what was rendered and what the validators said."""
    out = console()
    written = bundle.written
    out.print(
        f"{bundle.rendered.target}: {count_of(len(bundle.rendered.jobs), 'job')}, "
        f"{count_of(len(bundle.rendered.files), 'file')} in {bundle.folder} "
        f"({len(written.changed)} written, {len(written.unchanged)} unchanged, "
        f"{len(written.removed)} removed)",
        soft_wrap=True,
    )
    for item in checks:
        if item.skipped:
            out.print(Text(f"check {item.name}: not run, {item.skipped}"))
        else:
            out.print(Text(f"check {item.name}: {len(item.problems)} problems"))
        for problem in item.problems:
            out.print(Text(f"  {problem}"), soft_wrap=True)
    print_warnings(bundle.warnings)


def print_targets(described: Sequence[dict[str, Any]], *, options: bool) -> None:
    """Print what each trainer can express, its launchers, and one target's options."""
    out = console()
    for trainer, group in groupby(described, lambda item: item["target"].partition("+")[0]):
        targets = list(group)
        first = targets[0]
        out.print(Text(trainer, style="bold"), f"({first['version']})")
        out.print(Text(first["summary"]))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("feature", "how", "note"):
            table.add_column(name, overflow="fold")
        for item in first["capabilities"]:
            table.add_row(Text(item["feature"]), Text(str(item["how"])), Text(item["note"]))
        out.print(table)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("target", "launcher"):
            table.add_column(name, overflow="fold")
        for target in targets:
            launcher = target["launcher"]
            default = " (default)" if launcher["default"] else ""
            table.add_row(Text(target["target"] + default), Text(launcher["summary"]))
        out.print(table)
        if options:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for name in ("--set", "default", "meaning"):
                table.add_column(name, overflow="fold")
            for item in first["options"]:
                table.add_row(Text(item["name"]), Text(str(item["default"])), Text(item["help"]))
            out.print(table)
