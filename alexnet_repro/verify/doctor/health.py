"""Are the GPUs healthy, free, and of one model? Pure functions from what the driver reports to findings.

GPUs are named as nvidia-smi names them (GPU 0). What counts as worn or broken is NVIDIA's own: "NVIDIA GPU Memory Error
Management", and the limits of its Data Center GPU Manager (DCGM).
"""

from collections import Counter
from collections.abc import Iterator

from alexnet_repro.verify.doctor.environment import GIB, Environment
from alexnet_repro.verify.doctor.nvidia import EXCLUSIVE, Gpu
from alexnet_repro.verify.finding import Finding, Status

MAX_RETIRED_PAGES = 60  # of the 64 that there is room for
# NVML's clock event reasons: what each bit means, and whether it is a fault on a GPU that is idle now.
THROTTLE_REASONS = {
    0x04: ("its power limit", False),
    0x08: ("a hardware slowdown", False),
    0x20: ("heat (software slowdown)", False),
    0x40: ("heat (hardware slowdown)", True),
    0x80: ("the power supply's brake", True),
    0x100: ("a setting for the display", False),
}
POWER_CAP = 0x04  # no fault, idle or under load: so a card keeps within its limit
HEAT = 0x20 | 0x40
BRAKES = 0x40 | 0x80  # that are a fault under load, too
SLOWDOWN = 0x08  # which a change of clocks may report as well
MODES = {**dict.fromkeys(EXCLUSIVE, "exclusive"), 2: "prohibited"}  # NVML's compute modes, but for the default
# What a field of NVML's says that the driver needs after an error, as Xid 154 says in the kernel's log.
RECOVERIES = {
    1: "a reset of this GPU",
    2: "a reboot",
    3: "that copies between GPUs end",
    4: "that all work ends, then a reset of this GPU",
    5: "that the NVLink domain is recovered",
    6: "a reset of its bus",
    7: "a reboot",
}
# GPUs of one name and memory may differ in what is usable: ECC takes a sixteenth of GDDR, and pages are retired. Cards
# that are sold with more and with less memory under one name differ by a fifth at least (GeForce RTX 3080: 10 and 12).
MAX_MEMORY_GAP = 1.1

Problem = tuple[str, Status, str, str, str]  # a finding's check, status, message, evidence and fix


def describe_throttling(reasons: int) -> str:
    """Return the causes of throttling, by NVML's bits; empty if none is known."""
    return " and ".join(what for bit, (what, _) in THROTTLE_REASONS.items() if reasons & bit)


def mixed_gpu_models(here: Environment) -> Iterator[Finding]:
    """GPUs that work together are of one model, with as much memory by the data sheet."""
    gpus = [gpu for gpu in here.chosen_gpus if not gpu.error]
    largest: dict[str, int] = {}
    for gpu in gpus:
        largest[gpu.name] = max(largest.get(gpu.name, 0), gpu.memory_total or 0)

    def model(gpu: Gpu) -> tuple[str, bool]:
        return gpu.name, (gpu.memory_total or 0) * MAX_MEMORY_GAP >= largest[gpu.name]

    models = Counter(map(model, gpus))
    if len(models) > 1:
        [(commonest, _)] = models.most_common(1)
        same = ",".join(gpu.uuid for gpu in gpus if model(gpu) == commonest)
        message = "the GPUs differ: together they run at the slowest one's pace, and can't be compared with each other"
        memory = {model(gpu): (gpu.memory_total or 0) / GIB for gpu in gpus}
        shown = (f"{count} × {each[0]} ({memory[each]:.0f} GiB)" for each, count in models.items())
        fix = f"export CUDA_VISIBLE_DEVICES={same}"
        yield Finding("mixed_gpu_models", "INCONCLUSIVE", message, ", ".join(shown), fix)


def health(here: Environment) -> Iterator[Finding]:
    """Each GPU's memory, link, clocks and modes."""
    for gpu in here.chosen_gpus:
        if gpu.error:
            continue
        problems = [*_memory(gpu), *_ecc(gpu), *_speed(gpu), *_modes(gpu)]
        yield from (Finding(*each, device=f"GPU {gpu.index}") for each in problems)
        if all(status == "PASS" for _, status, *_ in problems):
            yield Finding("health", "PASS", f"{gpu.name}, {gpu.temperature} °C", device=f"GPU {gpu.index}")


def _memory(gpu: Gpu) -> Iterator[Problem]:
    if gpu.memory_used is None or gpu.memory_total is None:
        return
    enough = gpu.memory_total - gpu.memory_used >= 4 * GIB  # for a train step of batch 256 in float32
    held = f"{gpu.memory_used / GIB:.1f} of {gpu.memory_total / GIB:.1f} GiB in use by "
    fix = f"sudo fuser -v /dev/nvidia{gpu.index}; then end those processes"
    drawn = not gpu.processes and gpu.memory_used - gpu.desktop_memory <= GIB  # by a desktop, of however many windows
    if drawn and enough and gpu.memory_used > GIB:
        message = "a desktop's windows are in this GPU's memory, and may slow it a little"
        yield "memory", "PASS", message, f"{held}what draws", "end the desktop's session"
    elif gpu.processes or gpu.memory_used > GIB:
        message = "another process holds memory of this GPU: speed can't be measured, and memory may run out"
        held += ", ".join(gpu.processes) or "a process that is not visible from here"
        yield "memory", "INCONCLUSIVE" if enough else "FAIL", message, held, fix


