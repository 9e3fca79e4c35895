"""Measures what PROTOCOL.md says, from the recorded logs.

python measure.py prints spreads, noise floors and ratios, and what the sweep says of tau. It reads
runs/ and writes nothing.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.fitting.statistics import t_quantile

RUNS = Path(__file__).resolve().parent / "runs"
SIZES = ("5k", "12k", "32k", "77k", "151k")
SEEDS = dict(zip(SIZES, (24, 12, 8, 4, 2), strict=True))
LOW, HIGH = 5, 20  # TPP
TIMES = np.arange(4, 19) / 20  # 0.20, 0.25, ... 0.90
HALF_WINDOW, TAIL = 0.05, 0.1
FAULT_FROM = 0.6
GROUPS = 4  # of the seeds of a size, for the noise floor
SWEEP_TPP, SWEEP_SEEDS = (5, 20, 80, 320), range(200, 208)
SWEEP_TAUS, SWEEP_RATES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2), (0.5, 1.0)
FLOATING = 1e-9  # so that a step on the edge of a window is in it, whatever the rounding

Curve = NDArray[np.float64]


class Missing(Exception):
    """A run that is not recorded yet."""


def log(name: str) -> tuple[Curve, Curve, Curve]:
    """Return a run's training losses, and times and values of its held-out losses."""
    path = RUNS / f"{name}.jsonl.gz"
    if not path.exists():
        raise Missing(name)
    with gzip.open(path) as stream:
        records = [json.loads(line) for line in stream]
    steps: dict[int, dict[str, Any]] = {r["step"]: r for r in records if "step" in r}
    total = records[0]["total_steps"]
    rows = [steps[step] for step in range(1, total + 1) if step in steps]
    loss = [np.nan if row["loss"] is None else row["loss"] for row in rows]
    held = [(row["step"] / total, row["eval/loss"]) for row in rows if row.get("eval/loss")]
    times, values = np.array(held).T
    return np.array(loss), times, values


def smoothed(loss: Curve) -> Curve:
    """Return the smoothed training loss at `TIMES`."""
    t = (np.arange(len(loss)) + 0.5) / len(loss)
    windows = [np.abs(t - time) <= HALF_WINDOW + FLOATING for time in TIMES]
    return np.array([loss[window].mean() for window in windows])


def divisor(loss: Curve) -> float:
    """Return the mean of the last tenth."""
    t = (np.arange(len(loss)) + 0.5) / len(loss)
    return float(loss[t > 1 - TAIL].mean())


def curve(names: list[str], *, held_out: bool = False) -> Curve:
    """Return the normalized curve of the mean of some runs of one size, at `TIMES`."""
    logs = [log(name) for name in names]
    if held_out:
        values = np.mean([each[2] for each in logs], axis=0)
        return np.interp(TIMES, logs[0][1], values) / values[-1]
    loss = np.mean([each[0] for each in logs], axis=0)
    return smoothed(loss) / divisor(loss)


def spread(curves: list[Curve]) -> float:
    """Return the largest over time of the largest minus the smallest."""
    return float(np.ptp(np.array(curves), axis=0).max())


def named(size: str, tpp: int, label: str) -> list[str]:
    """Return the names of the runs behind the curve of a size."""
    seeds = ("", *(f"-seed{seed}" for seed in range(1, SEEDS[size])))
    return [f"{size}-{tpp}tpp{label}{seed}" for seed in seeds]


def floor(tpp: int, held_out: bool) -> float:
    """Return a band's seed noise floor: what noise leaves of the spread of means over all seeds.

    Groups of a quarter of the seeds scatter twice as much as the mean of all of them.
    """
    found = []
    for size in SIZES:
        names = named(size, tpp, "")
        if len(names) < GROUPS:
            continue
        share = len(names) // GROUPS
        groups = [names[i * share : (i + 1) * share] for i in range(GROUPS)]
        curves = [curve(group, held_out=held_out) for group in groups]
        found.append(spread(curves) / GROUPS**0.5)
    return max(found)


def family(tpp: int, label: str, held_out: bool) -> tuple[list[Curve], list[str]]:
    """Return the curves of the sizes that are recorded, and their names."""
    curves, sizes = [], []
    for size in SIZES:
        try:
            curves.append(curve(named(size, tpp, label), held_out=held_out))
            sizes.append(size)
        except Missing:
            continue
    return curves, sizes


def best_tau(taus: list[float], losses: list[float]) -> tuple[float, str]:
    """Return the best tau of a sweep, and "", or why it is only a bound.

    The vertex of the parabola in log tau by least squares through the lowest loss and up to two on
    each side of it. Where the lowest loss is the sweep's first or last, or the parabola opens
    downwards, tau is the lowest one's.
    """
    lowest = int(np.argmin(losses))
    if lowest in (0, len(taus) - 1):
        return taus[lowest], "at most" if lowest == 0 else "at least"
    near = slice(max(0, lowest - 2), lowest + 3)
    a, b, _ = np.polyfit(np.log(taus[near]), losses[near], 2)
    if a <= 0:
        return taus[lowest], "about"
    return float(np.exp(-b / (2 * a))), ""


