"""The ``planner`` command.

Verbs only parse arguments, call the library and print; nothing heavy is imported until a verb
runs. Exit codes: 0 done, 1 done and something needs attention, 2 bad input or usage, 3 an optional
part is not installed, 70 an internal error, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from planner.cli.app import (
    Force,
    Json,
    LogPaths,
    MappingOption,
    PlanFile,
    SpecFile,
    app,
    print_json,
    read_plans,
    verb,
)
from planner.errors import UnitError


def _version(wanted: bool) -> None:
    if not wanted:
        return
    from planner import _core
    from planner._version import __version__

    try:
        level = _core.simd_level()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"planner {__version__}")
    print(f"kernel built by {_core.compiler()}, SIMD level in use: {level}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Version, compiler, SIMD."
        ),
    ] = False,
) -> None:
    """Plan families of language models that train predictably at every size."""


@verb
def plan(
    spec: SpecFile,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the plan here; - prints it.")
    ] = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Compile a spec into a plan; exit code 1 if its audit fails."""
    from planner.compile import compile_plan
    from planner.plan import dump_plan, write_plan
    from planner.spec import load_spec

    compiled = compile_plan(load_spec(spec))
    if output is not None and output != "-":
        write_plan(compiled, output, force=force)
    if json or output == "-":
        sys.stdout.write(dump_plan(compiled))
    else:
        from planner.cli.tables import print_plan

        print_plan(compiled)
        if output is not None:
            print(f"wrote {output}")
    if not compiled.ok:
        raise typer.Exit(1)


@verb
def explain(
    plan: PlanFile,
    target: Annotated[str, typer.Argument(metavar="RUN.FIELD", help="Such as 300M-20tpp.steps.")],
    json: Json = False,
) -> None:
    """Say where a number of a plan came from: formula, inputs, law with source, rounding."""
    from planner.plan import explain as explain_field
    from planner.plan import read_plan

    found = explain_field(read_plan(plan), target)
    if json:
        print_json({"schema": "planner.explain/1", "fields": found})
    else:
        from planner.cli.tables import print_explanation

        for explanation in found:
            print_explanation(explanation)


@verb
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A plan.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another plan.")],
    json: Json = False,
) -> None:
    """Show what differs between two plans; exit code 1 if anything does."""
    from planner.plan import diff_plans, read_plan

    changes = diff_plans(read_plan(before), read_plan(after))
    if json:
        print_json({"schema": "planner.diff/1", "changes": changes})
    else:
        from planner.cli.tables import print_changes

        print_changes(changes)
    if changes:
        raise typer.Exit(1)


