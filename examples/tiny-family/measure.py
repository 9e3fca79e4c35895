"""Measures what PROTOCOL.md says, from the recorded logs.

python measure.py prints spreads, noise floors and ratios, and what the sweep says of tau. It reads
runs/ and writes nothing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
SIZES = ("6k", "14k", "25k", "83k", "198k")
SEEDS = {"6k": range(10, 26), "14k": range(10, 18), "25k": range(10, 14), "83k": range(10, 12)}
TIMES = np.arange(4, 19) / 20  # 0.20, 0.25, ... 0.90
HALF_WINDOW, TAIL = 0.05, 0.1
SWEEP_TAUS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
SWEEP_RATES = (0.5, 1.0, 2.0)  # times the base learning rate
THIRD_TPP, THIRD_SEEDS = (5, 20, 80, 320), (30, 31, 32)
THIRD_TAUS, THIRD_RATES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2), (1.0, 2.0)
# 97.5 % quantiles of Student's t for 1 to 6 degrees of freedom (any table; the tests ask SciPy).
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447)
FLOATING = 1e-9  # so that a step on the edge of a window is in it, whatever the rounding

Curve = NDArray[np.float64]


class Missing(Exception):
    """A run that is not recorded yet."""


def log(name: str) -> tuple[Curve, Curve, Curve]:
    """Return a run's training losses, and times and values of its held-out losses."""
    path = HERE / "runs" / f"{name}.jsonl.gz"
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


def named(size: str, tpp: int, label: str, protocol: int) -> list[str]:
    """Return the names of the runs behind the curve of a size."""
    if protocol == 1 or size == "198k":
        return [f"{size}-{tpp}tpp{label}"]
    return [f"{size}-{tpp}tpp{label}-seed{seed}" for seed in SEEDS[size]]


