"""What do determinism, each precision and XLA cost? A table at the end of the run, without a bound."""

from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.tables import overhead_table
from benchmarks.session import VerificationSession


def test_overhead(device: str, runner: CheckRunner, verification: VerificationSession) -> None:
    """Each cell of determinism × precision × XLA is measured, or has the reason why it isn't."""
    cells = runner.matrix(device)
    assert len(cells) == 4 * len(DEVICE_PRECISIONS[device.partition(":")[0]])
    failed = [finding for finding in cells.values() if finding.status == "FAIL"]
    measured = Finding("overhead", "PASS", f"{len(cells)} combinations were timed", device=device)
    verification.lines.append(overhead_table(device, cells))
    verification.report_findings("fast", *(failed or [measured]))
