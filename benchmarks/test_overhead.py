"""What do determinism, each precision and XLA cost? No verdict: a table at the end of the run."""

from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.report.tables import overhead_table
from benchmarks.session import VerificationSession


def test_overhead(device: str, runner: CheckRunner, verification: VerificationSession) -> None:
    """Each cell of determinism × precision × XLA is measured, or has the reason why it isn't."""
    cells = runner.matrix(device)
    assert len(cells) == 4 * len(DEVICE_PRECISIONS[device.partition(":")[0]])
    failed = [str(finding) for finding in cells.values() if finding.status == "FAIL"]
    assert not failed, "\n".join(failed)
    verification.lines.append(overhead_table(device, cells))
