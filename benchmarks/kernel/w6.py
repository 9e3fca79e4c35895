"""W6, Multi-Power Law: joint fit of seven constants to three curves, against NumPy and SciPy.

    python benchmarks/kernel/w6.py [--quick] [--json FILE]

One job is the whole fit of one size: cosine_24000, constant_24000 and wsdcon_9 of the published
curves (PLANNER_DATA names the folder; without it, synthetic ones stand in). Peers sum over steps in
blocks of 32, or over our own blocks, held ready as arrays, and start at the published constants;
ours makes its blocks and finds its start. Peers: L-BFGS-B with the analytic gradient, and
least_squares with Huber and the analytic Jacobian.
Rounds are interleaved; the figure is fits per core-second (process CPU time). The objective is that
of the step-by-step sum at the constants found, the same for all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from case import Goal, Program
from scipy.optimize import least_squares, minimize

from planner._core import _testing
from planner.kernel import Ragged
from planner.kernel.multi_power_law import MultiPowerLaw, fit_multi_power_law

DELTA, PEAK, WARMUP, BLOCK = 1e-3, 3e-4, 2160, 32
PUBLISHED = {
    25: MultiPowerLaw(3.040, 0.525, 0.508, 363.788, 2.066, 0.583, 0.641),
    100: MultiPowerLaw(2.651, 0.601, 0.453, 437.946, 2.132, 0.598, 0.655),
}
Curves = tuple[Ragged, Ragged, Ragged]


@dataclass(frozen=True)
class Case:
    """One way to do the fit of one size; `run` returns the law found."""

    workload: str
    name: str
    items: int
    run: Callable[[], MultiPowerLaw]
    rounds: int
    curves: Curves


def curves_of(size: int) -> Curves:
    root = Path(os.environ.get("PLANNER_DATA") or Path(__file__).parents[3] / "shared" / "data")
    schedules, steps, losses = [], [], []
    for name in ("cosine_24000", "constant_24000", "wsdcon_9"):
        path = root / "multipowerlaw" / f"csv_{size}" / f"{name}.csv"
        if not path.is_file():
            return synthetic(size)
        with path.open(newline="") as handle:
            table = np.array([[float(x) for x in row] for row in list(csv.reader(handle))[1:]])
        at, lr, loss = table.T
        every = np.arange(int(at[-1]) + 1)
        schedule = np.interp(every, at, lr)
        for i in np.flatnonzero(np.abs(np.diff(lr)) > 0.2 * lr[:-1]):
            schedule[int(at[i]) : int(at[i + 1])] = lr[i]
        schedule[:WARMUP] = PEAK * every[:WARMUP] / WARMUP
        schedules.append(schedule)
        steps.append(at)
        losses.append(loss)
    return Ragged.from_list(schedules), Ragged.from_list(steps), Ragged.from_list(losses)


def synthetic(size: int) -> Curves:
    t = np.arange(24001.0)
    warm = PEAK * np.minimum(t / WARMUP, 1.0)
    cosine = np.where(t < WARMUP, warm, PEAK * (0.55 + 0.45 * np.cos(np.pi * t / 24000)))
    lr = Ragged.from_list([cosine, warm, np.where(t < 8000, warm, 9e-5)[:17000]])
    steps = Ragged.from_list([np.arange(2176.0, len(each), 128) for each in lr])
    loss = PUBLISHED[size].predict(lr, steps)
    noise = 0.0015 * np.random.default_rng(size).standard_normal(loss.values.size)
    return lr, steps, loss.with_values(loss.values * np.exp(noise))


class Peer:
    """The law in NumPy: steps in blocks of 32, one matrix of terms per curve."""

    def __init__(self, curves: Curves) -> None:
        lr, steps, loss = curves
        self.log_loss = np.log(loss.values)
        self.terms = []
        for each, at in zip(lr, steps, strict=True):
            area = np.concatenate([[0.0], np.cumsum(each)])
            k = np.arange(1, len(each))
            drop = each[k - 1] - each[k]
            rate = np.maximum(each[k], 1e-12 * PEAK)
            begin = np.arange(0, len(k), BLOCK)
            weight = np.add.reduceat(drop, begin)
            size = np.add.reduceat(np.ones(len(k)), begin)
            before = np.add.reduceat(area[k], begin) / size
            log_rate = np.log(np.add.reduceat(rate, begin) / size)
            used = weight != 0
            s = area[at.astype(int) + 1][:, None] - before[used]
            # A block counts from its middle on.
            on = at[:, None] >= (begin + 0.5 * size)[used]
            self.terms.append(
                (
                    np.maximum(s, 0.0),
                    np.where(on, weight[used], 0.0),
                    log_rate[used],
                    np.log(area[at.astype(int) + 1]),
                )
            )

    def predict(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss and its derivatives by (L0, log A, alpha, log B, log C, beta, gamma)."""
        values, rows = [], []
        a, b, c, beta = np.exp(t[1]), np.exp(t[3]), np.exp(t[4]), t[5]
        for s, w, log_rate, log_area in self.terms:
            cx = c * s * np.exp(-t[6] * log_rate)
            log_u = np.log1p(cx)
            wq = w * np.exp(-beta * log_u)
            slope = wq * cx / (1.0 + cx)
            decay = a * np.exp(-t[2] * log_area)
            drop = b * (w.sum(axis=1) - wq.sum(axis=1))
            values.append(t[0] + decay - drop)
            rows.append(
                np.stack(
                    [
                        np.ones(len(s)),
                        decay,
                        -decay * log_area,
                        -drop,
                        -b * beta * slope.sum(axis=1),
                        -b * (wq * log_u).sum(axis=1),
                        b * beta * (slope @ log_rate),
                    ],
                    axis=1,
                )
            )
        return np.concatenate(values), np.concatenate(rows)

    def residual(self, t: np.ndarray) -> np.ndarray:
        return self.log_loss - np.log(np.maximum(self.predict(t)[0], 1e-3))

    def jacobian(self, t: np.ndarray) -> np.ndarray:
        loss, rows = self.predict(t)
        return -rows / np.maximum(loss, 1e-3)[:, None]

    def objective(self, t: np.ndarray) -> tuple[float, np.ndarray]:
        loss, rows = self.predict(t)
        loss = np.maximum(loss, 1e-3)
        r = self.log_loss - np.log(loss)
        p = np.clip(r, -DELTA, DELTA)
        return float(np.sum(p * (r - 0.5 * p))) * 1e6, -(p / loss) @ rows * 1e6


