"""The compiled kernel: arrays in, arrays and status codes out. Source in ``csrc/``.

Functions here take arrays exactly as declared and read them in place, without the GIL; the typed
wrappers in :mod:`planner.kernel` convert where needed. All batch functions share ``threads``
(None: all CPUs this process may use; at least 1 otherwise), return the same bits for any number of
threads, stop at Ctrl-C between chunks of about 0.1 ms, and raise

    TypeError: an argument is not an array of the declared type.
    ValueError: an array has the wrong shape or layout, offsets are out of order or out of range,
        ``threads`` is below 1, or ``PLANNER_SIMD`` names a level that is not offered.

A curve that cannot be done never raises: it gets a status and NaNs. The ``STATUS_`` codes are
those of :class:`planner.kernel.Status`, where each is explained.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

STATUS_OK: Final[int]
STATUS_EMPTY: Final[int]
STATUS_NON_FINITE: Final[int]
STATUS_TOO_FEW_POINTS: Final[int]
STATUS_MAX_ITERATIONS: Final[int]
STATUS_STALLED: Final[int]
STATUS_BOUND_ACTIVE: Final[int]
STATUS_SINGULAR_COVARIANCE: Final[int]
STATUS_SCREENED_OUT: Final[int]

def compiler() -> str:
    """Compiler the extension was built with, for example ``"gcc 12.2.0"``."""

def simd_level() -> str:
    """SIMD level in use: ``"avx512"``, ``"avx2"``, ``"baseline"``, or ``"scalar"`` off x86-64.

    Chosen once, at first use: the best of :func:`simd_levels`, unless the environment variable
    ``PLANNER_SIMD`` names a lower one. AVX-512 and AVX2 return the same bits. The baseline has no
    fused multiply-add: kernels that evaluate exp or log may differ there in the last bits.

    Raises:
        ValueError: ``PLANNER_SIMD`` names a level that is unknown, or that this build or this
            CPU does not offer. The message is one sentence; importing never raises it.
    """

def simd_levels() -> list[str]:
    """Levels this build offers and this CPU runs, best first."""

def hardware_threads() -> int:
    """CPUs this process may use: what ``threads=None`` means."""

def ragged_mean(
    values: NDArray[np.float64], offsets: NDArray[np.int64], *, threads: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int32]]:
    """Mean over the finite points of each curve, summed with compensation.

    Curve ``i`` is ``values[offsets[i]:offsets[i + 1]]``. Points that are NaN, infinite or of
    magnitude 1e300 and above count as missing. The sum runs over eight virtual lanes, each
    compensated (TwoSum; Ogita, Rump, Oishi 2005), joined by a fixed tree: the result has the
    same bits on every CPU and is within an ulp or two of the exact mean.

    Args:
        values: C-contiguous float64, shape ``(points,)``.
        offsets: C-contiguous int64, shape ``(curves + 1,)``, not decreasing, from 0 or more up
            to at most ``points``.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(mean, n_finite, status)``, each of shape ``(curves,)``.
    """

def fit(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    eta: NDArray[np.float64] | None,
    weights: NDArray[np.float64] | None,
    offsets: NDArray[np.int64],
    *,
    eta_end: NDArray[np.float64] | None,
    model: str,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    delta: NDArray[np.float64],
    starts: NDArray[np.float64],
    thin_starts: int,
    brute: bool,
    ftol: float,
    max_iterations: int,
    covariance: bool,
    block: int,
    replicates: int,
    seed: int,
    threads: int | None = None,
) -> tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64] | None,
    NDArray[np.float64] | None,
    NDArray[np.float64] | None,
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
]:
    """Robust multi-start fit of each curve; :mod:`planner.kernel.fits` explains the models.

    Args:
        y: C-contiguous float64, shape ``(points,)``.
        x: Like ``y``.
        eta: Like ``y``; None for ``"power"``.
        weights: Like ``y``; None: 1.
        offsets: C-contiguous int64, shape ``(curves + 1,)``.
        eta_end: Shape ``(curves,)``; None unless ``"normalized"``.
        model: ``"curve"`` or ``"normalized"`` (P = 6) or ``"power"`` (P = 4).
        lower: Bounds, P numbers, or P for each curve in turn; where both are equal the parameter
            is fixed.
        upper: Likewise.
        delta: One number, or one per curve.
        starts: 1 to 64 rows of P numbers, flat; NaN: solved for by linear least squares (only
            ``scale``, ``e``, ``a``).
        thin_starts: Enough for a curve long enough for block medians, if they end alike.
        brute: All starts on all points.
        ftol: Relative drop of the objective below which a fit has converged.
        max_iterations: Steps from one start, at least 1.
        covariance: Whether to estimate it.
        block: Points of a bootstrap block; 0: chosen for each curve.
        replicates: Bootstrap replicates.
        seed: From 0 to 2^64 - 1.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(theta, objective, covariance, autocorrelation, samples, evaluations,
        coarse_evaluations, iterations, n_points, status)``: see
        :class:`planner.kernel.fits.Fits`.
    """

def losslaw_fit(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    weights: NDArray[np.float64],
    repeats: NDArray[np.float64] | None,
    starts: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    *,
    tied: bool,
    delta: float,
    keep: int,
    max_evaluations: int,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
    """Fit the loss law from many starts (:func:`planner.kernel.loss_law.fit_loss_law`).

    Six parameters: log A, log B (both at centred log N and log D), log E, alpha, beta, log R*.

    Args:
        x: log N, centred, shape ``(points,)``.
        y: log D, centred; with ``repeats`` that of the unique tokens.
        z: log L.
        weights: Not negative.
        repeats: R = D / U - 1, not negative, where log R* is a parameter.
        starts: Shape ``(starts * 6,)``, finite.
        lower: Lower bounds, shape ``(6,)``.
        upper: Upper bounds; equal to the lower one for a fixed parameter.
        tied: beta = alpha.
        delta: Huber width.
        keep: Distinct starts that screening keeps; 0 runs every start to the end.
        max_evaluations: Limit for each start.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(theta, objective, evaluations, status)`` of each start, theta of shape ``(starts, 6)``.
        A start that was screened out has its theta and score at that time.
    """

def losslaw_refit(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    weights: NDArray[np.float64],
    repeats: NDArray[np.float64] | None,
    counts: NDArray[np.uint8],
    starts: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    *,
    tied: bool,
    delta: float,
    max_evaluations: int,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
    """Refit the loss law to resampled points (:func:`planner.kernel.loss_law.bootstrap_loss_law`).

    As :func:`losslaw_fit`, but ``counts`` of shape ``(sets, points)`` multiply the weights, every
    set is fitted from each of ``starts``, and the results are those of the best, one per set.
    """

def schedule_predict(
    lr: NDArray[np.float64],
    lr_offsets: NDArray[np.int64],
    steps: NDArray[np.int64],
    step_offsets: NDArray[np.int64],
    theta: NDArray[np.float64],
    *,
    blocked: bool = True,
    gradient: bool = False,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evaluate the Multi-Power Law (:class:`planner.kernel.multi_power_law.MultiPowerLaw`).

    Args:
        lr: Learning rate of every step of each curve, finite and not negative; ragged.
        lr_offsets: Shape ``(curves + 1,)``.
        steps: Steps asked for, ragged as ``step_offsets`` say, each within its curve.
        step_offsets: Shape ``(curves + 1,)``; they cover all steps.
        theta: ``(L0, log A, alpha, log B, log C, log beta, gamma)``, shape ``(rows * 7,)``.
        blocked: Sum over steps in blocks.
        gradient: Also return the derivatives of the loss by theta.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(loss, gradient)`` of shapes ``(rows, steps)`` and ``(rows, steps, 7)``, or
        ``(rows, 0, 7)`` without.
    """

