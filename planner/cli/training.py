"""The verbs that prepare data and train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.app import (
    Json,
    print_json,
    verb,
)
from planner.errors import UnitError
from planner.units import count_of


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
        f"{count_of(about.documents, 'file')}, vocabulary {about.vocab_size:,}"
    )
    if made.skipped:
        print(f"left out, as not UTF-8 text: {count_of(made.skipped, 'file')}")
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
    from planner.cli.training_view import report, run_training

    code = report(job, run_training(job, output), output)
    if code:
        raise typer.Exit(code)
