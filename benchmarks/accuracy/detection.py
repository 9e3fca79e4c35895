"""Alarms: what is called without a reference, and how soon a drift is seen at a stated error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy.section import Section, Table, Target
from accuracy.shared_noise import simulate
from scipy.interpolate import make_lsq_spline

from planner.archive import Archive, ingest, read_mapping
from planner.curves import Curve, CurveError, Reference, load_curves
from planner.curves.alarm import find_divergence, find_drift, hard_batches, threshold
from planner.curves.alarm.drift import START, calibration_points
from planner.curves.alarm.ramps import ramp_scores
from planner.curves.alarm.tame import tame

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261122
TRAIN, VALID = "train/loss", "eval/validation/loss"
C4 = "eval/c4_en-validation/loss"
FOLDERS = {
    "megatron_blowups": (TRAIN, VALID),
    "algoperf_wmt": (TRAIN, VALID),
    "wsd_cosine_llama": (TRAIN, VALID),
    "nanogpt_speedrun": (TRAIN, VALID),
    "multipowerlaw": (TRAIN,),
    "olmo_ladder": (C4,),
}
# what data/README.md calls sick; all others are healthy
SICK = ("blowup-", "generalized_adam", "nadamp", "lr0.005")
HARD = (919, 947, 1760, 3194, 3473, 3656, 5086)
ONSET, RISE = 0.6, 0.03
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_BATCH = 200_000


@dataclass(frozen=True)
class Log:
    """A log whose noise is resampled.

    Attributes:
        name: Short name.
        folder: Where it lies.
        parts: Texts that its run's name holds.
        block: Mean length of the blocks, points.
        healthy: Healthy runs that are simulated.
        drifting: Drifting runs that are simulated.
        wanted: Fraction of training by which half the drifting runs are called at 1 %; None: shown
            only.
    """

    name: str
    folder: str
    parts: tuple[str, ...]
    block: int
    healthy: int
    drifting: int
    wanted: float | None


LOGS = (
    Log("llm.c", "nanogpt_speedrun", ("10-13_llmc",), 1000, 600, 200, 0.655),
    Log("Adam-5100", "nanogpt_speedrun", ("Optimizers_Adam",), 300, 1000, 400, 0.70),
    Log(
        "wsd_cosine 25k",
        "wsd_cosine_llama",
        ("cos-10-", "lr0.001", "iter25000"),
        50,
        2000,
        800,
        0.84,
    ),
    Log(
        "wsd_cosine 15k",
        "wsd_cosine_llama",
        ("cos-10-", "lr0.001", "iter15000"),
        50,
        2000,
        800,
        None,
    ),
    Log(
        "wsd_cosine 50k",
        "wsd_cosine_llama",
        ("stable", "lr0.001", "iter50000"),
        50,
        1000,
        400,
        None,
    ),
)


def evaluate(data: Path, work: Path) -> Section:
    """Measure it."""
    curves = {folder: _curves(data / folder, work / folder, FOLDERS[folder]) for folder in FOLDERS}
    tables: list[Table] = []
    targets: list[Target] = []
    figures: dict[str, object] = {}
    _absolute(curves, tables, targets, figures)
    _siblings(curves, tables, targets, figures)
    _drift(curves, tables, targets, figures)
    _shared(curves, tables, targets, figures)
    return Section("Detection", _TEXT, tables, targets, figures)


_TEXT = f"""**Divergence** needs no reference: every loss of every run is read point by point and
judged from what was logged so far.