def floor(tpp: int, protocol: int, held_out: bool) -> float:
    """Return a band's seed noise floor."""
    found = []
    for size in SIZES[: 2 if protocol == 1 else 3]:
        if protocol == 1:
            name = f"{size}-{tpp}tpp"
            groups = [[name], *([f"{name}-seed{seed}"] for seed in (1, 2, 3))]
        else:
            names = named(size, tpp, "", 2)
            groups = [names[i * len(names) // 4 : (i + 1) * len(names) // 4] for i in range(4)]
        share = 1.0 if protocol == 1 else 0.5
        found.append(share * spread([curve(group, held_out=held_out) for group in groups]))
    return max(found)


def family(tpp: int, label: str, protocol: int, held_out: bool) -> tuple[list[Curve], list[str]]:
    """Return the curves of the sizes that are recorded, and their names."""
    curves, sizes = [], []
    for size in SIZES:
        try:
            curves.append(curve(named(size, tpp, label, protocol), held_out=held_out))
            sizes.append(size)
        except Missing:
            continue
    return curves, sizes


def best_tau(taus: list[float], losses: list[float]) -> tuple[float, str]:
    """Return the best tau of a sweep, and "", or why it is only a bound.

    The minimum of a parabola in log tau through the three lowest losses. Where the lowest loss is
    the sweep's first or last, or the three make no minimum, tau is the lowest one's.
    """
    return vertex(taus, losses, sorted(np.argsort(losses)[:3]))


def best_tau_of_five(taus: list[float], losses: list[float]) -> tuple[float, str]:
    """Return the same by the third protocol: the lowest loss and up to two on each side of it."""
    lowest = int(np.argmin(losses))
    return vertex(taus, losses, range(max(0, lowest - 2), min(len(taus), lowest + 3)))


def vertex(taus: list[float], losses: list[float], used: Iterable[int]) -> tuple[float, str]:
    """Return where the parabola in log tau through some of the losses is lowest, or a bound."""
    lowest = int(np.argmin(losses))
    if lowest in (0, len(taus) - 1):
        return taus[lowest], "at most" if lowest == 0 else "at least"
    some = list(used)
    x = np.log([taus[i] for i in some])
    a, b, _ = np.polyfit(x, [losses[i] for i in some], 2)
    if a <= 0:
        return taus[lowest], "about"
    return float(np.exp(-b / (2 * a))), ""


def exponent(tpps: list[float], taus: list[float]) -> tuple[float, float]:
    """Return the slope of log tau on log TPP and half its 95 % interval; three points or more."""
    x, y = np.log(tpps), np.log(taus)
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    free = len(taus) - 2
    scatter = float(np.sum((y - y.mean() - slope * x) ** 2)) / free
    return slope, STUDENT[free - 1] * float(np.sqrt(scatter / (x @ x)))


def sweep() -> None:
    """Print what the first protocol's sweep says of tau, as far as recorded."""

    def loss(tpp: int, tau: float, rate: float) -> float:
        return divisor(log(f"6k-{tpp}tpp-tau{tau:g}-lr{rate:g}")[0])

    tell_sweeps((20, 80), SWEEP_RATES, SWEEP_TAUS, loss, best_tau)


def third_sweep() -> None:
    """Print what the third protocol's sweep says of tau, as far as recorded."""

    def loss(tpp: int, tau: float, rate: float) -> float:
        names = [f"6k-{tpp}tpp-tau{tau:g}-lr{rate:g}-seed{seed}" for seed in THIRD_SEEDS]
        return float(np.mean([log(name)[2][-1] for name in names]))

    tell_sweeps(THIRD_TPP, THIRD_RATES, THIRD_TAUS, loss, best_tau_of_five)


def tell_sweeps(
    tpps: tuple[int, ...],
    rates: tuple[float, ...],
    taus: tuple[float, ...],
    final: Callable[[int, float, float], float],
    best: Callable[[list[float], list[float]], tuple[float, str]],
) -> None:
    """Print the best tau of each learning rate and TPP, and the exponent."""
    where: list[float] = []
    found: list[float] = []
    incomplete = 0
    for rate in rates:
        for tpp in tpps:
            try:
                losses = [final(tpp, tau, rate) for tau in taus]
            except Missing:
                incomplete += 1
                continue
            tau, bound = best(list(taus), losses)
            print(f"  {tpp} TPP, rate x {rate:g}: best tau {bound}{' ' if bound else ''}{tau:.3f}")
            if not bound:
                where.append(float(tpp))
                found.append(tau)
    if incomplete:
        print(f"  {incomplete} of {len(tpps) * len(rates)} sweeps are not recorded whole")
    if len(set(where)) > 1 and len(found) > 2:
        slope, half = exponent(where, found)
        print(f"  exponent of tau over TPP {slope:.3f}, {slope - half:.3f} to {slope + half:.3f}")


def main() -> None:
    """Print the measurements."""
    print("tau of the sweep")
    sweep()
    print("tau of the sweep of the third protocol, held-out loss")
    third_sweep()
    for protocol in (1, 2):
        for held_out in (False, True):
            kind = "held-out loss" if held_out else "training loss"
            print(f"protocol {protocol}, {kind}")
            for tpp in (80, 20):
                matched, sizes = family(tpp, "", protocol, held_out)
                if len(sizes) < 2:
                    continue
                mine = spread(matched)
                try:
                    noise = floor(tpp, protocol, held_out)
                except Missing:
                    noise = float("nan")
                print(
                    f"  {tpp} TPP matched {mine:.4f} ({', '.join(sizes)}); seed noise floor "
                    f"{noise:.4f}, limit {max(0.01, 2 * noise):.4f}"
                )
                if tpp != 80:
                    continue
                others, fixed = family(tpp, "-fixed", protocol, held_out)
                if len(fixed) > 1:
                    tell("mismatched", spread(others), mine, fixed)
                constant, some = family(tpp, "-constant", protocol, held_out)
                if some:
                    tell("with constant rate", spread(matched + constant), mine, some)


def tell(what: str, found: float, mine: float, sizes: list[str]) -> None:
    """Print a spread beside the matched one."""
    print(f"         {what} {found:.4f} ({', '.join(sizes)}): {found / mine:.2f} times")


if __name__ == "__main__":
    main()
