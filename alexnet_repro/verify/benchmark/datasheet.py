"""Nominal rates by the data sheet, so that a slow device is no standard for itself.

A GPU's products: multiprocessors × clock × operations per clock; its memory: clock × 2 × bus; its copies: the PCIe
link, at its best. A CPU's products: cores × clock × operations per clock that its kernels reach, whichever instructions
they use.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from alexnet_repro.verify.benchmark.timing import Calibration
from alexnet_repro.verify.doctor.fingerprint import CPUINFO, cpu_fields
from alexnet_repro.verify.doctor.nvidia import Gpu
from alexnet_repro.verify.doctor.resources import QUOTA_FIX
from alexnet_repro.verify.finding import Finding, Status

# Multiply-adds per clock and multiprocessor, with float32 sums, dense: NVIDIA's architecture white papers (Volta,
# Turing, Ampere GA100 and GA102, Ada, Hopper, Blackwell). Where cards of one capability differ, the least.
# Capability: CUDA cores per multiprocessor, then float32, TF32, and float16 and bfloat16.
MULTIPROCESSORS: dict[tuple[int, ...], tuple[int | None, ...]] = {
    (7, 0): (64, 64, None, 512, None),
    (7, 5): (64, 64, None, 256, None),
    (8, 0): (64, 64, 512, 1024, 1024),
    (8, 6): (128, 128, 128, 256, 256),
    (8, 9): (128, 128, 128, 256, 256),
    (9, 0): (128, 128, 1024, 2048, 2048),
    (10, 0): (128, 128, 2048, 4096, 4096),
    (10, 3): (128, 128, 2048, 4096, 4096),
    (12, 0): (128, 128, 128, 256, 256),
    (12, 1): (128, 128, 128, 256, 256),
}
# Cards that have less than the others of their capability, by their names: their data sheets.
LESSER: dict[str, tuple[int | None, ...]] = {
    r"\bH20\b": (128, 128, 256, 512, 512),
    r"\bGTX 16\d\d\b": (64, 64, None, None, None),
}
# Cards whose tensor cores are twice those of the least: their data sheets. A10G and L40 aren't among them.
TWICE = re.compile(r"\b(T4|T10|L4|A2|A10|A16|A40|L40S|TITAN RTX|RTX (A|PRO )?\d000)\b")
# Those of them of which a sound one is known to reach the floors below: 0.8, 0.7 and 0.7, in the table named there. Of
# the others many can't: their power limit holds their clock down, and their floors are half as high. A T4 reaches 0.37
# of 65 TFLOP/s (forums.developer.nvidia.com/t/264462), an L4 0.45 of 121.
HIGH_POWER = re.compile(r"\b(A40|RTX A6000|L40S)\b")
DATASHEET_PRECISIONS = ("float32", "tf32", "mixed_float16", "mixed_bfloat16")
PCIE_BYTES = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}  # per lane, each way
# Operations (two per multiply-add) per clock and core in float32: the least of what has the instructions.
CPU_FLOAT32 = (("avx512f", 32), ("fma", 16), ("avx", 8), ("sse2", 4))
# On a CPU that has them bfloat16 should be no slower than that. Their own rates are no standard: which instructions a
# backend's kernels use is the backend's choice, and none comes near AMX's (docs/method/noise.md).
CPU_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
# A virtual machine's processor is a hardware thread, by the documents of Amazon EC2 ("Optimize CPU options") and Google
# Compute Engine ("Set the number of threads per core"), whatever cores its Linux shows: half a core, where another has
# the other thread.
VIRTUAL_CORES = 0.5
# A good kernel reaches 70 to 95 % of a GPU's nominal rates, at the clock it holds: a laptop's, or one with a low power
# limit, holds half of its highest. So below the first floor it is inconclusive, below the second it fails. In float32
# sound cards reach less: an L4 0.41, a laptop's RTX 5090 0.44, an RTX 4090 0.46 to 0.55, an L40S and a T4 0.51
# (github.com/zzc0721/torch-performance-test-data, database.md and issue 120, by their drivers' highest clocks).
# Copies from pageable memory reach a third of the link's rate, and of the fastest links no more than the host's own
# copies; in virtual machines 1 to 3 GB/s whatever the link (1.8 GB/s to a sound H100 whose link has 63). What is below
# that is inconclusive. A link that lost lanes may still be as fast: the doctor checks those.
FLOORS = {
    "float32": (0.35, 0.25),
    "low power": (0.25, 0.125),
    "matmul": (0.5, 0.25),
    "memory": (0.5, 0.25),
    "copy": (0.05, 0.03),
}
PAGEABLE = 16e9  # bytes/s
GPU_FIX = "end what else runs on it; then: nvidia-smi -q -d CLOCK,POWER,PERFORMANCE, sudo lspci -vv | grep LnkSta"
LINK_FIX = "reseat the card, or use another slot; see the firmware's speed of that slot: sudo lspci -vv | grep LnkSta"
CPU_FIX = "end what else runs on it: top; then see its clock: lscpu"


@dataclass(frozen=True)
class Nominal:
    """Rates by the data sheet; what isn't known is missing."""

    matmul: dict[str, float] = field(default_factory=dict)  # by precision, FLOP/s
    memory: float | None = None  # bytes/s
    copy: float | None = None  # bytes/s, one way
    low_power: bool = False  # whether its products in fewer bits than float32 have lower floors
    quota: float | None = None  # how many processors' time a CPU's rates are of; None: of all
    clock: int | None = None  # a GPU's highest, MHz, which its products are of
    link: tuple[int, int] | None = None  # PCIe generation and width, the most that card and slot can


