"""Are results the same twice: in one process, in another, beside other GPUs, and on the other GPUs of a model?"""

import pytest

from alexnet_repro.verify.checks.registry import REPEATABLE, CheckId
from alexnet_repro.verify.checks.repeatability import agreement, reference_gpu
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.doctor.software import beside_settings
from alexnet_repro.verify.finding import Finding
from benchmarks.session import VerificationSession

CHECKS = REPEATABLE

Digests = dict[str, dict[str, Finding]]


@pytest.fixture(scope="module")
def once_more(verification: VerificationSession, runner: CheckRunner) -> Digests:
    """Each device's digests from a process of its own, one device after the other."""
    return {device: runner.digests([device])[device] for device in verification.devices}


@pytest.fixture(scope="module")
def all_at_once(verification: VerificationSession, runner: CheckRunner) -> Digests:
    """Each device's digests from a process of its own, all GPUs at the same time."""
    gpus = [device for device in verification.devices if device.startswith("gpu")]
    return runner.digests(gpus)


def test_replay(device: str, check: CheckId, runner: CheckRunner, verification: VerificationSession) -> None:
    """Steps repeated from one state give the same bits, dropout on."""
    verification.report_findings("repeatable", runner.result(device, check))


def test_processes(
    device: str, precision: str, runner: CheckRunner, once_more: Digests, verification: VerificationSession
) -> None:
    """Another process gives the same bits."""
    first, again = runner.result(device, CheckId("replay", precision)), once_more[device][precision]
    found = agreement("processes", first, again, "another process")
    verification.report_findings("repeatable", beside_settings(found, runner.here))


def test_busy(
    device: str, precision: str, runner: CheckRunner, all_at_once: Digests, verification: VerificationSession
) -> None:
    """With all GPUs busy the bits are the same."""
    first, again = runner.result(device, CheckId("replay", precision)), all_at_once[device][precision]
    found = agreement("busy", first, again, "the run with all GPUs busy")
    verification.report_findings("repeatable", beside_settings(found, runner.here))


def test_gpu_bitwise_parity(
    device: str, precision: str, runner: CheckRunner, once_more: Digests, verification: VerificationSession
) -> None:
    """The bits are those of the first GPU of the same model."""
    reference = reference_gpu(device, verification.devices, verification.machine.seen_gpus)
    first = runner.result(reference, CheckId("replay", precision))
    name, again = f"{device}, beside {reference},", once_more[device][precision]
    found = agreement("gpu_bitwise_parity", first, again, name)
    verification.report_findings("repeatable", beside_settings(found, runner.here))
