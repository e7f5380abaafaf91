"""Diagnosis of a machine: runs one probe after the other, and yields each finding as soon as it is known."""

import dataclasses
import json
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TextIO

from alexnet_repro.layout import VERIFY
from alexnet_repro.verify.doctor import cuda_software, gpus, health, nvlink, resources, software
from alexnet_repro.verify.doctor.device_probe import probe_device
from alexnet_repro.verify.doctor.environment import Environment, read_machine
from alexnet_repro.verify.doctor.installation import read_cuda_packages, read_libraries, read_tensorflow
from alexnet_repro.verify.doctor.nvidia import read_nvidia
from alexnet_repro.verify.finding import Finding, exit_status, worst

EnvironmentCheck = Callable[[Environment], Iterator[Finding]]

# In the order of the probes that they need.
MACHINE_CHECKS: tuple[EnvironmentCheck, ...] = (
    software.installed,
    software.disk,
    resources.host_memory,
    resources.processors,
)
DRIVER_CHECKS: tuple[EnvironmentCheck, ...] = (
    gpus.presence,
    gpus.driver,
    cuda_software.cuda_build,
    cuda_software.cuda_packages,
    gpus.visibility,
    software.shared_memory,
    gpus.kernels,
    health.mixed_gpu_models,
    health.health,
    nvlink.nvlink,
)
LAST_CHECKS: tuple[EnvironmentCheck, ...] = (software.settings,)


def examine(
    deadline: float,
    *,
    require_gpu: bool = False,
    backend: str = "tensorflow",
    wanted: Sequence[str] = (),
    written: Container[str] = ("temporary files",),
) -> Iterator[tuple[Environment, Finding]]:
    """Run every probe, in `deadline` seconds each; yield each finding as soon as it is known, with the record so far.

    If devices are `wanted`, as `gpu:1`, other GPUs aren't checked; if it is the CPU alone, none is, nor its driver.
    Of the folders, those are checked that are `written` to. Settings come last: what ended a probe has failed.
    This process uses no device: each is probed by a child, with the backend of Keras's that is named.
    """
    machine = read_machine()
    volumes = tuple(volume for volume in machine.volumes if volume.purpose in written)
    here = dataclasses.replace(machine, volumes=volumes, require_gpu=require_gpu, backend=backend, wanted=tuple(wanted))
    if backend == "tensorflow":
        here = dataclasses.replace(here, tensorflow=read_tensorflow())
    for known, finding in _probe(here, deadline):
        here = known
        yield known, finding
    yield from _apply(LAST_CHECKS, here)


def _probe(here: Environment, deadline: float) -> Iterator[tuple[Environment, Finding]]:
    yield from _apply(MACHINE_CHECKS, here)
    if here.wants_gpus:
        # Even without device files: Windows' Linux has none, and a container may reach its GPUs in other ways.
        here = dataclasses.replace(here, nvidia=read_nvidia(here.device_files, deadline))
        here = dataclasses.replace(
            here, cuda_packages=read_cuda_packages() if here.gpus_in_machine else here.cuda_packages
        )
        yield from _apply(DRIVER_CHECKS, here)
    if here.backend == "tensorflow" and here.tensorflow is None:
        return
    if here.tensorflow and here.tensorflow.cuda and here.wants_gpus and here.gpus_in_machine:
        found = tuple(read_libraries(here.tensorflow, deadline))
        here = dataclasses.replace(here, libraries=found)
        yield from _apply((cuda_software.driver_version, cuda_software.libraries), here)
    # The CPU, then each wanted GPU alone, so that a faulty one doesn't hold up the others.
    listed = here.only(*here.wanted_gpus) if here.wanted and (here.wanted_gpus or not here.wants_gpus) else {}
    platforms = here.settings.get("JAX_PLATFORMS", "")
    if here.wants_gpus and platforms and "cpu" not in platforms.split(","):
        listed["JAX_PLATFORMS"] = f"{platforms},cpu"  # this child computes on the CPU, as those that check it do
    for device in ("cpu:0", *here.wanted_gpus):
        environ = here.only(device) if device.startswith("gpu") else listed
        for result in probe_device(here.backend, device, deadline, environ):
            here = dataclasses.replace(here, results=(*here.results, result))
            yield from ((here, finding) for finding in software.device_result(here, result))
        latest = {result.check: result for result in here.results}
        if latest["import"].error or not (latest["devices"].error or latest["devices"].data.get("gpus")):
            return  # the backend can't be imported, or sees no GPU: a probe of another device would only repeat it


def _apply(checks: tuple[EnvironmentCheck, ...], here: Environment) -> Iterator[tuple[Environment, Finding]]:
    yield from ((here, finding) for check in checks for finding in check(here))


def report(out: TextIO, *, as_json: bool, deadline: float, require_gpu: bool, backend: str = "tensorflow") -> int:
    """Write every finding as it comes, then the verdict; return the exit status.

    As JSON it is one object per line: the findings, then one with `verdict` and the whole record.
    """
    findings: list[Finding] = []
    here = Environment()
    written = ("weights", "data", "temporary files")
    for known, finding in examine(deadline, require_gpu=require_gpu, backend=backend, written=written):
        here = known
        findings.append(finding)
        print(json.dumps(dataclasses.asdict(finding)) if as_json else finding, file=out, flush=True)
    status = worst(findings)
    passed = sum(finding.status == "PASS" for finding in findings)
    last = {"verdict": status, "environment": dataclasses.asdict(here)}
    text = f"{status}: {passed} of {len(findings)} checks passed"
    works = {result.device for result in here.results} - {result.device for result in here.results if result.error}
    if status == "FAIL" and works and not require_gpu:
        text += f"; to verify what works all the same: {VERIFY} --ignore-doctor"
    print(json.dumps(last) if as_json else text, file=out, flush=True)
    return exit_status(status)
