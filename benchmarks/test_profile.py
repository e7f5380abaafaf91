"""Which layers fall short of what their arithmetic and memory would take? Each is timed alone, with `--profile`."""

from alexnet_repro.verify.benchmark.layer_timing import profiled
from alexnet_repro.verify.report.tables import layer_lines
from benchmarks.session import VerificationSession
from benchmarks.timed import profile_of


def test_profile(device: str, precision: str, verification: VerificationSession) -> None:
    """Each layer's forward and backward pass and its update are timed, and the layers named that lose most time."""
    found, missing = profile_of(verification, device, precision)
    verification.lines += layer_lines(found)
    verification.report_findings("fast", profiled(device, precision, found, missing))
