"""The numerical kernel: batches of ragged curves in, arrays and status codes out.

Typed wrappers over the compiled ``planner._core``; they know nothing of files, names or units.

- :class:`Ragged`: many curves of different lengths, without padding or copying.
- :class:`Status`: what became of each curve. A bad curve gets a status and NaNs, never an
  exception; an exception means that the call itself was wrong.
- ``planner.kernel.alignment``: the divisors of partial curves.
- ``planner.kernel.fits``: robust multi-start fits of curve models and power laws.
- ``planner.kernel.loss_law``: L = E + A / N^alpha + B / D^beta, fits and bootstrap.
- ``planner.kernel.multi_power_law``: the loss under any learning-rate schedule.
- ``planner.kernel.reductions``: means.
- ``planner.kernel.residuals``: runs against their reference: noise, spikes, alarms, drift.
- ``planner.kernel.smoothing``: moving and exponential averages, resampling, normalizing.

Every batch function takes ``threads``: None uses all CPUs this process may use. The result has
the same bits for any number of threads.
"""

from __future__ import annotations

from planner.kernel.ragged import Ragged
from planner.kernel.status import Status

__all__ = ["Ragged", "Status"]
