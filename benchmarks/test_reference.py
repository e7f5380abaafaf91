"""Are the results those recorded in the same environment, bit for bit?"""

from dataclasses import replace

import pytest

from alexnet_repro.verify.checks import golden
from alexnet_repro.verify.checks.registry import CheckId
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.doctor.fingerprint import environment_of
from benchmarks.session import VerificationSession

DIGESTS = "digests.json"


def test_golden(device: str, precision: str, runner: CheckRunner, verification: VerificationSession) -> None:
    """The replay's digests are the golden ones; with those of another environment, the result is inconclusive."""
    found = runner.result(device, CheckId("replay", precision))
    here, config = environment_of(device, runner.here), replace(runner.config, device=device, precision=precision)
    if verification.config.getoption("update_reference"):
        if found.status != "PASS":
            pytest.fail(f"no reference is made of a device that isn't right:\n{found}", pytrace=False)
        golden.update_digests(verification.references[0] / DIGESTS, found, config, here)
    stored = [each for folder in verification.references for each in golden.read_digests(folder / DIGESTS)]
    verification.report_findings("reference", golden.compare_digests(found, config, here, stored))
