"""Is this machine right? Asks one probe after the other, and says at once what each answer means."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from alexnet_repro.verify.doctor import gpu_health
from alexnet_repro.verify.doctor import gpus as gpu_checks
from alexnet_repro.verify.doctor import software as software_checks
from alexnet_repro.verify.doctor.cuda_libraries import read_libraries
from alexnet_repro.verify.doctor.device_probe import CheckResult, check_device
from alexnet_repro.verify.doctor.environment import Environment, read_machine
from alexnet_repro.verify.doctor.installation import read_tensorflow
from alexnet_repro.verify.doctor.nvidia import read_nvidia
from alexnet_repro.verify.finding import Finding, exit_status, verdict

Check = Callable[[Environment], Iterator[Finding]]

# In the order of the probes that they need.
OF_THE_MACHINE: tuple[Check, ...] = (
    software_checks.installed,
    software_checks.settings,
    software_checks.disk,
)
OF_THE_DRIVER: tuple[Check, ...] = (
    gpu_checks.presence,
    gpu_checks.driver,
    software_checks.cuda_build,
    gpu_checks.visibility,
    software_checks.shared_memory,
    gpu_checks.kernels,
    gpu_checks.mixed_gpu_models,
    gpu_health.health,
)


def diagnose(here: Environment) -> list[Finding]:
    """Return every finding on a complete record."""
    checks = (*OF_THE_MACHINE, *OF_THE_DRIVER, software_checks.libraries, software_checks.devices)
    return [finding for check in checks for finding in check(here)]


def examine(
    deadline: float, *, require_gpu: bool = False, backend: str = "tensorflow", wanted: Sequence[str] = ()
) -> Iterator[tuple[Environment, Finding]]:
    """Ask every probe, and yield each finding as soon as it is known, with the record so far.

    Args:
        deadline: seconds that each probe may take.
        require_gpu: whether a machine without a GPU fails.
        backend: of Keras. On another than TensorFlow machine, settings and driver are asked, but no device is used.
        wanted: devices, as `gpu:1`: other GPUs aren't looked at. None: all are.
    """
    here = dataclasses.replace(read_machine(require_gpu=require_gpu), backend=backend, wanted=tuple(wanted))
    if backend == "tensorflow":
        here = dataclasses.replace(here, tensorflow=read_tensorflow())
    yield from _apply(OF_THE_MACHINE, here)
    # Even without device files: Windows' Linux has none, and the container may be told the GPUs otherwise.
    here = dataclasses.replace(here, nvidia=read_nvidia(here.device_files, deadline))
    yield from _apply(OF_THE_DRIVER, here)
    if here.tensorflow is None:
        return
    if here.gpus_in_machine and here.tensorflow.cuda:
        found = tuple(read_libraries(here.tensorflow.folder, here.tensorflow.cuda[0], deadline))
        here = dataclasses.replace(here, libraries=found)
        yield from _apply((software_checks.libraries,), here)
    for device, environ in _devices(here):
        for result in check_device(device, deadline, environ):
            here = dataclasses.replace(here, results=(*here.results, result))
            for finding in software_checks.device_result(here, result):
                yield here, finding
        if any(_nothing_to_use(result) for result in here.results):
            return


def _apply(checks: tuple[Check, ...], here: Environment) -> Iterator[tuple[Environment, Finding]]:
    for check in checks:
        for finding in check(here):
            yield here, finding


def _nothing_to_use(result: CheckResult) -> bool:
    """Return whether TensorFlow can't be imported, or sees no GPU: other devices would only say the same."""
    if result.check == "devices":
        return result.error is None and not result.data.get("gpus")
    return result.check == "import" and result.error is not None


def _devices(here: Environment) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the CPU, then each GPU that is wanted alone, so that one that is ill doesn't hold up the others."""
    yield "cpu:0", {}
    for device, name in here.gpu_names.items():
        if not here.wanted or device in here.wanted:
            yield device, {"CUDA_VISIBLE_DEVICES": name}


def report(out: TextIO, *, as_json: bool, deadline: float, require_gpu: bool) -> int:
    """Write every finding as it comes, then the verdict; return the exit status.

    As JSON it is one object a line: the findings, then one with `verdict` and the whole record.
    """
    findings: list[Finding] = []
    here = Environment()
    for known, finding in examine(deadline, require_gpu=require_gpu):
        here = known
        findings.append(finding)
        print(json.dumps(dataclasses.asdict(finding)) if as_json else finding, file=out, flush=True)
    overall = verdict(findings)
    if as_json:
        record = dataclasses.asdict(here)
        print(json.dumps({"verdict": overall, "environment": record}), file=out, flush=True)
    else:
        count = sum(finding.status != "PASS" for finding in findings)
        print(f"{overall}: {len(findings) - count} of {len(findings)} checks passed", file=out, flush=True)
    return exit_status(overall)