class SameBlocks(Peer):
    """The law in NumPy over the kernel's own terms, ragged: one reduction per sum."""

    def __init__(self, curves: Curves) -> None:
        lr, steps, loss = curves
        self.log_loss = np.log(loss.values)
        columns: list[list[np.ndarray]] = [[], [], [], [], []]
        for each, at in zip(lr, steps, strict=True):
            s, log_rate, w, first = _testing.schedule_terms(each, at.astype(np.int64))
            area = np.log(np.cumsum(each)[at.astype(int)])
            kept = np.concatenate([[0], np.cumsum(w != 0.0)])[first]
            used = w != 0.0
            for column, values in zip(
                columns, (s[used], log_rate[used], w[used], np.diff(kept), area), strict=True
            ):
                column.append(values)
        self.s, self.log_rate, self.w, counts, self.log_area = map(np.concatenate, columns)
        self.first = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def predict(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As Peer's."""
        a, b, c, beta = np.exp(t[1]), np.exp(t[3]), np.exp(t[4]), t[5]
        cx = c * self.s * np.exp(-t[6] * self.log_rate)
        u = 1.0 + cx
        log_u = np.log(u)
        q = np.exp(-beta * log_u)
        wq = self.w * q
        slope = wq * cx / u
        total, by_beta, by_c, by_gamma = (
            np.add.reduceat(column, self.first)
            for column in (self.w - wq, wq * log_u, slope, slope * self.log_rate)
        )
        decay = a * np.exp(-t[2] * self.log_area)
        drop = b * total
        rows = [np.ones_like(decay), decay, -decay * self.log_area, -drop]
        rows += [-b * beta * by_c, -b * by_beta, b * beta * by_gamma]
        return t[0] + decay - drop, np.stack(rows, axis=1)


LOGGED = [1, 3, 4]


def inside(law: MultiPowerLaw) -> np.ndarray:
    t = np.array(astuple(law))
    t[LOGGED] = np.log(t[LOGGED])
    return t


def outside(t: np.ndarray) -> MultiPowerLaw:
    t = np.array(t)
    t[LOGGED] = np.exp(t[LOGGED])
    return MultiPowerLaw(*t.tolist())


LOW = np.array([0.0, -10.0, 0.01, -10.0, -15.0, 0.01, -0.5])
HIGH = np.array([10.0, 10.0, 2.0, 20.0, 15.0, 5.0, 1.9])


def with_lbfgsb(peer: Peer, start: MultiPowerLaw) -> MultiPowerLaw:
    t = inside(start)
    options = {"maxiter": 1000, "maxfun": 1500, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-6}
    bounds = list(zip(LOW, HIGH, strict=True))
    return outside(
        minimize(peer.objective, t, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    )


def with_least_squares(peer: Peer, start: MultiPowerLaw) -> MultiPowerLaw:
    return outside(
        least_squares(
            peer.residual,
            inside(start),
            jac=peer.jacobian,
            bounds=(LOW, HIGH),
            loss="huber",
            f_scale=DELTA,
            x_scale="jac",
            ftol=1e-9,
            xtol=1e-9,
            gtol=1e-12,
            max_nfev=400,
        ).x
    )


def objective(law: MultiPowerLaw, curves: Curves) -> float:
    lr, steps, loss = curves
    r = np.abs(np.log(loss.values / law.predict(lr, steps, blocked=False).values))
    return float(np.sum(np.where(r <= DELTA, 0.5 * r * r, DELTA * (r - 0.5 * DELTA))))


def cases(quick: bool) -> list[Case]:
    """All cases of both sizes, ours first; the published constants have no rate."""
    out = []
    for size in (25, 100):
        curves = curves_of(size)
        peer, same = Peer(curves), SameBlocks(curves)
        start = PUBLISHED[size]
        rounds, slow = (5, 1) if quick else (15, 5)
        name = f"W6 {size}M"

        def ours(curves: Curves = curves) -> MultiPowerLaw:
            return fit_multi_power_law(*curves, threads=1).law

        def first(peer: Peer = peer, start: MultiPowerLaw = start) -> MultiPowerLaw:
            return with_lbfgsb(peer, start)

        def second(peer: Peer = peer, start: MultiPowerLaw = start) -> MultiPowerLaw:
            return with_least_squares(peer, start)

        def third(peer: Peer = same, start: MultiPowerLaw = start) -> MultiPowerLaw:
            return with_lbfgsb(peer, start)

        def fourth(peer: Peer = same, start: MultiPowerLaw = start) -> MultiPowerLaw:
            return with_least_squares(peer, start)

        def nothing(start: MultiPowerLaw = start) -> MultiPowerLaw:
            return start

        out += [
            Case(name, "ours", 1, ours, rounds, curves),
            Case(name, "SciPy L-BFGS-B, analytic", 1, first, slow, curves),
            Case(name, "SciPy least_squares, Huber", 1, second, slow, curves),
            Case(name, "L-BFGS-B, our blocks", 1, third, slow, curves),
            Case(name, "least_squares, our blocks", 1, fourth, slow, curves),
            Case(name, "published constants", 0, nothing, 1, curves),
        ]
    return out


def measure(all_cases: list[Case]) -> list[dict[str, Any]]:
    """Interleaved rounds; median and spread of the CPU time of one fit."""
    seconds: dict[int, list[float]] = {i: [] for i in range(len(all_cases))}
    laws: dict[int, MultiPowerLaw] = {}
    for turn in range(max(case.rounds for case in all_cases)):
        for i, case in enumerate(all_cases):
            if turn < case.rounds:
                begin = time.process_time()
                laws[i] = case.run()
                seconds[i].append(time.process_time() - begin)
    rows = []
    for i, case in enumerate(all_cases):
        first = next(j for j, other in enumerate(all_cases) if other.workload == case.workload)
        middle = statistics.median(seconds[i])
        rows.append(
            {
                "workload": case.workload,
                "case": case.name,
                "items": case.items,
                "cpu_ms": 1e3 * middle if case.items else None,
                "per_core_second": 1.0 / middle if case.items else None,
                "spread": (max(seconds[i]) - min(seconds[i])) / middle if case.items else None,
                "ours_over_this": middle / statistics.median(seconds[first])
                if case.items
                else None,
                "objective": objective(laws[i], case.curves),
            }
        )
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    print(f"{'':10}{'':28}{'CPU ms':>10}{'spread':>8}{'ours/this':>11}  objective")
    for row in rows:
        timed = (
            f"{row['cpu_ms']:10.4g}{row['spread']:8.0%}{row['ours_over_this']:11.4g}"
            if row["items"]
            else " " * 29
        )
        print(f"{row['workload']:10}{row['case']:28}{timed}  {row['objective']:.6g}")


# A NumPy/SciPy fit with the sum over steps in blocks, and the time of a fit in ms.
LEAST_RATIO, MOST_MS = 10.0, 20.0


def program(quick: bool) -> Program:
    rows = measure(cases(quick))
    report(rows)
    goals = []
    for row in rows:
        if row["case"] == "ours":
            goals.append(Goal(row["workload"], f"{MOST_MS:g} ms", MOST_MS / row["cpu_ms"], 1.0))
        elif row["items"]:
            goals.append(Goal(row["workload"], row["case"], row["ours_over_this"], LEAST_RATIO))
    return Program(rows, goals)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = program(options.quick).rows
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