**Drift** is looked for against a reference. Noise is the residual of a real curve from a cubic
spline, whose knots the Bayesian information criterion chooses; it is resampled by the stationary
bootstrap (Politis and Romano 1994), so its correlation and its tails stay, but not what is slower
than the spline. To it is added nothing, or a drift that grows from 0 at {ONSET:.0%} of training to
{RISE:.0%} at its end. The detector knows neither level, noise, onset nor slope; it looks at each
logged point from {START:.0%} of training on. Its threshold is simulated without these logs
(`planner.curves.alarm.threshold`); the first table counts how often a whole healthy run passes it.
The second shows the trade: the threshold is moved until so many of the simulated healthy runs raise
an alarm. Beside it stand two detectors that nobody has: both know the level, the noise and the
slope of the drift; the first does not know its onset (the likelihood ratio, greatest over 35
onsets), the second does (Wald's test)."""


def _curves(source: Path, archive: Path, metrics: Iterable[str]) -> dict[str, dict[str, Curve]]:
    # what the exports do not say: N and the multiple of 20 TPP
    said = ROOT / "examples" / "mappings" / f"{source.name}.yaml"
    ingest([source], archive, mapping=read_mapping(said) if said.exists() else None)
    found = {}
    for metric in metrics:
        batches = load_curves(Archive(archive), metric=metric)
        found[metric] = {curve.facts.name: curve for batch in batches for curve in batch}
    return found


def _absolute(
    curves: dict[str, dict[str, dict[str, Curve]]],
    tables: list[Table],
    targets: list[Target],
    figures: dict[str, object],
) -> None:
    rows, wrong, looked = [], [], 0
    called: dict[tuple[str, str], dict[str, int]] = {}
    for folder, metrics in curves.items():
        for metric, runs in metrics.items():
            for name, curve in sorted(runs.items()):
                found = find_divergence(curve.steps, curve.values)
                if not any(part in name for part in SICK):
                    looked += 1
                    wrong += [f"{folder}/{name}" for _ in found]
                    continue
                called[name, metric] = {item.kind: item.step for item in found}
                short = name.split("_slimpajama")[0].split("/wmt")[0]
                said = "; ".join(f"{item.kind} at {item.step:,}" for item in found)
                last = int(curve.steps[-1])
                rows.append((short, metric, f"{last:,}", said or "nothing"))
    tables.append(Table(("run", "loss", "last step", "called"), rows, "Sick runs, no reference."))

    def first(part: str, metric: str, kinds: tuple[str, ...]) -> int | None:
        steps = [
            step
            for (name, of), found in called.items()
            if part in name and of == metric
            for kind, step in found.items()
            if kind in kinds
        ]
        return min(steps, default=None)

    up = ("diverged", "rising", "not finite")
    for what, part, metric, kinds, by in (
        ("1814186, validation", "1814186", VALID, up, 1400),
        ("1814186, train", "1814186", TRAIN, up, 1600),
        ("algoperf NaN, validation", "generalized_adam", VALID, ("not finite",), None),
        ("lr 0.005, train", "lr0.005", TRAIN, up, None),
        ("lr 0.005, validation", "lr0.005", VALID, up, None),
    ):
        step = first(part, metric, kinds)
        met = step is not None and (by is None or step <= by)
        wanted = f"called by {by:,}" if by else "called"
        targets.append(Target(what, wanted, f"{step:,}" if step else "never", met))
    runs = curves["nanogpt_speedrun"][TRAIN]
    quiet = not any("nanogpt" in name for name in wrong)
    targets.append(
        Target("nanogpt_speedrun, 8 logs", "no alarm", "none" if quiet else "alarms", quiet)
    )
    targets.append(
        Target(f"all healthy losses ({looked})", "no alarm", f"{len(wrong)} alarms", not wrong)
    )
    batches = hard_batches(list(runs.values()))
    shared = max((len(batch.runs) for batch in batches), default=0)
    steps = {batch.step: batch for batch in batches if len(batch.runs) >= 4}
    rows = [
        (f"{step:,}", str(len(steps[step].runs)), f"{steps[step].excess:+.1%}")
        for step in HARD
        if step in steps
    ]
    tables.append(
        Table(
            ("step", "runs", "mean jump"),
            rows,
            f"Hard batches of nanogpt_speedrun: {len(steps)} steps at which four runs or more of "
            f"one data order jump together ({shared} share it); those of data/README.md:",
        )
    )
    missing = [step for step in HARD if step not in steps]
    targets.append(
        Target(
            "hard batches at " + ", ".join(map(str, HARD)),
            "all reported",
            "all" if not missing else f"not {missing}",
            not missing,
        )
    )
    figures["false_divergence"] = len(wrong)
    figures["hard_batches"] = sorted(steps)


def _siblings(
    curves: dict[str, dict[str, dict[str, Curve]]],
    tables: list[Table],
    targets: list[Target],
    figures: dict[str, object],
) -> None:
    """Watch each healthy real run against each other one of its group, as a reference of one."""
    wsd = curves["wsd_cosine_llama"][TRAIN]
    power = curves["multipowerlaw"][TRAIN]
    groups: dict[str, list[list[Curve]]] = {
        "wsd_cosine, one size, other peak rates": [
            [c for n, c in wsd.items() if kind in n and f"iter{length}" in n]
            for kind in (
                "cos-10-",
                "cos-zero",
                "decay_linear_0.1_",
                "decay_linear_0.2_",
                "decay_linear_0.4_",
                "decay_linear_0.6_",
                "decay_linear_0.8_",
            )
            for length in (15000, 25000)
        ],
        "olmo_ladder, other sizes": [
            [c for n, c in curves["olmo_ladder"][C4].items() if n.endswith("-" + multiple)]
            for multiple in ("0.5xC", "1xC", "1xC-rerun", "2xC", "5xC")
        ],
        "multipowerlaw, 25M and 100M": [
            [replace(c, horizon=int(c.steps[-1])) for n, c in power.items() if n.endswith(kind)]
            for kind in (
                "/cosine_24000",
                "/cosine_72000",
                "/constant_72000",
                "/wsd_20000_24000",
                "/wsdld_20000_24000",
            )
        ],
    }
    rows, total, alarms = [], 0, 0
    for name, parts in groups.items():
        pairs = called = silent = 0
        for group in parts:
            for one in group:
                try:
                    reference = Reference.build([one])
                except CurveError:
                    continue
                for other in group:
                    if other is one:
                        continue
                    pairs += 1
                    report = find_drift(other, reference)
                    called += report.state == "alarm"
                    silent += report.state in ("undecidable", "calibrating")
        rows.append((name, str(pairs), str(silent), str(called)))
        total, alarms = total + pairs - silent, alarms + called
    tables.append(
        Table(
            ("healthy real runs", "pairs", "undecidable", "alarms"),
            rows,
            "Each watched at 1 % against a reference made of another one alone.",
        )
    )
    # one alarm a hundred, and three standard errors
    bound = 0.01 * total + 3.0 * math.sqrt(0.0099 * total)
    targets.append(
        Target(
            f"false drift alarms, {total} pairs of healthy real runs",
            f"1 % within binomial error: at most {bound:.0f}",
            str(alarms),
            alarms <= bound,
        )
    )
    figures["sibling_alarms"] = [total, alarms]


def _drift(
    curves: dict[str, dict[str, dict[str, Curve]]],
    tables: list[Table],
    targets: list[Target],
    figures: dict[str, object],
) -> None:
    held, trade = [], []
    for log in LOGS:
        runs = curves[log.folder][TRAIN]
        curve = next(c for n, c in runs.items() if all(part in n for part in log.parts))
        t, noise, knots = residual(curve)
        rng = np.random.default_rng(SEED)
        healthy = _highest(noise, log.healthy, log.block, rng)
        drift = np.maximum(0.0, (t - ONSET) / (1.0 - ONSET)) * RISE
        seed = int(rng.integers(1 << 31))
        paths = [
            _scores(part + drift)
            for part in _resampled(noise, log.drifting, log.block, np.random.default_rng(seed))
        ]
        scores = np.concatenate(paths)
        known = _known(t, noise, drift, log, seed)
        row = [log.name, f"{t.size:,}", str(knots), f"{noise.std():.2%}"]
        for alpha in (0.01, 0.05):
            limit = threshold(alpha, t.size)
            rate = float(np.mean(healthy > limit))
            error = math.sqrt(alpha * (1 - alpha) / healthy.size)
            row += [f"{rate:.1%}", _time(_alarms(scores, limit, t), 0.5)]
            targets.append(
                Target(
                    f"{log.name}: healthy runs with an alarm at {alpha:.0%}",
                    f"at most {alpha + 2.0 * error:.1%} ({healthy.size} runs)",
                    f"{rate:.1%}",
                    rate <= alpha + 2.0 * error,
                )
            )
        held.append(tuple(row))
        for rate in RATES:
            when = _alarms(scores, float(np.quantile(healthy, 1.0 - rate)), t)
            bounds = [_alarms_of(path, null, rate, t) for path, null in known]
            trade.append(
                (
                    log.name,
                    f"{rate:.1%}",
                    _time(when, 0.5),
                    _time(when, 0.9),
                    f"{np.mean(np.isinf(when)):.1%}",
                    *(_time(b, 0.5) for b in bounds),
                )
            )
            if rate == 0.01:
                median = float(np.median(when))
                figures[f"median_alarm {log.name}"] = median
                figures[f"bound {log.name}"] = [float(np.median(b)) for b in bounds]
                if log.wanted is not None:
                    targets.append(
                        Target(
                            f"{log.name}: median alarm at 1 % false alarms a run",
                            f"by {log.wanted}",
                            f"{median:.3f} (knowing noise, level and slope: "
                            f"{_time(bounds[0], 0.5)})",
                            median <= log.wanted,
                        )
                    )
    tables.append(
        Table(
            (
                "noise of",
                "points",
                "knots",
                "noise",
                "alarms at 1 %",
                "median alarm at 1 %",
                "alarms at 5 %",
                "median alarm at 5 %",
            ),
            held,
            "With the threshold of the product: healthy runs with an alarm, over their whole "
            "length, and the fraction of training at which half the drifting ones are called.",
        )
    )
    tables.append(
        Table(
            (
                "noise of",
                "false alarms a run",
                "median alarm",
                "90 % called by",
                "never called",
                "onset unknown",
                "onset known",
            ),
            trade,
            "The trade: false alarms against delay, and the median alarm of detectors that know "
            "level, noise and slope.",
        )
    )


def _shared(
    curves: dict[str, dict[str, dict[str, Curve]]],
    tables: list[Table],
    targets: list[Target],
    figures: dict[str, object],
) -> None:
    """Watch runs against a reference on the same data order, and on another."""
    log = next(log for log in LOGS if log.name == "wsd_cosine 25k")
    runs = {n: c for n, c in curves[log.folder][TRAIN].items() if "iter25000" in n}
    curve = next(c for n, c in runs.items() if all(part in n for part in log.parts))
    t, noise, _ = residual(curve)
    steps = np.rint(t * (curve.horizon or 1)).astype(np.int64)
    drift = np.maximum(0.0, (t - ONSET) / (1.0 - ONSET)) * RISE
    rows = []
    for name, parts, same in (
        ("twice the learning rate, same batches", ("cos-10-", "lr0.002"), True),
        ("93M, twice the learning rate, same batches", ("sl93", "sched_cos", "lr0.002"), True),
        ("twice the learning rate, other batches", ("cos-10-", "lr0.002"), False),
    ):
        sibling = next(c for n, c in runs.items() if all(part in n for part in parts))
        theirs = np.interp(steps, sibling.steps[-residual(sibling)[0].size :], residual(sibling)[1])
        healthy, paths, at, share, left = simulate(
            curve, (noise, theirs), steps, drift, log.block, (600, 200), SEED, same=same
        )
        limit = threshold(0.01, t.size)
        rate, error = float(np.mean(healthy > limit)), math.sqrt(0.0099 / healthy.size)
        exact = _alarms(paths, float(np.quantile(healthy, 0.99)), at)
        correlation = float(np.corrcoef(noise, theirs)[0, 1]) if same else 0.0
        rows.append(
            (
                name,
                f"{correlation:.3f}",
                f"{share:.2f}",
                f"{left:.2%}",
                f"{rate:.1%}",
                _time(_alarms(paths, limit, at), 0.5),
                _time(exact, 0.5),
            )
        )
        targets.append(
            Target(
                f"reference of {name}: healthy runs with an alarm at 1%",
                f"at most {0.01 + 2.0 * error:.1%} ({healthy.size} runs)",
                f"{rate:.1%}",
                rate <= 0.01 + 2.0 * error,
            )
        )
        figures[f"median_alarm {log.name}, {name}"] = float(np.median(exact))
        if same and log.wanted is not None:
            targets.append(
                Target(
                    f"{log.name}, reference of {name}: median alarm at 1 % false alarms a run",
                    f"by {log.wanted}",
                    f"{float(np.median(exact)):.3f}",
                    float(np.median(exact)) <= log.wanted,
                )
            )
    tables.append(
        Table(
            (
                "reference",
                "correlation",
                "subtracted",
                "noise left",
                "alarms at 1 %",
                "median alarm, threshold of the product",
                "median alarm at 1 % of the simulated",
            ),
            rows,
            f"The noise of {log.name} against a reference of one other real run, whose noise is "
            "resampled in the same blocks, as where both see the same batches, or in others. What "
            "the two share is subtracted (`planner.curves.alarm.shared`).",
        )
    )


def residual(curve: Curve) -> tuple[Any, Any, int]:
    """Return fractions of training, log loss less a spline, and the spline's inner knots."""
    horizon = curve.horizon or int(curve.steps[-1])
    t = curve.steps / horizon
    use = (t >= START) & np.isfinite(curve.values)
    t, y = t[use], np.log(curve.values[use])
    best: tuple[float, Any, int] | None = None
    for knots in range(2, 41):
        left = _off_spline(t, y, knots)
        sigma = 1.4826 * np.median(np.abs(left))
        kept = np.clip(left, -3.0 * sigma, 3.0 * sigma)
        score = t.size * math.log(np.mean(kept**2)) + (knots + 4) * math.log(t.size)
        if best is None or score < best[0]:
            best = (score, left, knots)
    assert best is not None
    return t, best[1], best[2]


def _off_spline(t: Any, y: Any, knots: int) -> Any:
    inner = np.linspace(t[0], 1.0, knots + 2)[1:-1]
    places = np.concatenate([np.full(4, t[0]), inner, np.full(4, t[-1] + 1e-9)])
    weight = np.ones(t.size)
    left = y
    for _ in range(4):  # Huber's weights: outliers do not bend it
        left = y - make_lsq_spline(t, y, places, 3, w=weight)(t)
        sigma = 1.4826 * np.median(np.abs(left))
        weight = np.sqrt(np.minimum(1.0, 2.0 * sigma / np.maximum(np.abs(left), 1e-12)))
    return left


def _resampled(noise: Any, runs: int, block: int, rng: np.random.Generator) -> Iterable[Any]:
    """Yield batches of runs of resampled noise: the stationary bootstrap."""
    n = noise.size
    batch = max(1, _BATCH // n)
    for start in range(0, runs, batch):
        count = min(batch, runs - start)
        fresh = rng.random((count, n)) < 1.0 / block
        fresh[:, 0] = True
        begin = np.maximum.accumulate(np.where(fresh, np.arange(n), 0), axis=1)
        place = np.take_along_axis(rng.integers(0, n, (count, n)), begin, axis=1)
        yield noise[(place + np.arange(n) - begin) % n]


def _scores(values: Any) -> Any:
    n = values.shape[-1]
    count = calibration_points(n)
    return ramp_scores(*tame(values, count), n, count).score.astype(np.float32)


def _highest(noise: Any, runs: int, block: int, rng: np.random.Generator) -> Any:
    parts = _resampled(noise, runs, block, rng)
    return np.concatenate([_scores(part).max(axis=1) for part in parts])


def _known(t: Any, noise: Any, drift: Any, log: Log, seed: int) -> list[tuple[Any, Any]]:
    """Return, for both detectors that know, paths of drifting runs and highest of healthy ones."""
    sigma = 1.4826 * float(np.median(np.abs(noise)))
    slope = RISE / (1.0 - ONSET)
    onsets = np.linspace(0.1, 0.95, 35)
    found: list[tuple[list[Any], list[Any]]] = [([], []), ([], [])]
    rng = np.random.default_rng(seed)
    thin = max(1, t.size // 2000)  # sums lose nothing; only the places of looks are fewer
    for part in _resampled(noise, log.healthy, log.block, rng):
        for i, tried in enumerate((onsets, [ONSET])):
            found[i][1].append(_ratio(part, t, sigma, slope, tried, thin).max(axis=1))
    for part in _resampled(noise, log.drifting, log.block, np.random.default_rng(seed)):
        for i, tried in enumerate((onsets, [ONSET])):
            found[i][0].append(_ratio(part + drift, t, sigma, slope, tried, thin))
    return [(np.concatenate(paths), np.concatenate(null)) for paths, null in found]


def _ratio(values: Any, t: Any, sigma: float, slope: float, onsets: Any, thin: int) -> Any:
    """Return log likelihood ratios at every ``thin``-th point, the greatest over onsets."""
    kept = np.clip(values, -3.0 * sigma, 3.0 * sigma)
    whole = t.size // thin * thin
    sums0 = np.cumsum(kept[:, :whole].reshape(len(kept), -1, thin).sum(axis=2), axis=1)
    moved = (kept[:, :whole] * t[:whole]).reshape(len(kept), -1, thin).sum(axis=2)
    sums1 = np.cumsum(moved, axis=1)
    best = np.full(sums0.shape, -np.inf, np.float64)
    for onset in onsets:
        shape = np.maximum(0.0, t[:whole] - onset) * slope
        a = int(np.searchsorted(t[:whole:thin], onset))
        if a >= sums0.shape[1]:
            continue
        energy = np.cumsum((shape**2).reshape(-1, thin).sum(axis=1))
        before0, before1 = (sums0[:, a - 1], sums1[:, a - 1]) if a else (0.0, 0.0)
        base0 = np.broadcast_to(before0, len(kept))[:, None]
        base1 = np.broadcast_to(before1, len(kept))[:, None]
        fit = slope * ((sums1[:, a:] - base1) - onset * (sums0[:, a:] - base0))
        value = (fit - energy[a:] / 2.0) / sigma**2
        best[:, a:] = np.maximum(best[:, a:], value)
    return best


def _alarms_of(paths: Any, null: Any, rate: float, t: Any) -> Any:
    limit = float(np.quantile(null, 1.0 - rate))
    thin = max(1, t.size // 2000)
    return _alarms(paths, limit, t[: t.size // thin * thin].reshape(-1, thin)[:, -1])


def _alarms(paths: Any, limit: float, t: Any) -> Any:
    """Return the fraction of training of each first alarm, infinite where there is none."""
    hit = paths > limit
    return np.where(hit.any(axis=1), t[np.argmax(hit, axis=1)], np.inf)


def _time(when: Any, share: float) -> str:
    value = float(np.quantile(when, share, method="higher"))
    return f"{value:.3f}" if math.isfinite(value) else "never"
