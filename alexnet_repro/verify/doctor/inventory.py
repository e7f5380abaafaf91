"""What a machine and its devices are, by name, serial, firmware and settings: what tells one of a fleet from another.

Reads files that need no permission, or says nothing; imports neither Keras nor a backend.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import Field

from alexnet_repro.verify.doctor.environment import Environment

NODE_VARIABLES = ("ALEXNET_REPRO_NODE", "SLURMD_NODENAME")
DMI = "sys/class/dmi/id"
# Where the serial of a whole machine is: on x86 and servers with UEFI, which tell it to root alone, then on ARM boards.
SERIALS = (f"{DMI}/product_serial", f"{DMI}/board_serial", "proc/device-tree/serial-number")
MACHINE_ID = "etc/machine-id"
# What firmware has in place of a serial or a name that nobody wrote into it.
PLACEHOLDERS = frozenset(
    (
        *("", "none", "null", "unknown", "n/a", "na", "not specified", "not applicable", "not available", "invalid"),
        *("to be filled by o.e.m.", "system serial number", "base board serial number", "default string", "default"),
        *(
            "0123456789",
            "123456789",
            "1234567890",
            "uninitialized",
            "oem",
            "system product name",
            "system manufacturer",
        ),
    )
)


@dataclass(frozen=True)
class DeviceInventory:
    """What one device is; None is what the driver doesn't report, or what a CPU hasn't."""

    kind: Annotated[str, Field(description="a GPU's product name, or the CPU's model and number of processors")]
    serial: Annotated[str | None, Field(description="the board's; consumer cards have none")] = None
    uuid: str | None = None
    board: Annotated[str | None, Field(description="its part number")] = None
    firmware: Annotated[str | None, Field(description="a GPU's VBIOS")] = None
    pci: Annotated[str | None, Field(description="where it is on the bus, as 00000000:17:00.0")] = None
    driver: str | None = None
    memory: Annotated[int | None, Field(description="bytes")] = None
    power_limit: Annotated[float | None, Field(description="W, as enforced")] = None
    power_limit_default: Annotated[float | None, Field(description="W")] = None
    pcie_generation: Annotated[int | None, Field(description="of its link when the run began; it falls when idle")] = (
        None
    )
    pcie_width: Annotated[int | None, Field(description="lanes, when the run began")] = None
    pcie_generation_max: Annotated[int | None, Field(description="that card and slot support")] = None
    pcie_width_max: Annotated[int | None, Field(description="that card and slot support")] = None
    ecc: Annotated[bool | None, Field(description="whether it is on")] = None
    ecc_corrected: Annotated[int | None, Field(description="errors since the driver was loaded")] = None
    ecc_uncorrected: Annotated[int | None, Field(description="errors since the driver was loaded")] = None
    ecc_corrected_total: Annotated[int | None, Field(description="errors in its life")] = None
    ecc_uncorrected_total: Annotated[int | None, Field(description="errors in its life")] = None
    remapped_rows: Annotated[int | None, Field(description="of its memory")] = None
    retired_pages: Annotated[int | None, Field(description="of its memory")] = None
    mig: Annotated[bool | None, Field(description="whether it is divided into slices")] = None
    bits: Annotated[Mapping[str, Any], Field(description="all that is known to decide bits; empty: not seen")] = field(
        default_factory=dict, hash=False
    )
    speed: Annotated[Mapping[str, Any], Field(description="all that is known to decide speed")] = field(
        default_factory=dict, hash=False
    )


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return the machine's name in its fleet: as a person or Slurm has it, else the host's; one line."""
    names = (*(environ.get(name, "") for name in NODE_VARIABLES), socket.gethostname(), "localhost")
    return next(filter(None, (" ".join(each.split())[:255] for each in names)))


def serial_of(text: Any) -> str | None:
    """Return a serial without blanks around it; None where it is none, but what firmware has in place of one."""
    found = str(text or "").strip("\0 \t\r\n")
    return None if found.casefold() in PLACEHOLDERS or {*found} <= {found[0]} else found


def machine_serials(root: Path = Path("/")) -> list[str]:
    """Return all serials and ids of the machine, as far as they can be read."""
    others = (f"{DMI}/product_uuid", f"{DMI}/chassis_serial")
    return [found for each in (*SERIALS, MACHINE_ID, *others) if (found := serial_of(_read(root / each)))]


def machine_identity(root: Path = Path("/")) -> dict[str, Any]:
    """Return the machine's `id` (None: not known), `id_source`, `machine_id`, `product` and `firmware`.

    Two ids of one source are comparable: root reads a serial where others read the machine-id, which everybody may.
    """
    found = ((serial_of(_read(root / each)), each) for each in (*SERIALS, MACHINE_ID))
    own, file = next(((serial, each) for serial, each in found if serial), (None, ""))
    names = (serial_of(_read(root / DMI / each)) for each in ("sys_vendor", "product_name"))
    lines = (line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines())
    microcode = next((value.strip() for name, _, value in lines if name.strip() == "microcode"), None)
    return {
        "id": own,
        "machine_id": serial_of(_read(root / MACHINE_ID)),
        "id_source": file and ("machine-id" if file == MACHINE_ID else "serial"),
        "product": " ".join(filter(None, names)) or None,
        "firmware": {"bios": serial_of(_read(root / DMI / "bios_version")), "microcode": microcode},
    }


def device_inventory(
    device: str, here: Environment, kind: str, *, bits: Mapping[str, Any], speed: Mapping[str, Any]
) -> DeviceInventory:
    """Return what is known of a device, of this kind and in these environments."""
    gpu = None if device.startswith("cpu") else here.gpu_of(device)
    if gpu is None:
        memory = psutil.virtual_memory().total if device.startswith("cpu") else None
        driver = None if device.startswith("cpu") else here.nvidia.driver
        return DeviceInventory(kind, memory=memory, driver=driver, bits=bits, speed=speed)
    return DeviceInventory(
        kind,
        serial=serial_of(gpu.serial),
        uuid=gpu.uuid or None,
        board=serial_of(gpu.board),
        firmware=gpu.vbios or None,
        pci=gpu.pci_bus_id or None,
        driver=here.nvidia.driver,
        memory=gpu.memory_total,
        power_limit=_watts(gpu.power_limit),
        power_limit_default=_watts(gpu.default_power_limit),
        pcie_generation=gpu.pcie_generation,
        pcie_width=gpu.pcie_width,
        pcie_generation_max=gpu.max_pcie_generation,
        pcie_width_max=gpu.max_pcie_width,
        ecc=gpu.ecc,
        ecc_corrected=gpu.ecc_corrected,
        ecc_uncorrected=gpu.ecc_uncorrected,
        ecc_corrected_total=gpu.all_corrected,
        ecc_uncorrected_total=gpu.all_uncorrected,
        remapped_rows=gpu.remapped_rows,
        retired_pages=gpu.retired_pages,
        mig=gpu.mig,
        bits=bits,
        speed=speed,
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