def exponent(points: list[tuple[float, float, float]]) -> tuple[float, float, int]:
    """Return the slope of log tau on log TPP, its standard error and degrees of freedom.

    Least squares with one slope and an intercept for each learning rate; a point is (rate, TPP,
    tau), and there are more of them than intercepts and slope.
    """
    rate, x, y = (np.array(column) for column in zip(*points, strict=True))
    x, y = np.log(x), np.log(y)
    rates = np.unique(rate)
    for each in rates:
        x[rate == each] -= x[rate == each].mean()
        y[rate == each] -= y[rate == each].mean()
    slope = float(x @ y / (x @ x))
    free = len(points) - len(rates) - 1
    scatter = float(np.sum((y - slope * x) ** 2)) / free
    return slope, float(np.sqrt(scatter / (x @ x))), free


def tell_sweep() -> None:
    """Print the best tau of each learning rate and TPP, and the exponent, as far as recorded."""
    points: list[tuple[float, float, float]] = []
    bounds = missing = 0
    for rate in SWEEP_RATES:
        for tpp in SWEEP_TPP:
            finals = []
            for seed in SWEEP_SEEDS:
                label = f"{SIZES[0]}-{tpp}tpp-tau{{:g}}-lr{rate:g}-seed{seed}"
                try:
                    finals.append([log(label.format(tau))[2][-1] for tau in SWEEP_TAUS])
                except Missing:
                    missing += 1
                    continue
                tau, bound = best_tau(list(SWEEP_TAUS), finals[-1])
                if bound:
                    bounds += 1
                else:
                    points.append((rate, float(tpp), tau))
            if finals:
                tau, bound = best_tau(list(SWEEP_TAUS), list(np.mean(finals, axis=0)))
                print(f"  {tpp} TPP, rate x {rate:g}: best tau {f'{bound} '.lstrip()}{tau:.3f}")
    print(f"  {len(points)} sweeps, {bounds} with a bound, {missing} not recorded whole")
    if len({tpp for _, tpp, _ in points}) > 1 and len(points) > len(SWEEP_RATES) + 1:
        slope, error, free = exponent(points)
        half = t_quantile(0.95, free) * error
        print(f"  exponent of tau over TPP {slope:.3f}, {slope - half:.3f} to {slope + half:.3f}")


def tell_fault() -> None:
    """Print how far the raw curve of the run with the fault rises, and the scatter of its steps."""
    (name,) = (path.name.removesuffix(".jsonl.gz") for path in RUNS.glob("*-fault.jsonl.gz"))
    loss, _, _ = log(name)
    raw = smoothed(loss)
    start = int(np.searchsorted(TIMES, FAULT_FROM - FLOATING))
    t = (np.arange(len(loss)) + 0.5) / len(loss)
    scatter = loss[(t > FAULT_FROM - 0.1) & (t <= FAULT_FROM)].std(ddof=1)
    print(
        f"  {name}: rises by {raw[start:].max() / raw[start] - 1:.2%}, "
        f"single steps scatter by {scatter / raw[start]:.2%}"
    )


def main() -> None:
    """Print the measurements."""
    for held_out in (False, True):
        print("held-out loss" if held_out else "training loss")
        for tpp in (HIGH, LOW):
            matched, sizes = family(tpp, "", held_out)
            if len(sizes) < 2:
                continue
            mine = spread(matched)
            try:
                noise = floor(tpp, held_out)
            except Missing:
                noise = float("nan")
            print(
                f"  {tpp} TPP matched {mine:.4f} ({', '.join(sizes)}); seed noise floor "
                f"{noise:.4f}, limit {max(0.01, 2 * noise):.4f}"
            )
            if tpp == LOW:
                continue
            others, fixed = family(tpp, "-fixed", held_out)
            if len(fixed) > 1:
                tell("mismatched", spread(others), mine, fixed)
            constant, some = family(tpp, "-constant", held_out)
            if some:
                tell("with constant rate", spread(matched + constant), mine, some)
    print("raw curve of the fault")
    if any(RUNS.glob("*-fault.jsonl.gz")):
        tell_fault()
    print("best tau, held-out loss")
    tell_sweep()


def tell(what: str, found: float, mine: float, sizes: list[str]) -> None:
    """Print a spread beside the matched one."""
    print(f"         {what} {found:.4f} ({', '.join(sizes)}): {found / mine:.2f} times")


if __name__ == "__main__":
    main()
