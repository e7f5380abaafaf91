"""Is every device right? Each check runs in the device's own child process; the doctor went before."""

from collections.abc import Callable, Sequence

import pytest

from alexnet_repro.verify.checks.registry import CORRECT, CheckId
from alexnet_repro.verify.checks.runner import CheckRunner

CHECKS = CORRECT


def test_correct(device: str, check: CheckId, runner: CheckRunner, report_findings: Callable[..., None]) -> None:
    """Each check passes, or reports what is off, by how much, what is allowed, and what to type."""
    report_findings("correct", runner.result(device, check))


def test_copies_between_gpus(devices: Sequence[str], runner: CheckRunner, report_findings: Callable[..., None]) -> None:
    """What one GPU sends to another arrives as it was sent."""
    if sum(device.startswith("gpu") for device in devices) < 2:
        pytest.skip("needs two GPUs")
    report_findings("correct", runner.between_gpus())
