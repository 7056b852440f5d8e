"""Slots: the devices that one task at a time has to itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NO_GPUS = ("", "-1", "NoDevFiles")


@dataclass(frozen=True)
class Slot:
    """One entry of `gpu`.

    Attributes:
        devices: the ids, as the configuration names them.
        visible: the value of CUDA_VISIBLE_DEVICES with which a process sees these devices alone.
        kind: what precedes the ids in the name.
    """

    devices: tuple[str, ...]
    visible: str
    kind: str = "gpu"

    @property
    def name(self) -> str:
        """As the logs name it: `gpu0`, or `gpu0,1` for several devices."""
        return f"{self.kind}{','.join(self.devices)}"


def open_slots(ids: Sequence[tuple[str, ...]], environment: Mapping[str, str]) -> tuple[Slot, ...]:
    """The slots of this machine.

    Where CUDA_VISIBLE_DEVICES is set already, as in a Slurm job, only those devices are ours: the
    configuration's ids are taken from them if all are there, and otherwise count them, in order.

    Args:
        ids: `SchedulerConfig.slots`.
        environment: the process's.

    Raises:
        UserError: the configuration names more devices than are visible.
    """
    visible = environment.get(VISIBLE)
    if visible is not None and visible in _NO_GPUS:
        return tuple(Slot(devices, visible) for devices in ids)
    named = [device for devices in ids for device in devices]
    ours = _ours(named, visible.split(",") if visible else named)
    return tuple(Slot(devices, ",".join(ours[device] for device in devices)) for devices in ids)


def _ours(named: Sequence[str], visible: Sequence[str]) -> dict[str, str]:
    """`{id in the configuration: id for CUDA}`."""
    if set(named) <= set(visible):
        return {device: device for device in named}
    if len(named) > len(visible):
        raise UserError(
            f"the configuration's `gpu` names {len(named)} devices and {VISIBLE} is "
            f"{','.join(visible)}: make them agree."
        )
    return dict(zip(named, visible, strict=False))