@verb
def tradeoff(
    tpp: Annotated[
        list[float] | None, typer.Option("--tpp", help="Tokens per parameter; may be repeated.")
    ] = None,
    extra_compute: Annotated[
        list[float] | None,
        typer.Option("--max-extra-compute", help="Such as 0.67 for 67 % more; may be repeated."),
    ] = None,
    params: Annotated[
        list[float] | None,
        typer.Option("--params", help="Parameters against compute-optimal; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what fewer parameters cost in tokens and compute at equal loss."""
    from planner.laws import published, trade_off

    law = published()["iso-loss"]
    points = trade_off(law, tpp=tpp, extra_compute=extra_compute, params_ratio=params)
    if json:
        print_json({"schema": "planner.tradeoff/1", "law": law, "points": points})
    else:
        from planner.cli.tables import print_trade_off

        print_trade_off(law, points)


@verb
def schema(
    of: Annotated[str, typer.Argument(metavar="[spec|plan]", help="What to describe.")] = "spec",
) -> None:
    """Print the JSON Schema of the spec (for editors) or of the plan."""
    from planner.plan import plan_json_schema
    from planner.spec import spec_json_schema

    schemas: dict[str, Callable[[], dict[str, Any]]] = {
        "spec": spec_json_schema,
        "plan": plan_json_schema,
    }
    if of not in schemas:
        raise UnitError(f"got {of!r}, wanted spec or plan", field="schema")
    print_json(schemas[of]())


@verb
def render(
    plan: PlanFile,
    output: Annotated[str, typer.Option("-o", "--output", help="Folder of the bundle.")],
    target: Annotated[
        str, typer.Option("--target", help="TRAINER[+LAUNCHER]; see `planner targets`.")
    ] = "modelzoo",
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A target's option; may be repeated."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Folder whose templates replace the shipped ones by name.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Then run every validator that can run here.")
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Render a plan into the files that start its runs."""
    from planner.plan import read_plan
    from planner.render import check_bundle, render_plan

    bundle = render_plan(
        read_plan(plan),
        target,
        output,
        options=_settings(option or []),
        templates=templates,
        force=force,
    )
    checks = check_bundle(output) if check else ()
    if json:
        print_json(
            {
                "schema": "planner.render/1",
                "target": bundle.rendered.target,
                "folder": str(output),
                "files": list(bundle.rendered.files),
                "changed": bundle.written.changed,
                "warnings": bundle.warnings,
                "checks": checks,
            }
        )
    else:
        from planner.cli.tables import print_bundle

        print_bundle(bundle, checks)
    if any(item.problems for item in checks):
        raise typer.Exit(1)


@verb
def targets(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="Show this one with its options.")
    ] = None,
    json: Json = False,
) -> None:
    """List what plans can be rendered for, and what each target can express."""
    from planner.render import describe, target_names

    described = [describe(name) for name in ([target] if target else target_names())]
    if json:
        print_json({"schema": "planner.targets/1", "targets": described})
    else:
        from planner.cli.tables import print_targets

        print_targets(described, options=target is not None)


@verb
def prepare(
    output: Annotated[Path, typer.Option("-o", "--output", help="Data folder to make.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Folder of texts; or --corpus.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="python: the sources of the standard library here.")
    ] = None,
    pattern: Annotated[str, typer.Option(help="Names of the files to take.")] = "*",
    tokenizer: Annotated[
        str, typer.Option(help="byte, bpe (trained here), or the path of a tokenizer.json.")
    ] = "byte",
    vocab_size: Annotated[int | None, typer.Option(help="Of BPE; default 4096.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the tokens held out.")] = 0.01,
    licence: Annotated[str | None, typer.Option(help="Licence of the texts, for the record.")] = (
        None
    ),
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a data folder.")] = False,
) -> None:
    """Turn a folder of text into the token files that `planner train` reads."""
    from planner.train import corpus as texts

    if (folder is None) == (corpus is None):
        raise UnitError("wanted one of a folder of texts and --corpus python")
    if corpus not in (None, "python"):
        raise UnitError(f"got {corpus!r}, wanted python", field="--corpus")
    if folder is None:
        source, own_licence = texts.python_source()
        found, licence = texts.python_texts(), licence or own_licence
    else:
        source, found = folder.name or str(folder), texts.folder_texts(folder, pattern)
    made = texts.prepare(
        found,
        output,
        source=source,
        licence=licence,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        validation=validation,
        force=force,
    )
    about = made.data.about
    if json:
        print_json({"schema": "planner.prepare/1", "data": about, "skipped": made.skipped})
        return
    print(
        f"{about.source}: {about.train:,} training and {about.validation:,} held-out tokens of "
        f"{about.documents:,} files, vocabulary {about.vocab_size:,}"
    )
    if made.skipped:
        print(f"left out {made.skipped:,} files that are not UTF-8 text")
    print(f"wrote {output}")


@verb
def train(
    file: Annotated[str, typer.Argument(metavar="RUN|PLAN", help="Run file, or a plan.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the log and the checkpoints.")
    ],
    run: Annotated[str | None, typer.Option(help="Name of the run, where a plan has more.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data folder (see `planner prepare`), or env:NAME.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the plan's first.")] = None,
    data_seed: Annotated[int | None, typer.Option(help="Of the data's order.")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Sequences a device at a time.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="bf16, fp32 or fp64.")] = None,
    parallel: Annotated[str | None, typer.Option(help="Under torchrun: ddp or fsdp.")] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile", help="Compile the model with torch.compile.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Steps between checkpoints; default a tenth of all.")
    ] = None,
    keep: Annotated[int | None, typer.Option(help="Checkpoints that are kept; default 2.")] = None,
    log_steps: Annotated[int | None, typer.Option(help="Steps between lines of the log.")] = None,
    eval_steps: Annotated[
        int | None, typer.Option(help="Steps between evaluations on held-out data.")
    ] = None,
    eval_sequences: Annotated[
        int | None, typer.Option(help="Held-out sequences of an evaluation; default 64.")
    ] = None,
    update_norms: Annotated[
        bool | None, typer.Option("--update-norms", help="Log norms by tensor class.")
    ] = None,
    balance_loss: Annotated[
        float | None, typer.Option(help="Factor of the experts' balance; default 0.01.")
    ] = None,
    stop_after: Annotated[
        int | None, typer.Option(help="Stop with a checkpoint after so many steps.")
    ] = None,
) -> None:
    """Train a run with the reference trainer, or go on with it; exit code 1 if it diverges."""
    given = {
        "data": data,
        "seed": seed,
        "data_seed": data_seed,
        "micro_batch": micro_batch,
        "device": device,
        "precision": precision,
        "parallel": parallel,
        "compile": compile,
        "threads": threads,
        "checkpoint_steps": checkpoint_steps,
        "keep": keep,
        "log_steps": log_steps,
        "eval_steps": eval_steps,
        "eval_sequences": eval_sequences,
        "update_norms": update_norms,
        "balance_loss": balance_loss,
        "stop_after": stop_after,
    }
    from planner.train.config import read_job
    from planner.train.extra import require_torch

    job = read_job(file, run, given)
    require_torch()
    from planner.cli.training import report, run_training

    code = report(job, run_training(job, output), output)
    if code:
        raise typer.Exit(code)


@verb
def ingest(
    paths: LogPaths,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="ARCHIVE", help="Folder of the archive.")
    ],
    mapping: MappingOption = None,
    workers: Annotated[
        int | None, typer.Option("-j", "--workers", min=1, help="Processes; default: all cores.")
    ] = None,
    json: Json = False,
) -> None:
    """Read training logs into an archive; exit code 1 if a file could not be read."""
    from planner.archive import ingest as ingest_logs
    from planner.archive import read_mapping
    from planner.cli.archive_tables import print_report, progress_bar

    rules = read_mapping(mapping) if mapping else None
    with progress_bar(quiet=json) as progress:
        report = ingest_logs(
            paths, output, mapping=rules, workers=workers or _cores(), progress=progress
        )
    if json:
        print_json({"schema": "planner.ingest/1", "archive": output, **_report(report)})
    else:
        print_report(report, output)
    if not report.ok:
        raise typer.Exit(1)


@verb
def runs(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="An archive.")],
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Such as 'params>=100M' or 'name=*1xC*'; may be repeated."),
    ] = None,
    sort: Annotated[str, typer.Option("--sort", help="Field; -FIELD reverses.")] = "name",
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most so many.")] = None,
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="Match runs to this plan; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """List the runs of an archive."""
    from planner.archive import Archive, list_runs
    from planner.archive.listing import SHORT

    found = list_runs(
        Archive(archive),
        where=where or (),
        sort=sort,
        limit=limit,
        columns=None if json else SHORT,
        plans=read_plans(plan or []),
        parsed=not json,
    )
    if json:
        from planner.cli.archive_tables import print_runs_json

        print_runs_json(found)
    else:
        from planner.cli.archive_tables import print_runs

        print_runs(found)


@verb
def inspect(paths: LogPaths, mapping: MappingOption = None, json: Json = False) -> None:
    """Say what an ingest would read, and why not, changing nothing."""
    from planner.archive import inspect as inspect_logs
    from planner.archive import read_mapping
    from planner.cli.archive_tables import inspection, print_inspection

    found = inspect_logs(paths, mapping=read_mapping(mapping) if mapping else None)
    if json:
        print_json({"schema": "planner.inspect/1", **inspection(found)})
    else:
        print_inspection(found)
    if found.failed:
        raise typer.Exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(report: Any) -> dict[str, Any]:
    def files(items: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"file": name, "reason": reason} for name, reason in items]

    return {
        "files": report.files,
        "points": report.points,
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "plans": report.plans,
        "skipped": files(report.skipped),
        "failed": files(report.failed),
    }


def _settings(given: list[str]) -> dict[str, str]:
    settings = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UnitError(f"got {item!r}, wanted NAME=VALUE", field="--set")
        settings[name.replace("-", "_")] = value
    return settings


import planner.cli.checks  # noqa: E402, F401  its verbs come after the ones above


def main() -> None:
    """Run the command line."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    app()


if __name__ == "__main__":
    main()