def schedule_fit(
    lr: NDArray[np.float64],
    lr_offsets: NDArray[np.int64],
    steps: NDArray[np.int64],
    step_offsets: NDArray[np.int64],
    log_loss: NDArray[np.float64],
    weights: NDArray[np.float64],
    starts: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    *,
    delta: float,
    max_evaluations: int,
    solve: int = 0,
    blocked: bool = True,
    threads: int | None = None,
) -> tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.float64],
    NDArray[np.float64],
]:
    """Fit the Multi-Power Law to several curves together.

    Curves as in :func:`schedule_predict`; ``log_loss`` and ``weights`` have shape ``(steps,)``,
    ``starts`` has shape ``(starts * 7,)``, the bounds ``(7,)``. With ``solve`` above 0, L0, A and B
    of every start are solved for, and so many of them, the closest, are run.

    Returns:
        ``(theta, objective, evaluations, status, loss, gradient)``: the first four of each start,
        theta of shape ``(starts, 7)``; the last two where the best start ended, of shapes
        ``(steps,)`` and ``(steps, 7)``.
    """

def smooth(
    values: NDArray[np.float64],
    offsets: NDArray[np.int64],
    width: NDArray[np.float64],
    kind: int,
    *,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int32]]:
    """Moving or exponential average at every point (:func:`planner.kernel.smoothing.smooth`).

    Args:
        values: C-contiguous float64, shape ``(points,)``.
        offsets: C-contiguous int64, shape ``(curves + 1,)``.
        width: Points in a window, or the weight of a new point; shape ``(curves,)``.
        kind: 0 centred moving average, 1 trailing, 2 exponential.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(smoothed, n_finite, status)``, of shapes ``(points,)``, ``(curves,)``, ``(curves,)``.
    """

