"""Which setting of a learning rate x cooldown sweep to train to the end, from its first part."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy.section import Section, Table, Target
from numpy.typing import NDArray

from planner.archive import Archive, ingest
from planner.curves import Curve, load_curves
from planner.curves.forecast import Pool, without_sick
from planner.curves.select import judge

METRIC = "eval/validation/loss"
PARAMS = 123_587_328
LARGEST_HELPER = 100_000_000
HORIZONS = (15_000, 25_000)
FRACTIONS = (0.2, 0.25, 0.3)
SUBSETS, SETTINGS = 1000, 6
STRETCH = 0.15
CANDIDATE = re.compile(r"ann124-([\d.]+)_.*_lr([\d.]+)_sched_wsd_.*_decay_linear_[\d.]+_iter(\d+)_")
COLUMNS = {"train": ("iter", "train_loss", "train_lr"), "val": ("iter", "val_loss")}
POLICIES = ("planner", "current best", "successive halving", "random", "15k winner")

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """One setting of the sweep at one horizon."""

    file: str
    lr: float
    cooldown: float
    final: float
    first: int


def evaluate(data: Path, work: Path) -> Section:
    """Choose among six settings at a time, from stitched prefixes."""
    folder = data / "wsd_cosine_llama"
    with (folder / "index.csv").open(newline="") as file:
        index = list(csv.DictReader(file))
    sweeps = {horizon: settings(index, horizon) for horizon in HORIZONS}
    winner = {(s.lr, s.cooldown): s.final for s in sweeps[HORIZONS[0]]}
    rows, saves, verdicts = [], [], []
    regret: dict[tuple[int, float], dict[str, float]] = {}
    for horizon, sweep in sweeps.items():
        finals = np.array([s.final for s in sweep])
        random = np.random.default_rng(horizon)
        subsets = np.array(
            [np.sort(random.choice(len(sweep), SETTINGS, replace=False)) for _ in range(SUBSETS)]
        )
        whole = {s.file: stitched(folder, s, index) for s in sweep}
        for fraction in FRACTIONS:
            place = work / f"{horizon}-{fraction}"
            candidates, pool = read(folder, place, index, sweep, whole, fraction)
            found = judge(candidates, pool)
            if found.method == "undecidable" or found.at is None:
                raise SystemExit(f"sweep: {found.why}")
            order = {c.facts.name: i for i, c in enumerate(candidates)}
            forecast = np.empty(len(sweep))
            for c in found.candidates:
                forecast[order[c.name]] = c.final if c.final is not None else np.nan
            now = np.array([current(whole[s.file], fraction * horizon) for s in sweep])
            scores: dict[str, list[float]] = {p: [] for p in POLICIES}
            for subset in subsets:
                of = finals[subset]
                lost = 100.0 * (of / of.min() - 1.0)
                scores["planner"].append(float(lost[int(np.argmin(forecast[subset]))]))
                # those that share their prefix have one loss: any of them may be taken
                scores["current best"].append(float(lost[now[subset] == now[subset].min()].mean()))
                scores["random"].append(float(lost.mean()))
                chosen = halving([whole[sweep[i].file] for i in subset], horizon, fraction)
                scores["successive halving"].append(float(lost[chosen].mean()))
                if horizon != HORIZONS[0]:
                    before = np.array(
                        [winner.get((sweep[i].lr, sweep[i].cooldown), np.inf) for i in subset]
                    )
                    scores["15k winner"].append(float(lost[int(np.argmin(before))]))
            means = {p: float(np.mean(v)) for p, v in scores.items() if v}
            regret[horizon, fraction] = means
            rows.append(
                (
                    f"{horizon:,}",
                    str(len(sweep)),
                    f"{fraction:.0%}",
                    *(f"{means[p]:.3f}" if p in means else "" for p in POLICIES),
                )
            )
            saves.append(100.0 * (SETTINGS - 1) * (1.0 - fraction) / SETTINGS)
            stopped = [c for c in found.candidates if c.verdict == "stop"]
            best = sweep[int(np.argmin(finals))].file
            verdicts.append(
                (
                    f"{horizon:,}",
                    f"{fraction:.0%}",
                    f"{len(stopped)} of {len(sweep)}",
                    f"{100.0 * found.saved:.0f}",
                    "no" if all(Path(c.name).name not in best for c in stopped) else "**yes**",
                    f"{100.0 * (found.error or 0.0):.2f}",
                )
            )
    targets = [
        Target(
            f"regret, horizon {horizon:,}, {fraction:.0%}",
            f"at most half of current best's, {means['current best'] / 2:.3f} %",
            f"{means['planner']:.3f} %",
            means["planner"] <= means["current best"] / 2,
        )
        for (horizon, fraction), means in regret.items()
    ]
    worst = max(means["planner"] for means in regret.values())
    saved = ", ".join(f"{s:.0f} % at {f:.0%}" for f, s in zip(FRACTIONS, saves, strict=False))
    return Section(
        title="Select: a sweep of learning rate and cooldown",
        text=(
            "124M Llama-type runs, peak learning rate x length of the linear cooldown, at two "
            "horizons. A candidate's prefix is stitched from the constant-rate run that it "
            "branched off and its own log, cut off at the fraction before it is read; it keeps its "
            "schedule, which is known before a run. Beside the prefixes the archive holds the runs "
            "of at most 93M, and no other 124M run. Regret is the final validation loss of the "
            f"chosen setting above that of the best, in percent, the mean over {SUBSETS:,} random "
            f"subsets of {SETTINGS} settings. Current best takes the lowest validation loss at the "
            "fraction. Successive halving trains 6, 3 and 1 settings to rungs 1 : 2 whose cost is "
            "that of planner's choice. The 15k winner is the setting of the subset that was best "
            "at the shorter horizon, trained to its end. Training only the chosen setting to its "
            f"end saves {saved} of the six runs' compute."
        ),
        tables=[
            Table(
                ("horizon", "settings", "logged", *POLICIES),
                rows,
                f"Mean regret in % (stretch: {STRETCH} %; planner's worst: {worst:.3f} %):",
            ),
            Table(
                ("horizon", "logged", "stopped", "compute saved, %", "best stopped", "error, %"),
                verdicts,
                "What `planner select` says of the whole sweep: it stops those that together hold "
                "the best with at most 5 %; the error is that of one forecast against another, "
                "from leaving out each smaller size:",
            ),
        ],
        targets=targets,
        figures={
            "regret": {f"{h} {f:.0%} {p}": v for (h, f), m in regret.items() for p, v in m.items()},
            "worst_regret": worst,
        },
    )


def settings(index: list[dict[str, str]], horizon: int) -> list[Setting]:
    """Return the candidates of a horizon, by learning rate and cooldown."""
    found = []
    for row in index:
        match = CANDIDATE.match(Path(row["file"]).name)
        if match and int(match[3]) == horizon:
            found.append(
                Setting(
                    row["file"],
                    float(match[2]),
                    float(match[1]),
                    float(row["final_val_loss"]),
                    int(row["first_logged_iter"]),
                )
            )
    return sorted(found, key=lambda s: (s.lr, s.cooldown))


def stitched(folder: Path, setting: Setting, index: list[dict[str, str]]) -> dict[str, Any]:
    """Return a run's dump with the part of the constant-rate run that it branched off before it."""
    run = load(folder / setting.file)
    if setting.first <= int(run["config"]["log_interval"]):
        return run
    name = next(
        row["file"]
        for row in index
        if Path(row["file"]).name.startswith("stable-124m") and f"_lr{setting.lr}_" in row["file"]
    )
    parent = load(folder / name)
    for part, columns in COLUMNS.items():
        own, before = run["history"][part], parent["history"][part]
        keep = [i for i, step in enumerate(before["iter"]) if step < setting.first]
        for key in columns:
            own[key] = [before[key][i] for i in keep] + own[key]
    return run


