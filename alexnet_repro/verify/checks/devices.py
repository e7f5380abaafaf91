"""Which devices are checked, and whether this machine is ready for it; runs before anything is measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import keras

from alexnet_repro.verify.doctor.doctor import examine
from alexnet_repro.verify.doctor.environment import Environment, read_machine
from alexnet_repro.verify.finding import IGNORED, Finding, worst

IGNORE = "--ignore-doctor"


class MachineNotReadyError(Exception):
    """The machine must be fixed first; the message says what to do."""

    def __init__(self, message: str, findings: Sequence[Finding] = (), here: Environment | None = None) -> None:
        """Keep what the doctor found, and what it knows of the machine, if it is the reason."""
        super().__init__(message)
        self.findings, self.here = findings, here


def diagnose_machine(
    wanted: Sequence[str],
    say: Callable[[str], None],
    *,
    require_gpu: bool,
    deadline: float = 180.0,
    ignore_doctor: bool = False,
) -> tuple[Environment, list[Finding]]:
    """Run the doctor, a probe in `deadline` seconds, `say` what didn't pass, and return the machine and the findings.

    Of GPUs only the wanted ones are examined, all if none is named. Failures are inconclusive with `ignore_doctor`,
    and the machine is what works of it.

    Raises:
        MachineNotReadyError: a check failed, and that isn't ignored.
    """
    backend = keras.backend.backend()
    here, findings = read_machine(), []
    for known, finding in examine(deadline, require_gpu=require_gpu, backend=backend, wanted=wanted):
        here = known
        findings.append(_ignored(finding) if ignore_doctor else finding)
        if finding.status != "PASS":
            say(str(findings[-1]))
    if ignore_doctor and set(wanted) != {"cpu:0"} and (missing := unusable_gpus(here)):
        findings.append(_ignored(Finding("devices", "FAIL", missing)))
        say(str(findings[-1]))
    overall = worst(findings)
    say(f"doctor: {overall}, {len(findings)} checks (python -m alexnet_repro doctor shows them all)")
    if overall == "FAIL":
        of_cpu = any(found.status == "FAIL" and found.device.startswith("cpu") for found in findings)
        no_way_out = require_gpu or of_cpu or set(wanted) == {"cpu:0"} or not here.gpus_in_machine
        ways = [] if no_way_out else ["check the CPU on purpose: --device=cpu:0"]
        ways += [f"go on with what works, without a PASS: {IGNORE}"] if _can_go_on(here, wanted, require_gpu) else []
        raise MachineNotReadyError(", or ".join(["fix the machine first", *ways]), findings, here)
    return (_working(here) if ignore_doctor else here), findings


def choose_devices(
    here: Environment, wanted: Sequence[str], *, require_gpu: bool, ignore_doctor: bool = False
) -> tuple[str, ...]:
    """Return the devices that are wanted, all if none is named, of those that the backend can use.

    With `ignore_doctor` they are those that work, and the others are left out.

    Raises:
        MachineNotReadyError: a GPU that should be usable isn't; or, with `ignore_doctor`, nothing that is wanted works.
        ValueError: there is no device of a name that was given.
    """
    usable = working_devices(here) if ignore_doctor else here.seen_devices
    reason = None if ignore_doctor or set(wanted) == {"cpu:0"} else unusable_gpus(here)
    if reason is None and require_gpu and not any(device.startswith("gpu") for device in usable):
        reason = f"--require-gpu: {here.backend} can use {', '.join(usable) or 'no device'} only"
    if reason:
        raise MachineNotReadyError(reason)
    known = {*here.seen_devices, *here.cuda_names} if ignore_doctor else usable
    if absent := [device for device in wanted if device not in known]:
        raise ValueError(f"--device={absent[0]}: no such device; {here.backend} can use {', '.join(usable)}")
    if chosen := tuple(device for device in usable if not wanted or device in wanted):
        return chosen
    nothing = f"{', '.join(wanted)} doesn't work" if wanted else "no device works"
    raise MachineNotReadyError(f"{IGNORE}: {nothing}: fix the machine first")


def working_devices(here: Environment) -> tuple[str, ...]:
    """Return the devices that the backend sees, and on which it did all that the doctor tried."""
    failed = {result.device for result in here.results if result.error}
    return tuple(device for device in here.seen_devices if device not in failed)


def _can_go_on(here: Environment, wanted: Sequence[str], require_gpu: bool) -> bool:
    try:
        return bool(choose_devices(here, wanted, require_gpu=require_gpu, ignore_doctor=True))
    except (MachineNotReadyError, ValueError):
        return False


def _working(here: Environment) -> Environment:
    """Return a machine as if only the devices that work were wanted, and seen."""
    working = working_devices(here)
    gpus = [name for device, name in here.seen_gpus.items() if device in working]
    results = tuple(
        replace(each, data={**each.data, "gpus": gpus}) if (each.device, each.check) == ("cpu:0", "devices") else each
        for each in here.results
    )
    return here if working == here.seen_devices else replace(here, wanted=working or ("cpu:0",), results=results)


def _ignored(finding: Finding) -> Finding:
    """Return a failure as inconclusive, with the reason; another finding as it is."""
    if finding.status != "FAIL":
        return finding
    message, data = f"ignored by {IGNORE}: {finding.message}", {**finding.data, IGNORED: True}
    return replace(finding, status="INCONCLUSIVE", message=message, data=data)


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
