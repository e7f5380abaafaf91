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
MAX_CRC_RATE = (
    100.0  # per second: DCGM_LIMIT_MAX_NVLINK_CRC_ERROR, "CRC errors only matter at rates of 100+ per second"
)
LOOK = "nvidia-smi nvlink -s -i {0}; nvidia-smi nvlink -e -i {0}; sudo dmesg | grep -iE 'xid|nvlink'"


def up(gpu: Gpu) -> tuple[str, ...]:
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
        if not found and up(gpu):
            found = [_well(gpu)]
        yield from found


def _fabric(gpu: Gpu, together: int) -> Iterator[Finding]:
    if not gpu.fabric_state:
        return
    device, state = f"GPU {gpu.index}", STATES.get(gpu.fabric_state, str(gpu.fabric_state))
    evidence = f"NVML's fabric state: {state}, status {gpu.fabric_status}, health {gpu.fabric_health or 0:#x}"
    if gpu.fabric_state != COMPLETED and together == 1:  # CUDA's start says whether it needs it
        message = "its NVLink fabric isn't set up, which a GPU by itself may do without"
        yield Finding("fabric", "PASS", message, evidence, FABRIC_MANAGER, device)
    elif gpu.fabric_state != COMPLETED:
        message = "its NVLink fabric isn't set up: Fabric Manager hasn't registered it"
        yield Finding("fabric", "FAIL", message, evidence, FABRIC_MANAGER, device)
    elif gpu.fabric_status:
        message = "its NVLink fabric was set up with an error"
        yield Finding("fabric", "FAIL", message, evidence, FABRIC_MANAGER, device)
    for place, width, values, what, status in FABRIC_HEALTH if gpu.fabric_state == COMPLETED else ():
        if ((gpu.fabric_health or 0) >> place) & ((1 << width) - 1) in values:
            yield Finding(
                "fabric", status, f"its NVLink fabric isn't healthy: {what}", evidence, FABRIC_MANAGER, device
            )


def _links(gpu: Gpu, alike: Sequence[Gpu]) -> Iterator[Finding]:
    own, most = len(up(gpu)), max(len(up(each)) for each in alike)
    switched = any("switch" in each.nvlinks for each in alike)  # then all are connected alike
    if own == most or not (own or switched):  # cards without a bridge beside bridged ones are as they were built
        return
    down = ", ".join(str(link) for link, lead in enumerate(gpu.nvlinks) if lead == "down")
    message = f"{own} of its NVLinks are up, and {most} of another {gpu.name}: copies between GPUs are slower"
    evidence = f"links {down or 'unknown'} are down; they lead to {', '.join(sorted(set(up(gpu)))) or 'nothing'}"
    status: Status = "FAIL" if switched else "INCONCLUSIVE"
    fix = f"{LOOK.format(gpu.index)}; then reset it, or reseat its bridge or board"
    yield Finding("nvlink", status, message, evidence, fix, f"GPU {gpu.index}")


def _well(gpu: Gpu) -> Finding:
    message = f"{len(up(gpu))} of {len(gpu.nvlinks)} NVLinks are up"
    counts = _counts(gpu)
    errors = ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
    if errors:
        message += f"; since the driver was loaded they counted {errors}"
    return Finding("nvlink", "PASS", message, fix=LOOK.format(gpu.index) if errors else "", device=f"GPU {gpu.index}")


def _counts(gpu: Gpu) -> dict[str, int]:
    counts = {"replays": gpu.nvlink_replays, "recoveries": gpu.nvlink_recoveries, "CRC errors": gpu.nvlink_crc_errors}
    return {what: count for what, count in counts.items() if count is not None}


def nvlink_after_load(before: Sequence[Gpu], after: Sequence[Gpu], seconds: float) -> Iterator[Finding]:
    """No link went down or had errors within these seconds; nothing of GPUs without NVLink.

    A replay or a recovery is a failure, as DCGM has it; CRC errors, which are corrected, from 100 per second on.
    """
    known = {gpu.uuid: gpu for gpu in before if gpu.uuid}
    for gpu in after:
        first = known.get(gpu.uuid)
        if first is None or gpu.error or not up(first):
            continue
        device, fix = f"GPU {gpu.index}", LOOK.format(gpu.index)
        lost = len(up(first)) - len(up(gpu))
        earlier = _counts(first)
        more = {what: count - earlier[what] for what, count in _counts(gpu).items() if what in earlier}
        more = {what: count for what, count in more.items() if count > 0}  # less: the driver was loaded anew
        text = ", ".join(f"{what}: {count}" for what, count in more.items())
        few = not {"replays", "recoveries"} & more.keys() and more.get("CRC errors", 0) < MAX_CRC_RATE * seconds
        if lost > 0:
            message = f"{lost} of its NVLinks went down during the run"
            yield Finding("nvlink", "FAIL", message, f"counted meanwhile: {text or 'no errors'}", fix, device)
        elif more:
            message = f"its NVLinks had errors during the run: {text}"
            evidence = f"within {seconds:.0f} s, on {len(up(gpu))} links"
            yield Finding("nvlink", "PASS" if few else "FAIL", message, evidence, fix, device)
        else:
            yield Finding("nvlink", "PASS", f"no error of its {len(up(gpu))} NVLinks during the run", device=device)
