"""Are the NVLinks between GPUs up, and without errors? Pure functions from the driver's record to findings.

What counts as an error is NVIDIA's own: the health checks of its Data Center GPU Manager (DCGM), in
modules/health/DcgmHealthWatch.cpp and dcgm_gpu_hardware_limits.h.
"""

from collections.abc import Iterator, Sequence

from alexnet_repro.verify.doctor.causes import FABRIC_MANAGER
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.nvidia import Gpu
from alexnet_repro.verify.finding import Finding, Status

# NVML_GPU_FABRIC_STATE
NOT_STARTED, IN_PROGRESS, COMPLETED = 1, 2, 3
STATES = {NOT_STARTED: "not started", IN_PROGRESS: "in progress", COMPLETED: "completed"}
# NVML_GPU_FABRIC_HEALTH_MASK: place and width of a part, the values that are a fault, what they mean, and the status.
FABRIC_HEALTH: tuple[tuple[int, int, tuple[int, ...], str, Status], ...] = (
    (0, 2, (1,), "its bandwidth is degraded", "INCONCLUSIVE"),
    (2, 2, (1,), "its routes are being recovered", "INCONCLUSIVE"),
    (4, 2, (1,), "its routes are unhealthy", "FAIL"),
    (6, 2, (1,), "it recovers from a timeout", "INCONCLUSIVE"),
    (8, 4, tuple(range(2, 9)), "it is configured wrongly", "FAIL"),
)
# Per second: DCGM_LIMIT_MAX_NVLINK_CRC_ERROR, "CRC errors only matter at rates of 100+ per second".
MAX_CRC_RATE = 100.0
CRC = "CRC errors"


def _look(gpu: Gpu) -> str:
    own = f"-i {gpu.index}"
    return f"nvidia-smi nvlink -s {own}; nvidia-smi nvlink -e {own}; sudo dmesg | grep -iE 'xid|nvlink'"


def active_links(gpu: Gpu) -> tuple[str, ...]:
    """Return where the links lead that are up."""
    return tuple(lead for lead in gpu.nvlinks if lead != "down")


def nvlink(here: Environment) -> Iterator[Finding]:
    """Each GPU's fabric is set up, and no link is down that is up on others of its model; nothing without NVLink.

    Some cards have links that lead nowhere by design, as 6 of the 18 of an H100 on PCIe: only those of one model are
    compared.
    """
    gpus = [gpu for gpu in here.chosen_gpus if not gpu.error and not gpu.mig]  # MIG turns a GPU's links off
    for gpu in gpus:
        alike = [each for each in gpus if each.name == gpu.name]
        found = [*_fabric(gpu, len(gpus)), *_links(gpu, alike)]
        if not found and active_links(gpu):
            found = [_well(gpu)]
        yield from found


def _fabric(gpu: Gpu, together: int) -> Iterator[Finding]:
    """Yield what is wrong with a GPU's fabric; of a GPU by itself, which may do without, it is a note."""
    if not gpu.fabric_state:
        return
    found: list[tuple[Status, str]] = []
    if gpu.fabric_state != COMPLETED:
        found.append(("FAIL", "isn't set up: Fabric Manager hasn't registered it"))
    elif gpu.fabric_status:
        found.append(("FAIL", "was set up with an error"))
    for place, width, values, what, status in FABRIC_HEALTH if gpu.fabric_state == COMPLETED else ():
        if ((gpu.fabric_health or 0) >> place) & ((1 << width) - 1) in values:
            found.append((status, f"isn't healthy: {what}"))
    state = STATES.get(gpu.fabric_state, str(gpu.fabric_state))
    evidence = f"NVML's fabric state: {state}, status {gpu.fabric_status}, health {gpu.fabric_health or 0:#x}"
    for status, what in found:
        note = "" if together > 1 else "; a GPU by itself may do without"
        message = f"its NVLink fabric {what}{note}"
        yield Finding("fabric", "PASS" if note else status, message, evidence, FABRIC_MANAGER, f"GPU {gpu.index}")


def _links(gpu: Gpu, alike: Sequence[Gpu]) -> Iterator[Finding]:
    own, most = len(active_links(gpu)), max(len(active_links(each)) for each in alike)
    switched = any("switch" in each.nvlinks for each in alike)  # then all are connected alike
    if own == most or not (own or switched):  # cards without a bridge beside bridged ones are as they were built
        return
    down = ", ".join(str(link) for link, lead in enumerate(gpu.nvlinks) if lead == "down")
    message = f"{own} of its NVLinks are up, and {most} of another {gpu.name}: copies between GPUs are slower"
    leads = ", ".join(sorted(set(active_links(gpu)))) or "nothing"
    evidence = f"links {down or 'unknown'} are down; the others lead to {leads}"
    status: Status = "FAIL" if switched else "INCONCLUSIVE"
    fix = f"{_look(gpu)}; then reset it, or reseat its bridge or board"
    yield Finding("nvlink", status, message, evidence, fix, f"GPU {gpu.index}")


def _well(gpu: Gpu) -> Finding:
    message = f"{len(active_links(gpu))} of {len(gpu.nvlinks)} NVLinks are up"
    errors = ", ".join(f"{what}: {count}" for what, count in _counts(gpu).items() if count)
    if errors:
        message += f"; since the driver was loaded they counted {errors}"
    return Finding("nvlink", "PASS", message, fix=_look(gpu) if errors else "", device=f"GPU {gpu.index}")


def _counts(gpu: Gpu) -> dict[str, int]:
    counts = {"replays": gpu.nvlink_replays, "recoveries": gpu.nvlink_recoveries, CRC: gpu.nvlink_crc_errors}
    return {what: count for what, count in counts.items() if count is not None}


def link_changes(before: Gpu, after: Gpu, minutes: float) -> Iterator[Finding]:
    """Yield what became of a GPU's NVLinks under load; nothing where nothing did, or it isn't known of both.

    A replay or a recovery is a failure, as DCGM has it; CRC errors, which are corrected, from 100 per second on.
    """
    first, device = _counts(before), f"GPU {after.index}"
    more = {what: count - first[what] for what, count in _counts(after).items() if what in first}
    more = {what: count for what, count in more.items() if count > 0}  # less: the driver was loaded anew
    text = ", ".join(f"{what}: {count}" for what, count in more.items())
    if (lost := len(active_links(before)) - len(active_links(after))) > 0 and not after.error:
        message = f"{lost} of its NVLinks went down under load"
        yield Finding("nvlink", "FAIL", message, f"counted meanwhile: {text or 'no errors'}", _look(after), device)
    elif more:
        few = set(more) == {CRC} and more[CRC] < MAX_CRC_RATE * 60 * minutes
        message, evidence = f"its NVLinks had errors under load: {text}", f"in {minutes:.0f} minutes"
        yield Finding("nvlink", "PASS" if few else "FAIL", message, evidence, _look(after), device)
