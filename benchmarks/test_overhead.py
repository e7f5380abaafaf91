"""What do determinism, each precision and XLA cost? A table at the end of the run, without a bound."""

from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.tables import overhead_lines
from benchmarks.session import VerificationSession


def test_overhead(device: str, runner: CheckRunner, verification: VerificationSession) -> None:
    """Each combination of determinism, precision and XLA is timed, in turns, or has the reason why it isn't."""
    cells, failed = runner.overhead(device)
    assert failed or len(cells) == 4 * len(DEVICE_PRECISIONS[device.partition(":")[0]])
    measured = Finding("overhead", "PASS", f"{len(cells)} combinations were timed", device=device)
    verification.record.overheads += cells
    verification.lines += overhead_lines(cells)
    verification.report_findings("fast", *(failed or [measured]))
