"""Is each GPU well: its memory, clocks and modes? Pure functions from the driver's record to findings."""

from collections.abc import Iterator

from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.nvidia import Gpu
from alexnet_repro.verify.finding import Finding

GIB = 2**30
MEMORY_NEEDED = 4 * GIB  # a train step of batch 256 in float32
MEMORY_OF_NOBODY = GIB  # a desktop's windows hold less
MAX_RETIRED_PAGES = 60  # of the 64 that there is room for

# NVML's clock bits: what they mean, and whether the GPU, idle now, has no business to report it.
CLOCK_LIMITS = {
    0x04: ("its power limit", False),
    0x08: ("a hardware slowdown", False),
    0x20: ("heat (software slowdown)", False),
    0x40: ("heat (hardware slowdown)", True),
    0x80: ("the power supply's brake", True),
    0x100: ("a setting for the display", False),
}
HEAT = 0x20 | 0x40


def health(here: Environment) -> Iterator[Finding]:
    """Each GPU's memory, link, clocks and modes."""
    for gpu in here.chosen_gpus:
        if gpu.error:
            continue
        found = [*_memory(gpu), *_ecc(gpu), *_link(gpu), *_clocks(gpu), *_modes(gpu)]
        yield from found
        if all(finding.status == "PASS" for finding in found):
            yield Finding("health", "PASS", f"{gpu.name}, {gpu.temperature} °C", device=f"GPU {gpu.index}")


def _memory(gpu: Gpu) -> Iterator[Finding]:
    if gpu.memory_used is None or gpu.memory_total is None:
        return
    held = f"{gpu.memory_used / GIB:.1f} of {gpu.memory_total / GIB:.1f} GiB in use"
    if gpu.processes or gpu.memory_used > MEMORY_OF_NOBODY:
        yield Finding(
            "memory",
            "FAIL" if gpu.memory_total - gpu.memory_used < MEMORY_NEEDED else "INCONCLUSIVE",
            "another process holds memory of this GPU: speed can't be measured, and memory may run out",
            f"{held} by {', '.join(gpu.processes) or 'a process that is not visible from here'}",
            f"sudo fuser -v /dev/nvidia{gpu.index}; then end those processes",
            f"GPU {gpu.index}",
        )


def _ecc(gpu: Gpu) -> Iterator[Finding]:
    device, reset = f"GPU {gpu.index}", f"sudo nvidia-smi -r -i {gpu.index} # with nothing running on it"
    if gpu.ecc_uncorrected:
        errors = f"{gpu.ecc_uncorrected} uncorrected, {gpu.ecc_corrected} corrected since the driver was loaded"
        yield Finding("ecc", "FAIL", "its memory had errors that couldn't be corrected", errors, reset, device)
    if gpu.retirement_pending:
        yield Finding(
            "ecc", "FAIL", "pages of its memory wait to be retired", f"{gpu.retired_pages} in all", reset, device
        )
    if gpu.retired_pages is not None and gpu.retired_pages >= MAX_RETIRED_PAGES:
        yield Finding(
            "ecc",
            "FAIL",
            "its memory wears out",
            f"{gpu.retired_pages} pages retired",
            "have the board replaced",
            device,
        )
    if gpu.remap_failed:
        yield Finding(
            "ecc",
            "FAIL",
            "a bad row of its memory couldn't be replaced",
            "row remapping failure",
            f"nvidia-smi -q -d ROW_REMAPPER -i {gpu.index}; then have the board replaced",
            device,
        )
    if gpu.remap_pending:
        yield Finding(
            "ecc", "FAIL", "a bad row of its memory waits to be replaced", "row remapping pending", reset, device
        )


def _link(gpu: Gpu) -> Iterator[Finding]:
    # Its generation falls while the GPU is idle, its width doesn't.
    if gpu.pcie_width and gpu.pcie_width_most and gpu.pcie_width < gpu.pcie_width_most:
        yield Finding(
            "link",
            "INCONCLUSIVE",
            f"its PCIe link has {gpu.pcie_width} lanes of {gpu.pcie_width_most}: copies are as much slower",
            f"NVML's current and largest link width: {gpu.pcie_width}, {gpu.pcie_width_most}",
            "reseat the card, or use another slot: sudo lspci -vv | grep -E 'LnkCap|LnkSta'",
            f"GPU {gpu.index}",
        )


def _clocks(gpu: Gpu) -> Iterator[Finding]:
    active = [(what, fault) for bit, (what, fault) in CLOCK_LIMITS.items() if (gpu.clock_limits or 0) & bit]
    if active:
        yield Finding(
            "clocks",
            "FAIL" if any(fault for _, fault in active) else "INCONCLUSIVE",
            f"its clocks are held down now, by {', '.join(what for what, _ in active)}: speed can't be measured",
            f"NVML's clock event reasons {gpu.clock_limits:#x}, {gpu.temperature} °C",
            f"nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER -i {gpu.index}; then see to fans, air and power",
            f"GPU {gpu.index}",
        )


def _modes(gpu: Gpu) -> Iterator[Finding]:
    device = f"GPU {gpu.index}"
    if gpu.mig:
        slices = f"MIG on, {gpu.mig_slices} slices"
        off = f"sudo nvidia-smi -i {gpu.index} -mig 0"
        if gpu.mig_slices:
            doubt = "only a slice of this GPU can be used, one a process: its speed isn't the GPU's"
            yield Finding("mig", "INCONCLUSIVE", doubt, slices, off, device)
        else:
            fix = f"{off}, or: sudo nvidia-smi mig -i {gpu.index} -cgi 0 -C"
            yield Finding(
                "mig", "FAIL", "this GPU is in MIG mode without a slice: nothing can run", slices, fix, device
            )
    if gpu.persistence is False:
        yield Finding(
            "persistence",
            "PASS",
            "off: the driver starts anew, and forgets its error counts, for every program",
            "persistence mode disabled",
            f"sudo nvidia-smi -pm 1 -i {gpu.index}",
            device,
        )
