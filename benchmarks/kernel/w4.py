"""W4: divisors of partial curves against 64 candidate references, all pairs, 500 grid points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from case import OURS, Case, peers
from curves import Array

from planner.kernel.alignment import Method, align

DELTA = 0.02
GRID = 500


def data(n: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(4)
    t = np.arange(1, GRID + 1) / GRID
    powers = np.linspace(0.12, 0.18, 64)[:, None]
    candidates = ((1.02 / (t + 0.02)) ** powers) * (1 + 0.1 * (1 - t**2))
    curves = rng.uniform(2, 4, n)[:, None] * candidates[rng.integers(0, 64, n)]
    curves *= 1 + rng.normal(0, 0.01, curves.shape)
    curves[rng.random(curves.shape) < 0.01] *= 1.3
    return curves, candidates


def gemm(x: Array, u: Array) -> Array:
    xu = x @ u.T
    uu = np.sum(u * u, axis=1)
    c = xu / uu
    np.sum(x * x, axis=1)[:, None] - c * xu  # the objective
    return c


def numpy_huber(x: Array, u: Array) -> Array:
    """Newton's steps for all pairs at once, batched by curve to stay in cache."""
    rows = []
    for curve in x:
        c = (u @ curve) / np.sum(u * u, axis=1)
        for _ in range(60):
            r = curve - c[:, None] * u
            gradient = np.sum(np.clip(r, -DELTA, DELTA) * u, axis=1)
            inside = np.abs(r) <= DELTA
            weight = np.where(inside, 1.0, DELTA / np.maximum(np.abs(r), DELTA))
            curvature = np.sum(inside * u * u, axis=1)
            curvature = np.where(
                np.count_nonzero(inside, axis=1) > 20, curvature, np.sum(weight * u * u, axis=1)
            )
            step = gradient / curvature
            c += step
            if np.max(np.abs(step / c)) < 1e-11:
                break
        rows.append(c)
    return np.array(rows)


def numba_huber(x: Array, u: Array) -> Callable[[], Array] | None:
    """Our own algorithm, compiled with fastmath so that its sums are vectorized."""
    numba = peers.get("numba")
    if numba is None:
        return None

    @numba.njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, cache=False)
    def slopes(x, u, c):  # type: ignore[no-untyped-def]
        gradient = inside = cost = 0.0
        for i in range(x.size):
            r = x[i] - c * u[i]
            k = min(max(r, -DELTA), DELTA)
            gradient += k * u[i]
            inside += u[i] * u[i] if abs(r) <= DELTA else 0.0
            cost += k * (r - 0.5 * k)
        return gradient, inside, cost

    @numba.njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, cache=False)
    def weighted(x, u, c):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in range(x.size):
            r = abs(x[i] - c * u[i])
            total += u[i] * u[i] * (1.0 if r <= DELTA else DELTA / r)
        return total

    @numba.njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, cache=False)
    def first(x, u):  # type: ignore[no-untyped-def]
        xu = uu = 0.0
        for i in range(x.size):
            xu += x[i] * u[i]
            uu += u[i] * u[i]
        return xu / uu

    @numba.njit(cache=False)
    def all_pairs(xs, us, out):  # type: ignore[no-untyped-def]
        for a in range(len(xs)):
            for b in range(len(us)):
                x, u = xs[a], us[b]
                c = first(x, u)
                low, high, moved = -np.inf, np.inf, np.inf
                low_gradient = high_gradient = 0.0
                halve = False
                gradient, inside, _ = slopes(x, u, c)
                for _ in range(100):
                    close = 1e-13 * abs(c)
                    if (
                        gradient == 0.0
                        or high - low <= close
                        or (inside > 0.0 and abs(gradient) <= close * inside)
                    ):
                        break
                    if gradient > 0.0:
                        low, low_gradient = c, gradient
                    else:
                        high, high_gradient = c, gradient
                    new = c + gradient / inside if inside > 0.0 else np.nan
                    if not (low < new < high and abs(new - c) <= 0.5 * moved):
                        if low > -np.inf and high < np.inf:
                            part = low_gradient / (low_gradient - high_gradient)
                            new = low + (high - low) * (0.5 if halve else part)
                            halve = not halve
                        elif not (low < new < high):
                            new = c + gradient / weighted(x, u, c)
                    moved = abs(new - c)
                    c = new
                    gradient, inside, _ = slopes(x, u, c)
                out[a, b] = c

    def call() -> Array:
        out = np.empty((len(x), len(u)))
        all_pairs(x, u, out)
        return out

    return call


def cases(quick: bool) -> list[Case]:
    x, u = data(200 if quick else 4000)
    made: list[Case] = []

    def add(
        name: str,
        peer: str,
        run: Callable[[], Any],
        n: int,
        reference: Array,
        target: float | None = None,
        limit: float | None = None,
    ) -> None:
        def check(result: Any) -> float:
            rows = min(len(result), len(reference))
            return float(np.max(np.abs(result[:rows] / reference[:rows] - 1)))

        made.append(
            Case(
                name,
                peer,
                run,
                float(n * len(u)),
                check,
                "pairs",
                "largest relative difference of the divisor",
                target,
                limit,
            )
        )

    task = "W4 least squares"
    exact = gemm(x[:50].astype(np.longdouble), u.astype(np.longdouble)).astype(float)
    least = Method.LEAST_SQUARES
    add(
        task,
        OURS,
        lambda: align(x, u, method=least, threads=1).divisor,
        len(x),
        exact,
        limit=1e-12,
    )
    add(task, "numpy, one GEMM", lambda: gemm(x, u), len(x), exact, 2)

    task = "W4 Huber"
    several = 400 if not quick else 100
    part, few = x[:several], x[:5]
    reference = numpy_huber(few, u)
    add(
        task,
        OURS,
        lambda: align(part, u, delta=DELTA, threads=1).divisor,
        several,
        reference,
        limit=1e-8,
    )
    compiled = numba_huber(part, u)
    if compiled is not None:
        add(task, "numba, the same algorithm", compiled, several, reference, 2.5, 1e-8)
    add(task, "numpy, batched", lambda: numpy_huber(few, u), len(few), reference, 400)
    optimize = peers.get("scipy.optimize")
    if optimize is not None:

        def scipy_loop() -> Array:
            return np.array(
                [
                    [
                        optimize.least_squares(
                            lambda c, a=a, b=b: a - c * b,
                            [a @ b / (b @ b)],
                            lambda c, b=b: -b[:, None],
                            loss="huber",
                            f_scale=DELTA,
                            xtol=1e-12,
                            ftol=1e-12,
                            gtol=1e-12,
                        ).x[0]
                        for b in u
                    ]
                    for a in few[:1]
                ]
            )

        add(task, "scipy least_squares, pair by pair", scipy_loop, 1, reference, 1000)
    return made
