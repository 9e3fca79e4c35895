"""W4: divisors of curves against 64 candidate references, all pairs, 500 grid points.

Twice: complete curves against candidates that differ little, and curves that end after 20-90 % of
the grid against candidates that differ much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from case import OURS, Case, peers
from curves import Array
from numpy.typing import NDArray

from planner.kernel.alignment import Method, align

DELTA = 0.02
GRID = 500


def data(n: int, wide: bool) -> tuple[Array, Array, NDArray[np.int64]]:
    """Curves, NaN where they have ended; candidates; points of each curve."""
    rng = np.random.default_rng(4)
    t = np.arange(1, GRID + 1) / GRID
    powers = np.linspace(0.05, 0.3, 64) if wide else np.linspace(0.12, 0.18, 64)
    candidates = ((1.02 / (t + 0.02)) ** powers[:, None]) * (1 + 0.1 * (1 - t**2))
    curves = rng.uniform(2, 4, n)[:, None] * candidates[rng.integers(0, 64, n)]
    curves *= 1 + rng.normal(0, 0.01, curves.shape)
    curves[rng.random(curves.shape) < 0.01] *= 1.3
    known = rng.integers(GRID // 5, GRID * 9 // 10, n) if wide else np.full(n, GRID)
    curves[np.arange(GRID) >= known[:, None]] = np.nan
    return curves, candidates, known


def gemm(x: Array, u: Array) -> Array:
    """All products by one GEMM; for complete curves."""
    xu = x @ u.T
    c = xu / np.einsum("ij,ij->i", u, u)
    np.einsum("ij,ij->i", x, x)[:, None] - c * xu  # the objective
    return c


def gemm_partial(x: Array, u: Array) -> Array:
    """The same for curves that end early: sums of u^2 up to there, from running sums."""
    good = np.isfinite(x)
    filled = np.where(good, x, 0.0)
    xu = filled @ u.T
    sums = np.cumsum(u * u, axis=1).T
    c = xu / sums[np.count_nonzero(good, axis=1) - 1]
    np.einsum("ij,ij->i", filled, filled)[:, None] - c * xu
    return c


def bisected(x: Array, u: Array) -> Array:
    """What the others should find: the root of the derivative, by halving the bracket."""
    rows = []
    for curve in x:
        known = np.isfinite(curve)
        curve, some = curve[known], u[:, known]
        low, high = np.min(curve / some, axis=1), np.max(curve / some, axis=1)
        for _ in range(60):
            c = 0.5 * (low + high)
            clipped = np.clip(curve - c[:, None] * some, -DELTA, DELTA)
            up = np.sum(clipped * some, axis=1) > 0
            low, high = np.where(up, c, low), np.where(up, high, c)
        rows.append(c)
    return np.array(rows)


def numpy_newton(x: Array, u: Array) -> Array:
    """Our own algorithm for all candidates at once, curve by curve to stay in cache."""
    rows = []
    for curve in x:
        known = np.isfinite(curve)
        curve, some = curve[known], u[:, known]
        c = (some @ curve) / np.einsum("ij,ij->i", some, some)
        low, high = np.full(len(c), -np.inf), np.full(len(c), np.inf)
        moved = np.full(len(c), np.inf)
        reach = np.ones(len(c))
        left = np.arange(len(c))  # candidates that have not converged
        for _ in range(300):
            at, v = c[left], some[left]
            r = curve - at[:, None] * v
            gradient = np.einsum("ij,ij->i", np.clip(r, -DELTA, DELTA), v)
            inside = np.einsum("ij,ij->i", np.where(np.abs(r) <= DELTA, v, 0.0), v)
            close = 1e-13 * np.abs(at)
            going = (np.abs(gradient) > close * inside) & (high[left] - low[left] > close)
            if not np.all(going):
                left, at, v, r = left[going], at[going], v[going], r[going]
                gradient, inside = gradient[going], inside[going]
            if not left.size:
                break
            up = gradient > 0
            low[left], high[left] = np.where(up, at, low[left]), np.where(up, high[left], at)
            with np.errstate(divide="ignore"):
                new = at + gradient / inside
            good = (new > low[left]) & (new < high[left])
            good &= np.abs(new - at) <= 0.5 * moved[left]
            if not np.all(good):
                bad = np.flatnonzero(~good)
                weight = DELTA / np.maximum(np.abs(r[bad]), DELTA)
                step = gradient[bad] / np.einsum("ij,ij,ij->i", weight, v[bad], v[bad])
                ends = low[left[bad]], high[left[bad]]
                both = np.isfinite(ends[0]) & np.isfinite(ends[1])
                new[bad] = np.where(
                    both, 0.5 * (ends[0] + ends[1]), at[bad] + reach[left[bad]] * step
                )
                reach[left[bad]] *= 2.0
            moved[left] = np.abs(new - at)
            c[left] = new
        rows.append(c)
    return np.array(rows)


def numpy_reweighted(x: Array, u: Array) -> Array:
    """Iteratively reweighted least squares on one array of all pairs and points."""
    good = np.isfinite(x)
    curves = np.where(good, x, 0.0)[:, None, :]
    candidates = u * good[:, None, :]
    c = np.sum(curves * candidates, axis=2) / np.sum(candidates**2, axis=2)
    for _ in range(1000):
        r = np.abs(curves - c[:, :, None] * candidates)
        weight = DELTA / np.maximum(r, DELTA)
        new = np.sum(weight * curves * candidates, axis=2) / np.sum(weight * candidates**2, axis=2)
        moved = np.max(np.abs(new / c - 1))
        c = new
        if moved < 1e-10:
            break
    return c


def numba_huber(x: Array, u: Array, known: NDArray[np.int64]) -> Callable[[], Array] | None:
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
    def all_pairs(xs: Array, us: Array, known: NDArray[np.int64], out: Array) -> None:
        for a in range(len(xs)):
            for b in range(len(us)):
                x, u = xs[a, : known[a]], us[b, : known[a]]
                c = first(x, u)
                low, high, moved = -np.inf, np.inf, np.inf
                low_gradient = high_gradient = 0.0
                halve, reach = False, 1.0
                gradient, inside, _ = slopes(x, u, c)
                for _ in range(300):
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
                            new = c + reach * gradient / weighted(x, u, c)
                            reach *= 2.0
                    moved = abs(new - c)
                    c = new
                    gradient, inside, _ = slopes(x, u, c)
                out[a, b] = c

    def call() -> Array:
        out = np.empty((len(x), len(u)))
        all_pairs(x, u, known, out)
        return out

    return call


def cases(quick: bool) -> list[Case]:
    return [case for wide in (False, True) for case in cases_of(wide, quick)]


def cases_of(wide: bool, quick: bool) -> list[Case]:
    x, u, known = data(4000, wide)
    what = "partial curves" if wide else "complete curves"
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

    task = f"W4 least squares, {what}"
    product = gemm_partial if wide else gemm
    exact = product(x[:50].astype(np.longdouble), u.astype(np.longdouble)).astype(float)
    least = Method.LEAST_SQUARES
    add(
        task,
        OURS,
        lambda: align(x, u, method=least, threads=1).divisor,
        len(x),
        exact,
        limit=1e-12,
    )
    add(task, "numpy, one GEMM", lambda: product(x, u), len(x), exact, 2)

    task = f"W4 Huber, {what}"
    several = 400 if not quick else 100
    part, few = x[:several], x[:5]
    reference = bisected(few, u)
    add(
        task,
        OURS,
        lambda: align(part, u, delta=DELTA, threads=1).divisor,
        several,
        reference,
        limit=1e-8,
    )
    compiled = numba_huber(part, u, known)
    if compiled is not None:
        add(task, "numba, the same algorithm", compiled, several, reference, 2.5, 1e-8)
    add(task, "numpy, the same algorithm", lambda: numpy_newton(few, u), len(few), reference, 400)
    add(task, "numpy, reweighted", lambda: numpy_reweighted(few, u), len(few), reference, 400)
    optimize = peers.get("scipy.optimize")
    if optimize is not None:

        def scipy_loop() -> Array:
            curve, some = x[0, : known[0]], u[:, : known[0]]
            return np.array(
                [
                    [
                        optimize.least_squares(
                            lambda c, b=b: curve - c * b,
                            [curve @ b / (b @ b)],
                            lambda c, b=b: -b[:, None],
                            loss="huber",
                            f_scale=DELTA,
                            xtol=1e-12,
                            ftol=1e-12,
                            gtol=1e-12,
                        ).x[0]
                        for b in some
                    ]
                ]
            )

        add(task, "scipy least_squares, pair by pair", scipy_loop, 1, reference, 1000)
    return made
