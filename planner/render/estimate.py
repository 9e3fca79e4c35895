"""What the jobs of a bundle cost: device-hours, and hours on the devices that a launcher takes.

Device-hours are the plan's (training operations over the accelerator's peak times the MFU), or are
computed here by the same formula where the plan names no accelerator and the user does. The MFU is
an assumption, and what is printed says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import did_you_mean
from planner.models.accelerators import accelerators
from planner.render.errors import OptionError

if TYPE_CHECKING:
    from planner.plan.model import Plan, Run

SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one job: a run with one seed.

    Attributes:
        accelerator: Name of the device.
        mfu: Assumed share of its peak.
        devices: How many the job takes; None if nobody says.
        device_hours: Device-hours.
        wall_hours: Hours from start to end without waiting; None without a number of devices.
    """

    accelerator: str
    mfu: float
    devices: int | None
    device_hours: float
    wall_hours: float | None

    @property
    def sentence(self) -> str:
        """The estimate in words, for headers."""
        text = f"about {self.device_hours:.3g} {self.accelerator} hours"
        if self.wall_hours is not None:
            text += f", {self.wall_hours:.3g} hours on {self.devices}"
        return f"{text}, at an assumed MFU of {100 * self.mfu:.3g} %"


def estimate(
    plan: Plan,
    run: Run,
    devices: int | None,
    *,
    accelerator: str | None = None,
    mfu: float | None = None,
) -> Estimate | None:
    """Return what a job of a run costs, or None if neither plan nor user names device and MFU.

    Args:
        plan: Its provenance names the accelerator and the MFU that it was costed with.
        run: The run.
        devices: Devices that the job takes; None takes the plan's.
        accelerator: Instead of the plan's.
        mfu: Instead of the plan's.

    Raises:
        OptionError: If the accelerator is not in the table.
    """
    origin = plan.provenance.get(run.name, {}).get("predicted.device_hours")
    inputs = origin.inputs if origin is not None else {}
    name = accelerator or inputs.get("accelerator")
    share = mfu or inputs.get("mfu")
    table = accelerators()
    if accelerator is not None and accelerator not in table:
        raise OptionError(
            f"got {accelerator!r}; {did_you_mean(accelerator, table)}", field="accelerator"
        )
    if not isinstance(name, str) or not isinstance(share, (int, float)):
        return None
    hours = run.predicted.device_hours
    if accelerator is not None or mfu is not None or hours is None:
        if name not in table:
            return None
        hours = run.flops.total / (table[name].peak_flops * share * SECONDS)
    if devices is None and run.predicted.wall_hours and run.predicted.device_hours:
        devices = round(run.predicted.device_hours / run.predicted.wall_hours)
    return Estimate(name, float(share), devices, hours, hours / devices if devices else None)
