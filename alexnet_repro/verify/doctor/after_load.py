"""What the driver counts of a GPU, compared before and after load: errors that a run brought out are its findings.

NVML's documents name no rights that this takes. Of the Xids in the kernel's log, which often may not be read, it hands
out those that come while somebody waits, and what the driver asks for after one (`Gpu.recovery`).
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from alexnet_repro.verify.doctor import gpus
from alexnet_repro.verify.doctor.environment import Environment, read_gpus
from alexnet_repro.verify.doctor.health import reset_gpu, standing_faults
from alexnet_repro.verify.doctor.nvidia import Gpu
from alexnet_repro.verify.doctor.nvlink import link_changes
from alexnet_repro.verify.doctor.xids import OF_PROGRAMS, XidWatch
from alexnet_repro.verify.finding import Finding, Status, worst

CHECK = "after load"
MAX_REPLAYS = 8  # of PCIe packets per minute: DCGM's limit, `DCGM_LIMIT_MAX_PCIREPLAY_RATE`

Change = tuple[bool, Status, str, str]  # whether it is there, the finding's status, message and fix


class LoadWatch:
    """What the driver reports of GPUs before a load and during it, until `findings` compares that with after it."""

    def __init__(self, before: Environment, device: str = "") -> None:
        """Begin, with the driver's report before the load; of all GPUs that are checked, or of one device's."""
        own = before.gpu_of(device) if device else None
        known = () if device and own is None else before.chosen_gpus
        self._before, self._began = before, time.monotonic()
        self._gpus = [gpu for gpu in known if not gpu.error and gpu.uuid and own in (None, gpu)]
        self._xids = XidWatch([gpu.uuid for gpu in self._gpus]) if self._gpus else None

    def findings(self) -> list[Finding]:
        """End, read the driver again, and return what is new; nothing where no GPU was known."""
        if self._xids is None:
            return []
        xids, minutes = self._xids.stop(), (time.monotonic() - self._began) / 60
        now = read_gpus(self._before)
        if now.nvidia.error or now.nvidia.helper:
            return [replace(each, check=CHECK) for each in gpus.driver(now) if each.status != "PASS"]
        later = {gpu.uuid: gpu for gpu in now.nvidia.gpus}
        found = []
        for gpu in self._gpus:
            found += [*changes(gpu, later.get(gpu.uuid), minutes), *errors_in_the_log(gpu, xids.get(gpu.uuid, {}))]
        if worst(found) == "PASS":
            message = f"no new fault in {minutes:.0f} minutes on {len(self._gpus)} GPUs"
            found.insert(0, Finding(CHECK, "PASS", message))
        return found


def errors_in_the_log(gpu: Gpu, xids: Mapping[int, int]) -> Iterator[Finding]:
    """Yield what a GPU's Xids say, by how often each came: programs' own errors are a note, others a fault."""
    for xid, count in sorted(xids.items()):
        status: Status = "PASS" if xid in OF_PROGRAMS else "FAIL"
        of_what = "of a program" if status == "PASS" else "of the hardware, or of its driver"
        message = f"the driver reported Xid {xid}, an error {of_what}, {count} times under load"
        fix = "see docs.nvidia.com/deploy/xid-errors, and: sudo dmesg | grep -i xid"
        yield Finding(CHECK, status, message, gpu.name, fix, f"GPU {gpu.index}")


def changes(before: Gpu, after: Gpu | None, minutes: float) -> Iterator[Finding]:
    """Yield what a GPU's counts say that happened in between; what isn't known of both is no change.

    NVIDIA replaces boards for what can't be corrected, and leaves what is corrected out of account ("NVIDIA GPU Memory
    Error Management"): that is a note.
    """
    name = f"GPU {before.index}"
    if after is None or after.error:
        fix = f"sudo dmesg | grep -i xid; sudo nvidia-smi -r -i {before.index}; if it is still lost: sudo reboot"
        evidence = after.error or "" if after else "the driver doesn't list it any more"
        yield Finding(CHECK, "FAIL", "the driver lost this GPU under load", evidence, fix, name)
        return
    reset, faults = f"sudo dmesg | grep -i xid; then: {reset_gpu(before)}", standing_faults(after)
    uncorrected = max(_more(before, after, each) for each in ("ecc_uncorrected", "all_uncorrected"))
    corrected = max(_more(before, after, each) for each in ("ecc_corrected", "all_corrected"))
    rows, pages = _more(before, after, "remapped_rows"), _more(before, after, "retired_pages")
    replays = _more(before, after, "pcie_replays") / max(minutes, 1.0)
    seconds = _more(before, after, "throttled_by_heat") / 1e9
    found: tuple[Change, ...] = (
        *((field not in standing_faults(before), "FAIL", message, fix) for field, (message, _, fix) in faults.items()),
        (uncorrected > 0, "FAIL", f"{uncorrected} errors of its memory couldn't be corrected", reset),
        (rows > 0, "FAIL", f"{rows} bad rows of its memory were marked", reset),
        (pages > 0, "FAIL", f"{pages} pages of its memory were retired", reset),
        (
            replays > MAX_REPLAYS,
            "INCONCLUSIVE",
            f"its PCIe link sent packets again {replays:.0f} times per minute, of {MAX_REPLAYS} that are usual at most",
            "sudo dmesg | grep -iE 'aer|pcie'; then reseat the card, or use another slot",
        ),
        (
            corrected > 0,
            "PASS",
            f"{corrected} errors of its memory were corrected",
            "nvidia-smi -q -d ECC # now and then",
        ),
        (seconds > 0, "PASS", f"heat lowered its clocks for {seconds:.1f} s", "see to fans and air"),
    )
    for there, status, message, fix in found:
        if there:
            evidence = f"in {minutes:.0f} minutes, of {before.name}"
            yield Finding(CHECK, status, f"{message} under load", evidence, fix, name)
    yield from link_changes(before, after, minutes)


def _more(before: Gpu, after: Gpu, name: str) -> int:
    """Return by how much a count grew; 0 where it isn't known, or fell, as of a driver that was loaded anew."""
    first, last = getattr(before, name), getattr(after, name)
    return 0 if first is None or last is None else max(0, last - first)