def resample(
    values: NDArray[np.float64],
    offsets: NDArray[np.int64],
    width: NDArray[np.float64],
    kind: int,
    grid: NDArray[np.float64],
    *,
    positions: NDArray[np.float64] | None = None,
    totals: NDArray[np.float64] | None = None,
    divisors: NDArray[np.float64] | None = None,
    normalize: bool = False,
    offset: float = 0.0,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int32]]:
    """Smooth, resample, normalize (:func:`planner.kernel.smoothing.resample`).

    Args:
        values: C-contiguous float64, shape ``(points,)``.
        offsets: C-contiguous int64, shape ``(curves + 1,)``.
        width: As in :func:`smooth`.
        kind: As in :func:`smooth`.
        grid: t/T, not decreasing, shape ``(grid points,)``.
        positions: t/T of each value, increasing in each curve, shape ``(points,)``.
        totals: Points in each whole run, shape ``(curves,)``.
        divisors: Shape ``(curves,)``; None: the last smoothed value.
        normalize: Whether to divide.
        offset: Subtracted from values and divisor.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(resampled, divisor, n_finite, status)``; ``resampled`` of shape
        ``(curves, grid points)``, the others ``(curves,)``.
    """

def score_residuals(
    values: NDArray[np.float64],
    offsets: NDArray[np.int64],
    reference: NDArray[np.float64],
    *,
    window_z: float,
    cusum_slack: float,
    cusum_limit: float,
    ph_slack: float,
    ph_limit: float,
    clip: float,
    least_noise: float,
    residual: bool = False,
    z: bool = False,
    threads: int | None = None,
) -> tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.float64] | None,
    NDArray[np.float64] | None,
]:
    """Score runs against a reference (:func:`planner.kernel.residuals.score`, which explains).

    Args:
        values: C-contiguous float64, shape ``(points,)``.
        offsets: C-contiguous int64, shape ``(runs + 1,)``.
        reference: Shape ``(points,)``, beside the values.
        window_z: Limit of a spike.
        cusum_slack: k.
        cusum_limit: h.
        ph_slack: delta of Page-Hinkley.
        ph_limit: lambda of Page-Hinkley.
        clip: How far a residual counts at most.
        least_noise: Units of the values.
        residual: Whether to return the residuals.
        z: Whether to return the rolling z.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(level, noise, slope, lowest, highest, n_finite, spikes, first_spike, cusum_up,
        cusum_down, page_hinkley, deviates, status)``, each ``(runs,)``, then the residuals and the
        rolling z, ``(points,)`` each, or None.
    """

def align(
    curves: NDArray[np.float64],
    candidates: NDArray[np.float64],
    grid: int,
    method: int,
    delta: NDArray[np.float64],
    *,
    errors: bool = False,
    threads: int | None = None,
) -> tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64] | None,
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int32],
]:
    """Divisors of partial curves, for every candidate (:func:`planner.kernel.alignment.align`).

    Args:
        curves: Shape ``(curves * grid,)``, one row after the other.
        candidates: Shape ``(candidates * grid,)``.
        grid: Points in a row.
        method: 0 least squares, 1 Huber, 2 least absolute deviation.
        delta: Of Huber, shape ``(curves,)``, units of the curves.
        errors: Whether to return standard errors.
        threads: At least 1; None: all CPUs.

    Returns:
        ``(divisor, objective, error, n_finite, status, iterations)``; ``n_finite`` of shape
        ``(curves,)``, the others ``(curves, candidates)``; ``error`` may be None.
    """
