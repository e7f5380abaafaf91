"""Is every device right? Each check is asked in the device's own child process; the doctor went before."""

from collections.abc import Callable

import pytest

from alexnet_repro.verify.checks.registry import CORRECT, Asked
from alexnet_repro.verify.checks.runner import Examination

CHECKS = CORRECT


def test_correct(device: str, check: Asked, examination: Examination, conclude: Callable[..., None]) -> None:
    """Each check passes, or says what is off, by how much, what is allowed, and what to type."""
    conclude("correct", examination.find(device, check))


def test_copies_between_gpus(devices: tuple[str, ...], examination: Examination, conclude: Callable[..., None]) -> None:
    """What one GPU sends to another arrives as it was sent."""
    if sum(device.startswith("gpu") for device in devices) < 2:
        pytest.skip("needs two GPUs")
    conclude("correct", examination.between_gpus())
