"""W3, loss-law fits: 4500 starts and 4000 bootstrap refits against SciPy, numba and NLopt.

    python benchmarks/kernel/w3.py [--quick] [--json FILE]

Every case does the same job on the same 245 runs: PLANNER_DATA names the folder with the
Chinchilla points; without it, synthetic ones stand in. Rounds are interleaved: each runs every case
once, ours and peers in turn. The figure is work per core-second (process CPU time). Slow peers
run a random subset of the starts or refits, whose size is stated; each item is independent of the
others, so their rate is that of the whole. Beside speed stands the objective: of the starts, the
lowest one; of the refits, the largest excess over the best known of the same refit.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from case import Goal, Program
from scipy.optimize import minimize

from planner.kernel.loss_law import (
    bootstrap_loss_law,
    fit_loss_law,
    hoffmann_starts,
    predict_loss,
    resample_counts,
)

DELTA = 1e-3


@dataclass(frozen=True)
class Case:
    """One way to do a job. `run` does `items` of it and returns the objectives reached."""

    workload: str
    name: str
    items: int
    run: Callable[[], np.ndarray]
    rounds: int
    note: str = ""


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    root = Path(os.environ.get("PLANNER_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = root / "chinchilla_svg" / "svg_extracted_data.csv"
    if path.is_file():
        with path.open(newline="") as handle:
            rows = [row for row in csv.DictReader(handle) if row["loss"]]
        n, c, loss = (
            np.array([float(row[key]) for row in rows])
            for key in ("Model Size", "Training FLOP", "loss")
        )
        return n, c / (6.0 * n), loss
    random = np.random.default_rng(0)
    n = np.exp(random.uniform(np.log(4e7), np.log(1.6e10), 245))
    d = n * np.exp(random.uniform(np.log(1), np.log(200), 245))
    loss = predict_loss([6.2, 9.46, 0.637, 0.349, 0.453], n, d)
    return n, d, loss * np.exp(0.005 * random.standard_t(3, 245))


class Peer:
    """The objective as the peers take it: plain NumPy, uncentred as published, or centred."""

    def __init__(self, n: np.ndarray, d: np.ndarray, loss: np.ndarray, centred: bool) -> None:
        self.x, self.y, self.z = np.log(n), np.log(d), np.log(loss)
        self.mx, self.my = (self.x.mean(), self.y.mean()) if centred else (0.0, 0.0)
        self.x, self.y = self.x - self.mx, self.y - self.my

    def starts(self, starts: np.ndarray) -> np.ndarray:
        out = np.array(starts)
        out[:, 0] -= out[:, 3] * self.mx
        out[:, 1] -= out[:, 4] * self.my
        return out

    def value(self, t: np.ndarray, w: np.ndarray | float = 1.0) -> float:
        a, b = t[0] - t[3] * self.x, t[1] - t[4] * self.y
        top = np.maximum(np.maximum(a, b), t[2])
        r = self.z - top - np.log(np.exp(a - top) + np.exp(b - top) + np.exp(t[2] - top))
        c = np.clip(r, -DELTA, DELTA)
        return float(np.sum(w * c * (r - 0.5 * c)))

    def both(self, t: np.ndarray, w: np.ndarray | float = 1.0) -> tuple[float, np.ndarray]:
        a, b = t[0] - t[3] * self.x, t[1] - t[4] * self.y
        top = np.maximum(np.maximum(a, b), t[2])
        ea, eb, ee = np.exp(a - top), np.exp(b - top), np.exp(t[2] - top)
        total = ea + eb + ee
        r = self.z - top - np.log(total)
        c = np.clip(r, -DELTA, DELTA)
        s = -w * c / total
        sa, sb = s * ea, s * eb
        g = np.array([sa.sum(), sb.sum(), (s * ee).sum(), -(sa @ self.x), -(sb @ self.y)])
        # Scaled: absolute tolerances of the optimizers would stop them early at 1e-3.
        return float(np.sum(w * c * (r - 0.5 * c))) * 1e6, g * 1e6


TIGHT = {"maxiter": 2000, "maxfun": 4000, "maxcor": 20, "ftol": 1e-14, "gtol": 1e-7}


def published(peer: Peer, starts: np.ndarray) -> np.ndarray:
    """L-BFGS-B with a numerical gradient and default tolerances, as in the published recipe."""
    return np.array([minimize(peer.value, t, method="L-BFGS-B").fun for t in starts])


def lbfgsb(peer: Peer, starts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    each = [None] * len(starts) if weights is None else weights
    return np.array(
        [
            minimize(
                peer.both,
                t,
                args=(1.0 if w is None else w,),
                jac=True,
                method="L-BFGS-B",
                options=TIGHT,
            ).fun
            * 1e-6
            for t, w in zip(starts, each, strict=True)
        ]
    )


def bfgs(peer: Peer, starts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    each = [None] * len(starts) if weights is None else weights
    return np.array(
        [
            minimize(
                peer.both,
                t,
                args=(1.0 if w is None else w,),
                jac=True,
                method="BFGS",
                options={"gtol": 1e-5},
            ).fun
            * 1e-6
            for t, w in zip(starts, each, strict=True)
        ]
    )


def nlopt_runner() -> Callable[..., np.ndarray] | None:
    try:
        import nlopt
    except ImportError:
        return None

    def run(peer: Peer, starts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        out = []
        for i, t in enumerate(starts):
            w: Any = 1.0 if weights is None else weights[i]

            def objective(x: np.ndarray, gradient: np.ndarray, w: Any = w) -> float:
                value, g = peer.both(x, w)
                if gradient.size:
                    gradient[:] = g
                return value

            solver = nlopt.opt(nlopt.LD_LBFGS, 5)
            solver.set_min_objective(objective)
            solver.set_ftol_rel(1e-13)
            solver.set_maxeval(2000)
            try:
                solver.optimize(t)
                out.append(solver.last_optimum_value() * 1e-6)
            except Exception:  # its errors have no common base
                out.append(np.inf)
        return np.array(out)

    return run


def numba_runner() -> Callable[..., np.ndarray] | None:
    """A port of our own algorithm: exact Hessian, damping, Huber width in stages."""
    try:
        import numba
    except ImportError:
        return None

    @numba.njit(cache=False)
    def evaluate(t, x, y, z, w, delta, irls, g, h):  # type: ignore[no-untyped-def]
        f = 0.0
        g[:] = 0.0
        h[:] = 0.0
        ee = np.exp(t[2])
        v = np.empty(5)
        for i in range(x.size):
            if w[i] == 0.0:
                continue
            ea, eb = np.exp(t[0] - t[3] * x[i]), np.exp(t[1] - t[4] * y[i])
            over = 1.0 / (ea + eb + ee)
            r = z[i] + np.log(over)
            p1, p2, p0 = ea * over, eb * over, ee * over
            psi = min(max(r, -delta), delta)
            f += w[i] * psi * (r - 0.5 * psi)
            m = w[i] * psi
            inside = 1.0 if abs(r) <= delta else (delta / abs(r) if irls else 0.0)
            c = w[i] * inside if irls else w[i] * inside + m
            v[0], v[1], v[2], v[3], v[4] = p1, p2, p0, -p1 * x[i], -p2 * y[i]
            for j in range(5):
                g[j] -= m * v[j]
                for k in range(j + 1):
                    h[j, k] += c * v[j] * v[k]
            if not irls:
                h[0, 0] -= m * p1
                h[3, 0] += m * p1 * x[i]
                h[3, 3] -= m * p1 * x[i] * x[i]
                h[1, 1] -= m * p2
                h[4, 1] += m * p2 * y[i]
                h[4, 4] -= m * p2 * y[i] * y[i]
                h[2, 2] -= m * p0
        return f

    @numba.njit(cache=False)
    def solve(h, g, damping, s):  # type: ignore[no-untyped-def]
        low = np.zeros((5, 5))
        top = 0.0
        for i in range(5):
            top = max(top, abs(h[i, i]))
        for i in range(5):
            for j in range(i + 1):
                t = h[i, j]
                if i == j:
                    t += damping * max(abs(h[i, i]), 1e-12 * top)
                for k in range(j):
                    t -= low[i, k] * low[j, k]
                if i == j:
                    if not t > 0.0:
                        return False
                    low[i, i] = np.sqrt(t)
                else:
                    low[i, j] = t / low[j, j]
        for i in range(5):
            t = -g[i]
            for k in range(i):
                t -= low[i, k] * s[k]
            s[i] = t / low[i, i]
        for i in range(4, -1, -1):
            t = s[i]
            for k in range(i + 1, 5):
                t -= low[k, i] * s[k]
            s[i] = t / low[i, i]
        return True

    @numba.njit(cache=False)
    def one(t, x, y, z, w, far):  # type: ignore[no-untyped-def]
        g, h, s = np.empty(5), np.empty((5, 5)), np.empty(5)
        g2, h2, t2 = np.empty(5), np.empty((5, 5)), np.empty(5)
        widths = np.array([300.0, 300.0, 30.0 if far else 12.0, 6.0 if far else 3.0, 1.0])
        damping = 1e-3
        done = 0
        f = 0.0
        for stage in range(0 if far else 2, 5):
            delta, irls = widths[stage] * 1e-3, stage == 0
            f = evaluate(t, x, y, z, w, delta, irls, g, h)
            done += 1
            damping = min(damping, 1e-3)
            last = 1e-12 if far else 1e-10
            tolerance = last if stage == 4 else (1e-4 if far else 5e-2)
            failed = False
            while done < 400:
                if not solve(h, g, damping, s):
                    damping = 1e-3 if damping < 1e-4 else damping * 3.0
                    if damping > 1e12:
                        break
                    continue
                foreseen = 0.0
                for i in range(5):
                    q = g[i]
                    for j in range(5):
                        q += 0.5 * (h[i, j] if j <= i else h[j, i]) * s[j]
                    foreseen -= q * s[i]
                    t2[i] = t[i] + s[i]
                for i in range(3, 5):
                    t2[i] = min(max(t2[i], 0.0), 3.0)
                if foreseen <= tolerance * f and damping <= 1.0:
                    if stage < 4 and not far and foreseen > 0.0 and np.abs(s).max() <= 0.1:
                        t[:] = t2
                    break
                f2 = evaluate(t2, x, y, z, w, delta, irls, g2, h2)
                done += 1
                if f2 < f:
                    drop, before = f - f2, f
                    f = f2
                    t[:], g[:], h[:] = t2, g2, h2
                    if drop > 0.75 * foreseen:
                        damping = max(damping * (0.5 if failed else 0.1), 1e-12)
                    elif drop < 0.25 * foreseen:
                        damping *= 4.0
                    failed = False
                    if irls and drop < 0.05 * before:
                        break
                else:
                    if foreseen <= 1e-13 * f:
                        break
                    failed = True
                    damping = 1e-3 if damping < 1e-4 else damping * 8.0
                    if damping > 1e12:
                        break
        return f

    @numba.njit(cache=False)
    def many(starts, x, y, z, weights, far):  # type: ignore[no-untyped-def]
        out = np.empty(len(starts))
        for i in range(len(starts)):
            w = weights[i if len(weights) > 1 else 0]
            out[i] = one(starts[i].copy(), x, y, z, w, far)
        return out

    def run(
        peer: Peer, starts: np.ndarray, weights: np.ndarray | None = None, far: bool = True
    ) -> np.ndarray:
        each = np.ones((1, peer.x.size)) if weights is None else weights
        return many(starts, peer.x, peer.y, peer.z, each, far)

    return run


def cases(quick: bool) -> list[Case]:
    """All cases of both jobs, ours first."""
    n, d, loss = points()
    runs, rounds, slow = n.size, 3 if quick else 7, 1 if quick else 3
    starts = hoffmann_starts()
    plain, centred = Peer(n, d, loss, False), Peer(n, d, loss, True)
    random = np.random.default_rng(1)

    def subset(count: int) -> np.ndarray:
        return random.choice(len(starts), count, replace=False)

    few, some = (subset(6), subset(24)) if quick else (subset(40), subset(120))
    fit = fit_loss_law(n, d, loss, threads=1)
    counts = resample_counts(runs, 4000, seed=0)
    refits = 40 if quick else 200
    weights = counts[:refits].astype(float)
    warm = np.repeat(centred.starts(fit.theta[None, :5]), refits, axis=0)
    ours = "ours"

    def boot(restarts: int) -> np.ndarray:
        return bootstrap_loss_law(
            n, d, loss, fit, counts=counts, restarts=restarts, threads=1
        ).objective

    a, b = "W3a starts", "W3b refits"
    out = [
        Case(a, f"{ours}, screened", 4500, lambda: fit_one(n, d, loss, True), rounds),
        Case(a, f"{ours}, exhaustive", 4500, lambda: fit_one(n, d, loss, False), slow),
        Case(a, "published recipe", len(few), lambda: published(plain, starts[few]), slow),
        Case(
            a,
            "SciPy L-BFGS-B, analytic",
            len(some),
            lambda: lbfgsb(centred, centred.starts(starts[some])),
            slow,
        ),
        Case(
            a,
            "SciPy BFGS, analytic",
            len(some),
            lambda: bfgs(centred, centred.starts(starts[some])),
            slow,
        ),
        Case(b, ours, 4000, lambda: boot(0), rounds),
        Case(b, f"{ours}, 2 restarts", 4000, lambda: boot(2), slow),
        Case(b, "SciPy L-BFGS-B, analytic", refits, lambda: lbfgsb(centred, warm, weights), slow),
        Case(b, "SciPy BFGS, analytic", refits, lambda: bfgs(centred, warm, weights), slow),
    ]
    numba = numba_runner()
    if numba is not None:
        port = centred.starts(starts[subset(200)])
        numba(centred, warm[:1], weights[:1], False)  # compile
        all_weights = counts.astype(float)
        all_warm = np.repeat(warm[:1], 4000, axis=0)
        out += [
            Case(a, "numba, our algorithm", len(port), lambda: numba(centred, port), slow),
            Case(
                b,
                "numba, our algorithm",
                4000,
                lambda: numba(centred, all_warm, all_weights, False),
                slow,
            ),
        ]
    solver = nlopt_runner()
    if solver is not None:
        out += [
            Case(
                a,
                "NLopt L-BFGS",
                len(some),
                lambda: solver(centred, centred.starts(starts[some])),
                slow,
            ),
            Case(b, "NLopt L-BFGS", refits, lambda: solver(centred, warm, weights), slow),
        ]
    return out


def fit_one(n: np.ndarray, d: np.ndarray, loss: np.ndarray, screened: bool) -> np.ndarray:
    return np.array([fit_loss_law(n, d, loss, screened=screened, threads=1).objective])


def measure(all_cases: list[Case]) -> list[dict[str, Any]]:
    """Interleaved rounds; median and spread of items per core-second."""
    rates: dict[int, list[float]] = {i: [] for i in range(len(all_cases))}
    ends: dict[int, np.ndarray] = {}
    for turn in range(max(case.rounds for case in all_cases)):
        for i, case in enumerate(all_cases):
            if turn >= case.rounds:
                continue
            begin = time.process_time()
            ends[i] = case.run()
            rates[i].append(case.items / (time.process_time() - begin))
    rows = []
    for i, case in enumerate(all_cases):
        first = next(j for j, other in enumerate(all_cases) if other.workload == case.workload)
        rate = statistics.median(rates[i])
        reached = ends[i]
        if len(reached) > 1 and len(ends[first]) > 1:  # refits: against the best of the same
            k = min(
                len(reached),
                *(
                    len(ends[j])
                    for j in ends
                    if len(ends[j]) > 1 and all_cases[j].workload == case.workload
                ),
            )
            best = np.min(
                [
                    ends[j][:k]
                    for j, other in enumerate(all_cases)
                    if other.workload == case.workload
                ],
                axis=0,
            )
            objective = float(np.max(reached[:k] / best - 1.0))
        else:
            objective = float(np.min(reached))
        rows.append(
            {
                "workload": case.workload,
                "case": case.name,
                "items": case.items,
                "per_core_second": rate,
                "spread": (max(rates[i]) - min(rates[i])) / rate,
                "ours_over_this": statistics.median(rates[first]) / rate,
                "objective": objective,
                "note": case.note,
            }
        )
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    print(f"{'':14}{'':28}{'items':>7}{'/core-s':>12}{'spread':>8}{'ours/this':>11}  objective")
    for row in rows:
        print(
            f"{row['workload']:14}{row['case']:28}{row['items']:7}{row['per_core_second']:12.4g}"
            f"{row['spread']:8.0%}{row['ours_over_this']:11.4g}  {row['objective']:.12g}"
        )


# Ours over the peer: screened, exhaustive; refits.
START_TARGETS = {"published recipe": (1500.0, 100.0), "NLopt L-BFGS": (250.0, 15.0)}
REFIT_TARGETS = {
    "SciPy L-BFGS-B, analytic": 200.0,
    "SciPy BFGS, analytic": 200.0,
    "NLopt L-BFGS": 80.0,
    "numba, our algorithm": 4.0,
}


def program(quick: bool) -> Program:
    rows = measure(cases(quick))
    report(rows)
    exhaustive = next(row for row in rows if row["case"] == "ours, exhaustive")
    goals = []
    for row in rows:
        peer, ratio = row["case"], row["ours_over_this"]
        if row["workload"].startswith("W3b"):
            if peer in REFIT_TARGETS:
                goals.append(Goal("W3b refits", peer, ratio, REFIT_TARGETS[peer]))
        elif peer in START_TARGETS:
            screened, slow = START_TARGETS[peer]
            goals.append(Goal("W3a screened", peer, ratio, screened))
            goals.append(Goal("W3a exhaustive", peer, ratio / exhaustive["ours_over_this"], slow))
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