def current(run: dict[str, Any], step: float) -> float:
    """Return the last validation loss up to a step."""
    val = run["history"]["val"]
    return float(
        max((i, v) for i, v in zip(val["iter"], val["val_loss"], strict=True) if i <= step)[1]
    )


def halving(runs: list[dict[str, Any]], horizon: int, fraction: float) -> Any:
    """Return which runs successive halving may end with: 6 to a rung, 3 to twice it, 1 to its end.

    The rung r costs as much as all six to the fraction f and one to its end: 3 r + 2 (2 r) = 5 f.
    """
    rung = 5.0 * fraction / 7.0
    first = np.array([current(run, rung * horizon) for run in runs])
    # ties go by halves: stable, in the order of the settings
    left = np.argsort(first, kind="stable")[: len(runs) // 2]
    second = np.array([current(runs[i], 2.0 * rung * horizon) for i in left])
    return left[second == second.min()]


def read(
    folder: Path,
    place: Path,
    index: list[dict[str, str]],
    sweep: list[Setting],
    whole: dict[str, dict[str, Any]],
    fraction: float,
) -> tuple[list[Curve], Pool]:
    """Write prefixes and smaller runs, read them into an archive, and load their curves."""
    runs = place / "runs"
    runs.mkdir(parents=True)
    for row in index:
        if int(row["params"]) < LARGEST_HELPER:
            shutil.copy(folder / row["file"], runs)
    for setting in sweep:
        cut = cut_off(whole[setting.file], fraction)
        (runs / Path(setting.file).name).write_bytes(
            gzip.compress(json.dumps(cut).encode(), compresslevel=1, mtime=0)
        )
    report = ingest([str(runs)], str(place / "archive"), workers=1)
    if not report.ok:
        raise SystemExit(f"sweep: {report.failed}")
    archive = Archive(str(place / "archive"))
    curves = [c for batch in load_curves(archive, metric=METRIC) for c in batch]
    by_file = {Path(c.facts.name).name: c for c in curves}
    candidates = [by_file[Path(s.file).name.removesuffix(".json.gz")] for s in sweep]
    assert not any(c.finished for c in candidates)
    others = [c for c in curves if c not in candidates]
    assert all((c.facts.params or PARAMS) < LARGEST_HELPER for c in others)
    return candidates, Pool.of(without_sick(others)[0])


def cut_off(run: dict[str, Any], fraction: float) -> dict[str, Any]:
    """Return a dump whose losses end at a fraction of training; the schedule is known before."""
    last = fraction * int(run["config"]["iterations"])
    train, val = run["history"]["train"], run["history"]["val"]
    logged = [step <= last for step in train["iter"]]
    kept = [i for i, step in enumerate(val["iter"]) if step <= last]
    return {
        "name": run["name"],
        "config": run["config"],
        "history": {
            "train": {
                "iter": train["iter"],
                "train_lr": train["train_lr"],
                "train_loss": [
                    loss if known else None
                    for loss, known in zip(train["train_loss"], logged, strict=True)
                ],
            },
            "val": {key: [val[key][i] for i in kept] for key in COLUMNS["val"]},
        },
    }


def load(path: Path) -> dict[str, Any]:
    """Return a run's dump."""
    with gzip.open(path, "rt") as file:
        found: dict[str, Any] = json.load(file)
    return found