def of_gpu(gpu: Gpu) -> Nominal:
    """Return a GPU's rates from its driver's record; nothing for a MIG slice, whose record is the whole GPU's."""
    if gpu.mig:
        return Nominal()
    matmul = {}
    lesser = next((each for name, each in LESSER.items() if re.search(name, gpu.name)), None)
    cores, *wide = lesser or MULTIPROCESSORS.get(gpu.capability or (), (None,))
    if twice := not lesser and TWICE.search(gpu.name):
        wide[1:] = (each and 2 * each for each in wide[1:])
    if cores and gpu.cores and gpu.max_clock:
        rate = 2 * gpu.cores / cores * gpu.max_clock * 1e6
        matmul = {name: rate * each for name, each in zip(DATASHEET_PRECISIONS, wide, strict=True) if each}
    memory = None
    if gpu.max_memory_clock and gpu.memory_bus:
        memory = gpu.max_memory_clock * 1e6 * 2 * gpu.memory_bus / 8
    # The most that card and slot can: what they have negotiated may be what is wrong.
    lane = PCIE_BYTES.get(gpu.max_pcie_generation or gpu.pcie_generation or 0)
    width = gpu.max_pcie_width or gpu.pcie_width
    copy = lane * width if lane and width else None
    most = gpu.max_pcie_generation, gpu.max_pcie_width
    link = (most[0], most[1]) if most[0] and most[1] else None
    low_power = bool(twice) and not HIGH_POWER.search(gpu.name)
    return Nominal(matmul, memory, copy, low_power=low_power, clock=gpu.max_clock, link=link)


def of_cpu(processors: int, quota: float | None = None, cpuinfo: Path = CPUINFO) -> Nominal:
    """Return a CPU's product rates from /proc/cpuinfo; nothing elsewhere, and nothing for its memory.

    Under a quota they are those of as many processors as it leaves the time of.
    """
    fields = cpu_fields(cpuinfo)
    flags = set(fields.get("flags", "").split())
    try:
        clock = float(fields["cpu MHz"]) * 1e6
        cores_each = int(fields["cpu cores"]) / int(fields["siblings"])
    except (KeyError, ValueError, ZeroDivisionError):
        return Nominal()
    if "hypervisor" in flags:
        cores_each = min(cores_each, VIRTUAL_CORES)
    width = next((each for flag, each in CPU_FLOAT32 if flag in flags), None)
    precisions = ("float32", *(("mixed_bfloat16",) if flags & CPU_BFLOAT16 else ()))
    rate = (quota or processors) * cores_each * clock
    return Nominal(dict.fromkeys(precisions, rate * width) if width else {}, quota=quota)