def reset_gpu(gpu: Gpu) -> str:
    """Return how a GPU is reset."""
    return f"sudo nvidia-smi -r -i {gpu.index} # with nothing running on it"


def standing_faults(gpu: Gpu) -> dict[str, tuple[str, str, str]]:
    """Return what the driver reports until the GPU is reset or replaced: message, evidence and fix, by its field."""
    reset, action = reset_gpu(gpu), RECOVERIES.get(gpu.recovery or 0, "a recovery")
    asks = f"after an error the driver asks for {action}"
    board = f"nvidia-smi -q -d ROW_REMAPPER -i {gpu.index}; then have the board replaced"
    every = {
        "recovery": (asks, f"recovery action {gpu.recovery}", f"sudo dmesg | grep -i xid; then: {reset}"),
        "retirement_pending": ("pages of its memory wait to be retired", f"{gpu.retired_pages} in all", reset),
        "remap_failed": ("a bad row of its memory couldn't be replaced", "row remapping failure", board),
        "remap_pending": ("a bad row of its memory waits to be replaced", "row remapping pending", reset),
    }
    return {name: each for name, each in every.items() if getattr(gpu, name)}


def _ecc(gpu: Gpu) -> Iterator[Problem]:
    for message, evidence, fix in standing_faults(gpu).values():
        yield "ecc", "FAIL", message, evidence, fix
    if gpu.ecc_uncorrected:
        errors = f"{gpu.ecc_uncorrected} uncorrected, {gpu.ecc_corrected} corrected since the driver was loaded"
        yield "ecc", "FAIL", "its memory had errors that couldn't be corrected", errors, reset_gpu(gpu)
    if (gpu.retired_pages or 0) >= MAX_RETIRED_PAGES:
        yield "ecc", "FAIL", "its memory wears out", f"{gpu.retired_pages} pages retired", "have the board replaced"
    if gpu.full_banks:
        # No ground for a replacement: that is the failure of a remapping, which the next bad row there would be.
        message = f"{gpu.full_banks} of its memory's banks have no spare rows left: the next bad one can't be replaced"
        fix = f"nvidia-smi -q -d ROW_REMAPPER -i {gpu.index}; watch it"
        yield "ecc", "PASS", message, f"{gpu.remapped_rows} rows remapped", fix
    if gpu.ecc is False and gpu.default_ecc is not False:
        message = "off: errors of its memory are neither corrected nor counted"
        yield "ecc", "PASS", message, "ECC mode disabled", f"sudo nvidia-smi -e 1 -i {gpu.index}; then: sudo reboot"


def _speed(gpu: Gpu) -> Iterator[Problem]:
    # The link's generation falls while the GPU is idle, its width doesn't.
    width, widest = gpu.pcie_width, gpu.max_pcie_width
    if width and widest and width < widest:
        message = f"its PCIe link has {width} lanes of {widest}: copies are slower by the same factor"
        fix = "reseat the card, or use another slot: sudo lspci -vv | grep -E 'LnkCap|LnkSta'"
        yield "link", "INCONCLUSIVE", message, f"NVML's current and maximum link width: {width}, {widest}", fix
    reasons = gpu.throttle_reasons or 0
    evidence = f"NVML's clock event reasons {reasons:#x}, {gpu.temperature} °C"
    if describe_throttling(reasons & ~POWER_CAP):
        fault = any(reasons & bit for bit, (_, is_fault) in THROTTLE_REASONS.items() if is_fault)
        message = f"its clocks are throttled now, by {describe_throttling(reasons)}: speed can't be measured"
        fix = f"nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER -i {gpu.index}; then see to fans, air and power"
        yield "clocks", "FAIL" if fault else "INCONCLUSIVE", message, evidence, fix
    limit, default = ((watts or 0) / 1000 for watts in (gpu.power_limit, gpu.default_power_limit))
    if 0 < limit < default:
        message = f"its power limit is {limit:.0f} W, {default:.0f} W by default: it is slower than others of its model"
        yield "power", "PASS", message, evidence, f"sudo nvidia-smi -pl {default:.0f} -i {gpu.index}"


def _modes(gpu: Gpu) -> Iterator[Problem]:
    mode, default = MODES.get(gpu.compute_mode or 0), f"sudo nvidia-smi -i {gpu.index} -c 0"
    if mode == "prohibited":
        yield "compute mode", "FAIL", "this GPU's compute mode lets nothing compute on it", mode, default
    elif mode and gpu.processes:
        message = f"only one process may compute on this GPU, and one holds it: {', '.join(gpu.processes)}"
        yield "compute mode", "INCONCLUSIVE", message, f"compute mode {mode}", f"end that process; or: {default}"
    elif mode:
        yield "compute mode", "PASS", "only one process at a time may compute on it", f"compute mode {mode}", default
    off = f"sudo nvidia-smi -i {gpu.index} -mig 0"
    if gpu.mig and gpu.mig_slices:
        message = "only a slice of this GPU can be used, one per process: its speed isn't the GPU's"
        yield "mig", "INCONCLUSIVE", message, f"MIG on, {gpu.mig_slices} slices", off
    elif gpu.mig:
        fix = f"{off}, or: sudo nvidia-smi mig -i {gpu.index} -cgi 0 -C"
        yield "mig", "FAIL", "this GPU is in MIG mode without a slice: nothing can run", "MIG on, 0 slices", fix
    if gpu.persistence is False:
        message = "off: the driver starts anew, and forgets its error counts, for every program"
        yield "persistence", "PASS", message, "persistence mode disabled", f"sudo nvidia-smi -pm 1 -i {gpu.index}"
