"""What the machine says of itself while it works: load, clocks, temperature, and what holds the clocks down."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from alexnet_repro.hardware.environment import is_named, read_machine
from alexnet_repro.hardware.gpu_health import CLOCK_LIMITS, HEAT
from alexnet_repro.hardware.nvidia import Gpu, read_nvidia

DEADLINE = 30.0  # seconds


@dataclass(frozen=True)
class Conditions:
    """What a case was timed under; None is what isn't told here."""

    load: float | None = None
    """Processes that ran or waited, on average over the last minute."""
    cpu_mhz: float | None = None
    """Mean clock of the processors."""
    gpu_mhz: int | None = None
    """Clock of the GPU's multiprocessors."""
    temperature: int | None = None
    """Degrees Celsius, of the GPU."""
    heat: str = ""
    """What the driver says of heat; empty if it says nothing."""


def conditions_of(device: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> Conditions:
    """Return the conditions that a device works under now."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*: (.*)$", _read(cpuinfo), re.MULTILINE)]
    cpu_mhz = sum(clocks) / len(clocks) if clocks else None
    gpu = None if device.startswith("cpu") else _gpu(device)
    if gpu is None:
        return Conditions(load, cpu_mhz)
    return Conditions(load, cpu_mhz, gpu.clock, gpu.temperature, heat_of(gpu))


def heat_of(gpu: Gpu) -> str:
    """Return what the driver says of a GPU's heat; empty if it says nothing."""
    limits = (gpu.clock_limits or 0) & HEAT
    said = [what for bit, (what, _) in CLOCK_LIMITS.items() if limits & bit]
    return f"its clocks are held down by {' and '.join(said)}, {gpu.temperature} °C" if said else ""


def _gpu(device: str) -> Gpu | None:
    named, number = read_machine().named_gpus, device.partition(":")[2]
    name = named[int(number)] if named else number
    return next((gpu for gpu in read_nvidia((), DEADLINE).gpus if is_named(gpu, name)), None)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