def compare_with_datasheet(found: Calibration, nominal: Nominal) -> list[Finding]:
    """Return, for each rate that is known by the data sheet, whether the device comes near it."""
    on_cpu = found.device.startswith("cpu")  # whose clock and neighbours aren't known: inconclusive, not a failure
    link = nominal.copy and min(nominal.copy, PAGEABLE)
    rows: list[tuple[str, str, float | None, float | None]] = [
        *(
            (f"products in {name}", "matmul" if on_cpu else _kind(name, nominal), found.matmul.get(name), rate)
            for name, rate in nominal.matmul.items()
        ),
        ("memory", "memory", found.memory, nominal.memory),
        ("copies to it", "copy", found.to_device, link),
        ("copies from it", "copy", found.to_host, link),
    ]
    findings = []
    for what, kind, reached, rate in rows:
        if reached and rate:
            share, (floor, fault) = reached / rate, FLOORS[kind]
            unit, scale = ("TFLOP/s", 1e12) if what.startswith("products") else ("GB/s", 1e9)
            if held := _held(found, nominal, what):  # its share of the highest clock
                floor = min(floor, max(fault, FLOORS["matmul"][0] * held))
            status: Status = "PASS" if share >= floor else "INCONCLUSIVE" if on_cpu or share >= fault else "FAIL"
            message = f"{what}: {reached / scale:.3g} {unit}, {share:.0%} of the nominal {rate / scale:.3g}"
            message += f" of a quota of {nominal.quota:g} processors" if nominal.quota else ""
            message += f", {share / held:.0%} at the clock where its power limit held it" if held else ""
            fix = ""
            if status != "PASS":
                message += f"; at least {floor:.0%} should be reached"
                fix = (f"{CPU_FIX}; {QUOTA_FIX}" if nominal.quota else CPU_FIX) if on_cpu else GPU_FIX
            findings.append(Finding("nominal", status, message, fix=fix, number=share, bound=floor))
    if not findings or (not on_cpu and not nominal.matmul):
        message = f"no nominal rate is known for {'its products' if findings else 'this device'}"
        fix = "compare it with others of its model, or its data sheet"
        findings.append(Finding("nominal", "INCONCLUSIVE", message, fix=fix))
    findings += _link(found, nominal)
    return [replace(finding, device=found.device) for finding in findings]


def _kind(precision: str, nominal: Nominal) -> str:
    """Return which floors a GPU's products have."""
    return "float32" if precision == "float32" else "low power" if nominal.low_power else "matmul"


def _held(found: Calibration, nominal: Nominal, what: str) -> float | None:
    """Return the clock where a power limit held a GPU's products, over its highest; None where none did.

    It held an H100 at 1,425 of 1,980 MHz (docs/gpu.md), and a T4 below its highest, too (Jia et al., arXiv 1903.07486).
    So half of the nominal rate at that clock is enough, but for what fails at the highest.
    """
    clock = found.clocks.get(what.removeprefix("products in "))
    return clock / nominal.clock if clock and nominal.clock and clock < nominal.clock else None


def _link(found: Calibration, nominal: Nominal) -> list[Finding]:
    """Return whether a GPU's link was, while all was measured, as card and slot can; nothing where it isn't known."""
    if not (nominal.link and found.pcie_generation and found.pcie_width):
        return []
    (generation, width), words = nominal.link, f"its PCIe link ran at generation {found.pcie_generation}"
    words += f" with {found.pcie_width} lanes"
    if found.pcie_generation >= generation and found.pcie_width >= width:
        return [Finding("link", "PASS", words)]
    message = f"{words} under load, of generation {generation} with {width} that card and slot can"
    return [Finding("link", "INCONCLUSIVE", message, "as sampled while its rates were measured", LINK_FIX)]
