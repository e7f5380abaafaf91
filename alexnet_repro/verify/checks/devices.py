"""Which devices are checked, and whether this machine is ready for it; runs before anything is measured."""

from collections.abc import Callable, Sequence

import keras

from alexnet_repro.verify.doctor.doctor import examine
from alexnet_repro.verify.doctor.environment import Environment, read_machine
from alexnet_repro.verify.finding import Finding, worst


class MachineNotReadyError(Exception):
    """The machine must be fixed first; the message says what to do."""

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        """Keep what the doctor found, if it is the reason."""
        super().__init__(message)
        self.findings = findings


def diagnose_machine(
    wanted: Sequence[str], say: Callable[[str], None], *, require_gpu: bool, deadline: float = 180.0
) -> tuple[Environment, list[Finding]]:
    """Run the doctor, a probe in `deadline` seconds, `say` what didn't pass, and return the machine and the findings.

    Of GPUs only the wanted ones are examined, all if none is named.

    Raises:
        MachineNotReadyError: a check failed.
    """
    backend = keras.backend.backend()
    here, findings = read_machine(), []
    for known, finding in examine(deadline, require_gpu=require_gpu, backend=backend, wanted=wanted):
        here = known
        findings.append(finding)
        if finding.status != "PASS":
            say(str(finding))
    overall = worst(findings)
    say(f"doctor: {overall}, {len(findings)} checks (python -m alexnet_repro doctor shows them all)")
    if overall == "FAIL":
        of_cpu = any(found.status == "FAIL" and found.device.startswith("cpu") for found in findings)
        no_way_out = require_gpu or of_cpu or set(wanted) == {"cpu:0"}
        cpu = "" if no_way_out else ", or check the CPU on purpose: --device=cpu:0"
        raise MachineNotReadyError(f"fix the machine first{cpu}", findings)
    return here, findings


def choose_devices(here: Environment, wanted: Sequence[str], *, require_gpu: bool) -> tuple[str, ...]:
    """Return the devices that are wanted, all if none is named, of those that the backend can use.

    Raises:
        MachineNotReadyError: a GPU that should be usable isn't.
        ValueError: there is no device of a name that was given.
    """
    usable = here.seen_devices
    reason = None if set(wanted) == {"cpu:0"} else unusable_gpus(here)
    if reason is None and require_gpu and not here.seen_gpus:
        reason = f"--require-gpu: {here.backend} can use {', '.join(usable)} only"
    if reason:
        raise MachineNotReadyError(reason)
    if absent := [device for device in wanted if device not in usable]:
        raise ValueError(f"--device={absent[0]}: no such device; {here.backend} can use {', '.join(usable)}")
    return tuple(device for device in usable if not wanted or device in wanted)


def unusable_gpus(here: Environment) -> str | None:
    """Return why the backend can't use a GPU of the machine, and what to do; None if it can use all.

    Where `CUDA_VISIBLE_DEVICES` names devices, only those are expected; where it hides all, that is the reason.
    """
    backend, usable = here.backend, len(here.seen_gpus)
    count, named, visible = here.gpus_in_machine, here.named_gpus, here.settings.get("CUDA_VISIBLE_DEVICES")
    if usable >= (count if named == () else here.needed_gpus):
        return None
    if named == ():
        message = f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset CUDA_VISIBLE_DEVICES"
    else:
        package = "'tensorflow[and-cuda]'" if backend == "tensorflow" else f"{backend} with its CUDA libraries"
        message = (
            "Check that nvidia-smi lists every GPU: if not, install the NVIDIA driver, or start the container with its "
            f"GPUs (docker run --gpus all); then install {package}"
        )
    only = f", {here.expected_gpus} named by CUDA_VISIBLE_DEVICES={visible}" if named else ""
    only += f", {here.needed_gpus} wanted" if here.needed_gpus != here.expected_gpus else ""
    return (
        f"{count} NVIDIA GPU{'s' if count > 1 else ''} in this machine{only}, {usable} usable by {backend}. "
        f"{message}; or measure the CPU on purpose: --device=cpu:0. More: python -m alexnet_repro doctor"
    )
