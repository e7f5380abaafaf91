"""What the driver says of a GPU while it works."""

from alexnet_repro.hardware.environment import is_named, read_machine
from alexnet_repro.hardware.gpu_health import CLOCK_LIMITS, HEAT
from alexnet_repro.hardware.nvidia import read_nvidia

DEADLINE = 30.0  # seconds


def heat_of(device: str) -> str:
    """Return what the driver says of a GPU's heat now; empty if it says nothing, and for a CPU."""
    if device.startswith("cpu"):
        return ""
    named, number = read_machine().named_gpus, device.partition(":")[2]
    name = named[int(number)] if named else number
    gpu = next((gpu for gpu in read_nvidia((), DEADLINE).gpus if is_named(gpu, name)), None)
    limits = (gpu.clock_limits or 0) & HEAT if gpu else 0
    said = [what for bit, (what, _) in CLOCK_LIMITS.items() if limits & bit]
    return f"its clocks are held down by {' and '.join(said)}, {gpu.temperature} °C" if gpu and said else ""
