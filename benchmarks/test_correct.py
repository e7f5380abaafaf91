"""Is every device right? Each check runs in the device's own child process; the doctor went before."""

from alexnet_repro.verify.checks.registry import CORRECT, CheckId
from alexnet_repro.verify.checks.runner import CheckRunner
from benchmarks.session import VerificationSession

CHECKS = CORRECT


def test_correct(device: str, check: CheckId, runner: CheckRunner, verification: VerificationSession) -> None:
    """Each check passes, or reports what is off, by how much, what is allowed, and what to type."""
    verification.report_findings("correct", runner.result(device, check))


def test_copies_between_gpus(verification: VerificationSession, runner: CheckRunner) -> None:
    """What one GPU sends to another arrives as it was sent."""
    verification.report_findings("correct", runner.between_gpus())
